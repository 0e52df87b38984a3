/* SPDX-License-Identifier: Apache-2.0 */
/* One trial: everything right but for one thing. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "status.h"

static const struct {
	const char *name;
	enum ibv_wr_opcode opcode;
} operations[OPERATIONS] = {
	[SEND] = {"SEND", IBV_WR_SEND},
	[SEND_IMM] = {"SEND_IMM", IBV_WR_SEND_WITH_IMM},
	[SEND_INV] = {"SEND_INV", IBV_WR_SEND_WITH_INV},
	[WRITE] = {"WRITE", IBV_WR_RDMA_WRITE},
	[WRITE_IMM] = {"WRITE_IMM", IBV_WR_RDMA_WRITE_WITH_IMM},
	[READ] = {"READ", IBV_WR_RDMA_READ},
	[FETCH_ADD] = {"FAA", IBV_WR_ATOMIC_FETCH_AND_ADD},
	[COMPARE_SWAP] = {"CAS", IBV_WR_ATOMIC_CMP_AND_SWP},
	[BIND_1] = {"BIND_1", IBV_WR_BIND_MW},
	[BIND_2] = {"BIND_2", IBV_WR_BIND_MW},
	[LOCAL_INV] = {"LOCAL_INV", IBV_WR_LOCAL_INV},
	[RECV] = {"RECV", IBV_WR_SEND},
	[DEREG] = {"DEREG", IBV_WR_SEND},
	[FLUSH] = {"FLUSH", IBV_WR_RDMA_READ}, /* the code is not used */
	[ATOMIC_WRITE] = {"ATOMIC_WRITE", IBV_WR_RDMA_WRITE},
};

static void set_right(struct trial *trial, enum operation op, unsigned type)
{
	*trial = (struct trial){
		.type = type == RC ? IBV_QPT_RC : type == UC ? IBV_QPT_UC : IBV_QPT_UD,
		.cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 2, .max_recv_sge = 2, .max_inline_data = 64},
		.requester = {.room = 64},
		.target = {.room = 64},
		.access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
		.timeout = lab.timeout,
		.retry_cnt = 3, /* not 7: rdma_rxe takes that as for ever */
		.rnr_retry = 6,
		.max_rd_atomic = 4,
		.max_dest_rd_atomic = 4,
		.requester_state = IBV_QPS_RTS,
		.target_state = IBV_QPS_RTS,
		.receives = RECEIVES,
	};
	if (type == RC)
		trial->access |= IBV_ACCESS_REMOTE_ATOMIC;
	trial->wr = (struct ibv_send_wr){.wr_id = 1, .opcode = operations[op].opcode, .send_flags = IBV_SEND_SIGNALED};
	if (op == SEND_IMM || op == WRITE_IMM)
		trial->wr.imm_data = htonl(1);
	bool has_data = !(1u << op & (BINDS | 1u << LOCAL_INV | 1u << RECV | 1u << DEREG));
	trial->wr.num_sge = has_data ? 1 : 0;
	use_local(trial, LOCAL, lab.local, 1u << op & (ATOMICS | 1u << ATOMIC_WRITE) ? 8 : MESSAGE);
	if (1u << op & (REMOTES | PLACEMENTS))
		use_remote(trial, lab.far, lab.region[FAR]->rkey);
	if (1u << op & PLACEMENTS)
		placement_set_right(trial, op);
	trial->receive.num_sge = 1;
	trial->receive_sge[0] =
		(struct ibv_sge){address(lab.local + 65536), MESSAGE + (type == UD ? 40 : 0), lab.region[LOCAL]->lkey};
	/* The SEND behind the request, in any case. */
	trial->arrivals = type == RC ? 0 : 1;
}

void trial_name(const struct way *way, enum operation op, unsigned type, char *name, size_t size)
{
	snprintf(name, size, "%s | %s %s", way->name, type == RC ? "RC" : type == UC ? "UC" : "UD", operations[op].name);
}

void trial_run(const struct way *way, enum operation op, unsigned type)
{
	struct trial trial;
	char name[160];

	set_right(&trial, op, type);
	trial.wr.sg_list = trial.sge;
	trial.receive.sg_list = trial.receive_sge;
	if (way->set)
		way->set(&trial, op);
	pair_open(&trial);
	if (way->spoil)
		way->spoil(&trial, op);
	if (way->act)
		way->act(&trial, op);
	else
		post_both(&trial);
	watch(&trial);
	trial_name(way, op, type, name, sizeof name);
	report(&trial, name);
	pair_close(&trial);
}
