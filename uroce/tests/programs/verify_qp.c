/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that verify uses: objects, connecting, posting, polling. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <endian.h>

#include "verify.h"

static struct ibv_context *open_device(const char *name)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);
	struct ibv_context *context = NULL;

	for (int i = 0; list && i < count && !context; i++) {
		if (!name || !strcmp(ibv_get_device_name(list[i]), name)) {
			context = ibv_open_device(list[i]);
			if (!context)
				fail(EXIT_USAGE, "cannot open %s: %m", ibv_get_device_name(list[i]));
		}
	}
	if (list)
		ibv_free_device_list(list);
	if (!context)
		fail(EXIT_USAGE, "no RDMA device %s", name ? name : "");
	return context;
}

static uint8_t *map(size_t length)
{
	uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail(EXIT_USAGE, "%zu bytes of memory: %m", length);
	return memory;
}

static struct ibv_qp *create_qp(struct end *end)
{
	struct ibv_qp_init_attr_ex attr = {
		.send_cq = end->cq,
		.recv_cq = end->cq,
		.cap = {.max_send_wr = end->plan->depth,
			.max_recv_wr = end->plan->depth,
			.max_send_sge = MAX_SGES,
			.max_recv_sge = MAX_SGES,
			.max_inline_data = MAX_INLINE},
		.qp_type = end->plan->unreliable ? IBV_QPT_UC : IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = end->pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_WRITE |
				  IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
	};

	if (!end->plan->unreliable)
		attr.send_ops_flags |= IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
				       IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
	struct ibv_qp *qp = ibv_create_qp_ex(end->context, &attr);

	if (!qp)
		fail(EXIT_USAGE, "ibv_create_qp_ex: %m");
	end->max_inline = attr.cap.max_inline_data < MAX_INLINE ? attr.cap.max_inline_data : MAX_INLINE;
	return qp;
}

static void to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = qp->qp_type == IBV_QPT_UC ? IBV_ACCESS_REMOTE_WRITE
							     : IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
								       IBV_ACCESS_REMOTE_ATOMIC,
	};
	int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	if (error)
		fail(EXIT_BAD_DATA, "modify to INIT: %s", strerror(error));
}

void end_open(struct end *end, const struct options *options)
{
	const struct plan *plan = end->plan;

	end->context = open_device(options->device);
	if (end->events) {
		end->channel = ibv_create_comp_channel(end->context);
		if (!end->channel)
			fail(EXIT_USAGE, "ibv_create_comp_channel: %m");
	}
	end->pd = ibv_alloc_pd(end->context);
	end->cq = ibv_create_cq(end->context, (int)(2 * plan->qps * plan->depth), NULL, end->channel, 0);
	if (!end->pd || !end->cq)
		fail(EXIT_USAGE, "PD or CQ: %m");
	/* What a slot does not use must stay as it was: the guard. */
	end->stride = (plan_max_size(plan) + GUARD + 63) & ~(size_t)63;
	end->total = end->stride * plan->qps * plan->depth;
	end->source = map(end->total);
	end->target = map(end->total);
	end->source_mr = ibv_reg_mr(end->pd, end->source, end->total, IBV_ACCESS_LOCAL_WRITE);
	end->target_mr = ibv_reg_mr(end->pd, end->target, end->total,
				    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
					    IBV_ACCESS_REMOTE_ATOMIC);
	end->qp = calloc(plan->qps, sizeof(struct ibv_qp *));
	end->psn = calloc(plan->qps, sizeof *end->psn);
	if (!end->source_mr || !end->target_mr || !end->qp || !end->psn)
		fail(EXIT_USAGE, "memory: %m");
	for (uint32_t i = 0; i < plan->qps; i++) {
		end->qp[i] = create_qp(end);
		to_init(end->qp[i]);
		/* Also PSNs that soon wrap. */
		end->psn[i] = i % 2 ? 0xffffff - i : (uint32_t)mix(plan->seed + i + end->side) & 0xffffff;
	}
	if (end->events && ibv_req_notify_cq(end->cq, 0))
		fail(EXIT_BAD_DATA, "ibv_req_notify_cq failed");
}

