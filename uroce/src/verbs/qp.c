/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs: creation, numbers, queries, destruction. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "active.h"
#include "engine.h"
#include "event.h"
#include "multicast.h"
#include "qp_state.h"
#include "random.h"
#include "shm.h"
#include "udp.h"
#include "verbs.h"
#include "wipe.h"

enum {
	CACHE_LINE = 64,
	BLOCK_SIZE = 1 << UDP_BLOCK_BITS,
	TRIES = 4096, /* blocks are never fuller than 15/16: that many misses do not happen */
};

#define SEND_OPS_UD (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM)
#define SEND_OPS_UC \
	(SEND_OPS_UD | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_LOCAL_INV | \
	 IBV_QP_EX_WITH_BIND_MW)
#define SEND_OPS_RC \
	(SEND_OPS_UC | IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | \
	 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | OPS_FLUSH | OPS_ATOMIC_WRITE)

/* ---- checks ---- */

static int check_type(const struct ibv_qp_init_attr_ex *attr)
{
	switch (attr->qp_type) {
	case IBV_QPT_RC:
	case IBV_QPT_UD:
		return 0;
	case IBV_QPT_UC:
		return attr->srq ? EINVAL : 0; /* ibv_create_qp(3): only RC and UD have a shared queue */
	case IBV_QPT_RAW_PACKET:
	case IBV_QPT_XRC_SEND:
	case IBV_QPT_XRC_RECV:
	case IBV_QPT_DRIVER:
		return EOPNOTSUPP;
	default:
		return EINVAL;
	}
}

static int check_queues(const struct pd *pd, const struct ibv_qp_init_attr_ex *attr)
{
	const struct ibv_context *context = pd->ibv.context;
	const struct ibv_qp_cap *cap = &attr->cap;

	if (!attr->send_cq || !attr->recv_cq || attr->send_cq->context != context ||
	    attr->recv_cq->context != context || (attr->srq && attr->srq->context != context))
		return EINVAL;
	if (cap->max_send_wr > MAX_QP_WR || cap->max_send_sge > MAX_SGE || cap->max_inline_data > MAX_INLINE)
		return EINVAL;
	/* With a shared queue these two mean nothing. */
	if (!attr->srq && (cap->max_recv_wr > MAX_QP_WR || cap->max_recv_sge > MAX_SGE))
		return EINVAL;
	return 0;
}

static uint64_t supported_ops(enum ibv_qp_type type)
{
	return type == IBV_QPT_RC ? SEND_OPS_RC : type == IBV_QPT_UC ? SEND_OPS_UC : SEND_OPS_UD;
}

/* ---- numbers ---- */

static int claim_block(struct device *device)
{
	uint32_t first;
	uint32_t *blocks = realloc(device->blocks, (device->block_count + 1) * sizeof *blocks);
	if (!blocks)
		return -ENOMEM;
	device->blocks = blocks;
	int error = udp_claim_block(device->udp, &first);
	if (error != 0)
		return error;
	device->blocks[device->block_count++] = first;
	if (device->shm)
		shm_listen(device->shm, first);
	return 0;
}

/* Blocks are kept no fuller than three quarters, so that a freed number seldom comes back soon, and nobody can tell the
 * next one. When there are no more to be had, they are filled further. */
static int provide_blocks(struct device *device)
{
	size_t room = device->block_count * BLOCK_SIZE;
	if (device->qps.count < room / 4 * 3)
		return 0;
	int error = claim_block(device);
	return error != 0 && device->qps.count < room / 16 * 15 ? 0 : error;
}

static int draw_number(struct device *device, uint32_t *out)
{
	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t number, block;
		int error = random_u32(&number);
		if (error != 0)
			return error;
		if (device->udp) {
			error = random_u32(&block);
			if (error != 0)
				return error;
			number = device->blocks[block % device->block_count] | (number & (BLOCK_SIZE - 1));
		}
		number &= WIRE_PSN_MASK;
		/* 0 and 1 are the management queue pairs, the last is multicast. */
		if (number > 1 && number != 0xffffff && !table_find(&device->qps, number)) {
			*out = number;
			return 0;
		}
	}
	return -ENOMEM;
}

/* Makes the queue pair known to the device. Its lock is held. */
static int enlist(struct qp *qp)
{
	struct device *device = qp->device;
	if (device->qp_count >= MAX_QP)
		return -ENOMEM;
	int error = device->udp ? provide_blocks(device) : 0;
	if (error == 0)
		error = draw_number(device, &qp->qpn);
	if (error == 0)
		error = timers_reserve(&device->timers, (device->qp_count + 1) * QP_TIMERS + DEVICE_TIMERS);
	if (error == 0)
		error = table_add(&device->qps, qp->qpn, qp);
	if (error != 0)
		return error;
	device->qp_count++;
	if (qp->type == IBV_QPT_UD && device->udp)
		udp_report_path(device->udp);
	return 0;
}

/* ---- creation ---- */

