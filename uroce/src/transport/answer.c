/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving half of a requester: acknowledgements, NAKs, and the answers to READs and atomics. */
#include "active.h"
#include "flight.h"
#include "gather.h"
#include "outgoing.h"
#include "qp_state.h"
#include "repair.h"
#include "requester.h"
#include "tag.h"

/* The encoded RNR timer of an AETH, IBTA vol 1 table 45. */
static uint64_t rnr_timer_ns(uint8_t code)
{
	static const uint32_t us10[32] = { 65536, 1,	2,    3,    4,	  6,	8,    12,   16,	  24,	32,
					   48,	  64,	96,   128,  192,  256,	384,  512,  768,  1024, 1536,
					   2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152 };
	return us10[code & 31] * 10000ull;
}

/* IBV_WC_SUCCESS: not a syndrome of a refusal. */
static enum ibv_wc_status status_of(uint8_t syndrome)
{
	switch (syndrome) {
	case AETH_NAK_INVALID: return IBV_WC_REM_INV_REQ_ERR;
	case AETH_NAK_ACCESS: return IBV_WC_REM_ACCESS_ERR;
	case AETH_NAK_OPERATION: return IBV_WC_REM_OP_ERR;
	default: return IBV_WC_SUCCESS;
	}
}

static void receive_nak(struct qp *qp, const struct packet *packet)
{
	struct counters *counters = qp->device->counters;
	counter_add(&counters->naks_received, 1);
	if (packet->syndrome == AETH_NAK_SEQUENCE) {
		if (repair_miss(qp, packet->psn))
			return;
		if (qp->req.recovering) /* this one again: it has been acted on, and the timer does the rest */
			return;
		/* Counted as a retry, as a timeout is: a peer that only ever NAKs must not hold us for ever. */
		if (qp->req.retries == 0) {
			counter_add(&counters->retries_exhausted, 1);
			flight_fail(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		qp->req.retries--;
		flight_lose(qp);
		return;
	}
	enum ibv_wc_status status = status_of(packet->syndrome);
	if (status == IBV_WC_SUCCESS)
		counter_add(&counters->drop_malformed, 1);
	else
		flight_refuse(qp, packet->psn, status);
}

static bool refuses(const struct packet *packet)
{
	return packet->opcode == OP_ACK && status_of(packet->syndrome) != IBV_WC_SUCCESS;
}

/* False: there was none left, and the queue pair has ended. While the answer to an older READ is missing, the request that is not
 * taken in is not the one that fails: to ask for the answer again costs the other kind of retry. */
static bool take_rnr_retry(struct qp *qp, uint32_t psn)
{
	struct requester *req = &qp->req;
	if (req->rnr_retries > 0) {
		req->rnr_retries--;
		return true;
	}
	bool oldest = flight_oldest_has(qp, psn);
	if (!oldest && req->retries > 0) {
		req->retries--;
		return true;
	}
	flight_fail(qp, oldest ? IBV_WC_RNR_RETRY_EXC_ERR : IBV_WC_RETRY_EXC_ERR);
	return false;
}

static void receive_rnr(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	counter_add(&qp->device->counters->rnr_received, 1);
	if (req->waiting_rnr)
		return;
	if (qp->attr.rnr_retry != 7 && !take_rnr_retry(qp, packet->psn))
		return;
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
	bool complete = flight_acknowledge(qp, upto);
	flight_complete(qp);
	if (qp->state == IBV_QPS_ERR || qp->req.refusal != IBV_WC_SUCCESS)
		return;
	if (type == AETH_TYPE_NAK)
		receive_nak(qp, packet);
	else if (type == AETH_TYPE_RNR)
		receive_rnr(qp, packet);
	else if (!complete && !repair_miss_answers(qp, upto) && !qp->req.recovering)
		flight_lose(qp); /* it passes a READ or atomic whose answer was lost on the way */
}

/* The READ or atomic that is answered next, if this PSN is its next packet. */
static struct send_wqe *awaited_request(struct qp *qp, const struct packet *packet)
{
	struct send_queue *sq = &qp->sq;
	for (uint32_t at = sq->head; at != sq->tail; at++) {
		struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_DONE)
			continue;
		if (wqe->state == SEND_POSTED || qp->req.unacked != packet->psn || !awaits_answer(wqe))
			return NULL;
		return psn_diff(packet->psn, wqe->first_psn) >= 0 ? wqe : NULL;
	}
	return NULL;
}

static void receive_read_response(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	struct requester *req = &qp->req;
	uint32_t offset = (uint32_t)psn_diff(packet->psn, wqe->first_psn) * qp->mtu;
	uint32_t left = wqe->length - offset, length = packet->payload_length;
	bool fits = length == (left < qp->mtu ? left : qp->mtu) ||
		    (packet->local && length > 0 && (length == left || (length < left && length % qp->mtu == 0)));

	if (wqe->opcode != IBV_WR_RDMA_READ || !fits) {
		flight_fail(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	if (!send_scatter(qp, wqe, offset, packet->payload, length)) {
		flight_fail(qp, IBV_WC_LOC_PROT_ERR);
		return;
	}
	req->unacked = psn_add(packet->psn, packets_in(qp, packet));
	if (length == left)
		wqe->state = SEND_DONE;
	flight_note_progress(qp, packets_in(qp, packet), 0);
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
	wqe->state = SEND_DONE;
	flight_note_progress(qp, 1, 0);
}

/* The answer to a FLUSH or ATOMIC WRITE. */
static void receive_empty_response(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	if (packet->opcode != OP_READ_ONLY || packet->payload_length != 0) {
		flight_fail(qp, IBV_WC_BAD_RESP_ERR);
		return;
	}
	qp->req.unacked = psn_add(packet->psn, 1);
	wqe->state = SEND_DONE;
	flight_note_progress(qp, 1, 0);
}

static void receive_answer(struct qp *qp, struct send_wqe *wqe, const struct packet *packet)
{
	if (wqe->opcode == (enum ibv_wr_opcode)WR_FLUSH || wqe->opcode == (enum ibv_wr_opcode)WR_ATOMIC_WRITE)
		receive_empty_response(qp, wqe, packet);
	else if (packet->opcode == OP_ATOMIC_ACK)
		receive_atomic_response(qp, wqe, packet);
	else
		receive_read_response(qp, wqe, packet);
}

/* Answers that came ahead of the one that has just come; and the requests between them, which have been executed, for those behind
 * them have. */
static void finish_taken(struct qp *qp)
{
	struct requester *req = &qp->req;
	for (uint32_t before = req->unacked, count;; before = req->unacked) {
		for (count = 0; repair_has_answer(qp, req->unacked); count++) {
			struct send_wqe *wqe = flight_oldest(qp);
			if (req->unacked == wqe->last_psn)
				wqe->state = SEND_DONE;
			req->unacked = psn_add(req->unacked, 1);
		}
		flight_note_progress(qp, count, count);
		repair_acknowledge(qp);
		if (req->unacked == before)
			return;
	}
}

static void receive_response(struct qp *qp, const struct packet *packet)
{
	bool complete = flight_acknowledge(qp, psn_add(packet->psn, WIRE_PSN_MASK));
	struct send_wqe *wqe = awaited_request(qp, packet);
	if (wqe) {
		receive_answer(qp, wqe, packet);
		if (qp->state != IBV_QPS_ERR)
			finish_taken(qp);
	} else if (!complete || psn_diff(packet->psn, qp->req.unacked) > 0) {
		/* One before it is missing. */
		bool taken = repair_take_answer(qp, packet);
		if (!taken && !qp->req.recovering) {
			tag_ask(qp);
			flight_lose(qp);
		}
	} else {
		counter_add(&qp->device->counters->drop_stale, 1);
	}
	if (qp->state != IBV_QPS_ERR)
		flight_complete(qp);
}

void requester_receive(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	if (!requester_may_send(qp)) {
		counter_add(&qp->device->counters->drop_state, 1);
		return;
	}
	/* Only outstanding requests can be answered: a forged or late packet has no effect. A READ may be refused for a part of it
	 * that has been answered before: when it was asked for again, and the memory had gone. */
	bool answered = psn_diff(packet->psn, req->unacked) < 0 && !(refuses(packet) && flight_oldest_has(qp, packet->psn));
	if (answered || psn_diff(packet->psn, req->top) >= 0) {
		counter_add(&qp->device->counters->drop_stale, 1);
		return;
	}
	tag_look(qp, packet);
	if (packet->opcode == OP_ACK)
		receive_ack(qp, packet);
	else
		receive_response(qp, packet);

	if (qp->state == IBV_QPS_ERR)
		return;
	flight_check_refused(qp);
	if (qp->state == IBV_QPS_ERR || req->waiting_rnr)
		return;
	if (flight_empty(req))
		timer_cancel(&qp->device->timers, &req->timer);
	if (qp->sq.next != qp->sq.tail)
		active_add(qp);
}