static void to_ready(struct end *end, uint32_t i, const union ibv_gid *gid, uint32_t qpn, uint32_t psn)
{
	const struct plan *plan = end->plan;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = plan->mtu,
		.dest_qp_num = qpn,
		.rq_psn = psn,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 1,
		.ah_attr = {.is_global = 1,
			    .port_num = 1,
			    .grh = {.dgid = *gid, .sgid_index = (uint8_t)end->gid_index, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	int error = ibv_modify_qp(end->qp[i], &attr,
				  plan->unreliable ? mask : mask | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);

	if (error)
		fail(EXIT_BAD_DATA, "modify to RTR: %s", strerror(error));
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.sq_psn = end->psn[i],
		/* When the other end is to be lost, these take effect then: until then it may have to wait for a processor. */
		.timeout = plan->lose ? PATIENT_TIMEOUT : (uint8_t)plan->timeout,
		.retry_cnt = plan->lose ? PATIENT_RETRY : (uint8_t)plan->retry,
		.rnr_retry = 7,
		.max_rd_atomic = 4,
	};
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	error = ibv_modify_qp(end->qp[i], &attr,
			      plan->unreliable ? mask
					       : mask | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
							 IBV_QP_MAX_QP_RD_ATOMIC);
	if (error)
		fail(EXIT_BAD_DATA, "modify to RTS: %s", strerror(error));
}

/* What an end tells the other, in network byte order. */
struct hello {
	uint8_t gid[16];
	uint32_t address_high;
	uint32_t address_low;
	uint32_t rkey;
	uint32_t pid;
};

void end_connect(struct end *end)
{
	const struct plan *plan = end->plan;
	uint64_t address = (uint64_t)(uintptr_t)end->target;
	struct hello hello = {.address_high = htonl((uint32_t)(address >> 32)),
			      .address_low = htonl((uint32_t)address),
			      .rkey = htonl(end->target_mr->rkey),
			      .pid = htonl((uint32_t)getpid())};
	uint32_t numbers[MAX_QPS][2];
	union ibv_gid gid;

	if (ibv_query_gid(end->context, 1, (int)end->gid_index, &gid))
		fail(EXIT_USAGE, "no GID with index %u", end->gid_index);
	memcpy(hello.gid, gid.raw, sizeof gid.raw);
	for (uint32_t i = 0; i < plan->qps; i++) {
		numbers[i][0] = htonl(end->qp[i]->qp_num);
		numbers[i][1] = htonl(end->psn[i]);
	}
	wire_send(end->fd, &hello, sizeof hello);
	wire_send(end->fd, numbers, sizeof numbers[0] * plan->qps);
	wire_receive(end->fd, &hello, sizeof hello);
	wire_receive(end->fd, numbers, sizeof numbers[0] * plan->qps);
	memcpy(gid.raw, hello.gid, sizeof gid.raw);
	end->remote_address = (uint64_t)ntohl(hello.address_high) << 32 | ntohl(hello.address_low);
	end->remote_rkey = ntohl(hello.rkey);
	end->remote_pid = (int)ntohl(hello.pid);
	for (uint32_t i = 0; i < plan->qps; i++)
		to_ready(end, i, &gid, ntohl(numbers[i][0]), ntohl(numbers[i][1]));
}

void end_close(struct end *end)
{
	int error = 0;

	for (uint32_t i = 0; i < end->plan->qps; i++)
		error |= ibv_destroy_qp(end->qp[i]);
	error |= ibv_dereg_mr(end->source_mr);
	error |= ibv_dereg_mr(end->target_mr);
	error |= ibv_destroy_cq(end->cq);
	error |= ibv_dealloc_pd(end->pd);
	if (end->channel)
		error |= ibv_destroy_comp_channel(end->channel);
	error |= ibv_close_device(end->context);
	if (error)
		fail(EXIT_BAD_DATA, "an object could not be destroyed");
	munmap(end->source, end->total);
	munmap(end->target, end->total);
	free(end->qp);
	free(end->psn);
}

static void sleep_for_event(struct end *end)
{
	struct pollfd entry = {.fd = end->channel->fd, .events = POLLIN};
	struct ibv_cq *cq;
	void *context;

	if (poll(&entry, 1, deadline_left()) <= 0)
		return;
	if (ibv_get_cq_event(end->channel, &cq, &context) || cq != end->cq)
		fail(EXIT_BAD_DATA, "ibv_get_cq_event failed");
	ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(cq, 0))
		fail(EXIT_BAD_DATA, "ibv_req_notify_cq failed");
}

