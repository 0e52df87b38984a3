/* SPDX-License-Identifier: Apache-2.0 */
#include "qp_state.h"

#include <string.h>

#include "active.h"
#include "event.h"
#include "repair.h"
#include "response.h"
#include "shm.h"

static enum ibv_wc_opcode completion_opcode(enum ibv_wr_opcode opcode)
{
	switch ((unsigned)opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return IBV_WC_RDMA_WRITE;
	case IBV_WR_RDMA_READ:
		return IBV_WC_RDMA_READ;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		return IBV_WC_COMP_SWAP;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return IBV_WC_FETCH_ADD;
	case IBV_WR_LOCAL_INV:
		return IBV_WC_LOCAL_INV;
	case IBV_WR_BIND_MW:
		return IBV_WC_BIND_MW;
	case WR_FLUSH:
		return (enum ibv_wc_opcode)WC_FLUSH;
	case WR_ATOMIC_WRITE:
		return (enum ibv_wc_opcode)WC_ATOMIC_WRITE;
	default:
		return IBV_WC_SEND;
	}
}

void qp_complete_send(struct qp *qp, enum ibv_wc_status status)
{
	struct send_queue *sq = &qp->sq;
	const struct send_wqe *wqe = send_queue_at(sq, sq->head);

	if (status != IBV_WC_SUCCESS || (wqe->flags & IBV_SEND_SIGNALED)) {
		struct cqe cqe = {
			.wc = {
				.wr_id = wqe->wr_id,
				.status = status,
				.opcode = completion_opcode(wqe->opcode),
				.byte_len = wqe->length,
				.qp_num = qp->qpn,
			},
		};
		cq_push(qp->send_cq, &cqe, status != IBV_WC_SUCCESS);
	}
	sq->head++;
}

void qp_flush_sends(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	while (sq->head != sq->tail)
		qp_complete_send(qp, IBV_WC_WR_FLUSH_ERR);
	sq->next = sq->tail;
}

/* The receive of a message that will never be whole. */
static void flush_half_used(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	if (!resp->has_receive)
		return;
	resp->has_receive = false;
	recv_queue_push_flushed(&qp->rq, resp->receive->wr_id);
}

static void stop_sending(struct qp *qp)
{
	timer_cancel(&qp->device->timers, &qp->req.timer);
	timer_cancel(&qp->device->timers, &qp->req.send_timer);
	qp->req.waiting_rnr = false;
	repair_free(qp);
}

void qp_fail(struct qp *qp, int event)
{
	/* The halves, while they stop, may call this again. */
	if (qp->state == IBV_QPS_ERR || qp->state == IBV_QPS_RESET)
		return;
	qp->state = IBV_QPS_ERR;
	qp->draining = false;
	qp->sqd_event_wanted = false;
	stop_sending(qp);
	response_stop(qp);

	qp_flush_sends(qp);
	flush_half_used(qp);
	if (!qp->srq)
		recv_queue_flush(&qp->rq);
	if (event != -1)
		event_raise(qp->context, (enum ibv_event_type)event, &qp->ibv.qp_base);
	/* From now on it takes none from the shared queue: IBTA vol 1, 11.6.3.2. */
	if (qp->srq && !qp->last_wqe_raised) {
		qp->last_wqe_raised = true;
		event_raise(qp->context, IBV_EVENT_QP_LAST_WQE_REACHED, &qp->ibv.qp_base);
	}
}

void qp_fail_send(struct qp *qp)
{
	if (qp->type == IBV_QPT_RC) {
		qp_fail(qp, -1);
		return;
	}
	if (qp->state != IBV_QPS_RTS && qp->state != IBV_QPS_SQD)
		return;
	qp->state = IBV_QPS_SQE;
	qp->draining = false;
	qp->sqd_event_wanted = false;
	qp_flush_sends(qp);
}

void qp_reset(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	qp->state = IBV_QPS_RESET;
	qp->draining = false;
	qp->sqd_event_wanted = false;
	qp->last_wqe_raised = false;
	/* The halves may still send with the address, so that it goes after they have. */
	stop_sending(qp);
	response_stop(qp);
	active_remove(qp);
	if (qp->device->shm)
		shm_release(qp->path);
	qp->path = NULL;

	sq->head = sq->next = sq->tail;
	qp->resp.has_receive = false;
	qp->resp.in_message = false;
	if (!qp->srq)
		recv_queue_close(&qp->rq);
	const struct ibv_srq *srq = qp->srq ? &qp->srq->ibv : NULL;
	cq_remove(qp->send_cq, qp->qpn, srq);
	if (qp->recv_cq != qp->send_cq)
		cq_remove(qp->recv_cq, qp->qpn, srq);
	explicit_bzero(&qp->attr, sizeof qp->attr);
	explicit_bzero(&qp->av, sizeof qp->av);
}

bool qp_drains(const struct qp *qp)
{
	const struct send_queue *sq = &qp->sq;
	return qp->req.unacked != qp->req.top ||
	       (sq->head != sq->tail && send_queue_at(sq, sq->head)->state != SEND_POSTED);
}

void qp_check_drained(struct qp *qp)
{
	if (!qp->draining || !qp->sqd_event_wanted || qp_drains(qp))
		return;
	qp->sqd_event_wanted = false;
	event_raise(qp->context, IBV_EVENT_SQ_DRAINED, &qp->ibv.qp_base);
}
