/* SPDX-License-Identifier: Apache-2.0 */
/* Shared receive queues. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "recv_queue.h"
#include "ring.h"
#include "wipe.h"

static struct srq *srq_of(struct ibv_srq *srq)
{
	return (struct srq *)srq;
}

static struct srq *srq_make(struct pd *pd, void *srq_context, struct ibv_srq_attr *attr)
{
	if (attr->max_wr == 0 || attr->max_wr > MAX_SRQ_WR || attr->max_sge > MAX_SGE) {
		errno = EINVAL;
		return NULL;
	}
	struct srq *srq = calloc(1, sizeof *srq);
	if (!srq || recv_queue_init(&srq->rq, pd, attr->max_wr, attr->max_sge) != 0) {
		free(srq);
		errno = ENOMEM;
		return NULL;
	}
	srq->rq.srq = srq;
	srq->context = context_of(pd->ibv.context);
	srq->ibv.context = pd->ibv.context;
	srq->ibv.srq_context = srq_context;
	srq->ibv.pd = &pd->ibv;
	pthread_mutex_init(&srq->ibv.mutex, NULL);
	pthread_cond_init(&srq->ibv.cond, NULL);
	atomic_fetch_add(&pd->uses, 1);
	context_count(srq->context, &pd->device->counters->objects.srq, 1);
	attr->max_wr = srq->rq.max_wr;
	attr->max_sge = srq->rq.max_sge;
	return srq;
}

struct ibv_srq *srq_create(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct srq *srq = srq_make(pd_of(pd), attr->srq_context, &attr->attr);
	return srq ? &srq->ibv : NULL;
}

struct ibv_srq *srq_create_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr)
{
	const uint32_t known = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
	bool basic = !(attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) || attr->srq_type == IBV_SRQT_BASIC;

	if ((attr->comp_mask & ~known) != 0 || !basic) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!(attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) || !attr->pd || attr->pd->context != context) {
		errno = EINVAL;
		return NULL;
	}
	struct srq *srq = srq_make(pd_of(attr->pd), attr->srq_context, &attr->attr);
	return srq ? &srq->ibv : NULL;
}

int srq_modify(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr, int mask)
{
	struct recv_queue *rq = &srq_of(ibsrq)->rq;
	bool resizes = mask & IBV_SRQ_MAX_WR, limits = mask & IBV_SRQ_LIMIT;

	if (mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
		return EINVAL;
	if (resizes && (attr->max_wr == 0 || attr->max_wr > MAX_SRQ_WR))
		return EINVAL;

	lock_take(&rq->lock);
	uint32_t room = resizes ? ring_size(attr->max_wr) : rq->max_wr;
	uint32_t limit = limits ? attr->srq_limit : rq->limit;
	lock_give(&rq->lock);
	if (limit > room)
		return EINVAL;

	if (resizes) {
		int error = recv_queue_resize(rq, attr->max_wr);
		if (error != 0)
			return -error;
	}
	if (limits) {
		lock_take(&rq->lock);
		rq->limit = limit;
		lock_give(&rq->lock);
	}
	return 0;
}

int srq_query(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr)
{
	struct recv_queue *rq = &srq_of(ibsrq)->rq;
	lock_take(&rq->lock);
	*attr = (struct ibv_srq_attr){ .max_wr = rq->max_wr, .max_sge = rq->max_sge, .srq_limit = rq->limit };
	lock_give(&rq->lock);
	return 0;
}

int srq_destroy(struct ibv_srq *ibsrq)
{
	struct srq *srq = srq_of(ibsrq);
	if (atomic_load(&srq->uses) != 0)
		return EBUSY;

	event_wait_acknowledged(&ibsrq->mutex, &ibsrq->cond, &ibsrq->events_completed, event_forget(srq->context, ibsrq));

	atomic_fetch_sub(&pd_of(ibsrq->pd)->uses, 1);
	context_count(srq->context, &srq->context->device->counters->objects.srq, -1);
	recv_queue_clear(&srq->rq);
	pthread_mutex_destroy(&ibsrq->mutex);
	pthread_cond_destroy(&ibsrq->cond);
	wipe_free(srq, sizeof *srq);
	return 0;
}

int srq_post_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return recv_queue_post(&srq_of(srq)->rq, wr, bad);
}