int end_poll(struct end *end, struct ibv_wc *wc, int count)
{
	int n = ibv_poll_cq(end->cq, count, wc);

	if (n < 0)
		fail(EXIT_BAD_DATA, "ibv_poll_cq failed");
	/* Armed, and empty after that: asleep until an event. */
	if (n == 0 && end->channel)
		sleep_for_event(end);
	return n;
}

/* Cuts `length` bytes into up to MAX_SGES pieces, at places that `choices` decides. */
static int cut(struct ibv_sge *sge, const uint8_t *bytes, uint32_t length, uint32_t lkey, uint32_t choices)
{
	int pieces = 1 + (int)(choices & (MAX_SGES - 1));
	uint32_t left = length;

	for (int i = 0; i < pieces; i++) {
		uint32_t part = i == pieces - 1 || !left ? left : (uint32_t)(mix(choices + (uint32_t)i) % left);

		sge[i] = (struct ibv_sge){.addr = (uintptr_t)(bytes + (length - left)), .length = part, .lkey = lkey};
		left -= part;
	}
	return pieces;
}

void end_post_receive(struct end *end, uint32_t qp, uint32_t slot, const struct item *item)
{
	struct ibv_sge sge[MAX_SGES];
	struct ibv_recv_wr wr = {.wr_id = (uint64_t)qp << 32 | 1u << 31 | slot, .sg_list = sge};
	struct ibv_recv_wr *bad;

	/* A little more room than needed; a write with immediate data needs none at all. */
	if (item->op != WRITE_IMM)
		wr.num_sge = cut(sge, end->target + slot_offset(end, qp, slot), item->size + (item->choices >> 8 & 31),
				 end->target_mr->lkey, item->choices >> 16);
	int error = ibv_post_recv(end->qp[qp], &wr, &bad);

	if (error)
		fail(EXIT_BAD_DATA, "ibv_post_recv: %s", strerror(error));
}

bool end_posts_inline(const struct end *end, const struct item *item)
{
	return item->op != READ && !is_atomic(item->op) && item->size <= end->max_inline && (item->choices >> 10 & 1);
}

static void make_wr(struct end *end, uint32_t qp, uint32_t slot, const struct item *item, struct ibv_send_wr *wr,
		    struct ibv_sge *sge)
{
	static const enum ibv_wr_opcode opcodes[OPERATIONS] = {
		IBV_WR_SEND,      IBV_WR_SEND_WITH_IMM,      IBV_WR_RDMA_WRITE,          IBV_WR_RDMA_WRITE_WITH_IMM,
		IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD};
	size_t at = slot_offset(end, qp, slot);
	uint32_t choices = item->choices;

	*wr = (struct ibv_send_wr){.wr_id = (uint64_t)qp << 32 | slot, .sg_list = sge, .opcode = opcodes[item->op]};
	if (is_atomic(item->op)) {
		sge[0] = (struct ibv_sge){
			.addr = (uintptr_t)(end->source + at), .length = 8, .lkey = end->source_mr->lkey};
		wr->num_sge = 1;
		wr->wr.atomic.remote_addr = end->remote_address + at;
		wr->wr.atomic.rkey = end->remote_rkey;
		/* Half of the compares fail. */
		wr->wr.atomic.compare_add =
			item->op == COMPARE_SWAP ? mix(item->key) + (choices >> 20 & 1) : mix(item->key + 1);
		wr->wr.atomic.swap = mix(item->key + 2);
		return;
	}
	wr->num_sge = item->size ? cut(sge, end->source + at, item->size, end->source_mr->lkey, choices >> 4) : 0;
	if (end_posts_inline(end, item))
		wr->send_flags |= IBV_SEND_INLINE;
	if (item->op == SEND_IMM || item->op == WRITE_IMM)
		wr->imm_data = htonl(item->choices);
	if (item->op != SEND && item->op != SEND_IMM) {
		wr->wr.rdma.remote_addr = end->remote_address + at;
		wr->wr.rdma.rkey = end->remote_rkey;
	}
}

