/* SPDX-License-Identifier: Apache-2.0 */
/* Exported functions about objects that are made on a context. Inline functions call the context's pointers. */
#include "preload.h"

static void *unsupported(void)
{
	errno = EOPNOTSUPP;
	return NULL;
}

/* ---- protection domains and memory ---- */

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	if (context_is_ours(context))
		return pd_alloc(context);
	PASS(NULL, ibv_alloc_pd, context);
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	if (context_is_ours(pd->context))
		return answer(pd_dealloc(pd));
	PASS(ENOSYS, ibv_dealloc_pd, pd);
}

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	if (context_is_ours(pd->context))
		return mr_reg(pd, addr, length, (uintptr_t)addr, access);
	PASS(NULL, ibv_reg_mr, pd, addr, length, access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	if (context_is_ours(pd->context))
		return mr_reg(pd, addr, length, iova, access);
	PASS(NULL, ibv_reg_mr_iova, pd, addr, length, iova, access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned access)
{
	if (context_is_ours(pd->context))
		return mr_reg(pd, addr, length, iova, (int)access);
	PASS(NULL, ibv_reg_mr_iova2, pd, addr, length, iova, access);
}

EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
					int access)
{
	if (context_is_ours(pd->context))
		return mr_reg_dmabuf(pd, offset, length, iova, fd, access);
	PASS(NULL, ibv_reg_dmabuf_mr, pd, offset, length, iova, fd, access);
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	if (context_is_ours(mr->context))
		return mr_rereg(mr, flags, pd, addr, length, access);
	PASS(IBV_REREG_MR_ERR_INPUT, ibv_rereg_mr, mr, flags, pd, addr, length, access);
}

EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	if (context_is_ours(mr->context))
		return answer(mr_dereg(mr));
	PASS(ENOSYS, ibv_dereg_mr, mr);
}

/* ---- objects of other processes: the kernel's numbers, and ours has none ---- */

EXPORT struct ibv_pd *ibv_import_pd(struct ibv_context *context, uint32_t handle)
{
	if (context_is_ours(context))
		return unsupported();
	PASS(NULL, ibv_import_pd, context, handle);
}

EXPORT void ibv_unimport_pd(struct ibv_pd *pd)
{
	if (!context_is_ours(pd->context))
		PASS_VOID(ibv_unimport_pd, pd);
}

EXPORT struct ibv_mr *ibv_import_mr(struct ibv_pd *pd, uint32_t handle)
{
	if (context_is_ours(pd->context))
		return unsupported();
	PASS(NULL, ibv_import_mr, pd, handle);
}

EXPORT void ibv_unimport_mr(struct ibv_mr *mr)
{
	if (!context_is_ours(mr->context))
		PASS_VOID(ibv_unimport_mr, mr);
}

EXPORT struct ibv_dm *ibv_import_dm(struct ibv_context *context, uint32_t handle)
{
	if (context_is_ours(context))
		return unsupported();
	PASS(NULL, ibv_import_dm, context, handle);
}

EXPORT void ibv_unimport_dm(struct ibv_dm *dm)
{
	if (!context_is_ours(dm->context))
		PASS_VOID(ibv_unimport_dm, dm);
}

/* ---- completions ---- */

EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	if (context_is_ours(context))
		return channel_create(context);
	PASS(NULL, ibv_create_comp_channel, context);
}

EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	if (context_is_ours(channel->context))
		return answer(channel_destroy(channel));
	PASS(ENOSYS, ibv_destroy_comp_channel, channel);
}

EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
				    struct ibv_comp_channel *channel, int comp_vector)
{
	if (context_is_ours(context))
		return cq_create(context, cqe, cq_context, channel, comp_vector);
	PASS(NULL, ibv_create_cq, context, cqe, cq_context, channel, comp_vector);
}

EXPORT int ibv_resize_cq(struct ibv_cq *cq, int cqe)
{
	if (context_is_ours(cq->context))
		return answer(cq_resize(cq, cqe));
	PASS(ENOSYS, ibv_resize_cq, cq, cqe);
}

EXPORT int ibv_destroy_cq(struct ibv_cq *cq)
{
	if (context_is_ours(cq->context))
		return answer(cq_destroy(cq));
	PASS(ENOSYS, ibv_destroy_cq, cq);
}

