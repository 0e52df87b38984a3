/* SPDX-License-Identifier: Apache-2.0 */
/* The requester of a connected queue pair: sends what is posted, and brings it through loss by going back.
 *
 * A long READ is asked for in several requests, each of whole packets, so that the window holds for responses too. An
 * unanswered flight is repeated early, as soon as a few round trips would have brought an answer ("probe"); only the queue
 * pair's own timeout counts against its retries. */
#include "transport.h"

#include "log.h"

enum {
	FIRST_WINDOW = 64, /* packets */
	LEAST_WINDOW = 4,
	ACK_REQUEST_INTERVAL = 32, /* packets without an AckReq, at most */
	READ_SEGMENT = 65536,
	READ_SEGMENT_LONG = 262144, /* when few may be outstanding, to hide the round trip; when the window has room for several */
	COMPANY_BYTES = 4096,      /* a message shorter than this may wait for others ... */
	COMPANY_COUNT = 48,        /* ... but for so many only */
	PROBE_LEAST_NS = 5000000,
	TIMEOUT_LEAST_NS = 1000000, /* no process is scheduled more exactly */
};

#define NEVER UINT64_MAX

static uint64_t timeout_ns(const struct qp *qp)
{
	if (qp->attr.timeout == 0)
		return NEVER;
	uint64_t ns = 4096ull << (qp->attr.timeout & 31);
	return ns < TIMEOUT_LEAST_NS ? TIMEOUT_LEAST_NS : ns;
}

/* The encoded RNR timer of an AETH, IBTA vol 1 table 45. */
static uint64_t rnr_timer_ns(uint8_t code)
{
	static const uint32_t us10[32] = { 65536, 1,	2,    3,    4,	  6,	8,    12,   16,	  24,	32,
					   48,	  64,	96,   128,  192,  256,	384,  512,  768,  1024, 1536,
					   2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152 };
	return us10[code & 31] * 10000ull;
}