static int make_send_queue(struct qp *qp, const struct ibv_qp_cap *cap)
{
	struct send_queue *sq = &qp->sq;
	size_t room = cap->max_send_sge * sizeof(struct ibv_sge);
	if (room < cap->max_inline_data)
		room = cap->max_inline_data;
	if (room < sizeof(uint64_t))
		room = sizeof(uint64_t); /* of ibv_wr_atomic_write */
	sq->size = ring_size(cap->max_send_wr);
	sq->stride = (sizeof(struct send_wqe) + room + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	sq->ring = aligned_alloc(CACHE_LINE, sq->size * sq->stride);
	if (!sq->ring)
		return -ENOMEM;

	/* The room is there in any case: the consumer may use it. */
	room = sq->stride - sizeof(struct send_wqe);
	qp->cap.max_send_wr = cap->max_send_wr == 0 ? 0 : sq->size;
	qp->cap.max_send_sge = cap->max_send_sge;
	qp->cap.max_inline_data = room < MAX_INLINE ? (uint32_t)room : MAX_INLINE;
	return 0;
}

static int make_receive_queue(struct qp *qp, const struct ibv_qp_cap *cap)
{
	if (qp->type != IBV_QPT_UD) {
		qp->resp.receive = calloc(1, sizeof *qp->resp.receive);
		if (!qp->resp.receive)
			return -ENOMEM;
	}
	if (qp->srq)
		return 0;
	int error = recv_queue_init(&qp->rq, qp->pd, cap->max_recv_wr, cap->max_recv_sge);
	if (error != 0)
		return error;
	qp->rq.closed = true;
	qp->cap.max_recv_wr = qp->rq.max_wr;
	qp->cap.max_recv_sge = qp->rq.max_sge;
	return 0;
}

static void qp_release(struct qp *qp)
{
	wipe_free(qp->resp.receive, sizeof *qp->resp.receive);
	recv_queue_clear(&qp->rq);
	wipe_free(qp->sq.ring, qp->sq.size * qp->sq.stride);
	wipe_free(qp, sizeof *qp);
}

static void fill_public(struct qp *qp, const struct ibv_qp_init_attr_ex *attr)
{
	struct ibv_qp *ibv = &qp->ibv.qp_base;
	ibv->context = qp->pd->ibv.context;
	ibv->qp_context = attr->qp_context;
	ibv->pd = &qp->pd->ibv;
	ibv->send_cq = attr->send_cq;
	ibv->recv_cq = attr->recv_cq;
	ibv->srq = attr->srq;
	ibv->qp_num = qp->qpn;
	ibv->handle = qp->qpn;
	ibv->state = IBV_QPS_RESET;
	ibv->qp_type = attr->qp_type;
	pthread_mutex_init(&ibv->mutex, NULL);
	pthread_cond_init(&ibv->cond, NULL);
}

static void count_uses(struct qp *qp, int by)
{
	atomic_fetch_add(&qp->pd->uses, (unsigned)by);
	atomic_fetch_add(&qp->send_cq->uses, (unsigned)by);
	atomic_fetch_add(&qp->recv_cq->uses, (unsigned)by);
	if (qp->srq)
		atomic_fetch_add(&qp->srq->uses, (unsigned)by);
	context_count(qp->context, &qp->device->counters->objects.qp, by);
}

static int qp_make(struct pd *pd, struct ibv_qp_init_attr_ex *attr, uint64_t ops, struct qp **out)
{
	int error = check_type(attr);
	if (error == 0)
		error = check_queues(pd, attr);
	if (error != 0)
		return -error;
	if (ops & ~supported_ops(attr->qp_type))
		return -EOPNOTSUPP;

	struct qp *qp = calloc(1, sizeof *qp);
	if (!qp)
		return -ENOMEM;
	qp->pd = pd;
	qp->device = pd->device;
	qp->context = context_of(pd->ibv.context);
	qp->send_cq = cq_of(attr->send_cq);
	qp->recv_cq = cq_of(attr->recv_cq);
	qp->srq = (struct srq *)attr->srq;
	qp->type = attr->qp_type;
	qp->state = IBV_QPS_RESET;
	qp->sq_sig_all = attr->sq_sig_all != 0;
	qp->allowed_ops = ops;
	qp->mtu = 128u << qp->device->mtu; /* of a datagram; modify_qp sets it for others */
	error = make_send_queue(qp, &attr->cap);
	if (error == 0)
		error = make_receive_queue(qp, &attr->cap);
	qp->rq.cq = qp->recv_cq;
	if (error != 0)
		goto free_queues;

	engine_enter(qp->device);
	error = enlist(qp);
	engine_leave(qp->device);
	if (error != 0)
		goto free_queues;
	qp->rq.qpn = qp->qpn;
	fill_public(qp, attr);
	wr_init(qp);
	count_uses(qp, 1);
	attr->cap = qp->cap;
	*out = qp;
	return 0;

free_queues:
	qp_release(qp);
	return error;
}

static struct ibv_qp *qp_create_any(struct pd *pd, struct ibv_qp_init_attr_ex *attr, uint64_t ops)
{
	struct qp *qp = NULL;
	int error = qp_make(pd, attr, ops, &qp);
	if (error != 0) {
		errno = -error;
		return NULL;
	}
	return &qp->ibv.qp_base;
}

struct ibv_qp *qp_create(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp_init_attr_ex ex = {
		.qp_context = attr->qp_context,
		.send_cq = attr->send_cq,
		.recv_cq = attr->recv_cq,
		.srq = attr->srq,
		.cap = attr->cap,
		.qp_type = attr->qp_type,
		.sq_sig_all = attr->sq_sig_all,
	};
	struct ibv_qp *qp = qp_create_any(pd_of(pd), &ex, 0);
	if (qp)
		attr->cap = ex.cap;
	return qp;
}

struct ibv_qp *qp_create_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
	uint64_t ops = attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS ? attr->send_ops_flags : 0;

	uint32_t flags = attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS ? attr->create_flags : 0;

	if ((attr->comp_mask & ~known) != 0 || (flags & ~(uint32_t)IBV_QP_CREATE_BLOCK_SELF_MCAST_LB) != 0 ||
	    (flags != 0 && attr->qp_type != IBV_QPT_UD)) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->pd || attr->pd->context != context) {
		errno = EINVAL;
		return NULL;
	}
	struct ibv_qp *qp = qp_create_any(pd_of(attr->pd), attr, ops);
	if (qp)
		qp_of(qp)->blocks_own_multicast = flags != 0;
	return qp;
}