EXPORT int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	if (context_is_ours(channel->context))
		return cq_get_event(channel, cq, cq_context);
	PASS(-1, ibv_get_cq_event, channel, cq, cq_context);
}

EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned count)
{
	if (context_is_ours(cq->context))
		cq_ack_events(cq, count);
	else
		PASS_VOID(ibv_ack_cq_events, cq, count);
}

/* ---- shared receive queues ---- */

EXPORT struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	if (context_is_ours(pd->context))
		return srq_create(pd, attr);
	PASS(NULL, ibv_create_srq, pd, attr);
}

EXPORT int ibv_modify_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask)
{
	if (context_is_ours(srq->context))
		return answer(srq_modify(srq, attr, mask));
	PASS(ENOSYS, ibv_modify_srq, srq, attr, mask);
}

EXPORT int ibv_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr)
{
	if (context_is_ours(srq->context))
		return answer(srq_query(srq, attr));
	PASS(ENOSYS, ibv_query_srq, srq, attr);
}

EXPORT int ibv_destroy_srq(struct ibv_srq *srq)
{
	if (context_is_ours(srq->context))
		return answer(srq_destroy(srq));
	PASS(ENOSYS, ibv_destroy_srq, srq);
}

/* ---- queue pairs ---- */

EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	if (context_is_ours(pd->context))
		return qp_create(pd, attr);
	PASS(NULL, ibv_create_qp, pd, attr);
}

EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	/* Only of those that were made for it: ibv_create_qp_ex(3), send_ops_flags. */
	if (context_is_ours(qp->context))
		return qp_of(qp)->allowed_ops != 0 ? &qp_of(qp)->ibv : NULL;
	PASS(NULL, ibv_qp_to_qp_ex, qp);
}

EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (context_is_ours(qp->context))
		return answer(qp_modify(qp, attr, mask));
	PASS(ENOSYS, ibv_modify_qp, qp, attr, mask);
}

EXPORT int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	if (context_is_ours(qp->context))
		return answer(qp_query(qp, attr, mask, init));
	PASS(ENOSYS, ibv_query_qp, qp, attr, mask, init);
}

EXPORT int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode op, uint32_t flags)
{
	/* Packets are written in their order, but nothing says in which order a copy writes the bytes of one. */
	if (context_is_ours(qp->context))
		return 0;
	PASS(0, ibv_query_qp_data_in_order, qp, op, flags);
}

EXPORT int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	if (context_is_ours(qp->context))
		return answer(EOPNOTSUPP);
	PASS(ENOSYS, ibv_set_ece, qp, ece);
}

EXPORT int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	if (context_is_ours(qp->context))
		return answer(EOPNOTSUPP);
	PASS(ENOSYS, ibv_query_ece, qp, ece);
}

EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
	if (context_is_ours(qp->context))
		return answer(qp_destroy(qp));
	PASS(ENOSYS, ibv_destroy_qp, qp);
}

EXPORT int ibv_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	if (context_is_ours(qp->context))
		return answer(qp_attach_multicast(qp, gid));
	PASS(ENOSYS, ibv_attach_mcast, qp, gid, lid);
}

EXPORT int ibv_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	if (context_is_ours(qp->context))
		return answer(qp_detach_multicast(qp, gid));
	PASS(ENOSYS, ibv_detach_mcast, qp, gid, lid);
}

/* ---- addresses ---- */

EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	if (context_is_ours(pd->context))
		return ah_create(pd, attr);
	PASS(NULL, ibv_create_ah, pd, attr);
}

EXPORT int ibv_init_ah_from_wc(struct ibv_context *context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
			       struct ibv_ah_attr *attr)
{
	if (context_is_ours(context))
		return answer(ah_init_from_wc(context, port, wc, grh, attr));
	PASS(ENOSYS, ibv_init_ah_from_wc, context, port, wc, grh, attr);
}

EXPORT struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	if (context_is_ours(pd->context))
		return ah_create_from_wc(pd, wc, grh, port);
	PASS(NULL, ibv_create_ah_from_wc, pd, wc, grh, port);
}

EXPORT int ibv_destroy_ah(struct ibv_ah *ah)
{
	if (context_is_ours(ah->context))
		return answer(ah_destroy(ah));
	PASS(ENOSYS, ibv_destroy_ah, ah);
}