static void build_data(struct ibv_qp_ex *qp, const struct ibv_send_wr *wr)
{
	struct ibv_data_buf buffers[MAX_SGES];

	if (!(wr->send_flags & IBV_SEND_INLINE)) {
		if (wr->num_sge == 1)
			ibv_wr_set_sge(qp, wr->sg_list[0].lkey, wr->sg_list[0].addr, wr->sg_list[0].length);
		else
			ibv_wr_set_sge_list(qp, (size_t)wr->num_sge, wr->sg_list);
		return;
	}
	for (int i = 0; i < wr->num_sge; i++)
		buffers[i] = (struct ibv_data_buf){.addr = (void *)(uintptr_t)wr->sg_list[i].addr, .length = wr->sg_list[i].length};
	if (wr->num_sge == 1)
		ibv_wr_set_inline_data(qp, buffers[0].addr, buffers[0].length);
	else
		ibv_wr_set_inline_data_list(qp, (size_t)wr->num_sge, buffers);
}

/* The same as a struct says, by the calls of ibv_qp_ex. */
static void build(struct ibv_qp_ex *qp, const struct ibv_send_wr *wr)
{
	uint32_t rkey = wr->wr.rdma.rkey;
	uint64_t address = wr->wr.rdma.remote_addr;

	qp->wr_id = wr->wr_id;
	qp->wr_flags = wr->send_flags & ~(unsigned)IBV_SEND_INLINE;
	switch (wr->opcode) {
	case IBV_WR_SEND: ibv_wr_send(qp); break;
	case IBV_WR_SEND_WITH_IMM: ibv_wr_send_imm(qp, wr->imm_data); break;
	case IBV_WR_RDMA_WRITE: ibv_wr_rdma_write(qp, rkey, address); break;
	case IBV_WR_RDMA_WRITE_WITH_IMM: ibv_wr_rdma_write_imm(qp, rkey, address, wr->imm_data); break;
	case IBV_WR_RDMA_READ: ibv_wr_rdma_read(qp, rkey, address); break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		ibv_wr_atomic_cmp_swp(qp, wr->wr.atomic.rkey, wr->wr.atomic.remote_addr, wr->wr.atomic.compare_add, wr->wr.atomic.swap);
		break;
	default:
		ibv_wr_atomic_fetch_add(qp, wr->wr.atomic.rkey, wr->wr.atomic.remote_addr, wr->wr.atomic.compare_add);
		break;
	}
	build_data(qp, wr);
}

/* From `wr` on, by way of structs or of the builder. */
static void post(struct ibv_qp *qp, struct ibv_send_wr *wr, bool by_builder)
{
	struct ibv_send_wr *bad;
	struct ibv_qp_ex *builder = ibv_qp_to_qp_ex(qp);
	int error;

	if (by_builder) {
		ibv_wr_start(builder);
		for (; wr; wr = wr->next)
			build(builder, wr);
		error = ibv_wr_complete(builder);
	} else {
		error = ibv_post_send(qp, wr, &bad);
	}
	if (error)
		fail(EXIT_BAD_DATA, "%s: %s", by_builder ? "ibv_wr_complete" : "ibv_post_send", strerror(error));
}

void end_post_items(struct end *end, uint32_t qp, const struct item *items, bool *signaled)
{
	uint32_t depth = end->plan->depth;
	struct ibv_send_wr wr[MAX_DEPTH];
	struct ibv_sge sge[MAX_DEPTH][MAX_SGES];
	bool one_by_one = items[0].choices >> 11 & 1, by_builder = !end->structs && (items[0].choices >> 24 & 1);

	for (uint32_t slot = 0; slot < depth; slot++) {
		make_wr(end, qp, slot, &items[slot], &wr[slot], sge[slot]);
		signaled[slot] = slot == depth - 1 || items[slot].choices >> 12 & 1;
		if (signaled[slot])
			wr[slot].send_flags |= IBV_SEND_SIGNALED;
		if (items[slot].choices >> 13 & 1)
			wr[slot].send_flags |= IBV_SEND_SOLICITED;
		if (!end->plan->unreliable && (items[slot].choices >> 14 & 3) == 0)
			wr[slot].send_flags |= IBV_SEND_FENCE;
		wr[slot].next = one_by_one || slot == depth - 1 ? NULL : &wr[slot + 1];
	}
	for (uint32_t slot = 0; slot < (one_by_one ? depth : 1); slot++)
		post(end->qp[qp], &wr[slot], by_builder);
	/* Inline data was read when it was posted. */
	for (uint32_t slot = 0; slot < depth; slot++)
		if (wr[slot].send_flags & IBV_SEND_INLINE)
			memset(end->source + slot_offset(end, qp, slot), 0xee, items[slot].size);
}
