/* SPDX-License-Identifier: Apache-2.0 */
#include "channel.h"

#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Immediate data of every message: kind in the top byte, credits returned in the rest. */
#define IMM_MESSAGE 1u
#define IMM_CREDIT 2u
#define IMM_KIND_SHIFT 24
#define IMM_CREDITS_MASK 0xffffffu

#define POLL_BATCH 16
#define SLOT_ALIGN 64u /* a cache line: no two slots share one */

uint32_t srdma_channel_send_depth(uint32_t depth, uint32_t rdma_depth)
{
	return depth + SRDMA_CREDIT_RESERVE + rdma_depth;
}

uint32_t srdma_channel_recv_depth(uint32_t depth)
{
	return depth + SRDMA_CREDIT_RESERVE;
}

static uint32_t stride_of(uint32_t message_size)
{
	return (message_size + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
}

/* Half the depth: a slot is busy for one round trip only, a receive until the application has read it. */
static uint32_t send_slots_of(uint32_t depth)
{
	return (depth + 1) / 2;
}

size_t srdma_channel_ring_size(uint32_t message_size, uint32_t depth)
{
	return (size_t)(srdma_channel_recv_depth(depth) + send_slots_of(depth)) * stride_of(message_size);
}

/* ---- construction ---------------------------------------------------------------------------------------------- */

static char *slot_address(const struct srdma_channel *channel, uint32_t slot)
{
	return (char *)channel->ring.address + (size_t)slot * channel->stride;
}

static int post_receive(struct srdma_channel *channel, uint32_t slot)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)slot_address(channel, slot),
		.length = channel->stride,
		.lkey = channel->ring.mr->lkey,
	};
	struct ibv_recv_wr wr = {.wr_id = slot, .sg_list = &sge, .num_sge = 1}, *bad;
	int error = ibv_post_recv(channel->qp->verbs, &wr, &bad);

	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post a receive: %s", strerror(error));
	return 0;
}

