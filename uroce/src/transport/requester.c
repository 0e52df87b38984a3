/* SPDX-License-Identifier: Apache-2.0 */
/* The requester of a connected queue pair: sends posted requests, and takes the responses.
 *
 * A long READ is asked for in several requests, each of whole packets, so that the window holds for responses too. */
#include "requester.h"

#include "active.h"
#include "flight.h"
#include "gather.h"
#include "outgoing.h"
#include "qp_state.h"

enum {
	ACK_REQUEST_INTERVAL = 32, /* packets without an AckReq, at most */
	READ_SEGMENT = 65536,
	READ_SEGMENT_LONG = 262144, /* when few may be outstanding, to hide the round trip; when the window has room for several */
	COMPANY_BYTES = 4096,      /* a message shorter than this may wait for others ... */
	COMPANY_COUNT = 48,        /* ... but for so many only */
};

/* The encoded RNR timer of an AETH, IBTA vol 1 table 45. */
static uint64_t rnr_timer_ns(uint8_t code)
{
	static const uint32_t us10[32] = { 65536, 1,	2,    3,    4,	  6,	8,    12,   16,	  24,	32,
					   48,	  64,	96,   128,  192,  256,	384,  512,  768,  1024, 1536,
					   2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152 };
	return us10[code & 31] * 10000ull;
}

static bool may_send(const struct qp *qp)
{
	return qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_SQD;
}

static bool is_local(const struct send_wqe *wqe)
{
	return wqe->opcode == IBV_WR_LOCAL_INV || wqe->opcode == IBV_WR_BIND_MW;
}

static uint32_t segment_of(const struct qp *qp)
{
	bool long_ones = qp->attr.max_rd_atomic < 4 || flight_limit(qp) >= 4 * packets_of(qp, READ_SEGMENT_LONG);
	return long_ones ? READ_SEGMENT_LONG : READ_SEGMENT;
}

/* Where the segment of a READ that `offset` lies in ends: at a multiple of its length, also when it is asked for again from the
 * middle. A short rest is not worth a request, and goes with the last one. */
static uint32_t segment_end(const struct qp *qp, uint32_t length, uint32_t offset)
{
	uint32_t segment = segment_of(qp);
	uint32_t end = (offset / segment + 1) * segment;
	return end >= length || length - end <= segment / 2 ? length : end;
}

/* ---- sending ---- */

void requester_start(struct qp *qp)
{
	struct requester *req = &qp->req;
	uint32_t psn = qp->attr.sq_psn & WIRE_PSN_MASK;
	struct timer timer = req->timer;

	timer.fire = flight_time_out;
	*req = (struct requester){
		.unacked = psn,
		.next = psn,
		.top = psn,
		.window = FIRST_WINDOW,
		.threshold = UINT32_MAX,
		.retries = qp->attr.retry_cnt,
		.rnr_retries = qp->attr.rnr_retry,
		.timer = timer,
	};
	if (req->window > flight_limit(qp))
		req->window = flight_limit(qp);
}

void requester_post(struct qp *qp)
{
	const struct requester *req = &qp->req;
	const struct send_queue *sq = &qp->sq;
	/* While an answer is awaited, short messages wait for it, or for enough company to fill a batch. */
	bool wait = qp->type == IBV_QPT_RC && !flight_empty(req) && sq->tail - sq->next < COMPANY_COUNT &&
		    send_queue_at(sq, sq->tail - 1)->length < COMPANY_BYTES;
	if (wait)
		active_add_lazily(qp);
	else
		active_add(qp);
}

/* The operation of a SEND or WRITE packet. */
static uint8_t operation_of(const struct send_wqe *wqe, bool first, bool last)
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
	if ((wqe->flags & IBV_SEND_FENCE) && req->reads > 0 && wqe->state == SEND_POSTED)
		return true;
	return reads_or_atomic(wqe) && req->reads > 0 && req->reads >= qp->attr.max_rd_atomic;
}

static void put_packet(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t psns = packet->opcode == OP_READ_REQUEST ? packets_of(qp, packet->length) : 1;

	packet->psn = req->next;
	out->may_change = false;
	send_to_peer(qp, packet, out);

	if (psn_diff(req->top, req->next) > 0)
		counter_add(&qp->device->counters->retransmits, 1);
	else if (req->timed_at == 0 && packet->ack_req) {
		req->timed_at = qp->device->now;
		req->timed_psn = req->next;
	}
	if (flight_empty(req))
		req->progress_at = qp->device->now;
	req->next = psn_add(req->next, psns);
	if (psn_diff(req->next, req->top) > 0)
		req->top = req->next;
	req->since_ack_request = packet->ack_req ? 0 : req->since_ack_request + 1;
}

