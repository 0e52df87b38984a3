/* SPDX-License-Identifier: Apache-2.0 */
/* Posting with work request structs, and ibv_bind_mw. The structs are checked and copied under the device's lock. That is
 * released only when the link has read all packets that it was given, so that a slot, or inline data in it, can be
 * written again as soon as its request has completed. */
#include "post.h"

#include <errno.h>
#include <string.h>

#include "engine.h"
#include "express.h"
#include "qp_state.h"
#include "random.h"
#include "requester.h"
#include "verbs.h"

static int set_inline(const struct qp *qp, struct send_wqe *wqe, const struct ibv_sge *list, size_t count)
{
	uint8_t *to = send_wqe_inline(wqe);
	uint32_t length = 0;
	for (size_t i = 0; i < count; i++) {
		if (list[i].length > qp->cap.max_inline_data - length)
			return EINVAL;
		if (list[i].length > 0)
			memcpy(to + length, (const void *)(uintptr_t)list[i].addr, list[i].length);
		length += list[i].length;
	}
	wqe->length = length;
	wqe->inlined = true;
	return 0;
}

int post_set_sges(const struct qp *qp, struct send_wqe *wqe, unsigned traits, const struct ibv_sge *list, size_t count)
{
	uint64_t length = 0;
	if (count > qp->cap.max_send_sge)
		return EINVAL;
	for (size_t i = 0; i < count; i++) {
		wqe->sge[i] = list[i];
		length += list[i].length;
	}
	if (traits & POST_ATOMIC) {
		if (length < sizeof(uint64_t))
			return EINVAL;
		length = sizeof(uint64_t);
	}
	if (length > post_max_length(qp) || ((traits & POST_WORD) && length != sizeof(uint64_t)))
		return EINVAL;
	wqe->length = (uint32_t)length;
	wqe->sges = (uint32_t)count;
	return 0;
}

int post_set_bind(struct qp *qp, struct send_wqe *wqe, struct ibv_mw *mw, uint32_t rkey,
		  const struct ibv_mw_bind_info *info)
{
	if (!mw || (!info->mr && info->length != 0))
		return EINVAL;
	if (mw->pd != &qp->pd->ibv || (info->mr && info->mr->pd != mw->pd))
		return EPERM;
	wqe->mw = (struct mw *)mw;
	/* The application chooses the low 8 bits alone, and a device looks at no others. */
	wqe->rkey = wqe->mw->index << 8 | (rkey & 0xff);
	wqe->bind = *info;
	qp->binds_windows = true;
	return 0;
}

static int fill(struct qp *qp, struct send_wqe *wqe, const struct ibv_send_wr *wr)
{
	unsigned traits = post_traits(qp, wr->opcode);
	if (traits == 0 || wr->opcode == (enum ibv_wr_opcode)WR_FLUSH || (wr->send_flags & ~(unsigned)POST_FLAGS) || wr->num_sge < 0)
		return EINVAL;
	post_begin(qp, wqe, wr->wr_id, wr->send_flags, wr->opcode);
	wqe->imm = wr->imm_data; /* or the key to invalidate: the same place in both */

	if (qp->type == IBV_QPT_UD) {
		if (!wr->wr.ud.ah || wr->wr.ud.ah->pd != &qp->pd->ibv)
			return EINVAL;
		wqe->av = ((const struct ah *)wr->wr.ud.ah)->av;
		wqe->remote_qpn = wr->wr.ud.remote_qpn & WIRE_PSN_MASK;
		wqe->remote_qkey = wr->wr.ud.remote_qkey;
	} else if (traits & POST_REMOTE) {
		wqe->remote = wr->wr.rdma.remote_addr;
		wqe->rkey = wr->wr.rdma.rkey;
	} else if (traits & POST_ATOMIC) {
		wqe->remote = wr->wr.atomic.remote_addr;
		wqe->rkey = wr->wr.atomic.rkey;
		wqe->compare_add = wr->wr.atomic.compare_add;
		wqe->swap = wr->wr.atomic.swap;
	} else if (wr->opcode == IBV_WR_BIND_MW) {
		if (!wr->bind_mw.mw || wr->bind_mw.mw->type != IBV_MW_TYPE_2)
			return EINVAL;
		return post_set_bind(qp, wqe, wr->bind_mw.mw, wr->bind_mw.rkey, &wr->bind_mw.bind_info);
	}

	if (!(traits & POST_DATA))
		return 0;
	if (!(wr->send_flags & IBV_SEND_INLINE))
		return post_set_sges(qp, wqe, traits, wr->sg_list, (size_t)wr->num_sge);
	if (!(traits & POST_INLINE) || (unsigned)wr->num_sge > qp->cap.max_send_sge)
		return EINVAL;
	int error = set_inline(qp, wqe, wr->sg_list, (size_t)wr->num_sge);
	/* A datagram may be shorter than the room for inline data. */
	if (error == 0 && (wqe->length > post_max_length(qp) || ((traits & POST_WORD) && wqe->length != sizeof(uint64_t))))
		error = EINVAL;
	return error;
}

