/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to be wrong about memory windows: binds, invalidations, access through a window. */
#include <errno.h>

#include "status.h"

enum { AT = 4096, LENGTH = 4096 }; /* where in FAR a window is bound */

static struct ibv_mw *new_window(struct trial *trial, struct ibv_pd *pd, enum ibv_mw_type type)
{
	trial->window = ibv_alloc_mw(pd, type);
	must(trial->window != NULL, "ibv_alloc_mw");
	return trial->window;
}

/* ---- binds ---- */

static struct ibv_mw_bind_info bind_info(enum region region, uint64_t at, uint64_t length)
{
	return (struct ibv_mw_bind_info){
		.mr = lab.region[region],
		.addr = at,
		.length = length,
		.mw_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	};
}

static struct ibv_mw_bind_info right_info(void)
{
	return bind_info(FAR, address(lab.far + AT), LENGTH);
}

/* Posts a bind at the requester, and behind it a SEND that is right. */
static void bind_at(struct trial *trial, enum operation op, struct ibv_mw *window, struct ibv_mw_bind_info info)
{
	if (op == BIND_1) {
		struct ibv_mw_bind bind = {.wr_id = 1, .send_flags = IBV_SEND_SIGNALED, .bind_info = info};

		trial->refused = ibv_bind_mw(trial->requester.qp, window, &bind);
		if (trial->refused)
			return;
		trial->requester.posted++;
		trial->refused = post_right(trial, &trial->requester);
		return;
	}
	trial->wr.bind_mw.mw = window;
	trial->wr.bind_mw.rkey = ibv_inc_rkey(window->rkey);
	trial->wr.bind_mw.bind_info = info;
	post_both(trial);
}

static enum ibv_mw_type type_of(enum operation op)
{
	return op == BIND_1 ? IBV_MW_TYPE_1 : IBV_MW_TYPE_2;
}

static void bind_new(struct trial *trial, enum operation op, struct ibv_mw_bind_info info)
{
	bind_at(trial, op, new_window(trial, lab.pd, type_of(op)), info);
}

static void region_forbids_windows(struct trial *trial, enum operation op)
{
	bind_new(trial, op, bind_info(FAR_NO_WINDOW, address(lab.far), LENGTH));
}

static void window_of_another_pd(struct trial *trial, enum operation op)
{
	bind_at(trial, op, new_window(trial, lab.foreign, type_of(op)), right_info());
}

static void bind_beyond(struct trial *trial, enum operation op)
{
	bind_new(trial, op, bind_info(FAR, address(lab.far + FAR_LENGTH - LENGTH + 1), LENGTH));
}

static void region_without_local_write(struct trial *trial, enum operation op)
{
	bind_new(trial, op, bind_info(FAR_CONST, address(lab.far), LENGTH));
}

static void bind_no_bytes(struct trial *trial, enum operation op)
{
	bind_new(trial, op, bind_info(FAR, address(lab.far), 0));
}

static void other_type(struct trial *trial, enum operation op)
{
	bind_at(trial, op, new_window(trial, lab.pd, op == BIND_1 ? IBV_MW_TYPE_2 : IBV_MW_TYPE_1), right_info());
}

static void bind_twice(struct trial *trial, enum operation op)
{
	bind_new(trial, op, right_info());
	expect_success(trial->requester.cq, "the first bind");
	expect_success(trial->requester.cq, "the SEND behind the first bind");
	expect_success(trial->target.cq, "its receive");
	trial->requester.posted = 0;
	trial->target.posted--;
	if (op == BIND_2)
		trial->window->rkey = trial->wr.bind_mw.rkey;
	bind_at(trial, op, trial->window, right_info());
}

/* ---- a window that somebody has bound ---- */

/* A window of the target's side, bound by this queue pair with this right. */
static void bind_for(struct trial *trial, struct ibv_qp *qp, struct ibv_cq *cq, enum ibv_mw_type type, unsigned access)
{
	struct ibv_mw *window = new_window(trial, lab.pd, type);
	struct ibv_mw_bind_info info = right_info();
	struct ibv_send_wr *bad;

	info.mw_access_flags = access;
	if (type == IBV_MW_TYPE_1) {
		struct ibv_mw_bind bind = {.send_flags = IBV_SEND_SIGNALED, .bind_info = info};

		errno = ibv_bind_mw(qp, window, &bind);
	} else {
		struct ibv_send_wr wr = {
			.opcode = IBV_WR_BIND_MW,
			.send_flags = IBV_SEND_SIGNALED,
			.bind_mw = {.mw = window, .rkey = ibv_inc_rkey(window->rkey), .bind_info = info},
		};

		errno = ibv_post_send(qp, &wr, &bad);
		window->rkey = wr.bind_mw.rkey;
	}
	must(errno == 0, "posting the bind");
	expect_success(cq, "the bind");
}

static void invalidate(struct ibv_qp *qp, struct ibv_cq *cq, uint32_t rkey)
{
	struct ibv_send_wr wr = {.opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED, .invalidate_rkey = rkey}, *bad;

	errno = ibv_post_send(qp, &wr, &bad);
	must(errno == 0, "posting LOCAL_INV");
	expect_success(cq, "LOCAL_INV");
}

/* FLUSH's only where it is looked at: no window had that right in what is on record otherwise. */
static unsigned all_rights(enum operation op)
{
	return IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC | (op == FLUSH ? lab.flush_right : 0);
}

static struct ibv_qp *third_queue_pair(struct trial *trial)
{
	trial->other = pair_create_qp(trial, trial->target.cq);
	pair_raise(trial, trial->other, trial->other->qp_num, IBV_QPS_RTS);
	return trial->other;
}

