/* SPDX-License-Identifier: Apache-2.0 */
/* Completion queues: rings. The functions that push are responsible for the order of completions. */
#include "cq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "log.h"
#include "ring.h"
#include "wipe.h"

/* ibv_cq_ex_to_cq is a cast. */
_Static_assert(offsetof(struct ibv_cq, context) == offsetof(struct ibv_cq_ex, context), "layout");
_Static_assert(offsetof(struct ibv_cq, channel) == offsetof(struct ibv_cq_ex, channel), "layout");
_Static_assert(offsetof(struct ibv_cq, cq_context) == offsetof(struct ibv_cq_ex, cq_context), "layout");
_Static_assert(offsetof(struct ibv_cq, cqe) == offsetof(struct ibv_cq_ex, cqe), "layout");
_Static_assert(offsetof(struct ibv_cq, mutex) == offsetof(struct ibv_cq_ex, mutex), "layout");
_Static_assert(offsetof(struct ibv_cq, cond) == offsetof(struct ibv_cq_ex, cond), "layout");
_Static_assert(offsetof(struct ibv_cq, comp_events_completed) == offsetof(struct ibv_cq_ex, comp_events_completed),
	       "layout");
_Static_assert(offsetof(struct ibv_cq, async_events_completed) == offsetof(struct ibv_cq_ex, async_events_completed),
	       "layout");

/* ---- the ring; the queue's lock held ---- */

static struct cqe *cq_slot(const struct cq *cq, uint32_t position)
{
	return ring_slot(cq->ring, sizeof *cq->ring, cq->size, position);
}

static uint32_t cq_held(const struct cq *cq)
{
	return cq->tail - cq->head;
}

/* Makes room, or says that there is none. */
static bool cq_make_room(struct cq *cq)
{
	if (cq->overrun)
		return false;
	if (cq_held(cq) < cq->size)
		return true;
	if (cq->ignore_overrun) {
		cq->head++;
		return true;
	}
	cq->overrun = true;
	log_write(LOG_WARN, "a completion queue of %u entries has overrun and takes no more; make it larger", cq->size);
	event_raise(cq->context, IBV_EVENT_CQ_ERR, &cq->ibv);
	return false;
}

static void cq_add(struct cq *cq, const struct cqe *cqe)
{
	struct cqe *to = cq_slot(cq, cq->tail);
	to->wc = cqe->wc;
	if (cq->timestamp)
		to->timestamp = cq->device->clock();
	if (cq->wallclock)
		to->wallclock = clock_ns(CLOCK_REALTIME);
	uint32_t index = cq->tail++ & (cq->size - 1);
	if (index >= cq->touched)
		cq->touched = index + 1;
	atomic_store_explicit(&cq->some, true, memory_order_relaxed);
}

static void cq_note_taken(struct cq *cq)
{
	atomic_store_explicit(&cq->some, cq->tail != cq->head, memory_order_relaxed);
}

static bool cq_is_empty(const struct cq *cq)
{
	return !atomic_load_explicit(&cq->some, memory_order_relaxed);
}

static bool cq_due(const struct cq *cq, bool solicited)
{
	return cq->armed == CQ_ARMED || (cq->armed == CQ_ARMED_SOLICITED && solicited);
}

void cq_push(struct cq *cq, const struct cqe *cqe, bool solicited)
{
	lock_take(&cq->lock);
	if (cq_make_room(cq)) {
		cq_add(cq, cqe);
		if (cq_due(cq, solicited || cqe->wc.status != IBV_WC_SUCCESS)) {
			cq->armed = CQ_QUIET;
			channel_push(&cq->events);
		}
	}
	lock_give(&cq->lock);
}

/* A shared receive that has completed is told all the same: nothing else gives its buffer back. */
static bool cq_goes(const struct ibv_wc *wc, uint32_t qpn, const struct ibv_srq *keep_srq)
{
	return wc->qp_num == qpn && (!keep_srq || !(wc->opcode & IBV_WC_RECV));
}

void cq_remove(struct cq *cq, uint32_t qpn, const struct ibv_srq *keep_srq)
{
	lock_take(&cq->lock);
	uint32_t to = cq->head;
	for (uint32_t from = cq->head; from != cq->tail; from++) {
		if (cq_goes(&cq_slot(cq, from)->wc, qpn, keep_srq))
			continue;
		if (to != from)
			*cq_slot(cq, to) = *cq_slot(cq, from);
		to++;
	}
	cq->tail = to;
	cq_note_taken(cq);
	lock_give(&cq->lock);
}

uint32_t cq_take_wcs(struct cq *cq, uint32_t count, struct ibv_wc *wc)
{
	if (cq_is_empty(cq))
		return 0;
	lock_take(&cq->lock);
	uint32_t got = cq_held(cq) < count ? cq_held(cq) : count;
	for (uint32_t i = 0; i < got; i++)
		wc[i] = cq_slot(cq, cq->head++)->wc;
	cq_note_taken(cq);
	lock_give(&cq->lock);
	return got;
}

