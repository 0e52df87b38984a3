/* SPDX-License-Identifier: Apache-2.0 */
#include "express.h"

#include "active.h"
#include "datagram.h"
#include "flight.h"
#include "gather.h"
#include "guard.h"
#include "outgoing.h"
#include "response.h"
#include "wake.h"

enum { NONE = 0x1f /* no operation */ };

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

/* Of a message of one packet; NONE: it does not go this way. */
static uint8_t operation_of(const struct send_wqe *wqe)
{
	switch ((unsigned)wqe->opcode) {
	case IBV_WR_SEND: return OP_SEND_ONLY;
	case IBV_WR_SEND_WITH_IMM: return OP_SEND_ONLY_IMM;
	case IBV_WR_RDMA_WRITE: return OP_WRITE_ONLY;
	case IBV_WR_RDMA_WRITE_WITH_IMM: return OP_WRITE_ONLY_IMM;
	default: return NONE;
	}
}

static bool may_go(struct qp *qp, const struct send_wqe *wqe)
{
	const struct requester *req = &qp->req;
	bool fenced = (wqe->flags & IBV_SEND_FENCE) && flight_asked(req) > 0;
	return wqe->length <= qp->mtu && !fenced && flight_size(req) < flight_limit(qp) && shm_ready(qp->path);
}

/* `ack`: an acknowledgement goes with it, if one is due. */
static bool send_one(struct qp *qp, struct send_wqe *wqe, bool ack)
{
	struct requester *req = &qp->req;
	struct packet_out out;
	uint8_t operation = operation_of(wqe);

	if (operation == NONE || !may_go(qp, wqe) || send_gather(qp, wqe, 0, wqe->length, &out) != 0)
		return false;
	struct packet packet = {
		.opcode = (uint8_t)(WIRE_RC | operation),
		.solicited = wqe->flags & IBV_SEND_SOLICITED,
		.ack_req = true,
		.pad = (uint8_t)(-wqe->length & 3),
		.psn = req->next,
		.va = wqe->remote,
		.rkey = wqe->rkey,
		.length = wqe->length,
		.imm = wqe->imm,
	};
	uint8_t more[WIRE_MAX_HEADER];
	bool acked = ack && response_make_ack(qp, more);
	out.may_change = false;
	make_packet(qp, &qp->av, qp->attr.dest_qp_num, &packet, &out);
	if (!shm_send(qp->path, &out, acked ? more : NULL))
		return false;
	if (acked)
		response_acked(qp);
	wqe->first_psn = wqe->last_psn = req->next;
	wqe->state = SEND_SENT;
	req->next = req->top = psn_add(req->next, 1);
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