static void window_never_bound(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.far + AT, new_window(trial, lab.pd, IBV_MW_TYPE_2)->rkey);
}

static void window_invalidated(struct trial *trial, enum operation op)
{
	bind_for(trial, trial->target.qp, trial->target.cq, IBV_MW_TYPE_2, all_rights(op));
	invalidate(trial->target.qp, trial->target.cq, trial->window->rkey);
	use_remote(trial, lab.far + AT, trial->window->rkey);
}

static void window_of_another_queue_pair(struct trial *trial, enum operation op)
{
	bind_for(trial, third_queue_pair(trial), trial->target.cq, IBV_MW_TYPE_2, all_rights(op));
	use_remote(trial, lab.far + AT, trial->window->rkey);
}

static void right_not_in_window(struct trial *trial, enum operation op)
{
	unsigned missing = op == READ		  ? IBV_ACCESS_REMOTE_READ
			   : op == FLUSH	  ? lab.flush_right
			   : 1u << op & ATOMICS ? IBV_ACCESS_REMOTE_ATOMIC
						  : IBV_ACCESS_REMOTE_WRITE;

	bind_for(trial, trial->target.qp, trial->target.cq, IBV_MW_TYPE_2, all_rights(op) & ~missing);
	use_remote(trial, lab.far + AT, trial->window->rkey);
}

/* Nothing is wrong. */
static void window_with_the_right(struct trial *trial, enum operation op)
{
	bind_for(trial, trial->target.qp, trial->target.cq, IBV_MW_TYPE_2, all_rights(op));
	use_remote(trial, lab.far + AT, trial->window->rkey);
}

static void region_with_a_window(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_mr *mr = lab.region[FAR];

	trial->region = ibv_reg_mr(lab.pd, lab.far, FAR_LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_MW_BIND);
	must(trial->region != NULL, "ibv_reg_mr");
	lab.region[FAR] = trial->region;
	bind_for(trial, trial->target.qp, trial->target.cq, IBV_MW_TYPE_2, IBV_ACCESS_REMOTE_WRITE);
	lab.region[FAR] = mr;
	trial->refused = ibv_dereg_mr(trial->region);
	if (!trial->refused) {
		trial->note = "SUCCESS";
		trial->region = NULL;
	}
}

/* ---- invalidation: by the owner, or by the peer's SEND ---- */

static void invalidate_key(struct trial *trial, uint32_t rkey)
{
	trial->wr.invalidate_rkey = rkey;
}

/* The end whose windows the operation may invalidate. */
static const struct end *owner(const struct trial *trial, enum operation op)
{
	return op == LOCAL_INV ? &trial->requester : &trial->target;
}

static void no_key(struct trial *trial, enum operation op)
{
	(void)op;
	invalidate_key(trial, lab.region[FAR]->rkey ^ 0x5a5a00);
}

static void key_of_region(struct trial *trial, enum operation op)
{
	(void)op;
	invalidate_key(trial, lab.region[FAR]->rkey);
}

static void key_of_type_1(struct trial *trial, enum operation op)
{
	const struct end *end = owner(trial, op);

	bind_for(trial, end->qp, end->cq, IBV_MW_TYPE_1, all_rights(op));
	invalidate_key(trial, trial->window->rkey);
}

static void old_key(struct trial *trial, enum operation op)
{
	const struct end *end = owner(trial, op);

	bind_for(trial, end->qp, end->cq, IBV_MW_TYPE_2, all_rights(op));
	invalidate_key(trial, trial->window->rkey ^ 1);
}

const struct way window_ways[] = {
	{"bind: region without IBV_ACCESS_MW_BIND", BINDS, RC, NULL, NULL, region_forbids_windows},
	{"bind: window of another PD", BINDS, RC, NULL, NULL, window_of_another_pd},
	{"bind: ends beyond the region", BINDS, RC, NULL, NULL, bind_beyond},
	{"bind: remote write without local write", BINDS, RC, NULL, NULL, region_without_local_write},
	{"bind: no bytes", BINDS, RC, NULL, NULL, bind_no_bytes},
	{"bind: window of the other type", BINDS, RC, NULL, NULL, other_type},
	{"bind: bound already", BINDS, RC, NULL, NULL, bind_twice},
	{"window never bound", REMOTES | PLACEMENTS, RC, NULL, window_never_bound, NULL},
	{"window after LOCAL_INV", REMOTES | PLACEMENTS, RC, NULL, window_invalidated, NULL},
	{"window of another queue pair", REMOTES | PLACEMENTS, RC, NULL, window_of_another_queue_pair, NULL},
	{"right missing in the window", REMOTES | PLACEMENTS, RC, NULL, right_not_in_window, NULL},
	{"window with the right", PLACEMENTS, RC, NULL, window_with_the_right, NULL},
	{"region has a window", 1 << DEREG, RC, NULL, NULL, region_with_a_window},
	{"no such key", 1 << SEND_INV | 1 << LOCAL_INV, RC, NULL, no_key, NULL},
	{"key of a region", 1 << SEND_INV | 1 << LOCAL_INV, RC, NULL, key_of_region, NULL},
	{"key of a type 1 window", 1 << SEND_INV | 1 << LOCAL_INV, RC, NULL, key_of_type_1, NULL},
	{"key with other low 8 bits", 1 << SEND_INV | 1 << LOCAL_INV, RC, NULL, old_key, NULL},
	{NULL, 0, 0, NULL, NULL, NULL},
};
