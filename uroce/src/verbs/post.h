/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the two ways of posting sends: work request structs (post.c) and the builder (wr.c). */
#ifndef UROCE_POST_H
#define UROCE_POST_H

#include "qp.h"

enum {
	POST_RC = 1 << 0, /* queue pair types that may use it */
	POST_UC = 1 << 1,
	POST_UD = 1 << 2,
	POST_DATA = 1 << 3,   /* has scatter/gather entries */
	POST_INLINE = 1 << 4, /* or inline data */
	POST_REMOTE = 1 << 5, /* names remote memory */
	POST_ATOMIC = 1 << 6,
	POST_WORD = 1 << 7,   /* of exactly eight bytes */
};

#define POST_FLAGS (IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE)

/* Traits of an operation; 0 when this queue pair can't do it. By the table in ibv_post_send(3), but for SEND with invalidate on UC,
 * for which there is no packet (IBTA vol 1, 9.2.1). */
static inline unsigned post_traits(const struct qp *qp, enum ibv_wr_opcode opcode)
{
	static const uint8_t traits[] = {
		[IBV_WR_RDMA_WRITE] = POST_RC | POST_UC | POST_DATA | POST_INLINE | POST_REMOTE,
		[IBV_WR_RDMA_WRITE_WITH_IMM] = POST_RC | POST_UC | POST_DATA | POST_INLINE | POST_REMOTE,
		[IBV_WR_SEND] = POST_RC | POST_UC | POST_UD | POST_DATA | POST_INLINE,
		[IBV_WR_SEND_WITH_IMM] = POST_RC | POST_UC | POST_UD | POST_DATA | POST_INLINE,
		[IBV_WR_RDMA_READ] = POST_RC | POST_DATA | POST_REMOTE,
		[IBV_WR_ATOMIC_CMP_AND_SWP] = POST_RC | POST_DATA | POST_ATOMIC,
		[IBV_WR_ATOMIC_FETCH_AND_ADD] = POST_RC | POST_DATA | POST_ATOMIC,
		[IBV_WR_LOCAL_INV] = POST_RC | POST_UC,
		[IBV_WR_BIND_MW] = POST_RC | POST_UC,
		[IBV_WR_SEND_WITH_INV] = POST_RC | POST_DATA | POST_INLINE,
		[WR_FLUSH] = POST_RC, /* by ibv_wr_flush alone: struct ibv_send_wr has no fields for it */
		[WR_ATOMIC_WRITE] = POST_RC | POST_DATA | POST_INLINE | POST_REMOTE | POST_WORD,
	};
	unsigned type = qp->type == IBV_QPT_RC ? POST_RC : qp->type == IBV_QPT_UC ? POST_UC : POST_UD;
	if ((unsigned)opcode >= sizeof traits / sizeof traits[0] || !(traits[opcode] & type))
		return 0;
	return traits[opcode];
}

static inline uint64_t post_max_length(const struct qp *qp)
{
	return qp->type == IBV_QPT_UD ? qp->mtu : MAX_MESSAGE;
}

/* A work request as it is before its operation is filled in. */
static inline void post_begin(const struct qp *qp, struct send_wqe *wqe, uint64_t wr_id, unsigned flags,
			      enum ibv_wr_opcode opcode)
{
	wqe->wr_id = wr_id;
	wqe->opcode = opcode;
	wqe->flags = flags | (qp->sq_sig_all ? IBV_SEND_SIGNALED : 0);
	wqe->length = 0;
	wqe->sges = 0;
	wqe->inlined = false;
	wqe->state = SEND_POSTED;
	wqe->status = IBV_WC_SUCCESS;
}

/* All return 0 or a positive errno, as the verbs do. */

int post_set_sges(const struct qp *qp, struct send_wqe *wqe, unsigned traits, const struct ibv_sge *list, size_t count);
int post_set_bind(struct qp *qp, struct send_wqe *wqe, struct ibv_mw *mw, uint32_t rkey,
		  const struct ibv_mw_bind_info *info);
/* Posts the requests that have been filled in, up to `tail`. EINVAL in a state that takes none: then nothing is posted.
 * Device's lock and build_lock held. */
int post_publish(struct qp *qp, uint32_t tail);
/* The same with the device locked briefly; sends, and unlocks it. */
int post_finish(struct qp *qp, uint32_t tail);

#endif