static bool reads_or_atomic(const struct send_wqe *wqe)
{
	return wqe->opcode == IBV_WR_RDMA_READ || wqe->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
	       wqe->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

static bool sends(const struct qp *qp)
{
	return qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_SQD;
}

static bool local(const struct send_wqe *wqe)
{
	return wqe->opcode == IBV_WR_LOCAL_INV || wqe->opcode == IBV_WR_BIND_MW;
}

static uint32_t packets_of(const struct qp *qp, uint32_t length)
{
	return length == 0 ? 1 : (uint32_t)(((uint64_t)length + qp->mtu - 1) / qp->mtu);
}

static uint32_t window_limit(const struct qp *qp)
{
	/* Small packets take more of a receive buffer than their length: no more than four times as many of them. */
	uint32_t scale = WIRE_MAX_MTU / qp->mtu;
	uint32_t packets = qp->device->max_window == 0 ? FIRST_WINDOW : qp->device->max_window;
	return packets * (scale > 4 ? 4 : scale);
}

static uint32_t segment_of(const struct qp *qp)
{
	bool long_ones = qp->attr.max_rd_atomic < 4 || window_limit(qp) >= 4 * packets_of(qp, READ_SEGMENT_LONG);
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

/* ---- timer ---- */

static uint64_t probe_after(const struct qp *qp)
{
	const struct requester *req = &qp->req;
	if (req->rtt == 0)
		return NEVER;
	uint64_t after = req->rtt * 8;
	if (after < PROBE_LEAST_NS)
		after = PROBE_LEAST_NS;
	return after << (req->probes > 10 ? 10 : req->probes);
}

/* Leaves a timer that is set: when it fires, it looks what has happened since. */
static void watch_flight(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (req->waiting_rnr || req->timer.place != 0)
		return;
	uint64_t after = timeout_ns(qp), probe = probe_after(qp);
	if (probe < after)
		after = probe;
	if (after != NEVER)
		timer_set(&qp->device->timers, &req->timer, req->progress_at + after);
}

static bool flight_empty(const struct requester *req)
{
	return req->unacked == req->top;
}

/* ---- completing, and going back ---- */

/* Completes what is answered, in order; a request that failed before it was sent ends the queue pair when its turn comes. */
static void sweep(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	/* Nobody answers: the link must have read the memory before the application may use it again. */
	if (qp->type == IBV_QPT_UC)
		link_flush(qp->device->link);
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
static void fail_oldest(struct qp *qp, enum ibv_wc_status status)
{
	if (qp->sq.head != qp->sq.tail)
		qp_complete_send(qp, status);
	qp_fail(qp, -1);
}

/* Marks the request at `sq.next` as failed: what was sent before it is still to be answered. */
static void fail_next(struct qp *qp, struct send_wqe *wqe, enum ibv_wc_status status)
{
	wqe->status = status;
	wqe->state = SEND_DONE;
	if (qp->sq.head == qp->sq.next)
		sweep(qp);
}

/* Puts the sending position at the oldest unanswered packet. */
static void reposition(struct qp *qp)
{
	struct requester *req = &qp->req;
	struct send_queue *sq = &qp->sq;
	uint32_t at = sq->head;

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
	req->reads = 0;
	req->timed_at = 0;
	if (at != sq->tail) {
		const struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state != SEND_POSTED)
			req->offset = (uint32_t)psn_diff(req->unacked, wqe->first_psn) * qp->mtu;
	}
}

static void go_back(struct qp *qp)
{
	qp->req.recovering = true;
	reposition(qp);
	engine_activate(qp);
}

static void shrink_window(struct qp *qp, uint32_t to)
{
	struct requester *req = &qp->req;
	req->threshold = req->window / 2 < LEAST_WINDOW ? LEAST_WINDOW : req->window / 2;
	req->window = to == 0 ? req->threshold : to;
}

static void grow_window(struct qp *qp, uint32_t answered)
{
	struct requester *req = &qp->req;
	uint32_t limit = window_limit(qp);
	if (req->window < req->threshold) {
		req->window += answered;
	} else {
		req->credit += answered;
		req->window += req->credit / req->window;
		req->credit %= req->window;
	}
	if (req->window > limit)
		req->window = limit;
}

/* `answered` packets more are done with. */
static void note_progress(struct qp *qp, uint32_t answered)
{
	struct requester *req = &qp->req;
	if (answered == 0)
		return;
	uint64_t now = qp->device->now;
	if (req->timed_at != 0 && psn_diff(req->unacked, req->timed_psn) > 0) {
		uint64_t sample = now - req->timed_at;
		req->rtt = req->rtt == 0 ? sample + 1 : req->rtt - req->rtt / 8 + sample / 8;
		req->timed_at = 0;
	}
	grow_window(qp, answered);
	req->progress_at = now;
	req->probes = 0;
	req->recovering = false;
	req->retries = qp->attr.retry_cnt;
	req->rnr_retries = qp->attr.rnr_retry;
	if (psn_diff(req->unacked, req->next) > 0)
		reposition(qp); /* went back too far: it had arrived */
}

/* Everything up to `psn` has arrived. False when a READ or atomic stands before it whose answer is lost. */
static bool acknowledge(struct qp *qp, uint32_t psn)
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
		if (reads_or_atomic(wqe)) {
			complete = false;
			break;
		}
		if (psn_diff(psn, wqe->last_psn) < 0) {
			req->unacked = psn_add(psn, 1);
			break;
		}
		wqe->state = SEND_DONE;
		req->unacked = psn_add(wqe->last_psn, 1);
	}
	note_progress(qp, (uint32_t)psn_diff(req->unacked, before));
	return complete;
}

