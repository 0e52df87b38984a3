/* SPDX-License-Identifier: Apache-2.0 */
/* The send queue of a stream: messages, credits, control records and one-sided requests, and their completions. */
#include "stream_parts.h"

#include "log.h"

#include <arpa/inet.h>
#include <string.h>

/* PSNs of an epoch that are reserved for returning credits, and for the last send before the next epoch. */
#define PSNS_KEPT 2

static void fill_request(const struct srdma_stream *stream, uint32_t index, bool signaled, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	const struct srdma_op *op = srdma_stream_op(stream, index);

	*sge = (struct ibv_sge){.addr = op->local, .length = op->length, .lkey = op->lkey};
	*wr = (struct ibv_send_wr){
		.wr_id = (uint64_t)stream->generation << GENERATION_SHIFT | ((stream->op_sequence + index) & SEQUENCE_MASK),
		.sg_list = sge,
		.num_sge = op->length > 0,
		.send_flags = (signaled ? IBV_SEND_SIGNALED : 0u) | (op->is_inline ? IBV_SEND_INLINE : 0u),
	};
	if (srdma_op_is_send(op)) {
		wr->opcode = IBV_WR_SEND_WITH_IMM;
		wr->imm_data = op->imm;
	} else {
		wr->opcode = op->write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
		wr->wr.rdma.remote_addr = op->remote;
		wr->wr.rdma.rkey = op->kind == SRDMA_OP_PULL ? op->rkey : stream->region_rkey;
	}
}

