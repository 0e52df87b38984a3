/* SPDX-License-Identifier: Apache-2.0 */
/* An unanswered flight is repeated early, as soon as a few round trips would have brought an answer; only the
 * queue pair's own timeout counts against its retries. */
#include "flight.h"

#include "active.h"
#include "log.h"
#include "outgoing.h"
#include "qp_state.h"
#include "repair.h"
#include "tag.h"

enum {
	EARLY_LEAST_NS = 5000000,
	MOST_DOUBLINGS = 10,
	MOST_TIMEOUTS = 4,
	LATENESS_PARTS = 4,
	UNKNOWN_PARTS = 4,
	PROBES = 2, /* of a silent flight, before all of it is sent again */
	TIMEOUT_LEAST_NS = 1000000, /* no process is scheduled more exactly */
	LOCAL_WINDOW = 4096, /* packets, through shared memory, which has a limit of its own */
};

#define NEVER UINT64_MAX

static uint64_t timeout_ns(const struct qp *qp)
{
	if (qp->attr.timeout == 0)
		return NEVER;
	uint64_t ns = 4096ull << (qp->attr.timeout & 31);
	return ns < TIMEOUT_LEAST_NS ? TIMEOUT_LEAST_NS : ns;
}

/* The specification has a timer take up to four times the timeout, IBTA vol 1, 9.7.6.1.3. That is for a busy host: where answers take
 * long, or this process itself comes late, the peer may be late as well, and lives. */
static uint64_t patient_timeout_ns(const struct qp *qp)
{
	const struct requester *req = &qp->req;
	uint64_t timeout = timeout_ns(qp), answer = congestion_patience(&req->path) + req->path.rtt;
	uint64_t late = LATENESS_PARTS * req->lateness, slowest = late > answer ? late : answer;
	if (timeout == NEVER || slowest <= timeout)
		return timeout;
	return slowest < MOST_TIMEOUTS * timeout ? slowest : MOST_TIMEOUTS * timeout;
}

uint32_t flight_limit(const struct qp *qp)
{
	if (path_of(qp))
		return LOCAL_WINDOW;
	/* Small packets take more of a receive buffer than their length: no more than four times as many of them. */
	uint32_t scale = WIRE_MAX_MTU / qp->mtu;
	uint32_t packets = qp->device->max_window == 0 ? FIRST_WINDOW : qp->device->max_window;
	return packets * (scale > 4 ? 4 : scale);
}

/* ---- timer ---- */

static uint64_t early_after(const struct qp *qp)
{
	const struct requester *req = &qp->req;
	uint64_t timeout = patient_timeout_ns(qp);
	bool unknown = req->path.rtt == 0;
	/* Nothing is lost in shared memory. */
	if (path_of(qp) || (unknown && (timeout == NEVER || flight_asked(req) == 0)))
		return NEVER;
	/* The first answers may find no room in a queue that others fill, each time: until one comes, READs have more tries than retries. */
	uint64_t after = unknown ? timeout / UNKNOWN_PARTS : congestion_patience(&req->path) + req->path.rtt;
	if (after < EARLY_LEAST_NS)
		after = EARLY_LEAST_NS;
	unsigned doublings = req->early_retransmits + req->backoff;
	after <<= doublings > MOST_DOUBLINGS ? MOST_DOUBLINGS : doublings;
	/* One probe goes out before the timeout, however long answers take. */
	bool too_late = req->early_retransmits == 0 && timeout != NEVER && after > timeout / 2 && timeout / 2 >= EARLY_LEAST_NS;
	return too_late ? timeout / 2 : after;
}

void flight_watch(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (req->waiting_rnr || req->refusal != IBV_WC_SUCCESS)
		return;
	uint64_t after = patient_timeout_ns(qp), early = early_after(qp);
	if (early < after)
		after = early;
	/* It may have been set when the round trip was not known. */
	if (after != NEVER && (req->timer.place == 0 || req->timer.deadline > req->progress_at + after))
		timer_set(&qp->device->timers, &req->timer, req->progress_at + after);
}

/* ---- completing ---- */

void flight_complete(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	/* Nobody answers: the link must have read the memory before the application may use it again. */
	if (qp->type == IBV_QPT_UC)
		send_queued(qp->device);
	while (sq->head != sq->tail) {
		struct send_wqe *wqe = send_queue_at(sq, sq->head);
		if (wqe->state != SEND_DONE)
			break;
		enum ibv_wc_status status = wqe->status;
		bool passed = sq->head == sq->next;
		qp_complete_send(qp, status);
		if (passed)
			sq->next = sq->head;
		if (status != IBV_WC_SUCCESS) {
			qp_fail_send(qp);
			return;
		}
	}
	qp_check_drained(qp);
}

/* The oldest unanswered request ends with `status`, and the queue pair with it. */
void flight_fail(struct qp *qp, enum ibv_wc_status status)
{
	if (qp->sq.head != qp->sq.tail)
		qp_complete_send(qp, status);
	qp_fail(qp, -1);
}

/* ---- refused by the peer ---- */