int srdma_channel_new(struct srdma_channel *channel, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, uint32_t message_size, uint32_t depth, uint32_t rdma_depth)
{
	struct srdma_channel c = {
		.qp = qp,
		.send_cq = send_cq,
		.recv_cq = recv_cq,
		.stride = stride_of(message_size),
		.recv_slots = srdma_channel_recv_depth(depth),
		.send_slots = send_slots_of(depth),
		.message_size = message_size,
		.depth = depth,
		.rdma_depth = rdma_depth,
		.op_room = srdma_channel_send_depth(depth, rdma_depth),
		/* Small enough that among as many messages as can be under way one always raises a completion. */
		.signal_interval = (depth + 1) / 2 < 4 ? 1 : (depth + 1) / 4,
		.credits = depth,
	};
	int ret = srdma_region_new(pd, srdma_channel_ring_size(message_size, depth), IBV_ACCESS_LOCAL_WRITE, &c.ring);

	if (ret != 0)
		return ret;
	c.ops = calloc(c.op_room, sizeof *c.ops);
	c.arrivals = calloc(c.recv_slots, sizeof *c.arrivals);
	c.done = calloc(rdma_depth, sizeof *c.done);
	if (!c.ops || !c.arrivals || !c.done) {
		srdma_channel_release(&c);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	for (uint32_t slot = 0; slot < c.recv_slots; slot++) {
		ret = post_receive(&c, slot);
		if (ret != 0) {
			srdma_channel_release(&c);
			return ret;
		}
	}
	*channel = c;
	return 0;
}

void srdma_channel_agree(struct srdma_channel *channel, uint32_t message_size, uint32_t depth)
{
	channel->message_size = message_size;
	channel->depth = depth;
	channel->credits = depth;
}

void srdma_channel_release(struct srdma_channel *channel)
{
	srdma_region_release(&channel->ring);
	free(channel->ops);
	free(channel->arrivals);
	free(channel->done);
	*channel = (struct srdma_channel){0};
}

/* ---- the send queue -------------------------------------------------------------------------------------------- */

/* A completion stands for all work requests before it, so messages raise one only now and then. */
static int post(struct srdma_channel *channel, struct ibv_send_wr *wr, const struct srdma_op *op, bool signaled)
{
	struct ibv_send_wr *bad;
	int error;

	signaled = signaled || channel->unsignaled + 1 >= channel->signal_interval;
	if (signaled)
		wr->send_flags |= IBV_SEND_SIGNALED;
	wr->wr_id = channel->op_sequence + channel->op_count;
	error = ibv_post_send(channel->qp->verbs, wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post to the send queue: %s", strerror(error));
	channel->unsignaled = signaled ? 0 : channel->unsignaled + 1;
	channel->ops[(channel->op_head + channel->op_count++) % channel->op_room] = *op;
	return 0;
}

static void complete_op(struct srdma_channel *channel)
{
	struct srdma_op op = channel->ops[channel->op_head];

	channel->op_head = (channel->op_head + 1) % channel->op_room;
	channel->op_count--;
	channel->op_sequence++;
	switch (op.kind) {
	case SRDMA_OP_MESSAGE:
		channel->messages_queued--;
		if (op.uses_slot)
			channel->slots_used--;
		break;
	case SRDMA_OP_CREDIT: break;
	case SRDMA_OP_POSTED:
		channel->done[(channel->done_head + channel->done_count++) % channel->rdma_depth] = op.cookie;
		break;
	case SRDMA_OP_WAITED:
		channel->rdma_queued--;
		channel->waited_done++;
		break;
	}
}

static int fail_completion(struct srdma_channel *channel, const struct ibv_wc *wc, const char *what)
{
	if (channel->failed_status == IBV_WC_SUCCESS)
		channel->failed_status = wc->status;
	return srdma_fail(SRDMA_EVERBS, "%s failed on the device: %s", what, ibv_wc_status_str(wc->status));
}

static int fail_send(struct srdma_channel *channel, const struct ibv_wc *wc)
{
	uint64_t index = wc->wr_id - channel->op_sequence;
	enum srdma_op_kind kind = channel->ops[(channel->op_head + index) % channel->op_room].kind;

	return fail_completion(channel, wc,
			       kind == SRDMA_OP_MESSAGE || kind == SRDMA_OP_CREDIT ? "a send" : "an RDMA write or read");
}

static int poll_sends(struct srdma_channel *channel)
{
	struct ibv_wc wc[POLL_BATCH];
	int n;

	while (channel->op_count > 0 && (n = ibv_poll_cq(channel->send_cq, POLL_BATCH, wc)) != 0) {
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the send completion queue");
		for (int i = 0; i < n; i++) {
			if (wc[i].status != IBV_WC_SUCCESS)
				return fail_send(channel, &wc[i]);
			while (channel->op_count > 0 && channel->op_sequence <= wc[i].wr_id)
				complete_op(channel);
		}
		if (n < POLL_BATCH)
			break;
	}
	return 0;
}

static uint32_t immediate(struct srdma_channel *channel, uint32_t kind)
{
	return htonl(kind << IMM_KIND_SHIFT | channel->owed);
}

bool srdma_channel_can_send(const struct srdma_channel *channel)
{
	return channel->credits > 0 && channel->messages_queued < channel->depth &&
	       channel->slots_used < channel->send_slots;
}

int srdma_channel_send(struct srdma_channel *channel, const void *data, uint32_t length)
{
	struct srdma_op op = {.kind = SRDMA_OP_MESSAGE, .uses_slot = length > channel->qp->max_inline};
	struct ibv_sge sge = {.addr = (uintptr_t)data, .length = length, .lkey = channel->ring.mr->lkey};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = length > 0,
		.opcode = IBV_WR_SEND_WITH_IMM,
		.imm_data = immediate(channel, IMM_MESSAGE),
	};
	int ret;

	if (op.uses_slot) {
		char *slot = slot_address(channel, channel->recv_slots + channel->slot_next);

		memcpy(slot, data, length);
		sge.addr = (uintptr_t)slot;
	} else if (length > 0) {
		wr.send_flags = IBV_SEND_INLINE;
	}
	/* Counted first: who has the answer to a message must find the message counted. */
	srdma_counter_add(&channel->counters.messages_sent, 1);
	srdma_counter_add(&channel->counters.bytes_sent, length);
	ret = post(channel, &wr, &op, false);
	if (ret != 0)
		return ret;
	if (op.uses_slot) {
		channel->slot_next = (channel->slot_next + 1) % channel->send_slots;
		channel->slots_used++;
	}
	channel->owed = 0;
	channel->credits--;
	channel->messages_queued++;
	return 0;
}

static int send_credits(struct srdma_channel *channel)
{
	struct srdma_op op = {.kind = SRDMA_OP_CREDIT};
	struct ibv_send_wr wr = {.opcode = IBV_WR_SEND_WITH_IMM, .imm_data = immediate(channel, IMM_CREDIT)};
	int ret = post(channel, &wr, &op, true);

	if (ret == 0)
		channel->owed = 0;
	return ret;
}

/* Half the depth is owed and no message of ours took it along: send it alone. */
static int return_credits(struct srdma_channel *channel)
{
	if (channel->closing || channel->owed < (channel->depth + 1) / 2 || channel->op_count >= channel->op_room)
		return 0;
	return send_credits(channel);
}

int srdma_channel_flush(struct srdma_channel *channel)
{
	/* Only the youngest can be without a completion to come; one that raises one stands for them. */
	bool unheard = channel->unsignaled > 0 && channel->op_count > 0;

	channel->closing = true;
	if ((!unheard && (channel->flushed || channel->owed == 0)) || channel->op_count >= channel->op_room)
		return 0;
	channel->flushed = true;
	return send_credits(channel);
}

/* ---- the receive queue ----------------------------------------------------------------------------------------- */

static int take_arrival(struct srdma_channel *channel, const struct ibv_wc *wc)
{
	uint32_t imm, kind, credits;

	if (wc->status != IBV_WC_SUCCESS)
		return fail_completion(channel, wc, "a receive");
	if (wc->opcode != IBV_WC_RECV || !(wc->wc_flags & IBV_WC_WITH_IMM))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message without immediate data");
	imm = ntohl(wc->imm_data);
	kind = imm >> IMM_KIND_SHIFT;
	credits = imm & IMM_CREDITS_MASK;
	if (credits > channel->depth - channel->credits)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer returned %u credits, more than it was owed", credits);
	if (wc->byte_len > channel->message_size)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of %u bytes; %u were agreed", wc->byte_len,
				  channel->message_size);
	channel->credits += credits;
	srdma_counter_add(&channel->counters.messages_acknowledged, credits);
	if (kind == IMM_CREDIT && wc->byte_len == 0)
		return post_receive(channel, (uint32_t)wc->wr_id);
	if (kind != IMM_MESSAGE)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of unknown kind %u", kind);
	if (channel->arrival_count + channel->owed >= channel->depth)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent more messages than it had credits");
	channel->arrivals[(channel->arrival_head + channel->arrival_count++) % channel->recv_slots] =
		(struct srdma_arrival){.slot = (uint32_t)wc->wr_id, .length = wc->byte_len};
	channel->messages_arrived++;
	return 0;
}

