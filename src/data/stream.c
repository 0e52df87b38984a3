/* SPDX-License-Identifier: Apache-2.0 */
#include "stream.h"

#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Immediate data of every send: kind in the top byte, credits returned in the rest. */
#define IMM_MESSAGE 1u
#define IMM_CREDIT 2u
#define IMM_CONTROL 3u
#define IMM_KIND_SHIFT 24
#define IMM_CREDITS_MASK 0xffffffu

#define POLL_BATCH 16
#define SLOT_ALIGN 64u /* a cache line: no two slots share one */
#define GENERATION_SHIFT 48
#define SEQUENCE_MASK ((UINT64_C(1) << GENERATION_SHIFT) - 1)
/* Left of an epoch's PSNs for returning credits, and for the last send before the next epoch. */
#define PSNS_KEPT 2

static uint32_t control_reserve(const struct srdma_stream_shape *shape)
{
	return shape->sealed ? SRDMA_CONTROL_RESERVE : 0;
}

uint32_t srdma_stream_send_depth(const struct srdma_stream_shape *shape)
{
	uint32_t rdma = shape->sealed ? SRDMA_CONTROL_RESERVE + SRDMA_SEALED_CHUNKS : 0;

	return shape->depth + SRDMA_CREDIT_RESERVE + shape->rdma_depth + rdma;
}

uint32_t srdma_stream_recv_depth(const struct srdma_stream_shape *shape)
{
	return shape->depth + SRDMA_CREDIT_RESERVE + control_reserve(shape);
}

static uint32_t stride_of(const struct srdma_stream_shape *shape)
{
	uint32_t most = shape->message_size + (shape->sealed ? SRDMA_SEAL_OVERHEAD : 0);

	return (most + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
}

/* Half the depth: a slot is busy for one round trip only, a receive until the application has read it. */
static uint32_t send_slots_of(const struct srdma_stream_shape *shape)
{
	return (shape->depth + 1) / 2 + control_reserve(shape);
}

size_t srdma_stream_ring_size(const struct srdma_stream_shape *shape)
{
	return (size_t)(srdma_stream_recv_depth(shape) + send_slots_of(shape)) * stride_of(shape);
}

/* ---- construction ---------------------------------------------------------------------------------------------- */

static char *slot_address(const struct srdma_stream *stream, uint32_t slot)
{
	return (char *)stream->ring.address + (size_t)slot * stream->stride;
}

int srdma_stream_post_receive(struct srdma_stream *stream, uint32_t slot)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)slot_address(stream, slot),
		.length = stream->stride,
		.lkey = stream->ring.mr->lkey,
	};
	struct ibv_recv_wr wr = {
		.wr_id = (uint64_t)stream->generation << GENERATION_SHIFT | slot, .sg_list = &sge, .num_sge = 1}, *bad;
	int error;

	/* All free slots are posted when there is a queue pair again. */
	if (stream->stopped)
		return 0;
	error = ibv_post_recv(stream->qp->verbs, &wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post a receive: %s", strerror(error));
	stream->receives_posted++;
	return 0;
}