struct send_wqe *flight_oldest(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	for (uint32_t at = sq->head; at != sq->tail; at++) {
		struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_POSTED)
			break;
		if (wqe->state != SEND_DONE)
			return wqe;
	}
	return NULL;
}

bool flight_oldest_has(struct qp *qp, uint32_t psn)
{
	const struct send_wqe *wqe = flight_oldest(qp);
	return wqe && psn_diff(psn, wqe->first_psn) >= 0 && psn_diff(psn, wqe->last_psn) <= 0;
}

void flight_refuse(struct qp *qp, uint32_t psn, enum ibv_wc_status status)
{
	struct requester *req = &qp->req;
	if (flight_oldest_has(qp, psn)) {
		flight_fail(qp, status);
		return;
	}
	if (req->refusal != IBV_WC_SUCCESS)
		return;
	req->refusal = status;
	req->refused_psn = psn;
	/* The answers that were sent before the refusal may come after it, but not much later. */
	req->waiting_rnr = false;
	uint64_t after = early_after(qp);
	timer_set(&qp->device->timers, &req->timer, qp->device->now + (after == NEVER ? EARLY_LEAST_NS : after));
}

void flight_check_refused(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (req->refusal != IBV_WC_SUCCESS && flight_oldest_has(qp, req->refused_psn))
		flight_fail(qp, req->refusal);
}

/* ---- going back ---- */

/* Puts the sending position at the oldest unanswered packet. */
void flight_reposition(struct qp *qp)
{
	struct requester *req = &qp->req;
	struct send_queue *sq = &qp->sq;
	uint32_t at = sq->head;

	repair_forget(qp);
	for (; at != sq->tail; at++) {
		const struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_POSTED)
			break;
		if (wqe->state != SEND_DONE && psn_diff(req->unacked, wqe->last_psn) <= 0)
			break;
	}
	sq->next = at;
	req->next = req->unacked;
	req->offset = 0;
	req->asked_next = req->asked_head;
	req->stamp_head = req->stamp_tail;
	if (at != sq->tail) {
		const struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state != SEND_POSTED)
			req->offset = (uint32_t)psn_diff(req->unacked, wqe->first_psn) * qp->mtu;
	}
}

void flight_go_back(struct qp *qp)
{
	qp->req.recovering = true;
	flight_reposition(qp);
	active_add(qp);
}

void flight_lose(struct qp *qp)
{
	struct requester *req = &qp->req;
	/* At first it may be only since the peer's tag is not known yet, so that nothing that follows is kept. */
	bool early = qp->device->keeps_ahead && tag_may_come(qp, 4 * congestion_patience(&req->path));
	congestion_lost(&req->path, qp->device->now, early ? 1 : flight_size(req), req->unacked, req->top, true);
	flight_go_back(qp);
}

void flight_note_asked(struct requester *req, uint32_t last_psn, bool ends)
{
	if (req->asked_next++ == req->asked_tail)
		*flight_asked_at(req, req->asked_tail++) = (struct asked){ .last_psn = last_psn, .ends = ends };
}

void flight_take_waited(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	bool outstanding = psn_diff(packet->psn, req->unacked) >= 0 && psn_diff(packet->psn, req->top) < 0;
	if (qp->tag.peer == 0 || !outstanding)
		return;
	req->waited_psn = packet->psn;
	req->waited_ns = packet->waited;
}

/* Of the time since a packet was sent, what was not the path's: the peer's, as it has said, and our own, until its answer was read. */
static uint64_t time_of_ends(struct qp *qp, uint32_t psn, uint32_t upto)
{
	struct requester *req = &qp->req;
	uint64_t now = qp->device->now, own = qp->device->arrived < now ? now - qp->device->arrived : 0;
	bool told = psn_diff(req->waited_psn, psn) >= 0 && psn_diff(req->waited_psn, upto) < 0;
	uint64_t peers = told ? req->waited_ns : 0;
	if (told)
		req->waited_ns = 0;
	return own + peers;
}

void flight_measure(struct qp *qp, uint32_t upto, bool exact)
{
	struct requester *req = &qp->req;
	uint64_t now = qp->device->now;
	const struct stamp *newest = NULL;
	while (req->stamp_head != req->stamp_tail && psn_diff(upto, req->stamps[req->stamp_head % STAMPS].psn) > 0)
		newest = &req->stamps[req->stamp_head++ % STAMPS];
	if (!newest || newest->sent == 0 || (exact && psn_add(newest->psn, 1) != upto))
		return;
	congestion_round_trip(&req->path, now, now - newest->sent, time_of_ends(qp, newest->psn, upto));
	req->backoff = 0;
}

void flight_forget_stamps(struct requester *req, uint32_t from, uint32_t end)
{
	for (uint32_t at = req->stamp_head; at != req->stamp_tail; at++) {
		struct stamp *stamp = &req->stamps[at % STAMPS];
		if (psn_diff(stamp->psn, from) >= 0 && psn_diff(stamp->psn, end) < 0)
			stamp->sent = 0;
	}
}

