/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to be wrong about memory: keys, bounds, rights, alignment. */
#include <stddef.h>

#include "status.h"

static uint32_t length_of(enum operation op)
{
	return 1u << op & (ATOMICS | 1u << ATOMIC_WRITE) ? 8 : MESSAGE;
}

/* ---- at the requester ---- */

static void bad_lkey(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].lkey ^= 0x5a5a00;
}

static void lkey_of_another_pd(struct trial *trial, enum operation op)
{
	use_local(trial, LOCAL_FOREIGN, lab.local, length_of(op));
}

static void lkey_without_local_write(struct trial *trial, enum operation op)
{
	use_local(trial, LOCAL_CONST, lab.local, length_of(op));
}

static void entry_out_of_bounds(struct trial *trial, enum operation op)
{
	uint8_t *end = lab.local + lab.region[LOCAL]->length;

	use_local(trial, LOCAL, end - length_of(op) + 8, length_of(op));
}

static void second_entry_bad(struct trial *trial, enum operation op)
{
	use_local(trial, LOCAL, lab.local, length_of(op) / 2);
	trial->sge[1] = trial->sge[0];
	trial->sge[1].lkey ^= 0x5a5a00;
	trial->wr.num_sge = 2;
}

static void region_gone(struct trial *trial, enum operation op)
{
	struct ibv_mr *mr = ibv_reg_mr(lab.pd, lab.local, 4096, IBV_ACCESS_LOCAL_WRITE);

	must(mr != NULL, "ibv_reg_mr");
	trial->sge[0] = (struct ibv_sge){address(lab.local), length_of(op), mr->lkey};
	must(!ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void too_many_entries(struct trial *trial, enum operation op)
{
	(void)op;
	/* The device may have given room for more than was asked for. */
	int count = (int)trial->cap.max_send_sge + 1;

	must(count <= MAX_SGES, "room for entries");
	for (int i = 1; i < count; i++)
		trial->sge[i] = trial->sge[0];
	trial->wr.num_sge = count;
}

static void inline_too_long(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = trial->cap.max_inline_data + 1;
	trial->wr.send_flags |= IBV_SEND_INLINE;
}

static void inline_here(struct trial *trial, enum operation op)
{
	(void)op;
	trial->wr.send_flags |= IBV_SEND_INLINE;
}

/* ---- at the target ---- */

static void bad_rkey(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.far, lab.region[FAR]->rkey ^ 0x5a5a00);
}

static void bad_rkey_no_bytes(struct trial *trial, enum operation op)
{
	bad_rkey(trial, op);
	trial->wr.num_sge = 0;
}

static void rkey_of_another_pd(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.far, lab.region[FAR_FOREIGN]->rkey);
}

static void begins_before(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.far - 8, lab.region[FAR]->rkey);
}

static void ends_beyond(struct trial *trial, enum operation op)
{
	uint32_t beyond = 1u << op & (ATOMICS | 1u << ATOMIC_WRITE) ? 8 : 1;

	use_remote(trial, lab.far + FAR_LENGTH - length_of(op) + beyond, lab.region[FAR]->rkey);
}

static void long_ends_beyond(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = LONG;
	use_remote(trial, lab.far, lab.region[FAR]->rkey);
}

