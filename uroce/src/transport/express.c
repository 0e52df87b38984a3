/* SPDX-License-Identifier: Apache-2.0 */
#include "express.h"

#include "active.h"
#include "datagram.h"
#include "flight.h"
#include "gather.h"
#include "guard.h"
#include "outgoing.h"
#include "requester.h"
#include "response.h"
#include "wake.h"

enum { LONGEST = 4 * RING_PAYLOAD /* a message that is copied while the lock is held, and no clock is read */ };

bool express_is_open(struct qp *qp)
{
	const struct requester *req = &qp->req;
	const struct send_queue *sq = &qp->sq;
	bool open = qp->state == IBV_QPS_RTS && sq->next == sq->tail && !qp->draining && !qp->parked;
	if (!open || qp->device->eager || !guard_is_ready())
		return false;
	/* Datagrams are not answered: the application's next poll does the rest. */
	if (qp->type == IBV_QPT_UD)
		return qp->device->shm && qp->device->progress && wake_thread_naps(qp->device);
	bool under_way = req->next == req->top && req->offset == 0;
	bool hindered = req->waiting_rnr || req->refusal != IBV_WC_SUCCESS || req->repair;
	/* The clock and the timer of a flight that begins are left to the next poll, or to the thread when it has napped. */
	bool timed = !flight_empty(req) || (qp->device->progress && wake_thread_naps(qp->device));
	return path_of(qp) && qp->type == IBV_QPT_RC && under_way && !hindered && timed;
}

static bool may_go(struct qp *qp, const struct send_wqe *wqe)
{
	const struct requester *req = &qp->req;
	bool fenced = (wqe->flags & IBV_SEND_FENCE) && flight_asked(req) > 0;
	bool write = wqe->opcode == IBV_WR_RDMA_WRITE || wqe->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	bool send = wqe->opcode == IBV_WR_SEND || wqe->opcode == IBV_WR_SEND_WITH_IMM;
	return (write || send) && wqe->length <= LONGEST && !fenced && flight_size(req) < flight_limit(qp);
}

/* One packet: what is left of the message, or as much of it as a packet carries. `ack`: an acknowledgement goes with it, if one is due. */
static bool send_part(struct qp *qp, struct send_wqe *wqe, bool ack)
{
	struct requester *req = &qp->req;
	uint32_t offset = req->offset, left = wqe->length - offset, part = left < RING_PAYLOAD ? left : RING_PAYLOAD;
	struct packet_out out;

	if (!shm_ready(qp->path) || send_gather(qp, wqe, offset, part, &out) != 0)
		return false;
	struct packet packet = {
		.opcode = (uint8_t)(WIRE_RC | requester_operation(wqe, offset == 0, part == left)),
		.solicited = part == left && (wqe->flags & IBV_SEND_SOLICITED),
		.ack_req = part == left,
		.pad = (uint8_t)(-part & 3),
		.psn = req->next,
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.length = wqe->length,
		.imm = wqe->imm,
	};
	uint8_t more[WIRE_MAX_HEADER];
	bool acked = ack && part == left && response_make_ack(qp, more);
	out.may_change = false;
	make_packet(qp, &qp->av, qp->attr.dest_qp_num, &packet, &out);
	if (!shm_send(qp->path, &out, acked ? more : NULL))
		return false;
	if (acked)
		response_acked(qp);
	req->next = req->top = psn_add(req->next, packets_of(qp, part));
	req->offset = offset + part;
	return true;
}

/* False: the ordinary way goes on with what is left of it, or says why it fails. */
static bool send_one(struct qp *qp, struct send_wqe *wqe, bool ack)
{
	struct requester *req = &qp->req;

	if (!may_go(qp, wqe))
		return false;
	uint32_t first = req->next;
	do {
		if (!send_part(qp, wqe, ack))
			return false;
		/* Part of it is on its way: it keeps its numbers. */
		wqe->first_psn = first;
		wqe->last_psn = psn_add(first, packets_of(qp, wqe->length) - 1);
		wqe->status = IBV_WC_SUCCESS;
		wqe->state = SEND_STARTED;
	} while (req->offset < wqe->length);
	wqe->state = SEND_SENT;
	req->offset = 0;
	req->since_ack_request = 0;
	return true;
}

bool express_send(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	wake_note_brief_call(qp->device);
	if (qp->type == IBV_QPT_UD) {
		bool all = datagram_express(qp);
		return shm_flush_awake(qp->device->shm) && all;
	}
	bool begins = flight_empty(&qp->req);
	/* Where the last message was answered before this one was posted, the peer is likely to wait for an acknowledgement, too. */
	while (sq->next != sq->tail && send_one(qp, send_queue_at(sq, sq->next), begins))
		sq->next++;
	if (begins)
		active_add_lazily(qp);
	return shm_flush_awake(qp->device->shm) && sq->next == sq->tail;
}
