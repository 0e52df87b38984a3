/* SPDX-License-Identifier: Apache-2.0 */
/* The flight of a requester: the packets that have been sent and not been answered. The device's lock is held in all. */
#ifndef UROCE_FLIGHT_H
#define UROCE_FLIGHT_H

#include "qp.h"

enum { FIRST_WINDOW = 32 /* packets */, FIRST_WINDOW_BYTES = 32768 };

static inline bool flight_empty(const struct requester *req)
{
	return req->unacked == req->top;
}

/* READs, atomics and what counts as such: they are answered by more than an acknowledgement. */
static inline bool awaits_answer(const struct send_wqe *wqe)
{
	return wqe->opcode == IBV_WR_RDMA_READ || wqe->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
	       wqe->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || wqe->opcode == (enum ibv_wr_opcode)WR_FLUSH ||
	       wqe->opcode == (enum ibv_wr_opcode)WR_ATOMIC_WRITE;
}

/* READ requests and atomics that the peer has to answer, as far as they have been sent since the requester last went back. */
static inline uint32_t flight_asked(const struct requester *req)
{
	return req->asked_next - req->asked_head;
}

static inline struct asked *flight_asked_at(struct requester *req, uint32_t position)
{
	return &req->asked[position & (MAX_RD_ATOMIC - 1)];
}

/* Packets on their way: those that were sent, and those that have been asked for. */
static inline uint32_t flight_size(const struct requester *req)
{
	return (uint32_t)psn_diff(req->next, req->unacked);
}

/* A packet leaves whose answer may measure the round trip. The stamps are spread over the whole window: those of its start alone would
 * not see the queue that its end finds. */
static inline void flight_stamp(struct requester *req, uint32_t psn, uint64_t now)
{
	uint32_t held = req->stamp_tail - req->stamp_head;
	int32_t spacing = (int32_t)(req->path.window / STAMPS * 4 / 3);
	if (held == STAMPS || (held > 0 && psn_diff(psn, req->stamps[(req->stamp_tail - 1) % STAMPS].psn) < spacing))
		return;
	req->stamps[req->stamp_tail++ % STAMPS] = (struct stamp){ .psn = psn, .sent = now };
}

/* Notes one that is sent, whose answer's last packet has that PSN; when it is sent again, it is known. */
void flight_note_asked(struct requester *req, uint32_t last_psn, bool ends);

/* The most packets that it may have: what the receive buffer takes. */
uint32_t flight_limit(const struct qp *qp);
/* Sets the timer, or leaves one that is set to an earlier time: when it fires, it looks at what has happened since. */
void flight_watch(struct qp *qp);
/* The timer calls it. */
void flight_time_out(struct timer *timer);

/* Everything up to `psn` has arrived. False when the answer to a READ or atomic is missing up to there. */
bool flight_acknowledge(struct qp *qp, uint32_t psn);
/* `answered` packets more are done with; `known` of them were known to have arrived. */
void flight_note_progress(struct qp *qp, uint32_t answered, uint32_t known);
/* The peer says how long a request of ours has waited for the answer that follows: no time of the path's. */
void flight_take_waited(struct qp *qp, const struct packet *packet);
/* All stamps before `upto` have been passed: the newest measures the round trip; with `exact`, only if it is the packet before. */
void flight_measure(struct qp *qp, uint32_t upto, bool exact);
/* Packets from `from` on, and before `end`, are sent again: it can't be told which one is answered. */
void flight_forget_stamps(struct requester *req, uint32_t from, uint32_t end);
/* Completes answered requests, in order; a request that failed before it was sent ends the queue pair when its turn comes. */
void flight_complete(struct qp *qp);
/* The oldest unanswered request ends with `status`, and the queue pair with it. */
void flight_fail(struct qp *qp, enum ibv_wc_status status);
/* The peer has refused the request that `psn` is of, and answers nothing more: it ends with `status` at once, or when the answers
 * to READs and atomics before it, which may still be on their way, have arrived. */
void flight_refuse(struct qp *qp, uint32_t psn, enum ibv_wc_status status);
/* The oldest request of which something is to be answered, or NULL. */
struct send_wqe *flight_oldest(struct qp *qp);
/* Whether `psn` is of the oldest unanswered request. */
bool flight_oldest_has(struct qp *qp, uint32_t psn);
/* After answers have come: what was refused ends, when it has become the oldest. */
void flight_check_refused(struct qp *qp);

/* Puts the sending position at the oldest unanswered packet. */
void flight_reposition(struct qp *qp);
/* The same, and sends from there. */
void flight_go_back(struct qp *qp);
/* The same after a loss: what is behind it is lost with it. */
void flight_lose(struct qp *qp);

#endif