/* What is answered was not all sent again: the silence was the peer's, which is busy, and no loss. */
static void end_silence(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (req->silent_since != 0 && psn_diff(req->unacked, req->next) > 0) {
		congestion_undo(&req->path);
		congestion_round_trip(&req->path, qp->device->now, qp->device->now - req->silent_since, 0);
		req->backoff = 0;
	}
	req->silent_since = 0;
}

void flight_note_progress(struct qp *qp, uint32_t answered, uint32_t known)
{
	struct requester *req = &qp->req;
	if (answered == 0)
		return;
	uint64_t now = qp->device->now;
	/* What was sent twice measures nothing (Karn's rule). Where the path has become slower, all would be sent twice from now on. */
	if (req->early_retransmits > req->backoff)
		req->backoff = req->early_retransmits;
	while (req->asked_head != req->asked_tail && psn_diff(req->unacked, flight_asked_at(req, req->asked_head)->last_psn) > 0) {
		if (req->asked_next == req->asked_head)
			req->asked_next++;
		req->asked_head++;
	}
	if (!path_of(qp)) {
		/* What had to be sent again was not on its way for all of that time. */
		flight_measure(qp, req->unacked, repair_landed(req) > 0);
		known += repair_advance(qp, answered - known);
		congestion_answered(&req->path, now, answered - known, req->unacked, req->next, req->limited);
	}
	end_silence(qp);
	req->progress_at = now;
	req->progress_undated = qp->device->undated;
	req->early_retransmits = 0;
	req->recovering = false;
	req->retries = qp->attr.retry_cnt;
	req->rnr_retries = qp->attr.rnr_retry;
	if (psn_diff(req->unacked, req->next) > 0)
		flight_reposition(qp); /* went back too far: it had arrived */
}

bool flight_acknowledge(struct qp *qp, uint32_t psn)
{
	struct requester *req = &qp->req;
	struct send_queue *sq = &qp->sq;
	uint32_t before = req->unacked;
	bool complete = true;

	for (uint32_t at = sq->head; at != sq->tail; at++) {
		struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_DONE)
			continue;
		if (wqe->state == SEND_POSTED || psn_diff(wqe->first_psn, psn) > 0)
			break;
		if (awaits_answer(wqe)) {
			complete = psn_diff(req->unacked, psn) > 0;
			break;
		}
		if (psn_diff(psn, wqe->last_psn) < 0) {
			req->unacked = psn_add(psn, 1);
			break;
		}
		wqe->state = SEND_DONE;
		req->unacked = psn_add(wqe->last_psn, 1);
	}
	flight_note_progress(qp, (uint32_t)psn_diff(req->unacked, before), 0);
	return complete;
}

static void note_lateness(struct qp *qp)
{
	struct requester *req = &qp->req;
	uint64_t late = qp->device->now > req->timer.deadline ? qp->device->now - req->timer.deadline : 0;
	req->lateness = late > req->lateness / 2 ? late : req->lateness / 2;
}

static void go_back_in_silence(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (req->silent_since == 0)
		req->silent_since = req->progress_at;
	congestion_silent(&req->path);
	flight_go_back(qp);
}

void flight_time_out(struct timer *timer)
{
	struct qp *qp = (struct qp *)((char *)timer - offsetof(struct qp, req.timer));
	struct requester *req = &qp->req;
	struct counters *counters = qp->device->counters;

	note_lateness(qp);
	if (req->waiting_rnr) {
		req->waiting_rnr = false;
		req->progress_at = qp->device->now;
		flight_go_back(qp);
		req->recovering = false;
		return;
	}
	if (flight_empty(req))
		return;
	if (req->refusal != IBV_WC_SUCCESS) {
		/* The answer to a READ or atomic before the refused request is lost, and nobody is there to repeat it. */
		counter_add(&counters->retries_exhausted, 1);
		flight_fail(qp, IBV_WC_RETRY_EXC_ERR);
		return;
	}
	/* What is to be sent again waits for its time. A process of this host that has not looked yet is slow, and not gone: that would
	 * be known. */
	if (flight_size(req) == 0 || req->progress_undated || (path_of(qp) && !shm_drained(qp->path)))
		req->progress_at = qp->device->now;
	req->progress_undated = false;
	uint64_t idle = qp->device->now - req->progress_at;
	uint64_t timeout = patient_timeout_ns(qp);
	if (timeout != NEVER && idle >= timeout) {
		counter_add(&counters->timeouts, 1);
		if (req->retries == 0) {
			counter_add(&counters->retries_exhausted, 1);
			log_write(LOG_INFO, "queue pair %06x: no answer after %u retries of %llu us", qp->qpn,
				  qp->attr.retry_cnt, (unsigned long long)(timeout / 1000));
			flight_fail(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		req->retries--;
		go_back_in_silence(qp);
		req->progress_at = qp->device->now;
	} else if (idle >= early_after(qp)) {
		if (req->early_retransmits++ >= PROBES || !repair_probe(qp))
			go_back_in_silence(qp);
	}
	/* Unlike after a NAK, the peer's answer to the repetition is news. */
	req->recovering = false;
	flight_watch(qp);
}