/* ---- destruction ---- */

/* A type 2 window ends with the queue pair that it was bound through: IBTA vol 1, 10.6.7.2.5. Lock held. */
static void invalidate_windows(struct qp *qp)
{
	const struct table *keys = &qp->device->keys;
	for (size_t i = 0; i < keys->size; i++) {
		/* Numbers above those of keys are regions. */
		if (!keys->slot[i].thing || keys->slot[i].number >> 24 != 0)
			continue;
		/* Not `thing` itself: it may stand for one that was removed. */
		const struct key *key = table_find(keys, keys->slot[i].number);
		if (!key || key->kind != KEY_WINDOW)
			continue;
		const struct mw *mw = key->owner;
		if (mw->ibv.type == IBV_MW_TYPE_2 && mw->mr && mw->qpn == qp->qpn)
			window_invalidate(qp->pd, qp->qpn, mw->key.value, false);
	}
}

int qp_destroy(struct ibv_qp *ibqp)
{
	struct qp *qp = qp_of(ibqp);
	struct device *device = qp->device;

	engine_enter(device);
	if (qp->groups > 0) {
		engine_leave(device);
		return EBUSY;
	}
	qp_reset(qp);
	active_remove(qp);
	if (qp->binds_windows)
		invalidate_windows(qp);
	table_remove(&device->qps, qp->qpn);
	device->qp_count--;
	engine_leave(device);

	event_wait_acknowledged(&ibqp->mutex, &ibqp->cond, &ibqp->events_completed, event_forget(qp->context, ibqp));

	count_uses(qp, -1);
	pthread_mutex_destroy(&ibqp->mutex);
	pthread_cond_destroy(&ibqp->cond);
	qp_release(qp);
	return 0;
}

/* ---- multicast ---- */

int qp_attach_multicast(struct ibv_qp *ibqp, const union ibv_gid *group)
{
	struct qp *qp = qp_of(ibqp);

	engine_enter(qp->device);
	int error = multicast_attach(qp, group);
	engine_leave(qp->device);
	return -error;
}

int qp_detach_multicast(struct ibv_qp *ibqp, const union ibv_gid *group)
{
	struct qp *qp = qp_of(ibqp);

	engine_enter(qp->device);
	int error = multicast_detach(qp, group);
	engine_leave(qp->device);
	return -error;
}

/* ---- query ---- */

int qp_query(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct qp *qp = qp_of(ibqp);

	engine_enter(qp->device);
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = qp->state;
	attr->sq_draining = qp->draining && qp_drains(qp);
	attr->cap = qp->cap;
	attr->path_mig_state = IBV_MIG_MIGRATED;
	if (qp->state >= IBV_QPS_RTR && qp->type != IBV_QPT_UD)
		attr->rq_psn = qp->resp.expected;
	if (qp->state >= IBV_QPS_RTS)
		attr->sq_psn = qp->req.next;
	engine_leave(qp->device);

	*init = (struct ibv_qp_init_attr){
		.qp_context = ibqp->qp_context,
		.send_cq = ibqp->send_cq,
		.recv_cq = ibqp->recv_cq,
		.srq = ibqp->srq,
		.cap = qp->cap,
		.qp_type = qp->type,
		.sq_sig_all = qp->sq_sig_all,
	};
	if (mask & IBV_QP_STATE)
		ibqp->state = attr->qp_state;
	return 0;
}