int srdma_channel_poll_receives(struct srdma_channel *channel)
{
	struct ibv_wc wc[POLL_BATCH];
	int n, ret = 0;

	do {
		n = ibv_poll_cq(channel->recv_cq, POLL_BATCH, wc);
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the receive completion queue");
		for (int i = 0; i < n && ret == 0; i++)
			ret = take_arrival(channel, &wc[i]);
	} while (n == POLL_BATCH && ret == 0);
	return ret;
}

int srdma_channel_poll(struct srdma_channel *channel)
{
	int ret = srdma_channel_poll_receives(channel);

	if (ret == 0)
		ret = poll_sends(channel);
	return ret == 0 ? return_credits(channel) : ret;
}

bool srdma_channel_peek(const struct srdma_channel *channel, const void **data, uint32_t *length)
{
	const struct srdma_arrival *first = &channel->arrivals[channel->arrival_head];

	if (channel->arrival_count == 0)
		return false;
	*data = slot_address(channel, first->slot);
	*length = first->length;
	return true;
}

/* Returns its slot. */
static uint32_t take_first(struct srdma_channel *channel)
{
	struct srdma_arrival first = channel->arrivals[channel->arrival_head];

	channel->arrival_head = (channel->arrival_head + 1) % channel->recv_slots;
	channel->arrival_count--;
	srdma_counter_add(&channel->counters.messages_received, 1);
	srdma_counter_add(&channel->counters.bytes_received, first.length);
	return first.slot;
}

void srdma_channel_drop(struct srdma_channel *channel)
{
	take_first(channel);
}

int srdma_channel_consume(struct srdma_channel *channel)
{
	int ret = post_receive(channel, take_first(channel));

	if (ret != 0)
		return ret;
	channel->owed++;
	return return_credits(channel);
}

/* ---- one-sided requests ---------------------------------------------------------------------------------------- */

bool srdma_channel_can_post_rdma(const struct srdma_channel *channel)
{
	return channel->rdma_queued < channel->rdma_depth;
}

int srdma_channel_post_rdma(struct srdma_channel *channel, struct ibv_send_wr *wr, enum srdma_op_kind kind, uint64_t cookie)
{
	struct srdma_op op = {.kind = kind, .cookie = cookie};
	int ret = post(channel, wr, &op, true);

	if (ret == 0)
		channel->rdma_queued++;
	return ret;
}
