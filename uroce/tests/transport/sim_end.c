/* SPDX-License-Identifier: Apache-2.0 */
/* The ends of a connection: what a program has, posts and looks at. */
#include "sim.h"

/* ---- ends ---- */

struct sim_options sim_defaults(void)
{
	return (struct sim_options){
		.type = IBV_QPT_RC,
		.mtu = IBV_MTU_1024,
		.psn = 0x000100,
		.timeout = 10,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.min_rnr_timer = 12,
		.rd_atomic = 4,
		.dest_rd_atomic = 4,
		.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			  IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND,
		.mr_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			     IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND,
		.depth = 64,
		.sges = 4,
		.memory = 1 << 20,
		.qkey = 0x11111111,
	};
}

static void to_init(struct sim_end *end)
{
	const struct sim_options *o = &end->options;
	int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = o->qkey};
	int remote = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | ACCESS_FLUSH_GLOBAL;
	attr.qp_access_flags = o->access < 0 ? 0 : o->access & (remote | IBV_ACCESS_LOCAL_WRITE);
	mask |= o->type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);
}

void sim_open(struct sim_end *end, struct sim_node *node, const struct sim_options *options)
{
	*end = (struct sim_end){.node = node, .options = *options, .size = options->memory};
	struct ibv_context *context = &node->context.verbs.context;
	end->pd = options->pd ? options->pd : node->pd;
	end->memory = calloc(1, end->size + 1);
	end->mr = mr_reg(end->pd, end->memory, end->size, (uintptr_t)end->memory, options->mr_access);
	assert_non_null(end->mr);
	end->scq = cq_create(context, (int)options->depth * 2, NULL, NULL, 0);
	end->rcq = cq_create(context, (int)options->depth * 2, NULL, options->channel, 0);
	assert_non_null(end->scq);
	assert_non_null(end->rcq);
	struct ibv_qp_init_attr init = {
		.send_cq = end->scq,
		.recv_cq = end->rcq,
		.srq = options->srq,
		.qp_type = options->type,
		.sq_sig_all = options->signal_all,
		.cap = {.max_send_wr = options->depth,
			.max_recv_wr = options->srq ? 0 : options->depth,
			.max_send_sge = options->sges,
			.max_recv_sge = options->srq ? 0 : options->sges,
			.max_inline_data = options->inline_bytes},
	};
	end->qp = qp_create(end->pd, &init);
	assert_non_null(end->qp);
	to_init(end);
}

void sim_connect(struct sim_end *end, const union ibv_gid *peer, uint32_t qpn)
{
	const struct sim_options *o = &end->options;
	bool rc = o->type == IBV_QPT_RC;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = o->mtu,
		.dest_qp_num = qpn,
		.rq_psn = o->psn,
		.max_dest_rd_atomic = o->dest_rd_atomic,
		.min_rnr_timer = o->min_rnr_timer,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = *peer, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE;
	if (o->type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	if (rc)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);

	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.sq_psn = o->psn,
		.timeout = o->timeout,
		.retry_cnt = o->retry_cnt,
		.rnr_retry = o->rnr_retry,
		.max_rd_atomic = o->rd_atomic == 255 ? 0 : o->rd_atomic,
	};
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	if (rc)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);
}

void sim_pair(struct sim_end *a, struct sim_node *na, struct sim_end *b, struct sim_node *nb,
	      const struct sim_options *options)
{
	sim_open(a, na, options);
	sim_open(b, nb, options);
	sim_connect(a, &nb->gid, b->qp->qp_num);
	sim_connect(b, &na->gid, a->qp->qp_num);
}

void sim_close(struct sim_end *end)
{
	if (end->qp)
		assert_int_equal(qp_destroy(end->qp), 0);
	assert_int_equal(cq_destroy(end->scq), 0);
	assert_int_equal(cq_destroy(end->rcq), 0);
	assert_int_equal(mr_dereg(end->mr), 0);
	free(end->memory);
}

int sim_modify(struct sim_end *end, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};
	return qp_modify(end->qp, &attr, IBV_QP_STATE);
}

enum ibv_qp_state sim_state(const struct sim_end *end)
{
	return qp_of(end->qp)->state;
}

/* ---- posting ---- */

void sim_post(struct sim_end *end, struct ibv_send_wr *wr, size_t offset, uint32_t length)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(end->memory + offset), .length = length, .lkey = end->mr->lkey};
	struct ibv_send_wr *bad = NULL;
	assert_true(offset + length <= end->size);
	wr->sg_list = &sge;
	wr->num_sge = length > 0;
	assert_int_equal(qp_post_send(end->qp, wr, &bad), 0);
}

void sim_send(struct sim_end *end, uint64_t id, size_t offset, uint32_t length)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	sim_post(end, &wr, offset, length);
}

static void one_sided(struct sim_end *end, enum ibv_wr_opcode opcode, uint64_t id, size_t offset, uint32_t length,
		      const struct sim_end *to, size_t at)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.remote_addr = (uintptr_t)to->memory + at;
	wr.wr.rdma.rkey = to->mr->rkey;
	sim_post(end, &wr, offset, length);
}

void sim_write(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *to, size_t at)
{
	one_sided(end, IBV_WR_RDMA_WRITE, id, offset, length, to, at);
}

void sim_read(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *from, size_t at)
{
	one_sided(end, IBV_WR_RDMA_READ, id, offset, length, from, at);
}

void sim_fetch_add(struct sim_end *end, uint64_t id, size_t offset, const struct sim_end *to, size_t at, uint64_t add)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.atomic.remote_addr = (uintptr_t)to->memory + at;
	wr.wr.atomic.rkey = to->mr->rkey;
	wr.wr.atomic.compare_add = add;
	sim_post(end, &wr, offset, 8);
}

void sim_recv(struct sim_end *end, uint64_t id, size_t offset, uint32_t length)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(end->memory + offset), .length = length, .lkey = end->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = length > 0}, *bad = NULL;
	assert_true(offset + length <= end->size);
	assert_int_equal(qp_post_recv(end->qp, &wr, &bad), 0);
}

/* ---- looking ---- */

struct ibv_wc sim_expect(struct ibv_cq *cq, uint64_t id, enum ibv_wc_status status)
{
	struct ibv_wc wc = {0};
	assert_int_equal(cq_poll(cq, 1, &wc), 1);
	if (wc.status != status || wc.wr_id != id)
		fail_msg("request %llu has status %d; expected request %llu with status %d",
			 (unsigned long long)wc.wr_id, (int)wc.status, (unsigned long long)id, (int)status);
	return wc;
}

void sim_expect_none(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(cq, 1, &wc), 0);
}

unsigned sim_count(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	unsigned count = 0;
	for (; cq_poll(cq, 1, &wc) == 1; count++)
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
	return count;
}

bool sim_event(struct sim_node *node, enum ibv_event_type type, const void *element)
{
	bool found = false;
	pthread_mutex_lock(&node->context.event_lock);
	for (struct async_event *event = node->context.event_head; event; event = event->next)
		found = found || (event->event.event_type == type && event->event.element.qp == element);
	pthread_mutex_unlock(&node->context.event_lock);
	return found;
}

static uint8_t pattern(size_t i, uint64_t seed)
{
	uint64_t x = (i / 8 + 1) * 0x9e3779b97f4a7c15 + seed * 0xd1342543de82ef95;
	return (uint8_t)((x ^ (x >> 29)) >> (8 * (i % 8)));
}

void sim_fill(uint8_t *at, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		at[i] = pattern(i, seed);
}

bool sim_filled(const uint8_t *at, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		if (at[i] != pattern(i, seed))
			return false;
	return true;
}
