/* SPDX-License-Identifier: Apache-2.0 */
/* The ring behind a queue pair's own receives and behind shared ones. Its lock is all that posting takes: a thread of
 * the application that refills never waits for the protocol. */
#include "recv_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "ring.h"
#include "wipe.h"

static struct recv_wqe *recv_queue_at(const struct recv_queue *rq, uint32_t position)
{
	return ring_slot(rq->ring, rq->stride, rq->size, position);
}

int recv_queue_init(struct recv_queue *rq, struct pd *pd, uint32_t max_wr, uint32_t max_sge)
{
	memset(rq, 0, sizeof *rq);
	rq->size = ring_size(max_wr);
	rq->stride = sizeof(struct recv_wqe) + max_sge * sizeof(struct ibv_sge);
	rq->max_wr = max_wr == 0 ? 0 : rq->size;
	rq->max_sge = max_sge;
	rq->pd = pd;
	rq->ring = calloc(rq->size, rq->stride);
	if (!rq->ring)
		return -ENOMEM;
	return 0;
}

void recv_queue_clear(struct recv_queue *rq)
{
	if (!rq->ring)
		return;
	wipe_free(rq->ring, rq->size * rq->stride);
	rq->ring = NULL;
}

int recv_queue_resize(struct recv_queue *rq, uint32_t max_wr)
{
	uint32_t size = ring_size(max_wr);
	uint8_t *ring = calloc(size, rq->stride);
	if (!ring)
		return -ENOMEM;

	lock_take(&rq->lock);
	uint32_t waiting = rq->tail - rq->head;
	if (waiting > max_wr) {
		lock_give(&rq->lock);
		free(ring);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < waiting; i++)
		memcpy(ring_slot(ring, rq->stride, size, i), recv_queue_at(rq, rq->head + i), rq->stride);
	wipe_free(rq->ring, rq->size * rq->stride);
	rq->ring = ring;
	rq->size = size;
	rq->max_wr = size;
	rq->head = 0;
	rq->tail = waiting;
	lock_give(&rq->lock);
	return 0;
}

/* ---- posting ---- */

void recv_queue_push_flushed(const struct recv_queue *rq, uint64_t wr_id)
{
	struct cqe cqe = {
		.wc = {
			.wr_id = wr_id,
			.status = IBV_WC_WR_FLUSH_ERR,
			.opcode = IBV_WC_RECV,
			.qp_num = rq->qpn,
		},
	};
	cq_push(rq->cq, &cqe, true);
}

static int post_one(struct recv_queue *rq, const struct ibv_recv_wr *wr)
{
	if (rq->closed || (unsigned)wr->num_sge > rq->max_sge)
		return EINVAL;
	if (rq->tail - rq->head == rq->max_wr)
		return ENOMEM;
	if (rq->dead) {
		recv_queue_push_flushed(rq, wr->wr_id);
		return 0;
	}
	struct recv_wqe *wqe = recv_queue_at(rq, rq->tail);
	uint64_t length = 0;
	for (int i = 0; i < wr->num_sge; i++) {
		wqe->sge[i] = wr->sg_list[i];
		length += wr->sg_list[i].length;
	}
	wqe->wr_id = wr->wr_id;
	wqe->sges = (uint32_t)wr->num_sge;
	/* No message is longer, so that more room than that is no different. */
	wqe->length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
	rq->tail++;
	return 0;
}

int recv_queue_post(struct recv_queue *rq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	int error = 0;

	lock_take(&rq->lock);
	while (wr) {
		error = post_one(rq, wr);
		if (error != 0)
			break;
		wr = wr->next;
	}
	lock_give(&rq->lock);
	if (error != 0) {
		errno = error; /* programs read it, though the error is returned */
		if (bad)
			*bad = wr;
	}
	return error;
}

/* ---- taking ---- */

enum recv_answer recv_queue_take_for(struct recv_queue *rq, uint32_t length, struct recv_taken *out)
{
	bool limit_reached = false;

	lock_take(&rq->lock);
	const struct recv_wqe *wqe = recv_queue_at(rq, rq->head);
	enum recv_answer answer = rq->head == rq->tail ? RECV_NONE : wqe->length < length ? RECV_TOO_SHORT : RECV_TAKEN;
	if (answer != RECV_TAKEN) {
		lock_give(&rq->lock);
		return answer;
	}
	out->wr_id = wqe->wr_id;
	out->length = wqe->length;
	out->sges = wqe->sges;
	for (uint32_t i = 0; i < wqe->sges; i++)
		out->sge[i] = wqe->sge[i];
	rq->head++;
	if (rq->tail - rq->head < rq->limit) {
		rq->limit = 0;
		limit_reached = true;
	}
	lock_give(&rq->lock);

	/* The queue pair that takes keeps the shared queue alive. */
	if (limit_reached)
		event_raise(rq->srq->context, IBV_EVENT_SRQ_LIMIT_REACHED, &rq->srq->ibv);
	return RECV_TAKEN;
}

bool recv_queue_take(struct recv_queue *rq, struct recv_taken *out)
{
	return recv_queue_take_for(rq, 0, out) == RECV_TAKEN;
}

/* ---- states of the queue pair ---- */

void recv_queue_open(struct recv_queue *rq)
{
	lock_take(&rq->lock);
	rq->closed = false;
	rq->dead = false;
	lock_give(&rq->lock);
}

void recv_queue_close(struct recv_queue *rq)
{
	lock_take(&rq->lock);
	rq->closed = true;
	rq->dead = false;
	rq->head = rq->tail;
	lock_give(&rq->lock);
}

void recv_queue_flush(struct recv_queue *rq)
{
	lock_take(&rq->lock);
	rq->closed = false;
	rq->dead = true;
	for (; rq->head != rq->tail; rq->head++)
		recv_queue_push_flushed(rq, recv_queue_at(rq, rq->head)->wr_id);
	lock_give(&rq->lock);
}
