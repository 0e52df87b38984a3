/* SPDX-License-Identifier: Apache-2.0 */
/* The builder of ibv_qp_ex: ibv_wr_start takes build_lock, ibv_wr_complete releases it.
 *
 * The requests are built in free slots of the ring beyond sq.tail, which nothing else touches. After an error the calls do
 * nothing, and wr_complete returns it. */
#include <errno.h>
#include <string.h>

#include "engine.h"
#include "post.h"
#include "verbs.h"

#define NOT_ADDRESSED UINT32_MAX /* a QPN that no address has: wr_set_ud_addr is still to come */

static struct qp *qp_of_ex(struct ibv_qp_ex *ex)
{
	return (struct qp *)ex;
}

static void wr_fail(struct qp *qp, int error)
{
	if (qp->build_error == 0)
		qp->build_error = error;
}

/* The request being built; NULL when there is none, or after an error. */
static struct send_wqe *wr_current(struct qp *qp)
{
	if (qp->build_error != 0)
		return NULL;
	if (qp->build_tail == qp->sq.tail) {
		wr_fail(qp, EINVAL);
		return NULL;
	}
	return send_queue_at(&qp->sq, qp->build_tail - 1);
}

/* Whether the last request got all that it needs. */
static void wr_finish(struct qp *qp)
{
	if (qp->build_error != 0 || qp->build_tail == qp->sq.tail)
		return;
	const struct send_wqe *wqe = send_queue_at(&qp->sq, qp->build_tail - 1);
	if (qp->type == IBV_QPT_UD && wqe->remote_qpn == NOT_ADDRESSED)
		wr_fail(qp, EINVAL);
	if ((post_traits(qp, wqe->opcode) & (POST_ATOMIC | POST_WORD)) && wqe->length != sizeof(uint64_t))
		wr_fail(qp, EINVAL);
}

/* The slots of completed requests are free once the device's lock has been released: the link has read them then. */
static bool wr_has_room(struct qp *qp)
{
	if (qp->build_tail != qp->build_limit)
		return true;
	device_lock_briefly(qp->device);
	qp->build_limit = qp->sq.head + qp->cap.max_send_wr;
	device_unlock(qp->device);
	return qp->build_tail != qp->build_limit;
}

static struct send_wqe *wr_begin(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint64_t op)
{
	struct qp *qp = qp_of_ex(ex);
	wr_finish(qp);
	if (qp->build_error != 0)
		return NULL;
	/* Inline data comes by its own setters here. */
	if (!(qp->allowed_ops & op) || (ex->wr_flags & ~(unsigned)POST_FLAGS)) {
		wr_fail(qp, EINVAL);
		return NULL;
	}
	if (!wr_has_room(qp)) {
		wr_fail(qp, ENOMEM);
		return NULL;
	}
	struct send_wqe *wqe = send_queue_at(&qp->sq, qp->build_tail++);
	post_begin(qp, wqe, ex->wr_id, ex->wr_flags, opcode);
	wqe->remote_qpn = NOT_ADDRESSED;
	return wqe;
}

/* ---- operations ---- */

static void set_remote(struct send_wqe *wqe, uint32_t rkey, uint64_t remote)
{
	wqe->rkey = rkey;
	wqe->remote = remote;
}

static void wr_send(struct ibv_qp_ex *ex)
{
	wr_begin(ex, IBV_WR_SEND, IBV_QP_EX_WITH_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_SEND_WITH_IMM, IBV_QP_EX_WITH_SEND_WITH_IMM);
	if (wqe)
		wqe->imm = imm;
}

static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_SEND_WITH_INV, IBV_QP_EX_WITH_SEND_WITH_INV);
	if (wqe)
		wqe->invalidate = rkey;
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE);
	if (wqe)
		set_remote(wqe, rkey, remote);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, __be32 imm)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM);
	if (!wqe)
		return;
	set_remote(wqe, rkey, remote);
	wqe->imm = imm;
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_RDMA_READ, IBV_QP_EX_WITH_RDMA_READ);
	if (wqe)
		set_remote(wqe, rkey, remote);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, uint64_t compare, uint64_t swap)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP);
	if (!wqe)
		return;
	set_remote(wqe, rkey, remote);
	wqe->compare_add = compare;
	wqe->swap = swap;
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, uint64_t add)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD);
	if (!wqe)
		return;
	set_remote(wqe, rkey, remote);
	wqe->compare_add = add;
	wqe->swap = 0;
}

static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_LOCAL_INV, IBV_QP_EX_WITH_LOCAL_INV);
	if (wqe)
		wqe->invalidate = rkey;
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	struct qp *qp = qp_of_ex(ex);
	struct send_wqe *wqe = wr_begin(ex, IBV_WR_BIND_MW, IBV_QP_EX_WITH_BIND_MW);
	if (!wqe)
		return;
	int error = !mw || mw->type != IBV_MW_TYPE_2 ? EINVAL : post_set_bind(qp, wqe, mw, rkey, info);
	if (error != 0)
		wr_fail(qp, error);
}

/* The eight bytes are copied: the slot has room for them. */
static void wr_atomic_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, const void *value)
{
	struct send_wqe *wqe = wr_begin(ex, (enum ibv_wr_opcode)WR_ATOMIC_WRITE, OPS_ATOMIC_WRITE);
	if (!wqe)
		return;
	set_remote(wqe, rkey, remote);
	memcpy(send_wqe_inline(wqe), value, sizeof(uint64_t));
	wqe->length = sizeof(uint64_t);
	wqe->inlined = true;
}