static void time_out(struct timer *timer)
{
	struct qp *qp = (struct qp *)((char *)timer - offsetof(struct qp, req.timer));
	struct requester *req = &qp->req;
	struct counters *counters = qp->device->counters;

	if (req->waiting_rnr) {
		req->waiting_rnr = false;
		req->progress_at = qp->device->now;
		go_back(qp);
		req->recovering = false;
		return;
	}
	if (flight_empty(req))
		return;
	uint64_t idle = qp->device->now - req->progress_at;
	uint64_t timeout = timeout_ns(qp);
	if (timeout != NEVER && idle >= timeout) {
		counter_add(&counters->timeouts, 1);
		if (req->retries == 0) {
			counter_add(&counters->retries_exhausted, 1);
			log_write(LOG_INFO, "queue pair %06x: no answer after %u retries of %llu us", qp->qpn,
				  qp->attr.retry_cnt, (unsigned long long)(timeout / 1000));
			fail_oldest(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		req->retries--;
		req->progress_at = qp->device->now;
		shrink_window(qp, LEAST_WINDOW);
		go_back(qp);
	} else if (idle >= probe_after(qp)) {
		req->probes++;
		shrink_window(qp, LEAST_WINDOW);
		go_back(qp);
	}
	/* Unlike after a NAK, what the peer says to the repetition is news. */
	req->recovering = false;
	watch_flight(qp);
}

/* ---- sending ---- */

void requester_start(struct qp *qp)
{
	struct requester *req = &qp->req;
	uint32_t psn = qp->attr.sq_psn & WIRE_PSN_MASK;
	struct timer timer = req->timer;

	timer.fire = time_out;
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
	if (req->window > window_limit(qp))
		req->window = window_limit(qp);
}

void requester_stop(struct qp *qp)
{
	timer_cancel(&qp->device->timers, &qp->req.timer);
	qp->req.waiting_rnr = false;
}

void requester_post(struct qp *qp)
{
	const struct requester *req = &qp->req;
	const struct send_queue *sq = &qp->sq;
	/* While an answer is awaited, short messages wait for it, or for enough company to fill a batch. */
	bool wait = qp->type == IBV_QPT_RC && !flight_empty(req) && sq->tail - sq->next < COMPANY_COUNT &&
		    send_queue_at(sq, sq->tail - 1)->length < COMPANY_BYTES;
	if (wait)
		engine_activate_lazily(qp);
	else
		engine_activate(qp);
}

/* The operation of a SEND or WRITE packet. */
static uint8_t operation(const struct send_wqe *wqe, bool first, bool last)
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

static void begin(struct qp *qp, struct send_wqe *wqe)
{
	struct requester *req = &qp->req;
	wqe->first_psn = req->next;
	wqe->last_psn = psn_add(req->next, local(wqe) ? WIRE_PSN_MASK : packets_of(qp, wqe->length) - 1);
	wqe->status = IBV_WC_SUCCESS;
	wqe->state = SEND_STARTED;
	req->offset = 0;
}

/* BIND_MW and LOCAL_INV: nothing goes out. */
static void perform_locally(struct qp *qp, struct send_wqe *wqe)
{
	int error = wqe->opcode == IBV_WR_LOCAL_INV ? memory_invalidate(qp, wqe->invalidate, false)
						    : memory_bind(qp, wqe->mw, wqe->rkey, &wqe->bind);
	if (error != 0) {
		fail_next(qp, wqe, IBV_WC_MW_BIND_ERR);
		return;
	}
	wqe->state = SEND_DONE;
	qp->sq.next++;
	sweep(qp);
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
	packet->qpn = qp->attr.dest_qp_num;
	packet->pkey = WIRE_PKEY;
	out->dgid = qp->av.dgid;
	out->sgid_index = qp->av.sgid_index;
	out->tclass = qp->av.tclass;
	out->hop_limit = qp->av.hop_limit;
	out->dqpn = packet->qpn;
	out->sqpn = qp->qpn;
	out->may_change = false;
	out->header_length = wire_encode(packet, out->header);
	link_send(qp->device->link, out);

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
		.opcode = (uint8_t)((qp->type == IBV_QPT_UC ? WIRE_UC : WIRE_RC) | operation(wqe, first, last)),
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

	while (sends(qp) && !req->waiting_rnr && sq->next != sq->tail) {
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
			begin(qp, wqe);
		if (local(wqe)) {
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
		sweep(qp);
	else if (!more && sends(qp) && !flight_empty(&qp->req))
		watch_flight(qp);
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
			fail_oldest(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		qp->req.retries--;
		shrink_window(qp, 0);
		go_back(qp);
		return;
	}
	switch (packet->syndrome) {
	case AETH_NAK_INVALID:
		fail_oldest(qp, IBV_WC_REM_INV_REQ_ERR);
		break;
	case AETH_NAK_ACCESS:
		fail_oldest(qp, IBV_WC_REM_ACCESS_ERR);
		break;
	case AETH_NAK_OPERATION:
		fail_oldest(qp, IBV_WC_REM_OP_ERR);
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
			fail_oldest(qp, IBV_WC_RNR_RETRY_EXC_ERR);
			return;
		}
		req->rnr_retries--;
	}
	reposition(qp);
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
	if (!acknowledge(qp, upto)) {
		/* It passes a READ or atomic whose answer was lost on the way. */
		if (!qp->req.recovering)
			go_back(qp);
	} else if (type == AETH_TYPE_NAK || type == AETH_TYPE_RNR) {
		sweep(qp);
		if (qp->state == IBV_QPS_ERR)
			return;
		if (type == AETH_TYPE_NAK)
			receive_nak(qp, packet);
		else
			receive_rnr(qp, packet);
		return;
	}
	sweep(qp);
}

/* The READ or atomic that is answered next, if this PSN is its next packet. */
static struct send_wqe *awaited(struct qp *qp, const struct packet *packet)
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
		fail_oldest(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	if (!send_scatter(qp, wqe, offset, packet->payload, expected)) {
		fail_oldest(qp, IBV_WC_LOC_PROT_ERR);
		return;
	}
	req->unacked = psn_add(packet->psn, 1);
	if (end == segment_end(qp, wqe->length, offset) && req->reads > 0)
		req->reads--;
	if (end == wqe->length)
		wqe->state = SEND_DONE;
	note_progress(qp, 1);
}

static void receive_atomic_response(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	struct requester *req = &qp->req;
	if (wqe->opcode == IBV_WR_RDMA_READ) {
		fail_oldest(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	if (!send_scatter(qp, wqe, 0, (const uint8_t *)&packet->original, sizeof(packet->original))) {
		fail_oldest(qp, IBV_WC_LOC_PROT_ERR);
		return;
	}
	req->unacked = psn_add(packet->psn, 1);
	if (req->reads > 0)
		req->reads--;
	wqe->state = SEND_DONE;
	note_progress(qp, 1);
}

static void receive_response(struct qp *qp, const struct packet *packet)
{
	bool complete = acknowledge(qp, psn_add(packet->psn, WIRE_PSN_MASK));
	struct send_wqe *wqe = awaited(qp, packet);
	if (wqe != NULL) {
		if (packet->opcode == OP_ATOMIC_ACK)
			receive_atomic_response(qp, wqe, packet);
		else
			receive_read_response(qp, wqe, packet);
	} else if (!complete || psn_diff(packet->psn, qp->req.unacked) > 0) {
		/* One before it is missing. */
		if (!qp->req.recovering)
			go_back(qp);
	} else {
		counter_add(&qp->device->counters->drop_stale, 1);
	}
	if (qp->state != IBV_QPS_ERR)
		sweep(qp);
}

void requester_receive(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	if (!sends(qp)) {
		counter_add(&qp->device->counters->drop_state, 1);
		return;
	}
	/* Only what is outstanding can be answered: a forged or late packet has no say. */
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
		engine_activate(qp);
}
