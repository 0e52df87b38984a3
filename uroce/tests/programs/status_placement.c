/* SPDX-License-Identifier: Apache-2.0 */
/* FLUSH and ATOMIC WRITE: how they are posted, and ways to be wrong that no other operation has. Declared here as far as the verbs.h
 * of rdma-core 44 lacks them, so that every build tries them where the device and its library have them. */
#include <errno.h>
#include <string.h>

#include "status.h"

enum { TYPE_GLOBAL = 1, TYPE_PERSISTENT = 2, LEVEL_RANGE = 0, LEVEL_REGION = 1 };
enum { WITH_FLUSH = 1 << 11, WITH_ATOMIC_WRITE = 1 << 12, RIGHT_FLUSH = 1 << 8 };

/* What the two have in device_cap_flags_ex: no verbs.h names it. */
static const uint64_t has_flush = UINT64_C(1) << 38, has_atomic_write = UINT64_C(1) << 40;

typedef void flush_function(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote, size_t length, uint8_t type, uint8_t level);

/* The function behind the one for ATOMIC WRITE, where every libibverbs that has FLUSH has it. */
static flush_function *flush_of(struct ibv_qp_ex *ex)
{
	flush_function *function;

	memcpy(&function, (const char *)&ex->wr_atomic_write + sizeof ex->wr_atomic_write, sizeof function);
	return function;
}

static bool can_create(unsigned send_ops)
{
	struct ibv_cq *cq = ibv_create_cq(lab.context, 4, NULL, NULL, 0);
	struct ibv_pd *pd = ibv_alloc_pd(lab.context);

	must(cq && pd, "a queue for a trial of what the device's library has");
	struct ibv_qp_init_attr_ex init = {
		.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {1, 1, 1, 1, 0}, .pd = pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, .send_ops_flags = send_ops,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(lab.context, &init);
	must(!qp || !ibv_destroy_qp(qp), "ibv_destroy_qp");
	must(!ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd), "closing what was for a trial");
	return qp != NULL;
}

void placement_open(void)
{
	struct ibv_device_attr_ex attr;

	must(!ibv_query_device_ex(lab.context, NULL, &attr), "ibv_query_device_ex");
	lab.operations = ~(unsigned)PLACEMENTS;
	if ((attr.device_cap_flags_ex & has_atomic_write) && can_create(WITH_ATOMIC_WRITE))
		lab.operations |= 1 << ATOMIC_WRITE;
	if ((attr.device_cap_flags_ex & has_flush) && can_create(WITH_FLUSH)) {
		lab.operations |= 1 << FLUSH;
		lab.flush_right = RIGHT_FLUSH;
	}
}

void placement_set_right(struct trial *trial, enum operation op)
{
	trial->send_ops = IBV_QP_EX_WITH_SEND | (op == FLUSH ? WITH_FLUSH : WITH_ATOMIC_WRITE);
	trial->flushes = op == FLUSH;
	trial->flush_type = TYPE_GLOBAL;
	trial->flush_level = LEVEL_RANGE;
	if (trial->flushes)
		trial->access |= (int)lab.flush_right;
}

static bool begin_request(const struct trial *trial, struct ibv_qp_ex *ex)
{
	uint32_t rkey = trial->wr.wr.rdma.rkey;
	uint64_t remote = trial->wr.wr.rdma.remote_addr;
	static const uint64_t value = UINT64_C(0x0102030405060708);

	ex->wr_id = trial->wr.wr_id;
	ex->wr_flags = trial->wr.send_flags;
	if (!trial->flushes) {
		if (!ex->wr_atomic_write)
			return false;
		ibv_wr_atomic_write(ex, rkey, remote, &value);
		return true;
	}
	if (!flush_of(ex))
		return false;
	size_t length = (trial->wr.num_sge ? trial->sge[0].length : 0) + trial->flush_extra;
	flush_of(ex)(ex, rkey, remote, length, trial->flush_type, trial->flush_level);
	return true;
}