static void wr_flush(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, size_t length, uint8_t type, uint8_t level)
{
	struct send_wqe *wqe = wr_begin(ex, (enum ibv_wr_opcode)WR_FLUSH, OPS_FLUSH);
	if (!wqe)
		return;
	if (level == FLUSH_REGION)
		length = 0;
	if (length > UINT32_MAX || level > FLUSH_REGION || type == 0 || (type & ~(FLUSH_GLOBAL | FLUSH_PERSISTENT)) ||
	    (ex->wr_flags & IBV_SEND_INLINE)) {
		wr_fail(qp_of_ex(ex), EINVAL);
		return;
	}
	set_remote(wqe, rkey, remote);
	wqe->flush_length = (uint32_t)length;
	wqe->flush_type = type;
	wqe->flush_level = level;
}

/* ---- setters ---- */

static void wr_set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t remote_qpn, uint32_t remote_qkey)
{
	struct qp *qp = qp_of_ex(ex);
	struct send_wqe *wqe = wr_current(qp);
	if (!wqe)
		return;
	if (qp->type != IBV_QPT_UD || !ah || ah->pd != &qp->pd->ibv) {
		wr_fail(qp, EINVAL);
		return;
	}
	wqe->av = ((const struct ah *)ah)->av;
	wqe->remote_qpn = remote_qpn & WIRE_PSN_MASK;
	wqe->remote_qkey = remote_qkey;
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *list)
{
	struct qp *qp = qp_of_ex(ex);
	struct send_wqe *wqe = wr_current(qp);
	if (!wqe)
		return;
	unsigned traits = post_traits(qp, wqe->opcode);
	int error = traits & POST_DATA ? post_set_sges(qp, wqe, traits, list, count) : EINVAL;
	if (error != 0)
		wr_fail(qp, error);
	else
		wqe->inlined = false;
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };
	wr_set_sge_list(ex, 1, &sge);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_data_buf *list)
{
	struct qp *qp = qp_of_ex(ex);
	struct send_wqe *wqe = wr_current(qp);
	if (!wqe)
		return;
	if (!(post_traits(qp, wqe->opcode) & POST_INLINE)) {
		wr_fail(qp, EINVAL);
		return;
	}
	size_t length = 0;
	for (size_t i = 0; i < count; i++) {
		if (list[i].length > qp->cap.max_inline_data - length) {
			wr_fail(qp, EINVAL);
			return;
		}
		if (list[i].length > 0)
			memcpy(send_wqe_inline(wqe) + length, list[i].addr, list[i].length);
		length += list[i].length;
	}
	if (length > post_max_length(qp)) {
		wr_fail(qp, EINVAL);
		return;
	}
	wqe->length = (uint32_t)length;
	wqe->sges = 0;
	wqe->inlined = true;
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
	struct ibv_data_buf buf = { .addr = addr, .length = length };
	wr_set_inline_data_list(ex, 1, &buf);
}

/* ---- the critical section ---- */

static void wr_start(struct ibv_qp_ex *ex)
{
	struct qp *qp = qp_of_ex(ex);
	lock_take(&qp->build_lock);
	qp->build_tail = qp->sq.tail;
	qp->build_error = 0;
	/* A limit passed meanwhile, by posts of the other kind, says nothing any more: has_room must look again. */
	if ((int32_t)(qp->build_limit - qp->build_tail) < 0)
		qp->build_limit = qp->build_tail;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct qp *qp = qp_of_ex(ex);
	wr_finish(qp);
	int error = qp->build_error;
	if (error == 0) {
		device_lock_briefly(qp->device);
		error = post_finish(qp, qp->build_tail);
	}
	lock_give(&qp->build_lock);
	if (error != 0)
		errno = error;
	return error;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	struct qp *qp = qp_of_ex(ex);
	qp->build_tail = qp->sq.tail;
	lock_give(&qp->build_lock);
}

void wr_init(struct qp *qp)
{
	struct ibv_qp_ex *ex = &qp->ibv;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	ex->wr_send_inv = wr_send_inv;
	ex->wr_rdma_write = wr_rdma_write;
	ex->wr_rdma_write_imm = wr_rdma_write_imm;
	ex->wr_rdma_read = wr_rdma_read;
	ex->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	ex->wr_atomic_fetch_add = wr_atomic_fetch_add;
	/* Programs (librpma) find out by these two whether the queue pair was made for them. */
	ex->wr_atomic_write = qp->allowed_ops & OPS_ATOMIC_WRITE ? wr_atomic_write : NULL;
#ifdef HAVE_IBV_WR_FLUSH
	ex->wr_flush = qp->allowed_ops & OPS_FLUSH ? wr_flush : NULL;
#else
	qp->wr_flush = qp->allowed_ops & OPS_FLUSH ? wr_flush : NULL;
#endif
	ex->wr_local_inv = wr_local_inv;
	ex->wr_bind_mw = wr_bind_mw;
	ex->wr_set_ud_addr = wr_set_ud_addr;
	ex->wr_set_sge = wr_set_sge;
	ex->wr_set_sge_list = wr_set_sge_list;
	ex->wr_set_inline_data = wr_set_inline_data;
	ex->wr_set_inline_data_list = wr_set_inline_data_list;
	ex->wr_start = wr_start;
	ex->wr_complete = wr_complete;
	ex->wr_abort = wr_abort;
}