static void far_region_gone(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_mr *mr = ibv_reg_mr(lab.pd, lab.far, 4096,
				       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |
					       lab.flush_right);

	must(mr != NULL, "ibv_reg_mr");
	use_remote(trial, lab.far, mr->rkey);
	must(!ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void right_not_in_region(struct trial *trial, enum operation op)
{
	enum region region = op == READ		   ? FAR_NO_READ
			     : op == FLUSH	   ? FAR_NO_FLUSH
			     : 1u << op & ATOMICS ? FAR_NO_ATOMIC
						   : FAR_NO_WRITE;

	use_remote(trial, lab.far, lab.region[region]->rkey);
}

static void right_not_in_queue_pair(struct trial *trial, enum operation op)
{
	trial->access &= ~(op == READ		 ? IBV_ACCESS_REMOTE_READ
			   : op == FLUSH	 ? (int)lab.flush_right
			   : 1u << op & ATOMICS ? IBV_ACCESS_REMOTE_ATOMIC
						 : IBV_ACCESS_REMOTE_WRITE);
}

static void unaligned(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.far + 4, lab.region[FAR]->rkey);
}

static void four_bytes(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = 4;
}

static void sixteen_bytes(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = 16;
}

static void lkey_as_rkey(struct trial *trial, enum operation op)
{
	(void)op;
	use_remote(trial, lab.local, lab.region[LOCAL]->lkey);
}

const struct way key_ways[] = {
	{"bad lkey", SOURCES | TARGETS, RC, bad_lkey, NULL, NULL},
	{"bad lkey", 1 << SEND | WRITES, UC, bad_lkey, NULL, NULL},
	{"bad lkey", 1 << SEND | 1 << SEND_IMM, UD, bad_lkey, NULL, NULL},
	{"bad lkey in the second entry", 1 << SEND | 1 << WRITE | 1 << READ, RC, second_entry_bad, NULL, NULL},
	{"lkey of another PD", SOURCES | TARGETS, RC, lkey_of_another_pd, NULL, NULL},
	{"lkey of another PD", 1 << SEND, UC | UD, lkey_of_another_pd, NULL, NULL},
	{"lkey of a region that is gone", 1 << SEND | 1 << READ, RC, region_gone, NULL, NULL},
	{"lkey without local write", TARGETS, RC, lkey_without_local_write, NULL, NULL},
	{"entry ends beyond its region", SOURCES | TARGETS, RC, entry_out_of_bounds, NULL, NULL},
	{"entry ends beyond its region", 1 << SEND | 1 << WRITE, UC, entry_out_of_bounds, NULL, NULL},
	{"entry ends beyond its region", 1 << SEND, UD, entry_out_of_bounds, NULL, NULL},
	{"too many entries", SOURCES | TARGETS, RC, NULL, too_many_entries, NULL},
	{"too many entries", 1 << SEND, UC | UD, NULL, too_many_entries, NULL},
	{"inline data too long", 1 << SEND | 1 << WRITE, RC, NULL, inline_too_long, NULL},
	{"inline", 1 << READ, RC, inline_here, NULL, NULL},
	{"bad rkey", REMOTES | PLACEMENTS, RC, bad_rkey, NULL, NULL},
	{"bad rkey", WRITES, UC, bad_rkey, NULL, NULL},
	{"bad rkey, no bytes", WRITES | 1 << READ | 1 << FLUSH, RC, bad_rkey_no_bytes, NULL, NULL},
	{"rkey of another PD", REMOTES | PLACEMENTS, RC, rkey_of_another_pd, NULL, NULL},
	{"rkey of another PD", 1 << WRITE, UC, rkey_of_another_pd, NULL, NULL},
	{"rkey of a region that is gone", REMOTES | PLACEMENTS, RC, far_region_gone, NULL, NULL},
	{"rkey of a region without remote rights", REMOTES | PLACEMENTS, RC, lkey_as_rkey, NULL, NULL},
	{"begins before the region", REMOTES | PLACEMENTS, RC, begins_before, NULL, NULL},
	{"ends beyond the region", REMOTES | PLACEMENTS, RC, ends_beyond, NULL, NULL},
	{"ends beyond the region", 1 << WRITE, UC, ends_beyond, NULL, NULL},
	{"512 KiB end beyond the region", WRITES | 1 << READ | 1 << FLUSH, RC, long_ends_beyond, NULL, NULL},
	{"right missing in the region", REMOTES | PLACEMENTS, RC, right_not_in_region, NULL, NULL},
	{"right missing in the region", WRITES, UC, right_not_in_region, NULL, NULL},
	{"right missing in the queue pair", REMOTES | PLACEMENTS, RC, right_not_in_queue_pair, NULL, NULL},
	{"right missing in the queue pair", WRITES, UC, right_not_in_queue_pair, NULL, NULL},
	{"remote address not a multiple of 8", ATOMICS | PLACEMENTS, RC, unaligned, NULL, NULL},
	{"4 bytes for the result", ATOMICS, RC, four_bytes, NULL, NULL},
	{"16 bytes for the result", ATOMICS, RC, sixteen_bytes, NULL, NULL},
	{NULL, 0, 0, NULL, NULL, NULL},
};