bool cq_take(struct cq *cq, struct cqe *out)
{
	if (cq_is_empty(cq))
		return false;
	lock_take(&cq->lock);
	bool some = cq_held(cq) > 0;
	if (some)
		*out = *cq_slot(cq, cq->head++);
	cq_note_taken(cq);
	lock_give(&cq->lock);
	return some;
}

/* ---- creation and destruction ---- */

static bool right_channel(const struct ibv_comp_channel *channel, const struct ibv_context *context)
{
	return !channel || channel->context == context;
}

struct cq *cq_new(struct ibv_context *ibv_context, uint32_t cqe, void *cq_context, struct ibv_comp_channel *channel,
		  uint32_t vector)
{
	struct context *context = context_of(ibv_context);
	if (cqe == 0 || cqe > MAX_CQE || vector >= (uint32_t)ibv_context->num_comp_vectors ||
	    !right_channel(channel, ibv_context)) {
		errno = EINVAL;
		return NULL;
	}
	struct cq *cq = calloc(1, sizeof *cq);
	if (!cq)
		return NULL;
	cq->size = ring_size(cqe);
	cq->ring = calloc(cq->size, sizeof *cq->ring);
	if (!cq->ring) {
		free(cq);
		errno = ENOMEM;
		return NULL;
	}
	cq->device = context->device;
	cq->context = context;
	cq->events.cq = &cq->ibv;
	cq->ibv.context = ibv_context;
	cq->ibv.channel = channel;
	cq->ibv.cq_context = cq_context;
	cq->ibv.cqe = (int)cq->size;
	pthread_mutex_init(&cq->ibv.mutex, NULL);
	pthread_cond_init(&cq->ibv.cond, NULL);
	if (channel) {
		pthread_mutex_lock(&ibv_context->mutex);
		channel->refcnt++;
		pthread_mutex_unlock(&ibv_context->mutex);
	}
	context_count(context, &cq->device->counters->objects.cq, 1);
	return cq;
}

struct ibv_cq *cq_create(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			 int vector)
{
	/* A negative number becomes one that is too large. */
	struct cq *cq = cq_new(context, (uint32_t)cqe, cq_context, channel, (uint32_t)vector);
	return cq ? &cq->ibv : NULL;
}

int cq_destroy(struct ibv_cq *ibv_cq)
{
	struct cq *cq = cq_of(ibv_cq);
	struct context *context = cq->context;

	if (atomic_load(&cq->uses) != 0)
		return EBUSY;
	/* ibv_get_cq_event(3), ibv_get_async_event(3): all events that were taken must be acknowledged first. */
	event_wait_acknowledged(&ibv_cq->mutex, &ibv_cq->cond, &ibv_cq->comp_events_completed, channel_forget(&cq->events));
	event_wait_acknowledged(&ibv_cq->mutex, &ibv_cq->cond, &ibv_cq->async_events_completed, event_forget(context, ibv_cq));

	if (ibv_cq->channel) {
		pthread_mutex_lock(&ibv_cq->context->mutex);
		ibv_cq->channel->refcnt--;
		pthread_mutex_unlock(&ibv_cq->context->mutex);
	}
	pthread_cond_destroy(&ibv_cq->cond);
	pthread_mutex_destroy(&ibv_cq->mutex);
	wipe_free(cq->ring, cq->touched * sizeof *cq->ring);
	context_count(context, &cq->device->counters->objects.cq, -1);
	wipe_free(cq, sizeof *cq);
	return 0;
}

int cq_resize(struct ibv_cq *ibv_cq, int cqe)
{
	struct cq *cq = cq_of(ibv_cq);
	if (cqe < 1 || cqe > MAX_CQE)
		return EINVAL;
	uint32_t size = ring_size((uint32_t)cqe);
	struct cqe *ring = calloc(size, sizeof *ring);
	if (!ring)
		return ENOMEM;

	uint32_t touched = 0;
	lock_take(&cq->lock);
	uint32_t count = cq_held(cq);
	bool fits = count <= (uint32_t)cqe;
	if (fits) {
		for (uint32_t i = 0; i < count; i++)
			ring[i] = *cq_slot(cq, cq->head + i);
		struct cqe *before = cq->ring;
		touched = cq->touched;
		cq->ring = ring;
		cq->size = size;
		cq->head = 0;
		cq->tail = count;
		cq->touched = count;
		ibv_cq->cqe = (int)size;
		ring = before;
	}
	lock_give(&cq->lock);
	wipe_free(ring, touched * sizeof *ring);
	return fits ? 0 : EINVAL;
}