int srdma_stream_new(struct srdma_stream *stream, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, const struct srdma_stream_shape *shape)
{
	struct srdma_stream c = {
		.qp = qp,
		.send_cq = send_cq,
		.recv_cq = recv_cq,
		.stride = stride_of(shape),
		.recv_slots = srdma_stream_recv_depth(shape),
		.send_slots = send_slots_of(shape),
		.message_size = shape->message_size,
		.depth = shape->depth,
		.rdma_depth = shape->rdma_depth,
		.op_room = srdma_stream_send_depth(shape),
		/* Small enough that among as many messages as can be under way one always raises a completion. */
		.signal_interval = (shape->depth + 1) / 2 < 4 ? 1 : (shape->depth + 1) / 4,
		.credits = shape->depth,
		.copy_size = qp->max_inline,
		.psn_limit = UINT64_MAX,
		.mtu = 256,
	};
	int ret = srdma_region_new(pd, srdma_stream_ring_size(shape), IBV_ACCESS_LOCAL_WRITE, &c.ring);

	if (ret != 0)
		return ret;
	c.ops = calloc(c.op_room, sizeof *c.ops);
	c.copies = calloc(c.op_room, c.copy_size ? c.copy_size : 1);
	c.arrivals = calloc(c.recv_slots, sizeof *c.arrivals);
	c.done = calloc(shape->rdma_depth, sizeof *c.done);
	if (!c.ops || !c.copies || !c.arrivals || !c.done) {
		srdma_stream_release(&c);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	for (uint32_t slot = 0; slot < c.recv_slots; slot++) {
		ret = srdma_stream_post_receive(&c, slot);
		if (ret != 0) {
			srdma_stream_release(&c);
			return ret;
		}
	}
	*stream = c;
	return 0;
}

void srdma_stream_agree(struct srdma_stream *stream, uint32_t message_size, uint32_t depth, uint32_t mtu)
{
	stream->message_size = message_size;
	stream->depth = depth;
	stream->credits = depth;
	stream->mtu = mtu;
}

void srdma_stream_seal(struct srdma_stream *stream, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	stream->sealer = sealer;
	stream->opener = opener;
	stream->overhead = SRDMA_SEAL_OVERHEAD;
}

void srdma_stream_release(struct srdma_stream *stream)
{
	srdma_region_release(&stream->ring);
	if (stream->copies)
		OPENSSL_cleanse(stream->copies, (size_t)stream->op_room * stream->copy_size);
	free(stream->copies);
	free(stream->ops);
	free(stream->arrivals);
	free(stream->done);
	srdma_sealer_delete(&stream->sealer);
	srdma_opener_delete(&stream->opener);
	*stream = (struct srdma_stream){0};
}

/* ---- the send queue -------------------------------------------------------------------------------------------- */

/* Packets of a send or write, or of the response to a read: what the requester's PSN advances by. IBTA vol 1, 9.7.4. */
uint64_t srdma_stream_psns(const struct srdma_stream *stream, uint32_t length)
{
	return length == 0 ? 1 : ((uint64_t)length + stream->mtu - 1) / stream->mtu;
}

static bool has_psns(const struct srdma_stream *stream, uint32_t length, uint32_t kept)
{
	return stream->psns_used + srdma_stream_psns(stream, length) + kept <= stream->psn_limit;
}

static bool is_send(const struct srdma_op *op)
{
	return op->kind == SRDMA_OP_MESSAGE || op->kind == SRDMA_OP_CREDIT || op->kind == SRDMA_OP_CONTROL;
}

static void fill_request(const struct srdma_stream *stream, uint32_t index, bool signaled, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	const struct srdma_op *op = &stream->ops[(stream->op_head + index) % stream->op_room];

	*sge = (struct ibv_sge){.addr = op->local, .length = op->length, .lkey = op->lkey};
	*wr = (struct ibv_send_wr){
		.wr_id = (uint64_t)stream->generation << GENERATION_SHIFT | ((stream->op_sequence + index) & SEQUENCE_MASK),
		.sg_list = sge,
		.num_sge = op->length > 0,
		.send_flags = (signaled ? IBV_SEND_SIGNALED : 0u) | (op->is_inline ? IBV_SEND_INLINE : 0u),
	};
	if (is_send(op)) {
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
	stream->ops[(stream->op_head + stream->op_count) % stream->op_room] = *op;
	ret = srdma_stream_submit(stream, stream->op_count, 1, signaled);
	if (ret == 0)
		stream->op_count++;
	return ret;
}

void srdma_stream_complete_rdma(struct srdma_stream *stream, enum srdma_op_kind kind, uint64_t cookie)
{
	if (kind == SRDMA_OP_POSTED) {
		stream->done[(stream->done_head + stream->done_count++) % stream->rdma_depth] = cookie;
	} else {
		stream->rdma_queued--;
		stream->waited_done++;
	}
}

void srdma_stream_complete_op(struct srdma_stream *stream)
{
	struct srdma_op op = stream->ops[stream->op_head];

	stream->op_head = (stream->op_head + 1) % stream->op_room;
	stream->op_count--;
	stream->op_sequence++;
	if (op.uses_slot)
		stream->slots_used--;
	if (is_send(&op))
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

/* After the first one, more are expected: the queue pair is in ERROR. */
static int fail_completion(struct srdma_stream *stream, const struct ibv_wc *wc, const char *what)
{
	if (stream->stopped)
		return 0;
	if (stream->failed_status == IBV_WC_SUCCESS)
		stream->failed_status = wc->status;
	srdma_stream_stop(stream);
	return srdma_fail(SRDMA_EVERBS, "%s failed on the device: %s", what, ibv_wc_status_str(wc->status));
}

static int fail_send(struct srdma_stream *stream, const struct ibv_wc *wc)
{
	uint64_t index = (wc->wr_id & SEQUENCE_MASK) - (stream->op_sequence & SEQUENCE_MASK);
	const struct srdma_op *op = &stream->ops[(stream->op_head + index) % stream->op_room];

	if (!stream->stopped && (wc->status == IBV_WC_LOC_LEN_ERR || wc->status == IBV_WC_LOC_QP_OP_ERR ||
				  wc->status == IBV_WC_LOC_PROT_ERR || wc->status == IBV_WC_MW_BIND_ERR))
		stream->failed_here = true;
	return fail_completion(stream, wc, is_send(op) ? "a send" : "an RDMA write or read");
}

static bool is_of_this_generation(const struct srdma_stream *stream, const struct ibv_wc *wc)
{
	return wc->wr_id >> GENERATION_SHIFT == stream->generation;
}

static void complete_up_to(struct srdma_stream *stream, uint64_t wr_id)
{
	uint64_t count = ((wr_id - stream->op_sequence) & SEQUENCE_MASK) + 1;

	if (count > stream->op_count) /* of an op that is complete already */
		return;
	while (count-- > 0)
		srdma_stream_complete_op(stream);
	/* What was executed before a renewal is over when its turn comes. */
	while (stream->op_count > 0 && stream->ops[stream->op_head].executed)
		srdma_stream_complete_op(stream);
}

static int poll_sends(struct srdma_stream *stream)
{
	struct ibv_wc wc[POLL_BATCH];
	int n, ret = 0;

	while ((stream->op_count > 0 || stream->stopped) && (n = ibv_poll_cq(stream->send_cq, POLL_BATCH, wc)) != 0) {
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the send completion queue");
		/* Each counts, the ones after a failure too. */
		for (int i = 0; i < n; i++) {
			if (!is_of_this_generation(stream, &wc[i]))
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

/* Seals or copies `data` to where it can be posted from, again if need be, and posts it. */
static int send_record(struct srdma_stream *stream, enum srdma_op_kind kind, uint32_t imm, const void *data, uint32_t length,
		       bool signaled)
{
	struct srdma_op op = {
		.kind = kind,
		.imm = imm,
		.length = length + stream->overhead,
		.lkey = stream->ring.mr->lkey,
		.send = stream->sends_posted,
	};
	void *place;
	int ret = 0;

	op.is_inline = op.length > 0 && op.length <= stream->copy_size;
	op.uses_slot = op.length > stream->copy_size;
	place = op.uses_slot ? slot_address(stream, stream->recv_slots + stream->slot_next)
			     : (char *)stream->copies + (size_t)((stream->op_head + stream->op_count) % stream->op_room) *
								 stream->copy_size;
	op.local = (uintptr_t)place;
	if (stream->sealer)
		ret = srdma_sealer_seal(stream->sealer, &imm, sizeof imm, data, length, place);
	else if (length > 0)
		memcpy(place, data, length);
	if (ret == 0)
		ret = post(stream, &op, signaled);
	if (ret != 0)
		return ret;
	if (op.uses_slot) {
		stream->slot_next = (stream->slot_next + 1) % stream->send_slots;
		stream->slots_used++;
	}
	stream->sends_posted++;
	stream->owed = 0;
	return 0;
}

bool srdma_stream_can_send(const struct srdma_stream *stream)
{
	return stream->credits > 0 && stream->messages_queued < stream->depth && stream->slots_used < stream->send_slots &&
	       !stream->held && has_psns(stream, stream->message_size + stream->overhead, PSNS_KEPT);
}

int srdma_stream_send(struct srdma_stream *stream, const void *data, uint32_t length)
{
	int ret;

	/* Counted first: a peer that has the answer to a message must find the message counted. */
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
	return !stream->held && stream->op_count + SRDMA_CREDIT_RESERVE < stream->op_room &&
	       stream->slots_used < stream->send_slots && has_psns(stream, stream->message_size + stream->overhead, PSNS_KEPT);
}

int srdma_stream_send_control(struct srdma_stream *stream, const void *data, uint32_t length)
{
	return send_record(stream, SRDMA_OP_CONTROL, immediate(stream, IMM_CONTROL), data, length, true);
}

int srdma_stream_send_credits(struct srdma_stream *stream)
{
	return send_record(stream, SRDMA_OP_CREDIT, immediate(stream, IMM_CREDIT), NULL, 0, true);
}

/* Half the depth is owed and no message of ours took it along: send it alone. */
static int return_credits(struct srdma_stream *stream)
{
	if (stream->closing || stream->held || stream->stopped || stream->owed < (stream->depth + 1) / 2 ||
	    stream->op_count >= stream->op_room || !has_psns(stream, 0, 1))
		return 0;
	return srdma_stream_send_credits(stream);
}

int srdma_stream_flush(struct srdma_stream *stream)
{
	/* Only the youngest can be without a completion to come; one that raises one stands for them. */
	bool unheard = stream->unsignaled > 0 && stream->op_count > 0;

	if (stream->held || stream->stopped)
		return 0;
	stream->closing = true;
	if ((!unheard && (stream->flushed || stream->owed == 0)) || stream->op_count >= stream->op_room)
		return 0;
	stream->flushed = true;
	return srdma_stream_send_credits(stream);
}

/* ---- the receive queue ----------------------------------------------------------------------------------------- */

static int open_arrival(struct srdma_stream *stream, const struct srdma_arrival *arrival, void *out)
{
	return srdma_opener_open(stream->opener, arrival->number, &arrival->imm, sizeof arrival->imm,
				 slot_address(stream, arrival->slot), arrival->length, out);
}

static int open_in_place(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	int ret = open_arrival(stream, arrival, slot_address(stream, arrival->slot));

	if (ret != 0)
		return ret;
	arrival->sealed = false;
	arrival->length -= stream->overhead;
	return 0;
}

void srdma_stream_end(struct srdma_stream *stream)
{
	srdma_stream_stop(stream);
	stream->over = true;
	stream->op_count = 0;
}

/* A record for the library alone: is opened, used, and its receive posted again at once. */
static int take_own(struct srdma_stream *stream, struct srdma_arrival *arrival, uint32_t kind)
{
	int ret;

	/* What it is about is over, whatever it says. */
	if (kind == IMM_CONTROL && stream->over)
		return 0;
	ret = arrival->sealed ? open_in_place(stream, arrival) : 0;
	if (ret == 0 && kind == IMM_CONTROL)
		ret = stream->on_control(stream->arg, slot_address(stream, arrival->slot), arrival->length);
	return ret == 0 ? srdma_stream_post_receive(stream, arrival->slot) : ret;
}

static int take_credits(struct srdma_stream *stream, uint32_t credits, uint64_t number)
{
	/* They were counted with all others when the queue pair was renewed. */
	if (number < stream->stale_sends)
		return 0;
	/* While sealed, this is believed before the record is opened: the worst that a forged one can bring about before that shows is
	 * a message for which the peer has no receive. */
	if (credits > stream->depth - stream->credits)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer returned %u credits, more than it was owed", credits);
	stream->credits += credits;
	srdma_counter_add(&stream->counters.messages_acknowledged, credits);
	return 0;
}

static int fail_receive(struct srdma_stream *stream, const struct ibv_wc *wc)
{
	/* A flushed one does not say why: a send may. */
	int ret = wc->status == IBV_WC_WR_FLUSH_ERR && !stream->stopped ? poll_sends(stream) : 0;

	return ret == 0 ? fail_completion(stream, wc, "a receive") : ret;
}

/* By its length and its immediate data, which is all that there is to go by before it is opened. */
static int sort_arrival(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	uint32_t kind = ntohl(arrival->imm) >> IMM_KIND_SHIFT;
	int ret;

	if (kind == IMM_MESSAGE && arrival->length > stream->message_size + stream->overhead)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of %u bytes; the ends agreed on %u at most",
				  arrival->length - stream->overhead, stream->message_size);
	ret = take_credits(stream, ntohl(arrival->imm) & IMM_CREDITS_MASK, arrival->number);
	if (ret != 0)
		return ret;
	if ((kind == IMM_CREDIT && arrival->length == stream->overhead) || (kind == IMM_CONTROL && stream->on_control))
		return take_own(stream, arrival, kind);
	if (kind != IMM_MESSAGE)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of unknown kind %u", kind);
	if (stream->arrival_count + stream->owed >= stream->depth)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent more messages than it had credits");
	stream->arrivals[(stream->arrival_head + stream->arrival_count++) % stream->recv_slots] = *arrival;
	stream->messages_arrived++;
	return 0;
}

/* Breaks a rule, as the thread's last error says. Whether it was the peer that broke it, only the record itself can tell. */
static int blame(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	char rule[256];
	int ret;

	snprintf(rule, sizeof rule, "%s", srdma_error_text());
	ret = open_in_place(stream, arrival);
	return ret == 0 ? srdma_fail(SRDMA_EPROTOCOL, "%s", rule) : ret;
}

static int take_arrival(struct srdma_stream *stream, const struct ibv_wc *wc)
{
	struct srdma_arrival arrival = {
		.slot = (uint32_t)wc->wr_id,
		.length = wc->byte_len,
		.imm = wc->imm_data,
		.sealed = stream->opener != NULL,
	};
	int ret;

	if (wc->status != IBV_WC_SUCCESS)
		return fail_receive(stream, wc);
	/* Neither can be a sealed record. */
	if (wc->opcode != IBV_WC_RECV || !(wc->wc_flags & IBV_WC_WITH_IMM))
		return arrival.sealed ? srdma_fail(SRDMA_ESEAL, "a record came without immediate data, which no sealed record lacks")
				      : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message without immediate data");
	if (wc->byte_len < stream->overhead)
		return srdma_fail(SRDMA_ESEAL, "a record of %u bytes came, which is too short for a sealed one", wc->byte_len);
	arrival.number = stream->sends_arrived++;
	ret = sort_arrival(stream, &arrival);
	return ret == SRDMA_EPROTOCOL && arrival.sealed ? blame(stream, &arrival) : ret;
}

int srdma_stream_poll_receives(struct srdma_stream *stream)
{
	struct ibv_wc wc[POLL_BATCH];
	uint32_t taken = 0;
	int n, ret = 0;

	do {
		n = ibv_poll_cq(stream->recv_cq, POLL_BATCH, wc);
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the receive completion queue");
		taken += (uint32_t)n;
		/* Each counts, the ones after a failure of the queue pair too. */
		for (int i = 0; i < n; i++) {
			int failed;

			if (!is_of_this_generation(stream, &wc[i]))
				continue;
			stream->receives_posted--;
			failed = ret == 0 || ret == SRDMA_EVERBS ? take_arrival(stream, &wc[i]) : 0;
			if (ret == 0 || (failed != 0 && failed != SRDMA_EVERBS))
				ret = failed;
		}
		/* The receive of a message for the library alone is posted again at once: a peer could go on without end. */
	} while (n == POLL_BATCH && taken < stream->recv_slots && (ret == 0 || ret == SRDMA_EVERBS));
	stream->receives_left = n == POLL_BATCH && taken >= stream->recv_slots;
	return ret;
}

int srdma_stream_poll(struct srdma_stream *stream)
{
	int ret = srdma_stream_poll_receives(stream), sends = 0;

	if (ret == 0 || ret == SRDMA_EVERBS)
		sends = poll_sends(stream);
	if (ret == 0)
		ret = sends;
	return ret == 0 ? return_credits(stream) : ret;
}

bool srdma_stream_next_length(const struct srdma_stream *stream, uint32_t *length)
{
	const struct srdma_arrival *first = &stream->arrivals[stream->arrival_head];

	if (stream->arrival_count == 0)
		return false;
	*length = first->length - (first->sealed ? stream->overhead : 0);
	return true;
}

int srdma_stream_peek(struct srdma_stream *stream, const void **data, uint32_t *length)
{
	struct srdma_arrival *first = &stream->arrivals[stream->arrival_head];

	if (stream->arrival_count == 0)
		return 0;
	if (first->sealed) {
		int ret = open_in_place(stream, first);

		if (ret != 0)
			return ret;
	}
	*data = slot_address(stream, first->slot);
	*length = first->length;
	return 1;
}

int srdma_stream_read(struct srdma_stream *stream, void *buffer)
{
	struct srdma_arrival *first = &stream->arrivals[stream->arrival_head];
	uint8_t nowhere[1];

	if (first->sealed) {
		int ret = open_arrival(stream, first, first->length > stream->overhead ? buffer : nowhere);

		if (ret != 0)
			return ret;
		first->sealed = false;
		first->length -= stream->overhead;
	} else if (first->length > 0) {
		memcpy(buffer, slot_address(stream, first->slot), first->length);
	}
	return 0;
}

/* Returns its slot. */
static uint32_t take_first(struct srdma_stream *stream)
{
	struct srdma_arrival first = stream->arrivals[stream->arrival_head];

	stream->arrival_head = (stream->arrival_head + 1) % stream->recv_slots;
	stream->arrival_count--;
	srdma_counter_add(&stream->counters.messages_received, 1);
	srdma_counter_add(&stream->counters.bytes_received, first.length - (first.sealed ? stream->overhead : 0));
	return first.slot;
}

void srdma_stream_drop(struct srdma_stream *stream)
{
	take_first(stream);
}

int srdma_stream_consume(struct srdma_stream *stream)
{
	int ret = srdma_stream_post_receive(stream, take_first(stream));

	if (ret != 0)
		return ret;
	stream->owed++;
	return return_credits(stream);
}

/* ---- one-sided requests ---------------------------------------------------------------------------------------- */

bool srdma_stream_can_post_rdma(const struct srdma_stream *stream, uint32_t length)
{
	return stream->rdma_queued < stream->rdma_depth && !stream->held && has_psns(stream, length, PSNS_KEPT);
}

int srdma_stream_post_rdma(struct srdma_stream *stream, const struct srdma_op *request)
{
	struct srdma_op op = *request;
	int ret;

	/* Posted again if need be, when the caller's bytes may have gone. */
	if (op.is_inline && op.length > 0) {
		uint8_t *copy = stream->copies +
				(size_t)((stream->op_head + stream->op_count) % stream->op_room) * stream->copy_size;

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
	for (uint32_t i = 0; i < stream->op_count; i++) {
		const struct srdma_op *op = &stream->ops[(stream->op_head + i) % stream->op_room];

		if (!op->is_inline && op->lkey == lkey)
			return true;
	}
	return false;
}

uint32_t srdma_stream_room_for_pulls(const struct srdma_stream *stream, uint32_t length)
{
	uint32_t taken = stream->op_count + SRDMA_CREDIT_RESERVE, room;

	if (stream->held || taken >= stream->op_room)
		return 0;
	room = stream->op_room - taken;
	room = room < SRDMA_SUBMIT_MAX ? room : SRDMA_SUBMIT_MAX;
	while (room > 0 && !has_psns(stream, 0, (uint32_t)(room * srdma_stream_psns(stream, length)) + PSNS_KEPT))
		room--;
	return room;
}

int srdma_stream_post_pulls(struct srdma_stream *stream, const struct srdma_op *ops, uint32_t count)
{
	int ret;

	for (uint32_t i = 0; i < count; i++)
		stream->ops[(stream->op_head + stream->op_count + i) % stream->op_room] = ops[i];
	ret = srdma_stream_submit(stream, stream->op_count, count, true);
	if (ret == 0)
		stream->op_count += count;
	return ret;
}
