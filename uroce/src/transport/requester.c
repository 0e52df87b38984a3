/* SPDX-License-Identifier: Apache-2.0 */
/* The sending half of a requester.
 *
 * A long READ is asked for in several requests, each of whole packets, so that the window holds for responses too. */
#include "requester.h"

#include "active.h"
#include "flight.h"
#include "gather.h"
#include "outgoing.h"
#include "qp_state.h"
#include "repair.h"

enum {
	ACK_REQUEST_INTERVAL = 32, /* packets without an AckReq, at most */
	READ_PART = 65536,
	READ_PART_LONG = 262144, /* when few may be outstanding, so that round trips count less; when the window has room for several */
	READ_PART_LOCAL = 2 << 20, /* through shared memory, which holds the responder back by itself */
	LOOK_AHEAD = MAX_RD_ATOMIC, /* requests among which others are looked for that READ: it bounds the time that takes */
	COMPANY_BYTES = 4096,      /* a message shorter than this may wait for others ... */
	COMPANY_COUNT = 48,        /* ... but for so many only */
	CATCH_UP_NS = 300000,
	MOST_AHEAD = 8192,         /* packets that a peer can keep ahead of a gap */
};

/* Packets that are neither answered nor known to have arrived, or to be lost. */
static uint32_t on_way(const struct requester *req)
{
	return flight_size(req) - repair_landed(req);
}

static bool is_local(const struct send_wqe *wqe)
{
	return wqe->opcode == IBV_WR_LOCAL_INV || wqe->opcode == IBV_WR_BIND_MW;
}

/* How many READ requests and atomics the peer may have before it now: as many as a device that asks for each READ in one request
 * would send. The peer's max_dest_rd_atomic counts these, and may be smaller than our max_rd_atomic when the application never
 * has that many. */
static uint32_t may_ask(struct qp *qp)
{
	struct requester *req = &qp->req;
	const struct send_queue *sq = &qp->sq;
	uint32_t count = 0;

	for (uint32_t at = req->asked_head; at != req->asked_next; at++)
		count += flight_asked_at(req, at)->ends;
	for (uint32_t at = sq->next; at != sq->tail && at - sq->next < LOOK_AHEAD && count < qp->attr.max_rd_atomic; at++) {
		const struct send_wqe *wqe = send_queue_at(sq, at);
		if (at != sq->next && (qp->draining || (wqe->flags & IBV_SEND_FENCE)))
			break;
		count += awaits_answer(wqe);
	}
	return count < qp->attr.max_rd_atomic ? count : qp->attr.max_rd_atomic;
}

/* The length of a READ's parts. Packets that have to be spaced are asked for by as few at a time as fill the window. */
static uint32_t part_of(struct qp *qp)
{
	const struct requester *req = &qp->req;
	if (path_of(qp))
		return READ_PART_LOCAL;
	uint32_t most = may_ask(qp);
	bool long_ones = most < 4 || flight_limit(qp) >= 4 * packets_of(qp, READ_PART_LONG);
	uint32_t part = long_ones ? READ_PART_LONG : READ_PART;

	if (congestion_interval(&req->path) <= 0)
		return part;
	/* The last part of a message is shorter than the others; and answers that wait for one that was lost are outstanding, too. */
	uint32_t packets = (uint32_t)((req->path.window + repair_landed(req)) * 1.5) / (most == 0 ? 1 : most) + 1;
	uint32_t burst = congestion_burst(&req->path);
	if (packets < burst)
		packets = burst;
	return packets * qp->mtu < part ? packets * qp->mtu : part;
}

/* Where the request ends that asks for what follows `offset` of a READ. Of what is asked for again, the peer answers only what lies
 * within one request of before. A short rest is not worth a request, and goes with the last one. */
static uint32_t part_end(struct qp *qp, const struct send_wqe *wqe, uint32_t offset)
{
	struct requester *req = &qp->req;
	if (req->asked_next != req->asked_tail) {
		uint32_t last = flight_asked_at(req, req->asked_next)->last_psn;
		uint64_t end = ((uint64_t)(uint32_t)psn_diff(last, wqe->first_psn) + 1) * qp->mtu;
		return end < wqe->length ? (uint32_t)end : wqe->length;
	}
	uint32_t part = part_of(qp), rest = wqe->length - offset;
	return rest <= part + part / 2 ? wqe->length : offset + part;
}

