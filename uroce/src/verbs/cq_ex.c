/* SPDX-License-Identifier: Apache-2.0 */
/* Extended completion queues: polled in batches, field by field. */
#include <errno.h>

#include "engine.h"
#include "verbs.h"

enum {
	WC_FLAGS = IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
		   IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
	CREATE_FLAGS = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN,
};

static struct cq *of(struct ibv_cq_ex *ex)
{
	return (struct cq *)ex;
}

/* ---- a batch ---- */

static bool advance(struct cq *cq)
{
	if (!cq_take(cq, &cq->current))
		return false;
	cq->ex.status = cq->current.wc.status;
	cq->ex.wr_id = cq->current.wc.wr_id;
	return true;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct cq *cq = of(ex);
	if (attr && attr->comp_mask != 0)
		return EINVAL;
	if (!cq->single_threaded)
		lock_take(&cq->poll_lock);
	if (advance(cq))
		return 0;
	engine_poll(cq->device);
	if (advance(cq))
		return 0;
	if (!cq->single_threaded)
		lock_give(&cq->poll_lock);
	return ENOENT;
}

static int next_poll(struct ibv_cq_ex *ex)
{
	return advance(of(ex)) ? 0 : ENOENT;
}

static void end_poll(struct ibv_cq_ex *ex)
{
	struct cq *cq = of(ex);
	if (!cq->single_threaded)
		lock_give(&cq->poll_lock);
}

/* ---- its fields ---- */

#define READER(type, name, field) \
	static type read_##name(struct ibv_cq_ex *ex) \
	{ \
		return of(ex)->current.field; \
	}
READER(enum ibv_wc_opcode, opcode, wc.opcode)
READER(uint32_t, vendor_err, wc.vendor_err)
READER(unsigned, wc_flags, wc.wc_flags)
READER(uint32_t, byte_len, wc.byte_len)
READER(__be32, imm_data, wc.imm_data) /* the invalidated key as well: ibv_wc_read_invalidated_rkey calls this */
READER(uint32_t, qp_num, wc.qp_num)
READER(uint32_t, src_qp, wc.src_qp)
READER(uint32_t, slid, wc.slid)
READER(uint8_t, sl, wc.sl)
READER(uint8_t, dlid_path_bits, wc.dlid_path_bits)
READER(uint64_t, completion_ts, timestamp)
READER(uint64_t, completion_wallclock, wallclock)

/* Those that were asked for; the others stay NULL. */
static void set_readers(struct ibv_cq_ex *ex, uint64_t wc_flags)
{
	ex->start_poll = start_poll;
	ex->next_poll = next_poll;
	ex->end_poll = end_poll;
	ex->read_opcode = read_opcode;
	ex->read_vendor_err = read_vendor_err;
	ex->read_wc_flags = read_wc_flags;
	if (wc_flags & IBV_WC_EX_WITH_BYTE_LEN)
		ex->read_byte_len = read_byte_len;
	if (wc_flags & IBV_WC_EX_WITH_IMM)
		ex->read_imm_data = read_imm_data;
	if (wc_flags & IBV_WC_EX_WITH_QP_NUM)
		ex->read_qp_num = read_qp_num;
	if (wc_flags & IBV_WC_EX_WITH_SRC_QP)
		ex->read_src_qp = read_src_qp;
	if (wc_flags & IBV_WC_EX_WITH_SLID)
		ex->read_slid = read_slid;
	if (wc_flags & IBV_WC_EX_WITH_SL)
		ex->read_sl = read_sl;
	if (wc_flags & IBV_WC_EX_WITH_DLID_PATH_BITS)
		ex->read_dlid_path_bits = read_dlid_path_bits;
	if (wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)
		ex->read_completion_ts = read_completion_ts;
	if (wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)
		ex->read_completion_wallclock_ns = read_completion_wallclock;
}

/* ---- creation ---- */

static int check(const struct ibv_cq_init_attr_ex *attr, uint32_t flags)
{
	if (attr->comp_mask & ~(uint32_t)(IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD))
		return EINVAL;
	/* Parent domains are for custom allocators and thread domains; neither is offered. */
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD)
		return EOPNOTSUPP;
	if ((attr->wc_flags & ~(uint64_t)WC_FLAGS) || (flags & ~(uint32_t)CREATE_FLAGS))
		return EOPNOTSUPP;
	return 0;
}

struct ibv_cq_ex *cq_create_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	uint32_t flags = attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS ? attr->flags : 0;
	int error = check(attr, flags);
	if (error != 0) {
		errno = error;
		return NULL;
	}
	struct cq *cq = cq_new(context, attr->cqe, attr->cq_context, attr->channel, attr->comp_vector);
	if (!cq)
		return NULL;
	cq->extended = true;
	cq->single_threaded = flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
	cq->ignore_overrun = flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
	cq->timestamp = attr->wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP;
	cq->wallclock = attr->wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;
	set_readers(&cq->ex, attr->wc_flags);
	return &cq->ex;
}
