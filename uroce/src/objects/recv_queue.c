/* SPDX-License-Identifier: Apache-2.0 */
/* The ring behind a queue pair's own receives and behind shared ones. Its lock is all that posting takes: a thread of
 * the application that refills never waits for the protocol. The protocol takes receives without it, one thread at a time. */
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

	device_lock(rq->pd->device);
	lock_take(&rq->lock);
	uint32_t waiting = rq->tail - rq->head;
	if (waiting > max_wr) {
		lock_give(&rq->lock);
		device_unlock(rq->pd->device);
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
	device_unlock(rq->pd->device);
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
	uint32_t tail = atomic_load_explicit(&rq->tail, memory_order_relaxed);
	if (tail - atomic_load_explicit(&rq->head, memory_order_acquire) == rq->max_wr)
		return ENOMEM;
	if (rq->dead) {
		recv_queue_push_flushed(rq, wr->wr_id);
		return 0;
	}
	struct recv_wqe *wqe = recv_queue_at(rq, tail);
	uint64_t length = 0;
	for (int i = 0; i < wr->num_sge; i++) {
		wqe->sge[i] = wr->sg_list[i];
		length += wr->sg_list[i].length;
	}
	wqe->wr_id = wr->wr_id;
	wqe->sges = (uint32_t)wr->num_sge;
	/* No message is longer, so that more room than that is no different. */
	wqe->length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
	atomic_store_explicit(&rq->tail, tail + 1, memory_order_release);
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

/* Fewer wait than the limit of a shared queue says, for the first time. */
static bool has_reached_limit(struct recv_queue *rq)
{
	if (atomic_load_explicit(&rq->limit, memory_order_relaxed) == 0)
		return false;
	lock_take(&rq->lock);
	bool reached = rq->tail - rq->head < rq->limit;
	if (reached)
		rq->limit = 0;
	lock_give(&rq->lock);
	return reached;
}

enum recv_answer recv_queue_take_for(struct recv_queue *rq, uint32_t length, struct recv_taken *out)
{
	uint32_t head = atomic_load_explicit(&rq->head, memory_order_relaxed);
	if (head == atomic_load_explicit(&rq->tail, memory_order_acquire))
		return RECV_NONE;
	const struct recv_wqe *wqe = recv_queue_at(rq, head);
	if (wqe->length < length)
		return RECV_TOO_SHORT;
	out->wr_id = wqe->wr_id;
	out->length = wqe->length;
	out->sges = wqe->sges;
	for (uint32_t i = 0; i < wqe->sges; i++)
		out->sge[i] = wqe->sge[i];
	atomic_store_explicit(&rq->head, head + 1, memory_order_release);

	/* The queue pair that takes keeps the shared queue alive. */
	if (has_reached_limit(rq))
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
	rq->head = atomic_load(&rq->tail);
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