/* ---- sending ---- */

/* The timer calls it: the next burst may leave, or a datagram has waited for long enough. */
static void resume(struct timer *timer)
{
	active_resume((struct qp *)((char *)timer - offsetof(struct qp, req.send_timer)));
}

void requester_start(struct qp *qp)
{
	struct requester *req = &qp->req;
	uint32_t psn = qp->attr.sq_psn & WIRE_PSN_MASK;
	struct timer timer = req->timer, send_timer = req->send_timer;

	timer.fire = flight_time_out;
	send_timer.fire = resume;
	*req = (struct requester){
		.unacked = psn,
		.next = psn,
		.top = psn,
		.retries = qp->attr.retry_cnt,
		.rnr_retries = qp->attr.rnr_retry,
		.timer = timer,
		.send_timer = send_timer,
	};
	uint32_t first = FIRST_WINDOW_BYTES / qp->mtu;
	congestion_start(&req->path, qp->mtu, first < FIRST_WINDOW ? first : FIRST_WINDOW, flight_limit(qp), psn);
}

void requester_post(struct qp *qp)
{
	const struct requester *req = &qp->req;
	const struct send_queue *sq = &qp->sq;
	/* While an answer is awaited, short messages wait for it, or for enough company to fill a batch. */
	bool wait = qp->type == IBV_QPT_RC && !path_of(qp) && !flight_empty(req) && sq->tail - sq->next < COMPANY_COUNT &&
		    send_queue_at(sq, sq->tail - 1)->length < COMPANY_BYTES;
	if (wait)
		active_add_lazily(qp);
	else
		active_add(qp);
}