/* One packet of a SEND or WRITE. False: the request failed. */
static bool send_data(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t offset = req->offset;
	uint32_t part = wqe->length - offset < qp->mtu ? wqe->length - offset : qp->mtu;
	bool first = offset == 0, last = offset + part == wqe->length;

	if (send_gather(qp, wqe, offset, part, out) != 0) {
		fail_next(qp, wqe, IBV_WC_LOC_PROT_ERR);
		return false;
	}
	bool closes = (uint32_t)psn_diff(req->next, req->unacked) + 1 >= req->window;
	struct packet packet = {
		.opcode = (uint8_t)((qp->type == IBV_QPT_UC ? WIRE_UC : WIRE_RC) | operation_of(wqe, first, last)),
		.solicited = last && (wqe->flags & IBV_SEND_SOLICITED),
		.ack_req = qp->type == IBV_QPT_RC && (last || closes || req->since_ack_request >= ACK_REQUEST_INTERVAL),
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
	put_packet(qp, &packet, out);
	req->offset = offset + part;
	return true;
}

static void send_read_request(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	uint32_t part = segment_end(qp, wqe->length, req->offset) - req->offset;
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
	req->reads++;
	req->offset += part;
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
	qp->req.reads++;
	qp->req.offset = wqe->length;
}

/* One packet of the request at sq.next. False: nothing more can be sent now. */
static bool send_one(struct qp *qp, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	if (reads_or_atomic(wqe) && qp->attr.max_rd_atomic == 0) {
		fail_next(qp, wqe, IBV_WC_LOC_QP_OP_ERR);
		return false;
	}
	if (wqe->opcode == IBV_WR_RDMA_READ)
		send_read_request(qp, wqe, out);
	else if (reads_or_atomic(wqe))
		send_atomic(qp, wqe, out);
	else if (!send_data(qp, wqe, out))
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

static bool send_some(struct qp *qp, unsigned budget)
{
	struct requester *req = &qp->req;
	struct send_queue *sq = &qp->sq;
	struct packet_out out;

	while (may_send(qp) && !req->waiting_rnr && sq->next != sq->tail) {
		struct send_wqe *wqe = send_queue_at(sq, sq->next);
		if (wqe->state == SEND_DONE) {
			if (wqe->status != IBV_WC_SUCCESS)
				break;
			sq->next++; /* done before we went back */
			continue;
		}
		if (held_back(qp, wqe))
			break;
		if (wqe->state == SEND_POSTED)
			start_request(qp, wqe);
		if (is_local(wqe)) {
			perform_locally(qp, wqe);
			continue;
		}
		if (qp->type == IBV_QPT_RC && (uint32_t)psn_diff(req->next, req->unacked) >= req->window)
			break;
		if (budget == 0 || !link_ready(qp->device->link))
			return true;
		budget--;
		if (!send_one(qp, wqe, &out))
			break;
	}
	return false;
}

bool requester_pump(struct qp *qp, unsigned budget)
{
	bool more = send_some(qp, budget);

	if (qp->type == IBV_QPT_UC)
		flight_complete(qp);
	else if (!more && may_send(qp) && !flight_empty(&qp->req))
		flight_watch(qp);
	return more;
}

/* ---- receiving ---- */

static void receive_nak(struct qp *qp, const struct packet *packet)
{
	struct counters *counters = qp->device->counters;
	counter_add(&counters->naks_received, 1);
	if (packet->syndrome == AETH_NAK_SEQUENCE) {
		if (qp->req.recovering) /* this one again: it has been acted on, and the timer does the rest */
			return;
		/* Counted as a retry, as a timeout is: a peer that only ever NAKs must not hold us for ever. */
		if (qp->req.retries == 0) {
			counter_add(&counters->retries_exhausted, 1);
			flight_fail(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		qp->req.retries--;
		flight_shrink(qp, 0);
		flight_go_back(qp);
		return;
	}
	switch (packet->syndrome) {
	case AETH_NAK_INVALID:
		flight_fail(qp, IBV_WC_REM_INV_REQ_ERR);
		break;
	case AETH_NAK_ACCESS:
		flight_fail(qp, IBV_WC_REM_ACCESS_ERR);
		break;
	case AETH_NAK_OPERATION:
		flight_fail(qp, IBV_WC_REM_OP_ERR);
		break;
	default:
		counter_add(&counters->drop_malformed, 1);
	}
}

static void receive_rnr(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	counter_add(&qp->device->counters->rnr_received, 1);
	if (req->waiting_rnr)
		return;
	if (qp->attr.rnr_retry != 7) {
		if (req->rnr_retries == 0) {
			flight_fail(qp, IBV_WC_RNR_RETRY_EXC_ERR);
			return;
		}
		req->rnr_retries--;
	}
	flight_reposition(qp);
	req->waiting_rnr = true;
	timer_set(&qp->device->timers, &req->timer, qp->device->now + rnr_timer_ns(packet->syndrome & 0x1f));
}

static void receive_ack(struct qp *qp, const struct packet *packet)
{
	uint8_t type = packet->syndrome & AETH_TYPE_MASK;
	bool answered = type == AETH_TYPE_ACK;
	uint32_t upto = answered ? packet->psn : psn_add(packet->psn, WIRE_PSN_MASK);

	if (answered)
		counter_add(&qp->device->counters->acks_received, 1);
	if (!flight_acknowledge(qp, upto)) {
		/* It passes a READ or atomic whose answer was lost on the way. */
		if (!qp->req.recovering)
			flight_go_back(qp);
	} else if (type == AETH_TYPE_NAK || type == AETH_TYPE_RNR) {
		flight_complete(qp);
		if (qp->state == IBV_QPS_ERR)
			return;
		if (type == AETH_TYPE_NAK)
			receive_nak(qp, packet);
		else
			receive_rnr(qp, packet);
		return;
	}
	flight_complete(qp);
}

/* The READ or atomic that is answered next, if this PSN is its next packet. */
static struct send_wqe *awaited_request(struct qp *qp, const struct packet *packet)
{
	struct send_queue *sq = &qp->sq;
	for (uint32_t at = sq->head; at != sq->tail; at++) {
		struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_DONE)
			continue;
		if (wqe->state == SEND_POSTED || qp->req.unacked != packet->psn || !reads_or_atomic(wqe))
			return NULL;
		return psn_diff(packet->psn, wqe->first_psn) >= 0 ? wqe : NULL;
	}
	return NULL;
}

static void receive_read_response(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	struct requester *req = &qp->req;
	uint32_t offset = (uint32_t)psn_diff(packet->psn, wqe->first_psn) * qp->mtu;
	uint32_t expected = wqe->length - offset < qp->mtu ? wqe->length - offset : qp->mtu;
	uint32_t end = offset + expected;

	if (wqe->opcode != IBV_WR_RDMA_READ || packet->payload_length != expected) {
		flight_fail(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	if (!send_scatter(qp, wqe, offset, packet->payload, expected)) {
		flight_fail(qp, IBV_WC_LOC_PROT_ERR);
		return;
	}
	req->unacked = psn_add(packet->psn, 1);
	if (end == segment_end(qp, wqe->length, offset) && req->reads > 0)
		req->reads--;
	if (end == wqe->length)
		wqe->state = SEND_DONE;
	flight_note_progress(qp, 1);
}

static void receive_atomic_response(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	struct requester *req = &qp->req;
	if (wqe->opcode == IBV_WR_RDMA_READ) {
		flight_fail(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	if (!send_scatter(qp, wqe, 0, (const uint8_t *)&packet->original, sizeof packet->original)) {
		flight_fail(qp, IBV_WC_LOC_PROT_ERR);
		return;
	}
	req->unacked = psn_add(packet->psn, 1);
	if (req->reads > 0)
		req->reads--;
	wqe->state = SEND_DONE;
	flight_note_progress(qp, 1);
}

static void receive_response(struct qp *qp, const struct packet *packet)
{
	bool complete = flight_acknowledge(qp, psn_add(packet->psn, WIRE_PSN_MASK));
	struct send_wqe *wqe = awaited_request(qp, packet);
	if (wqe) {
		if (packet->opcode == OP_ATOMIC_ACK)
			receive_atomic_response(qp, wqe, packet);
		else
			receive_read_response(qp, wqe, packet);
	} else if (!complete || psn_diff(packet->psn, qp->req.unacked) > 0) {
		/* One before it is missing. */
		if (!qp->req.recovering)
			flight_go_back(qp);
	} else {
		counter_add(&qp->device->counters->drop_stale, 1);
	}
	if (qp->state != IBV_QPS_ERR)
		flight_complete(qp);
}

void requester_receive(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	if (!may_send(qp)) {
		counter_add(&qp->device->counters->drop_state, 1);
		return;
	}
	/* Only outstanding requests can be answered: a forged or late packet has no effect. */
	if (psn_diff(packet->psn, req->unacked) < 0 || psn_diff(packet->psn, req->top) >= 0) {
		counter_add(&qp->device->counters->drop_stale, 1);
		return;
	}
	if (packet->opcode == OP_ACK)
		receive_ack(qp, packet);
	else
		receive_response(qp, packet);

	if (qp->state == IBV_QPS_ERR || req->waiting_rnr)
		return;
	if (flight_empty(req))
		timer_cancel(&qp->device->timers, &req->timer);
	if (qp->sq.next != qp->sq.tail)
		active_add(qp);
}