static bool takes_sends(enum ibv_qp_state state)
{
	return state == IBV_QPS_RTS || state == IBV_QPS_SQD || state == IBV_QPS_SQE || state == IBV_QPS_ERR;
}

int post_publish(struct qp *qp, uint32_t tail)
{
	if (!takes_sends(qp->state))
		return EINVAL;
	if (tail == qp->sq.tail)
		return 0;
	qp->sq.tail = tail;
	if (qp->state == IBV_QPS_ERR || qp->state == IBV_QPS_SQE)
		qp_flush_sends(qp);
	else
		requester_post(qp);
	return 0;
}

int post_finish(struct qp *qp, uint32_t tail)
{
	struct device *device = qp->device;
	int error = 0;
	if (express_is_open(qp)) {
		qp->sq.tail = tail;
		if (express_send(qp)) {
			device_unlock(device);
			return 0;
		}
		engine_stay(device);
		requester_post(qp);
	} else {
		engine_stay(device);
		error = post_publish(qp, tail);
	}
	engine_leave(device);
	return error;
}

int qp_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct qp *qp = qp_of(ibqp);
	struct send_queue *sq = &qp->sq;
	int error = 0;

	lock_take(&qp->build_lock);
	device_lock_briefly(qp->device);
	uint32_t tail = sq->tail, limit = sq->head + qp->cap.max_send_wr;
	if (!takes_sends(qp->state))
		error = EINVAL;
	while (error == 0 && wr) {
		error = tail == limit ? ENOMEM : fill(qp, send_queue_at(sq, tail), wr);
		if (error != 0)
			break;
		tail++;
		wr = wr->next;
	}
	post_finish(qp, tail); /* those before the bad one stand */
	lock_give(&qp->build_lock);
	if (error != 0) {
		errno = error;
		if (bad)
			*bad = wr;
	}
	return error;
}

int qp_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct qp *qp = qp_of(ibqp);
	if (qp->srq) {
		if (bad)
			*bad = wr;
		errno = EINVAL;
		return EINVAL;
	}
	return recv_queue_post(&qp->rq, wr, bad);
}

/* The next key of a window: the part that finds it stays, the part that the consumer owns becomes another one. */
static int next_rkey(uint32_t rkey, uint32_t *out)
{
	uint32_t random;
	if (random_u32(&random) != 0)
		return EIO;
	*out = (rkey & ~0xffu) | (random & 0xff);
	if (*out == rkey)
		*out = (rkey & ~0xffu) | ((rkey + 1) & 0xff);
	return 0;
}

int qp_bind_mw(struct ibv_qp *ibqp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct qp *qp = qp_of(ibqp);
	struct send_queue *sq = &qp->sq;
	uint32_t rkey;

	if (!mw || mw->type != IBV_MW_TYPE_1 || post_traits(qp, IBV_WR_BIND_MW) == 0 ||
	    (bind->send_flags & ~(unsigned)(IBV_SEND_FENCE | IBV_SEND_SIGNALED))) {
		errno = EINVAL;
		return EINVAL;
	}
	int error = next_rkey(mw->rkey, &rkey);
	if (error != 0) {
		errno = error;
		return error;
	}

	lock_take(&qp->build_lock);
	engine_enter(qp->device);
	if (!takes_sends(qp->state)) {
		error = EINVAL;
	} else if (sq->tail - sq->head == qp->cap.max_send_wr) {
		error = ENOMEM;
	} else {
		struct send_wqe *wqe = send_queue_at(sq, sq->tail);
		post_begin(qp, wqe, bind->wr_id, bind->send_flags, IBV_WR_BIND_MW);
		error = post_set_bind(qp, wqe, mw, rkey, &bind->bind_info);
	}
	if (error == 0) {
		/* Before the bind is executed: the caller reads it next, and must undo it if the bind fails. */
		mw->rkey = rkey;
		post_publish(qp, sq->tail + 1);
	}
	engine_leave(qp->device);
	lock_give(&qp->build_lock);
	if (error != 0)
		errno = error;
	return error;
}