uint8_t requester_operation(const struct send_wqe *wqe, bool first, bool last)
{
	static const uint8_t plain[4][2] = { { OP_SEND_MIDDLE, OP_WRITE_MIDDLE },
					     { OP_SEND_FIRST, OP_WRITE_FIRST },
					     { OP_SEND_LAST, OP_WRITE_LAST },
					     { OP_SEND_ONLY, OP_WRITE_ONLY } };
	bool write = wqe->opcode == IBV_WR_RDMA_WRITE || wqe->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	if (last && wqe->opcode == IBV_WR_SEND_WITH_IMM)
		return first ? OP_SEND_ONLY_IMM : OP_SEND_LAST_IMM;
	if (last && wqe->opcode == IBV_WR_SEND_WITH_INV)
		return first ? OP_SEND_ONLY_INV : OP_SEND_LAST_INV;
	if (last && wqe->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
		return first ? OP_WRITE_ONLY_IMM : OP_WRITE_LAST_IMM;
	return plain[first + 2 * last][write];
}

static void start_request(struct qp *qp, struct send_wqe *wqe)
{
	struct requester *req = &qp->req;
	wqe->first_psn = req->next;
	wqe->last_psn = psn_add(req->next, is_local(wqe) ? WIRE_PSN_MASK : packets_of(qp, wqe->length) - 1);
	wqe->status = IBV_WC_SUCCESS;
	wqe->state = SEND_STARTED;
	req->offset = 0;
}

/* Marks the request at `sq.next` as failed: those that were sent before it are still to be answered. */
static void fail_next(struct qp *qp, struct send_wqe *wqe, enum ibv_wc_status status)
{
	if (qp->req.repeating)
		return; /* it is met again when the flight goes back */
	wqe->status = status;
	wqe->state = SEND_DONE;
	if (qp->sq.head == qp->sq.next)
		flight_complete(qp);
}

/* BIND_MW and LOCAL_INV: nothing goes out. */
static void perform_locally(struct qp *qp, struct send_wqe *wqe)
{
	int error = wqe->opcode == IBV_WR_LOCAL_INV ? window_invalidate(qp->pd, qp->qpn, wqe->invalidate, false)
						    : window_bind(qp->pd, qp->qpn, wqe->mw, wqe->rkey, &wqe->bind);
	if (error != 0) {
		fail_next(qp, wqe, IBV_WC_MW_BIND_ERR);
		return;
	}
	wqe->state = SEND_DONE;
	qp->sq.next++;
	flight_complete(qp);
}

/* Whether the request at sq.next must wait, though the window is open. */
static bool held_back(struct qp *qp, struct send_wqe *wqe)
{
	const struct requester *req = &qp->req;
	if (wqe->state == SEND_POSTED && qp->draining)
		return true;
	if (flight_asked(req) == 0)
		return false;
	if ((wqe->flags & IBV_SEND_FENCE) && wqe->state == SEND_POSTED)
		return true;
	return awaits_answer(wqe) && flight_asked(req) >= may_ask(qp);
}

/* False: memory of the payload is not there. */
static bool put_packet(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t psns = packets_of(qp, packet->opcode == OP_READ_REQUEST ? packet->length : packet->payload_length);

	packet->psn = req->next;
	out->may_change = false;
	if (!send_to_peer(qp, packet, out))
		return false;

	if (psn_diff(req->top, req->next) > 0)
		counter_add(&qp->device->counters->retransmits, 1);
	else if (packet->ack_req)
		flight_stamp(req, req->next, qp->device->now);
	req->burst_left -= psns < req->burst_left ? psns : req->burst_left;
	req->pace_at += (uint64_t)(congestion_interval(&req->path) * psns);
	if (flight_size(req) == 0)
		req->progress_at = qp->device->now;
	req->next = psn_add(req->next, psns);
	if (psn_diff(req->next, req->top) > 0)
		req->top = req->next;
	req->since_ack_request = packet->ack_req ? 0 : req->since_ack_request + 1;
	return true;
}

/* Packets without an AckReq, at most: a lost answer must not be the only one. */
static uint32_t ack_interval(const struct requester *req)
{
	uint32_t part = (uint32_t)req->path.window / 4;
	return part < ACK_REQUEST_INTERVAL ? part : ACK_REQUEST_INTERVAL;
}

/* One packet of a SEND or WRITE. False: the request failed. */
static bool send_data(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t offset = req->offset;
	uint32_t longest = longest_payload(qp);
	uint32_t part = wqe->length - offset < longest ? wqe->length - offset : longest;
	bool first = offset == 0, last = offset + part == wqe->length;

	if (send_gather(qp, wqe, offset, part, out) != 0) {
		fail_next(qp, wqe, IBV_WC_LOC_PROT_ERR);
		return false;
	}
	bool closes = on_way(req) + 1 >= (uint32_t)req->path.window || req->burst_left == 1 || req->repeating;
	struct packet packet = {
		.opcode = (uint8_t)((qp->type == IBV_QPT_UC ? WIRE_UC : WIRE_RC) | requester_operation(wqe, first, last)),
		.solicited = last && (wqe->flags & IBV_SEND_SOLICITED),
		.ack_req = qp->type == IBV_QPT_RC && (last || closes || req->since_ack_request >= ack_interval(req)),
		.pad = (uint8_t)(-part & 3),
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.length = wqe->length,
		.payload_length = part,
	};
	if (wqe->opcode == IBV_WR_SEND_WITH_INV)
		packet.invalidate = wqe->invalidate;
	else
		packet.imm = wqe->imm;
	if (!put_packet(qp, &packet, out)) {
		fail_next(qp, wqe, IBV_WC_LOC_PROT_ERR);
		return false;
	}
	req->offset = offset + part;
	return true;
}

static void note_asked(struct requester *req, bool ends)
{
	if (!req->repeating)
		flight_note_asked(req, psn_add(req->next, WIRE_PSN_MASK), ends);
}

/* Answers come in the order of requests, and all behind a lost one wait for a round trip. So where packets are lost, a request goes out
 * twice. Without an AckReq, which our others have, it is none that is asked for again. */
static void send_copy(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	packet->ack_req = false;
	send_to_peer(qp, packet, out);
}

static void send_read_request(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t part = req->repeating ? req->repeat_bytes : part_end(qp, wqe, req->offset) - req->offset;
	struct packet packet = {
		.opcode = OP_READ_REQUEST,
		.ack_req = true,
		.va = wqe->remote + req->offset,
		.rkey = wqe->rkey,
		.length = part,
	};
	out->pieces = 0;
	out->payload_length = 0;
	put_packet(qp, &packet, out);
	if (qp->tag.peer != 0 && req->path.lost > 0 && !req->repeating)
		send_copy(qp, &packet, out);
	req->offset += part;
	note_asked(req, req->offset == wqe->length);
}

static void send_atomic(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	bool swap = wqe->opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
	struct packet packet = {
		.opcode = swap ? OP_COMPARE_SWAP : OP_FETCH_ADD,
		.ack_req = true,
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.swap_add = swap ? wqe->swap : wqe->compare_add,
		.compare = swap ? wqe->compare_add : 0,
	};
	out->pieces = 0;
	out->payload_length = 0;
	put_packet(qp, &packet, out);
	note_asked(&qp->req, true);
	qp->req.offset = wqe->length;
}

static void send_flush(struct qp *qp, const struct send_wqe *wqe, struct packet_out *out)
{
	struct packet packet = {
		.opcode = OP_FLUSH,
		.ack_req = true,
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.length = wqe->flush_length,
		.flush_type = wqe->flush_type,
		.flush_level = wqe->flush_level,
	};
	struct requester *req = &qp->req;
	out->pieces = 0;
	out->payload_length = 0;
	/* Without an answer: the peer may be rdma_rxe, which drops a FLUSH with the right ICRC. What it has answered is what the
	 * next one has at first. */
	if (psn_diff(req->top, req->next) > 0)
		req->flush_twice = !req->flush_twice;
	put_packet(qp, &packet, out);
	note_asked(req, true);
}

/* False: the request failed. */
static bool send_atomic_write(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct packet packet = {
		.opcode = OP_ATOMIC_WRITE,
		.ack_req = true,
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.length = wqe->length,
		.payload_length = wqe->length,
	};
	if (send_gather(qp, wqe, 0, wqe->length, out) != 0) {
		fail_next(qp, wqe, IBV_WC_LOC_PROT_ERR);
		return false;
	}
	if (!put_packet(qp, &packet, out)) {
		fail_next(qp, wqe, IBV_WC_LOC_PROT_ERR);
		return false;
	}
	note_asked(&qp->req, true);
	qp->req.offset = wqe->length;
	return true;
}

/* The packet of a request that is answered, or one of several of a READ. False: the request failed. */
static bool send_question(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	switch ((unsigned)wqe->opcode) {
	case IBV_WR_RDMA_READ: send_read_request(qp, wqe, out); return true;
	case WR_FLUSH: send_flush(qp, wqe, out); return true;
	case WR_ATOMIC_WRITE: return send_atomic_write(qp, wqe, out);
	default: send_atomic(qp, wqe, out); return true;
	}
}

/* One packet of the request at sq.next. False: nothing more can be sent now. */
static bool send_one(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	if (awaits_answer(wqe) && qp->attr.max_rd_atomic == 0) {
		fail_next(qp, wqe, IBV_WC_LOC_QP_OP_ERR);
		return false;
	}
	if (awaits_answer(wqe) ? !send_question(qp, wqe, out) : !send_data(qp, wqe, out))
		return false;

	if (req->offset < wqe->length)
		return true;
	req->offset = 0;
	qp->sq.next++;
	if (wqe->state != SEND_DONE)
		wqe->state = SEND_SENT;
	if (qp->type == IBV_QPT_UC) {
		wqe->state = SEND_DONE; /* completes at the end of the round, with all of it */
		req->unacked = req->next;
	}
	return true;
}

bool requester_repeat(struct qp *qp, struct send_wqe *wqe, uint32_t psn, uint32_t count)
{
	struct requester *req = &qp->req;
	uint32_t next = req->next, offset = req->offset, start = (uint32_t)psn_diff(psn, wqe->first_psn) * qp->mtu;
	struct packet_out out;
	bool sent = true;

	req->repeating = true;
	req->next = psn;
	req->offset = start;
	if (wqe->opcode == IBV_WR_RDMA_READ) {
		uint64_t bytes = (uint64_t)count * qp->mtu;
		req->repeat_bytes = bytes < wqe->length - start ? (uint32_t)bytes : wqe->length - start;
		send_read_request(qp, wqe, &out);
	} else {
		sent = awaits_answer(wqe) ? send_question(qp, wqe, &out) : send_data(qp, wqe, &out);
	}
	req->repeating = false;
	req->next = next;
	req->offset = offset;
	return sent;
}

bool requester_must_pace(struct qp *qp)
{
	struct requester *req = &qp->req;
	uint64_t now = qp->device->now;
	if (req->burst_left > 0)
		return false;
	if (congestion_interval(&req->path) > 0 && now < req->pace_at) {
		timer_set(&qp->device->timers, &req->send_timer, req->pace_at);
		return true;
	}
	/* A thread that woke late makes up for it. */
	if (req->pace_at + CATCH_UP_NS < now)
		req->pace_at = now - CATCH_UP_NS;
	req->burst_left = congestion_burst(&req->path);
	return false;
}

static bool has_room(const struct requester *req)
{
	uint32_t used = on_way(req), needed = req->burst_left > 0 || used == 0 ? 1 : congestion_train(&req->path);
	return used + needed <= (uint32_t)req->path.window;
}

/* Whether the next packet must wait, for answers or for its time. */
static bool must_wait(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (qp->type != IBV_QPT_RC)
		return false;
	/* Shared memory makes room for packets by itself. */
	if (path_of(qp))
		return flight_size(req) >= flight_limit(qp);
	req->limited = !has_room(req) || flight_size(req) >= MOST_AHEAD;
	if (!req->limited && requester_must_pace(qp))
		req->limited = true;
	return req->limited;
}

static bool send_some(struct qp *qp, unsigned budget)
{
	struct requester *req = &qp->req;
	struct send_queue *sq = &qp->sq;
	struct packet_out out;

	while (requester_may_send(qp) && !req->waiting_rnr && req->refusal == IBV_WC_SUCCESS && sq->next != sq->tail) {
		struct send_wqe *wqe = send_queue_at(sq, sq->next);
		if (wqe->state == SEND_DONE) {
			if (wqe->status != IBV_WC_SUCCESS)
				break;
			sq->next++; /* done before we went back */
			continue;
		}
		if (held_back(qp, wqe)) {
			req->limited = on_way(req) >= (uint32_t)req->path.window / 2;
			break;
		}
		if (wqe->state == SEND_POSTED)
			start_request(qp, wqe);
		if (is_local(wqe)) {
			perform_locally(qp, wqe);
			continue;
		}
		if (must_wait(qp))
			break;
		if (budget == 0)
			return true;
		if (!peer_ready(qp))
			return active_park(qp);
		budget--;
		if (!send_one(qp, wqe, &out))
			break;
	}
	return false;
}

/* A flight that express.c has begun begins now for its timer. */
static void watch(struct qp *qp)
{
	if (path_of(qp) && qp->req.timer.place == 0)
		qp->req.progress_at = qp->device->now;
	flight_watch(qp);
}

bool requester_pump(struct qp *qp, unsigned budget)
{
	if (path_of(qp) && shm_was_killed(qp->path) && qp->type == IBV_QPT_RC && qp->sq.head != qp->sq.tail) {
		flight_fail(qp, IBV_WC_RETRY_EXC_ERR);
		return false;
	}
	bool more = repair_pump(qp) || send_some(qp, budget);
	uint64_t repair = repair_next(qp);

	/* What is due already waits for its pace, and has set the timer. */
	if (repair != UINT64_MAX && repair > qp->device->now && (qp->req.send_timer.place == 0 || qp->req.send_timer.deadline > repair))
		timer_set(&qp->device->timers, &qp->req.send_timer, repair);
	if (qp->type == IBV_QPT_UC)
		flight_complete(qp);
	else if (!more && requester_may_send(qp) && !flight_empty(&qp->req))
		watch(qp);
	return more;
}