void placement_post(struct trial *trial, struct ibv_send_wr *right)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(trial->requester.qp);

	must(ex != NULL, "ibv_qp_to_qp_ex");
	ibv_wr_start(ex);
	if (!begin_request(trial, ex)) {
		ibv_wr_abort(ex);
		trial->note = "there is no such function";
		return;
	}
	ex->wr_id = right->wr_id;
	ex->wr_flags = right->send_flags;
	ibv_wr_send(ex);
	ibv_wr_set_sge(ex, right->sg_list->lkey, right->sg_list->addr, right->sg_list->length);
	trial->refused = ibv_wr_complete(ex);
	if (!trial->refused)
		trial->requester.posted = 2;
}

/* ---- ways to be wrong ---- */

static void no_placement_type(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_type = 0;
}

static void other_placement_type(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_type = TYPE_GLOBAL | 4;
}

static void other_level(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_level = 2;
}

/* Right, if only the low 32 bits counted. */
static void more_than_32_bits(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_extra = (size_t)1 << 32;
}

static void flush_inline(struct trial *trial, enum operation op)
{
	(void)op;
	trial->wr.send_flags |= IBV_SEND_INLINE;
}

static void persistent(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_type = TYPE_PERSISTENT;
}

static void persistent_not_in_region(struct trial *trial, enum operation op)
{
	persistent(trial, op);
	trial->access |= RIGHT_FLUSH << 1;
}

/* Nothing is wrong: neither address nor length counts. */
static void all_of_it(struct trial *trial, enum operation op)
{
	(void)op;
	trial->flush_level = LEVEL_REGION;
	use_remote(trial, lab.far + 2 * (size_t)FAR_LENGTH, lab.region[FAR]->rkey);
}

static void all_bad_rkey(struct trial *trial, enum operation op)
{
	all_of_it(trial, op);
	trial->wr.wr.rdma.rkey ^= 0x5a5a00;
}

static void all_right_not_in_region(struct trial *trial, enum operation op)
{
	all_of_it(trial, op);
	trial->wr.wr.rdma.rkey = lab.region[FAR_NO_FLUSH]->rkey;
}

static void made_without_it(struct trial *trial, enum operation op)
{
	(void)op;
	trial->send_ops = IBV_QP_EX_WITH_SEND;
}

static void make_for_uc(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_qp_init_attr_ex init = {
		.send_cq = trial->target.cq, .recv_cq = trial->target.cq, .qp_type = IBV_QPT_UC, .cap = {1, 1, 1, 1, 0}, .pd = lab.pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, .send_ops_flags = trial->send_ops,
	};

	errno = 0;
	trial->other = ibv_create_qp_ex(lab.context, &init);
	trial->refused = trial->other ? 0 : errno;
	trial->note = trial->other ? "there is one" : NULL;
}

const struct way placement_ways[] = {
	{"placement type 0", 1 << FLUSH, RC, no_placement_type, NULL, NULL},
	{"unknown placement type", 1 << FLUSH, RC, other_placement_type, NULL, NULL},
	{"unknown selectivity level", 1 << FLUSH, RC, other_level, NULL, NULL},
	{"4 GiB too long", 1 << FLUSH, RC, more_than_32_bits, NULL, NULL},
	{"inline", 1 << FLUSH, RC, flush_inline, NULL, NULL},
	{"to persistence: right missing in the queue pair", 1 << FLUSH, RC, persistent, NULL, NULL},
	{"to persistence: right missing in the region", 1 << FLUSH, RC, persistent_not_in_region, NULL, NULL},
	{"all of the region, an address beyond it", 1 << FLUSH, RC, all_of_it, NULL, NULL},
	{"all of the region, bad rkey", 1 << FLUSH, RC, all_bad_rkey, NULL, NULL},
	{"all of the region, right missing in it", 1 << FLUSH, RC, all_right_not_in_region, NULL, NULL},
	{"queue pair made without it", PLACEMENTS, RC, made_without_it, NULL, NULL},
	{"queue pair made for UC", PLACEMENTS, RC, NULL, NULL, make_for_uc},
	{NULL, 0, 0, NULL, NULL, NULL},
};