int srdma_stream_submit(struct srdma_stream *stream, uint32_t first, uint32_t count, bool signaled)
{
	struct ibv_send_wr wr[SRDMA_SUBMIT_MAX], *bad;
	struct ibv_sge sge[SRDMA_SUBMIT_MAX];
	int error;

	for (uint32_t i = 0; i < count; i++) {
		fill_request(stream, first + i, signaled, &wr[i], &sge[i]);
		wr[i].next = NULL;
		if (i > 0)
			wr[i - 1].next = &wr[i];
		stream->psns_used += srdma_stream_psns(stream, sge[i].length);
	}
	error = ibv_post_send(stream->qp->verbs, wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post to the send queue: %s", strerror(error));
	stream->unsignaled = signaled ? 0 : stream->unsignaled + count;
	return 0;
}

/* A completion stands for all work requests before it, so messages raise one only now and then. */
static int post(struct srdma_stream *stream, const struct srdma_op *op, bool signaled)
{
	int ret;

	signaled = signaled || stream->unsignaled + 1 >= stream->signal_interval;
	*srdma_stream_op(stream, stream->op_ring.count) = *op;
	ret = srdma_stream_submit(stream, stream->op_ring.count, 1, signaled);
	if (ret == 0)
		srdma_ring_push(&stream->op_ring);
	return ret;
}

void srdma_stream_complete_rdma(struct srdma_stream *stream, enum srdma_op_kind kind, uint64_t cookie)
{
	if (kind == SRDMA_OP_POSTED) {
		stream->done[srdma_ring_push(&stream->done_ring)] = cookie;
	} else {
		stream->rdma_queued--;
		stream->waited_done++;
	}
}

void srdma_stream_complete_op(struct srdma_stream *stream)
{
	struct srdma_op op = stream->ops[srdma_ring_pop(&stream->op_ring)];

	stream->op_sequence++;
	if (op.uses_slot)
		srdma_ring_pop(&stream->send_slots);
	if (srdma_op_is_send(&op))
		stream->sends_completed = op.send + 1;
	switch (op.kind) {
	case SRDMA_OP_MESSAGE: stream->messages_queued--; break;
	case SRDMA_OP_CREDIT:
	case SRDMA_OP_CONTROL: break;
	case SRDMA_OP_POSTED:
	case SRDMA_OP_WAITED: srdma_stream_complete_rdma(stream, op.kind, op.cookie); break;
	case SRDMA_OP_PULL: stream->on_pulled(stream->arg); break;
	}
}

static int fail_send(struct srdma_stream *stream, const struct ibv_wc *wc)
{
	uint64_t index = (wc->wr_id & SEQUENCE_MASK) - (stream->op_sequence & SEQUENCE_MASK);
	/* The op may be complete already, so the device's index need not lie in the ring. */
	bool send = index < stream->op_ring.count && srdma_op_is_send(srdma_stream_op(stream, (uint32_t)index));

	if (!stream->stopped && (wc->status == IBV_WC_LOC_LEN_ERR || wc->status == IBV_WC_LOC_QP_OP_ERR ||
				  wc->status == IBV_WC_LOC_PROT_ERR || wc->status == IBV_WC_MW_BIND_ERR))
		stream->failed_here = true;
	return srdma_stream_fail_completion(stream, wc, send ? "a send" : "an RDMA write or read");
}

static void complete_up_to(struct srdma_stream *stream, uint64_t wr_id)
{
	uint64_t count = ((wr_id - stream->op_sequence) & SEQUENCE_MASK) + 1;

	if (count > stream->op_ring.count) /* the op is complete already */
		return;
	while (count-- > 0)
		srdma_stream_complete_op(stream);
	/* An op that the peer executed before a renewal completes in its order. */
	while (stream->op_ring.count > 0 && srdma_stream_op(stream, 0)->executed)
		srdma_stream_complete_op(stream);
}

int srdma_stream_poll_sends(struct srdma_stream *stream)
{
	struct ibv_wc wc[POLL_BATCH];
	int n, ret = 0;

	while ((stream->op_ring.count > 0 || stream->stopped) && (n = ibv_poll_cq(stream->send_cq, POLL_BATCH, wc)) != 0) {
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the send completion queue");
		/* Looks at each completion, even after a failure. */
		for (int i = 0; i < n; i++) {
			if (!srdma_stream_is_current(stream, &wc[i]))
				continue;
			if (wc[i].status == IBV_WC_SUCCESS) {
				complete_up_to(stream, wc[i].wr_id);
			} else {
				int failed = fail_send(stream, &wc[i]);

				ret = ret != 0 ? ret : failed;
			}
		}
		if (n < POLL_BATCH)
			break;
	}
	return ret;
}

static uint32_t immediate(struct srdma_stream *stream, uint32_t kind)
{
	return htonl(kind << IMM_KIND_SHIFT | stream->owed);
}

/* The place for the inline data of the next op. */
static uint8_t *next_copy(const struct srdma_stream *stream)
{
	return stream->copies + (size_t)srdma_ring_at(&stream->op_ring, stream->op_ring.count) * stream->copy_size;
}

/* Seals or copies `data` to memory from which it can also be posted again, and posts it. */
static int send_record(struct srdma_stream *stream, enum srdma_op_kind kind, uint32_t imm, const void *data, uint32_t length, bool signaled)
{
	struct srdma_op op = {
		.kind = kind,
		.imm = imm,
		.length = length + stream->overhead,
		.lkey = stream->memory.mr->lkey,
		.send = stream->sends_posted,
	};
	void *place;
	int ret = 0;

	op.is_inline = op.length > 0 && op.length <= stream->copy_size;
	op.uses_slot = op.length > stream->copy_size;
	place = op.uses_slot ? srdma_stream_slot(stream, stream->recv_slots + srdma_ring_at(&stream->send_slots, stream->send_slots.count))
			     : (char *)next_copy(stream);
	op.local = (uintptr_t)place;
	if (stream->sealer)
		ret = srdma_sealer_seal(stream->sealer, &imm, sizeof imm, data, length, place);
	else if (length > 0)
		memcpy(place, data, length);
	if (ret == 0)
		ret = post(stream, &op, signaled);
	if (ret != 0)
		return ret;
	if (op.uses_slot)
		srdma_ring_push(&stream->send_slots);
	stream->sends_posted++;
	stream->owed = 0;
	return 0;
}

bool srdma_stream_can_send(const struct srdma_stream *stream)
{
	return stream->credits > 0 && stream->messages_queued < stream->depth && stream->send_slots.count < stream->send_slots.room &&
	       !stream->held && srdma_stream_has_psns(stream, stream->message_size + stream->overhead, PSNS_KEPT);
}

int srdma_stream_send(struct srdma_stream *stream, const void *data, uint32_t length)
{
	int ret;

	/* The message is counted first, so that a program that has its answer finds it counted. */
	srdma_counter_add(&stream->counters.messages_sent, 1);
	srdma_counter_add(&stream->counters.bytes_sent, length);
	ret = send_record(stream, SRDMA_OP_MESSAGE, immediate(stream, IMM_MESSAGE), data, length, false);
	if (ret != 0)
		return ret;
	stream->credits--;
	stream->messages_queued++;
	return 0;
}

bool srdma_stream_can_control(const struct srdma_stream *stream)
{
	return !stream->held && stream->op_ring.count + SRDMA_CREDIT_RESERVE < stream->op_ring.room &&
	       stream->send_slots.count < stream->send_slots.room &&
	       srdma_stream_has_psns(stream, stream->message_size + stream->overhead, PSNS_KEPT);
}

int srdma_stream_send_control(struct srdma_stream *stream, const void *data, uint32_t length)
{
	return send_record(stream, SRDMA_OP_CONTROL, immediate(stream, IMM_CONTROL), data, length, true);
}

int srdma_stream_send_credits(struct srdma_stream *stream)
{
	return send_record(stream, SRDMA_OP_CREDIT, immediate(stream, IMM_CREDIT), NULL, 0, true);
}

int srdma_stream_flush(struct srdma_stream *stream)
{
	/* Only the youngest requests may raise no completion; a signaled one after them stands for them. */
	bool unheard = stream->unsignaled > 0 && stream->op_ring.count > 0;

	if (stream->held || stream->stopped)
		return 0;
	stream->closing = true;
	if ((!unheard && (stream->flushed || stream->owed == 0)) || stream->op_ring.count >= stream->op_ring.room)
		return 0;
	stream->flushed = true;
	return srdma_stream_send_credits(stream);
}

bool srdma_stream_can_post_rdma(const struct srdma_stream *stream, uint32_t length)
{
	return stream->rdma_queued < stream->rdma_depth && !stream->held && srdma_stream_has_psns(stream, length, PSNS_KEPT);
}

int srdma_stream_post_rdma(struct srdma_stream *stream, const struct srdma_op *request)
{
	struct srdma_op op = *request;
	int ret;

	/* A renewal may post it again when the caller's bytes are gone. */
	if (op.is_inline && op.length > 0) {
		uint8_t *copy = next_copy(stream);

		memcpy(copy, (const void *)(uintptr_t)op.local, op.length);
		op.local = (uintptr_t)copy;
	}
	ret = post(stream, &op, true);
	if (ret == 0)
		stream->rdma_queued++;
	return ret;
}

bool srdma_stream_uses(const struct srdma_stream *stream, uint32_t lkey)
{
	for (uint32_t i = 0; i < stream->op_ring.count; i++) {
		const struct srdma_op *op = srdma_stream_op(stream, i);

		if (!op->is_inline && op->lkey == lkey)
			return true;
	}
	return false;
}

uint32_t srdma_stream_room_for_pulls(const struct srdma_stream *stream, uint32_t length)
{
	uint32_t taken = stream->op_ring.count + SRDMA_CREDIT_RESERVE, room;

	if (stream->held || taken >= stream->op_ring.room)
		return 0;
	room = stream->op_ring.room - taken;
	room = room < SRDMA_SUBMIT_MAX ? room : SRDMA_SUBMIT_MAX;
	while (room > 0 && !srdma_stream_has_psns(stream, 0, (uint32_t)(room * srdma_stream_psns(stream, length)) + PSNS_KEPT))
		room--;
	return room;
}

int srdma_stream_post_pulls(struct srdma_stream *stream, const struct srdma_op *ops, uint32_t count)
{
	int ret;

	for (uint32_t i = 0; i < count; i++)
		*srdma_stream_op(stream, stream->op_ring.count + i) = ops[i];
	ret = srdma_stream_submit(stream, stream->op_ring.count, count, true);
	if (ret == 0)
		stream->op_ring.count += count;
	return ret;
}
