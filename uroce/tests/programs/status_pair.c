/* SPDX-License-Identifier: Apache-2.0 */
/* Two queue pairs of this device that are connected with each other. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "status.h"

enum { QKEY = 0x1ee7, PSN = 0xfffff0 /* soon wraps */ };

struct ibv_qp *pair_create_qp(struct trial *trial, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = trial->type, .cap = trial->cap};
	struct ibv_qp *qp;

	if (trial->send_ops) {
		struct ibv_qp_init_attr_ex more = {
			.send_cq = cq, .recv_cq = cq, .qp_type = trial->type, .cap = trial->cap, .pd = lab.pd,
			.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, .send_ops_flags = trial->send_ops,
		};
		qp = ibv_create_qp_ex(lab.context, &more);
		init.cap = more.cap;
	} else {
		qp = ibv_create_qp(lab.pd, &init);
	}
	must(qp != NULL, "creating a queue pair");
	trial->cap = init.cap;
	return qp;
}

static void modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	errno = ibv_modify_qp(qp, attr, mask | IBV_QP_STATE);
	must(errno == 0, "ibv_modify_qp");
}

void pair_set_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};

	modify(qp, &attr, 0);
}

static void to_init(const struct trial *trial, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = (unsigned)trial->access, .qkey = QKEY};

	modify(qp, &attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | (trial->type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

static void to_rtr(const struct trial *trial, struct ibv_qp *qp, uint32_t to)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = to,
		.rq_psn = PSN,
		.max_dest_rd_atomic = trial->max_dest_rd_atomic,
		.min_rnr_timer = 1,
		.ah_attr = {.is_global = 1,
			    .port_num = 1,
			    .grh = {.dgid = lab.gid, .sgid_index = (uint8_t)lab.gid_index, .hop_limit = 64}},
	};
	int connected = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	int reliable = IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;

	modify(qp, &attr, trial->type == IBV_QPT_UD ? 0 : trial->type == IBV_QPT_UC ? connected : connected | reliable);
}

static void to_rts(const struct trial *trial, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = PSN,
		.timeout = trial->timeout,
		.retry_cnt = trial->retry_cnt,
		.rnr_retry = trial->rnr_retry,
		.max_rd_atomic = trial->max_rd_atomic,
	};
	int reliable = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;

	modify(qp, &attr, IBV_QP_SQ_PSN | (trial->type == IBV_QPT_RC ? reliable : 0));
}

void pair_raise(const struct trial *trial, struct ibv_qp *qp, uint32_t to, enum ibv_qp_state state)
{
	if (state >= IBV_QPS_INIT)
		to_init(trial, qp);
	if (state >= IBV_QPS_RTR)
		to_rtr(trial, qp, to);
	if (state >= IBV_QPS_RTS)
		to_rts(trial, qp);
}

static void open_end(struct trial *trial, struct end *end)
{
	end->cq = ibv_create_cq(lab.context, end->room, NULL, NULL, 0);
	must(end->cq != NULL, "ibv_create_cq");
	end->qp = pair_create_qp(trial, end->cq);
}

void pair_open(struct trial *trial)
{
	struct ibv_qp_cap wanted = trial->cap;

	open_end(trial, &trial->target);
	trial->cap = wanted;
	open_end(trial, &trial->requester);
	uint32_t requester = trial->requester.qp->qp_num, target = trial->target.qp->qp_num;
	pair_raise(trial, trial->target.qp, requester, trial->target_state);
	for (int i = 0; i < trial->receives; i++) {
		errno = post_receive(trial, &trial->target);
		must(errno == 0, "ibv_post_recv");
	}
	pair_raise(trial, trial->requester.qp, target, trial->requester_state);
	if (trial->type == IBV_QPT_UD) {
		trial->wr.wr.ud.ah = lab.ah;
		trial->wr.wr.ud.remote_qpn = target;
		trial->wr.wr.ud.remote_qkey = QKEY;
	}
}

void pair_close(struct trial *trial)
{
	struct ibv_qp *qps[] = {trial->requester.qp, trial->target.qp, trial->other};

	/* The window first: rdma_rxe destroys a queue pair with a bound window only after 50 s. */
	must(!trial->window || !ibv_dealloc_mw(trial->window), "ibv_dealloc_mw");
	for (int i = 0; i < 3; i++)
		must(!qps[i] || !ibv_destroy_qp(qps[i]), "ibv_destroy_qp");
	must(!trial->region || !ibv_dereg_mr(trial->region), "ibv_dereg_mr");
	must(!trial->ah || !ibv_destroy_ah(trial->ah), "ibv_destroy_ah");
	must(!ibv_destroy_cq(trial->requester.cq) && !ibv_destroy_cq(trial->target.cq), "ibv_destroy_cq");
}

/* ---- posting ---- */

void use_local(struct trial *trial, enum region region, const void *memory, uint32_t length)
{
	trial->sge[0] = (struct ibv_sge){address(memory), length, lab.region[region]->lkey};
}

void use_remote(struct trial *trial, const void *memory, uint32_t rkey)
{
	bool atomic = trial->wr.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || trial->wr.opcode == IBV_WR_ATOMIC_CMP_AND_SWP;

	if (atomic) {
		trial->wr.wr.atomic.remote_addr = address(memory);
		trial->wr.wr.atomic.rkey = rkey;
	} else {
		trial->wr.wr.rdma.remote_addr = address(memory);
		trial->wr.wr.rdma.rkey = rkey;
	}
}

/* Behind a READ or atomic it waits for the response, or what became of both would depend on who is faster. */
static void make_right(struct trial *trial, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	*sge = (struct ibv_sge){address(lab.local), 8, lab.region[LOCAL]->lkey};
	*wr = (struct ibv_send_wr){
		.sg_list = sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .wr_id = 2};
	if (trial->type == IBV_QPT_RC)
		wr->send_flags |= IBV_SEND_FENCE;
	if (trial->type == IBV_QPT_UD) {
		wr->wr.ud.ah = lab.ah;
		wr->wr.ud.remote_qpn = trial->target.qp ? trial->target.qp->qp_num : 0;
		wr->wr.ud.remote_qkey = QKEY;
	}
}

static int post(struct end *end, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad = NULL;
	int error = ibv_post_send(end->qp, wr, &bad);

	for (; wr && !(error && wr == bad); wr = wr->next)
		end->posted++;
	return error;
}

void post_both(struct trial *trial)
{
	struct ibv_send_wr right;
	struct ibv_sge sge;

	make_right(trial, &right, &sge);
	if (trial->send_ops) {
		placement_post(trial, &right);
		return;
	}
	trial->wr.next = &right;
	trial->refused = post(&trial->requester, &trial->wr);
	trial->wr.next = NULL;
}

void post_one(struct trial *trial)
{
	trial->refused = post(&trial->requester, &trial->wr);
}

int post_right(struct trial *trial, struct end *end)
{
	struct ibv_send_wr right;
	struct ibv_sge sge;

	make_right(trial, &right, &sge);
	return post(end, &right);
}

int post_receive(struct trial *trial, struct end *end)
{
	struct ibv_recv_wr *bad;
	int error = ibv_post_recv(end->qp, &trial->receive, &bad);

	if (!error)
		end->posted++;
	return error;
}
