/* SPDX-License-Identifier: Apache-2.0 */
/* The send queue of a connection: messages, credits, control records and one-sided requests, and their completions. */
#include "queues_parts.h"

#include "log.h"

#include <arpa/inet.h>
#include <string.h>

/* PSNs of an epoch that are reserved for returning credits, and for the last send before the next epoch. */
#define PSNS_KEPT 2
/* Longer records take so much longer that the preparation does not count. */
#define PREPARED_MAX 4096u

/* The pieces of the op at `index`. */
static struct ibv_sge *pieces_of(const struct srdma_queues *queues, uint32_t index)
{
	return queues->pieces + (size_t)srdma_ring_at(&queues->op_ring, index) * queues->pieces_most;
}

static void fill_rdma(const struct srdma_queues *queues, const struct srdma_op *op, struct ibv_send_wr *wr)
{
	uint32_t rkey = op->kind == SRDMA_OP_PULL || op->region != 0 ? op->rkey : queues->region_rkey;

	if (op->atomic != SRDMA_ATOMIC_NONE) {
		bool add = op->atomic == SRDMA_ATOMIC_FETCH_ADD;

		wr->opcode = add ? IBV_WR_ATOMIC_FETCH_AND_ADD : IBV_WR_ATOMIC_CMP_AND_SWP;
		wr->wr.atomic.remote_addr = op->remote;
		wr->wr.atomic.rkey = rkey;
		wr->wr.atomic.compare_add = add ? op->operand : op->compare;
		wr->wr.atomic.swap = op->operand;
		return;
	}
	wr->opcode = op->kind == SRDMA_OP_NOTICE ? IBV_WR_RDMA_WRITE_WITH_IMM : op->write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
	wr->imm_data = op->imm;
	wr->wr.rdma.remote_addr = op->remote;
	wr->wr.rdma.rkey = rkey;
}

static uint64_t request_id(const struct srdma_queues *queues, uint32_t index)
{
	return (uint64_t)queues->generation << GENERATION_SHIFT | ((queues->op_sequence + index) & SEQUENCE_MASK);
}

static void fill_request(const struct srdma_queues *queues, uint32_t index, bool signaled, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	const struct srdma_op *op = srdma_queues_op(queues, index);

	*sge = (struct ibv_sge){.addr = op->local, .length = op->length, .lkey = op->lkey};
	*wr = (struct ibv_send_wr){
		.wr_id = request_id(queues, index),
		.sg_list = sge,
		.num_sge = op->pieces > 0 ? (int)op->pieces : op->length > 0,
		.send_flags = (signaled ? IBV_SEND_SIGNALED : 0u) | (op->is_inline ? IBV_SEND_INLINE : 0u),
	};
	if (op->pieces > 0)
		wr->sg_list = pieces_of(queues, index);
	if (srdma_op_is_send(op) && op->kind != SRDMA_OP_NOTICE) {
		wr->opcode = IBV_WR_SEND_WITH_IMM;
		wr->imm_data = op->imm;
	} else {
		fill_rdma(queues, op, wr);
	}
}

int srdma_queues_submit(struct srdma_queues *queues, uint32_t first, uint32_t count, bool signaled)
{
	struct ibv_send_wr wr[SRDMA_SUBMIT_MAX], *bad;
	struct ibv_sge sge[SRDMA_SUBMIT_MAX];
	int error;

	for (uint32_t i = 0; i < count; i++) {
		fill_request(queues, first + i, signaled, &wr[i], &sge[i]);
		wr[i].next = NULL;
		if (i > 0)
			wr[i - 1].next = &wr[i];
		queues->psns_used += srdma_queues_psns(queues, srdma_queues_op(queues, first + i)->length);
	}
	error = ibv_post_send(queues->qp->verbs, wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post to the send queue: %s", strerror(error));
	queues->unsignaled = signaled ? 0 : queues->unsignaled + count;
	return 0;
}

/* A completion stands for all work requests before it, so messages raise one only now and then. */
static int post(struct srdma_queues *queues, const struct srdma_op *op, bool signaled)
{
	int ret;

	signaled = signaled || queues->unsignaled + 1 >= queues->signal_interval;
	*srdma_queues_op(queues, queues->op_ring.count) = *op;
	ret = srdma_queues_submit(queues, queues->op_ring.count, 1, signaled);
	if (ret == 0)
		srdma_ring_push(&queues->op_ring);
	return ret;
}

void srdma_queues_complete_rdma(struct srdma_queues *queues, enum srdma_op_kind kind, uint64_t cookie)
{
	if (kind == SRDMA_OP_PART) {
		queues->rdma_queued--;
	} else if (kind == SRDMA_OP_POSTED) {
		queues->done[srdma_ring_push(&queues->done_ring)] = cookie;
	} else {
		queues->rdma_queued--;
		queues->waited_done++;
	}
}

void srdma_queues_complete_op(struct srdma_queues *queues)
{
	struct srdma_op op = queues->ops[srdma_ring_pop(&queues->op_ring)];

	queues->op_sequence++;
	if (op.uses_slot)
		srdma_ring_pop(&queues->send_slots);
	if (srdma_op_is_send(&op))
		queues->sends_completed = op.send + 1;
	switch (op.kind) {
	case SRDMA_OP_MESSAGE: queues->messages_queued--; break;
	case SRDMA_OP_CREDIT:
	case SRDMA_OP_CONTROL: break;
	case SRDMA_OP_POSTED:
	case SRDMA_OP_WAITED:
	case SRDMA_OP_PART: srdma_queues_complete_rdma(queues, op.kind, op.cookie); break;
	case SRDMA_OP_NOTICE:
		queues->messages_queued--;
		srdma_queues_complete_rdma(queues, SRDMA_OP_POSTED, op.cookie);
		break;
	case SRDMA_OP_PULL: queues->on_pulled(queues->arg); break;
	case SRDMA_OP_BIND: queues->binds_done++; break;
	}
}

static int fail_send(struct srdma_queues *queues, const struct ibv_wc *wc)
{
	uint64_t index = (wc->wr_id & SEQUENCE_MASK) - (queues->op_sequence & SEQUENCE_MASK);
	/* The op may be complete already, so the device's index need not lie in the ring. */
	const struct srdma_op *op = index < queues->op_ring.count ? srdma_queues_op(queues, (uint32_t)index) : NULL;
	const char *what = "an RDMA write or read";

	if (!queues->stopped && (wc->status == IBV_WC_LOC_LEN_ERR || wc->status == IBV_WC_LOC_QP_OP_ERR ||
				  wc->status == IBV_WC_LOC_PROT_ERR || wc->status == IBV_WC_MW_BIND_ERR))
		queues->failed_here = true;
	if (op && srdma_op_is_send(op))
		what = "a send";
	else if (op && op->kind == SRDMA_OP_BIND)
		what = "the bind of a memory window";
	return srdma_queues_fail_completion(queues, wc, what);
}

static void complete_up_to(struct srdma_queues *queues, uint64_t wr_id)
{
	uint64_t count = ((wr_id - queues->op_sequence) & SEQUENCE_MASK) + 1;

	if (count > queues->op_ring.count) /* the op is complete already */
		return;
	while (count-- > 0)
		srdma_queues_complete_op(queues);
	/* An op that the peer executed before a renewal completes in its order. */
	while (queues->op_ring.count > 0 && srdma_queues_op(queues, 0)->executed)
		srdma_queues_complete_op(queues);
}

int srdma_queues_poll_sends(struct srdma_queues *queues)
{
	struct ibv_wc wc[POLL_BATCH];
	int n, ret = 0;

	while ((queues->op_ring.count > 0 || queues->stopped) && (n = ibv_poll_cq(queues->send_cq, POLL_BATCH, wc)) != 0) {
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the send completion queue");
		/* Looks at each completion, even after a failure. */
		for (int i = 0; i < n; i++) {
			if (!srdma_queues_is_current(queues, &wc[i]))
				continue;
			if (wc[i].status == IBV_WC_SUCCESS) {
				complete_up_to(queues, wc[i].wr_id);
			} else {
				int failed = fail_send(queues, &wc[i]);

				ret = ret != 0 ? ret : failed;
			}
		}
		if (n < POLL_BATCH)
			break;
	}
	return ret;
}

static uint32_t immediate(struct srdma_queues *queues, uint32_t kind)
{
	return htonl(kind << IMM_KIND_SHIFT | queues->owed);
}

/* The place for the inline data of the next op. */
static uint8_t *next_copy(const struct srdma_queues *queues)
{
	return queues->copies + (size_t)srdma_ring_at(&queues->op_ring, queues->op_ring.count) * queues->copy_size;
}

/* Prepares for the next record each way, which is often like the last one: this end may now wait for the peer's, and the peer for this
 * end's next. Long records are not worth it. */
static void prepare_next(struct srdma_queues *queues, uint32_t imm)
{
	const struct srdma_arrival *first = &queues->arrivals[queues->arrival_ring.first];

	srdma_sealer_prepare(queues->sealer, &imm, sizeof imm);
	if (!srdma_queues_has_message(queues))
		srdma_opener_prepare(queues->opener, queues->sends_arrived, &queues->last_imm, sizeof queues->last_imm);
	else if (first->sealed && !first->ahead)
		srdma_opener_prepare(queues->opener, first->number, &first->imm, sizeof first->imm);
}

/* Seals or copies `data` to memory from which it can also be posted again, and posts it. */
static int send_record(struct srdma_queues *queues, enum srdma_op_kind kind, uint32_t imm, const void *data, uint32_t length, bool signaled)
{
	struct srdma_op op = {
		.kind = kind,
		.imm = imm,
		.length = length + queues->overhead,
		.lkey = queues->memory.mr->lkey,
		.send = queues->sends_posted,
	};
	void *place;
	int ret = 0;

	op.is_inline = op.length > 0 && op.length <= queues->copy_size;
	op.uses_slot = op.length > queues->copy_size;
	place = op.uses_slot ? srdma_queues_slot(queues, queues->recv_slots + srdma_ring_at(&queues->send_slots, queues->send_slots.count))
			     : (char *)next_copy(queues);
	op.local = (uintptr_t)place;
	if (queues->sealer)
		ret = srdma_sealer_seal(queues->sealer, &imm, sizeof imm, data, length, place);
	else if (length > 0)
		memcpy(place, data, length);
	if (ret == 0)
		ret = post(queues, &op, signaled);
	if (ret != 0)
		return ret;
	if (op.uses_slot)
		srdma_ring_push(&queues->send_slots);
	queues->sends_posted++;
	queues->owed = 0;
	if (queues->sealer && length <= PREPARED_MAX)
		prepare_next(queues, imm);
	return 0;
}

bool srdma_queues_can_send(const struct srdma_queues *queues)
{
	return queues->credits > queues->credits_kept && queues->messages_queued < queues->depth && queues->send_slots.count < queues->send_slots.room &&
	       !queues->held && srdma_queues_has_psns(queues, queues->message_size + queues->overhead, PSNS_KEPT);
}

int srdma_queues_send(struct srdma_queues *queues, const void *data, uint32_t length)
{
	int ret;

	/* The message is counted first, so that a program that has its answer finds it counted. */
	srdma_counter_add(&queues->counters.messages_sent, 1);
	srdma_counter_add(&queues->counters.bytes_sent, length);
	ret = send_record(queues, SRDMA_OP_MESSAGE, immediate(queues, IMM_MESSAGE), data, length, false);
	if (ret != 0)
		return ret;
	queues->credits--;
	queues->messages_queued++;
	return 0;
}

bool srdma_queues_can_send_notice(const struct srdma_queues *queues)
{
	return queues->messages_queued < queues->depth && queues->send_slots.count < queues->send_slots.room && !queues->held && !queues->over &&
	       srdma_queues_has_psns(queues, NOTICE_SIZE + queues->overhead, PSNS_KEPT);
}

int srdma_queues_send_notice(struct srdma_queues *queues, uint32_t value, uint64_t length)
{
	uint8_t bytes[NOTICE_SIZE];
	int ret;

	srdma_put_notice(bytes, value, length);
	srdma_counter_add(&queues->counters.messages_sent, 1);
	ret = send_record(queues, SRDMA_OP_MESSAGE, immediate(queues, IMM_NOTICE), bytes, sizeof bytes, false);
	if (ret != 0)
		return ret;
	queues->credits_kept--;
	queues->credits--;
	queues->messages_queued++;
	return 0;
}

bool srdma_queues_can_control(const struct srdma_queues *queues)
{
	return !queues->held && queues->op_ring.count + SRDMA_CREDIT_RESERVE < queues->op_ring.room &&
	       queues->send_slots.count < queues->send_slots.room &&
	       srdma_queues_has_psns(queues, queues->message_size + queues->overhead, PSNS_KEPT);
}

int srdma_queues_send_control(struct srdma_queues *queues, const void *data, uint32_t length)
{
	return send_record(queues, SRDMA_OP_CONTROL, immediate(queues, IMM_CONTROL), data, length, true);
}

int srdma_queues_send_credits(struct srdma_queues *queues)
{
	return send_record(queues, SRDMA_OP_CREDIT, immediate(queues, IMM_CREDIT), NULL, 0, true);
}

int srdma_queues_flush(struct srdma_queues *queues)
{
	/* Only the youngest requests may raise no completion; a signaled one after them stands for them. */
	bool unheard = queues->unsignaled > 0 && queues->op_ring.count > 0;

	if (queues->held || queues->stopped)
		return 0;
	queues->closing = true;
	if ((!unheard && (queues->flushed || queues->owed == 0)) || queues->op_ring.count >= queues->op_ring.room)
		return 0;
	queues->flushed = true;
	return srdma_queues_send_credits(queues);
}

bool srdma_queues_can_post_rdma(const struct srdma_queues *queues, uint32_t length)
{
	return queues->rdma_queued < queues->rdma_depth && !queues->held && srdma_queues_has_psns(queues, length, PSNS_KEPT);
}

int srdma_queues_post_rdma(struct srdma_queues *queues, const struct srdma_op *request)
{
	struct srdma_op op = *request;
	int ret;

	/* A renewal may post it again when the caller's bytes are gone. */
	if (op.is_inline && op.length > 0) {
		uint8_t *copy = next_copy(queues);

		memcpy(copy, (const void *)(uintptr_t)op.local, op.length);
		op.local = (uintptr_t)copy;
	}
	ret = post(queues, &op, true);
	if (ret == 0)
		queues->rdma_queued++;
	return ret;
}

int srdma_queues_post_pieces(struct srdma_queues *queues, const struct srdma_op *request, const struct ibv_sge *pieces)
{
	struct srdma_op op = *request;
	int ret;

	if (op.pieces > 0)
		memcpy(pieces_of(queues, queues->op_ring.count), pieces, op.pieces * sizeof *pieces);
	if (op.kind == SRDMA_OP_NOTICE) {
		op.send = queues->sends_posted;
		srdma_counter_add(&queues->counters.messages_sent, 1);
	}
	ret = post(queues, &op, true);
	if (ret != 0)
		return ret;
	queues->rdma_queued++;
	if (op.kind == SRDMA_OP_NOTICE) {
		queues->sends_posted++;
		queues->credits--;
		queues->messages_queued++;
	}
	return 0;
}

bool srdma_queues_can_bind(const struct srdma_queues *queues)
{
	return !queues->held && !queues->stopped && queues->binds_posted - queues->binds_done < SRDMA_BINDS_MAX;
}

int srdma_queues_post_bind(struct srdma_queues *queues, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	int error;

	wr->wr_id = request_id(queues, queues->op_ring.count);
	error = ibv_post_send(queues->qp->verbs, wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post the bind of a memory window: %s", strerror(error));
	queues->unsignaled = 0;
	*srdma_queues_op(queues, queues->op_ring.count) = (struct srdma_op){.kind = SRDMA_OP_BIND};
	srdma_ring_push(&queues->op_ring);
	queues->binds_posted++;
	return 0;
}

void srdma_queues_change_rkey(struct srdma_queues *queues, uint16_t region, uint32_t rkey)
{
	for (uint32_t i = 0; i < queues->op_ring.count; i++)
		if (srdma_queues_op(queues, i)->region == region)
			srdma_queues_op(queues, i)->rkey = rkey;
}

static bool op_uses(const struct srdma_queues *queues, uint32_t index, uint32_t lkey)
{
	const struct srdma_op *op = srdma_queues_op(queues, index);
	const struct ibv_sge *pieces = pieces_of(queues, index);

	for (uint32_t i = 0; i < op->pieces; i++)
		if (pieces[i].lkey == lkey)
			return true;
	return op->pieces == 0 && !op->is_inline && op->kind != SRDMA_OP_BIND && op->lkey == lkey;
}

bool srdma_queues_uses(const struct srdma_queues *queues, uint32_t lkey)
{
	for (uint32_t i = 0; i < queues->op_ring.count; i++)
		if (op_uses(queues, i, lkey))
			return true;
	return false;
}

bool srdma_queues_uses_region(const struct srdma_queues *queues, uint16_t region)
{
	for (uint32_t i = 0; i < queues->op_ring.count; i++)
		if (srdma_queues_op(queues, i)->region == region)
			return true;
	return false;
}

uint32_t srdma_queues_room_for_pulls(const struct srdma_queues *queues, uint32_t length)
{
	uint32_t taken = queues->op_ring.count + SRDMA_CREDIT_RESERVE, room;

	if (queues->held || taken >= queues->op_ring.room)
		return 0;
	room = queues->op_ring.room - taken;
	room = room < SRDMA_SUBMIT_MAX ? room : SRDMA_SUBMIT_MAX;
	while (room > 0 && !srdma_queues_has_psns(queues, 0, (uint32_t)(room * srdma_queues_psns(queues, length)) + PSNS_KEPT))
		room--;
	return room;
}

int srdma_queues_post_pulls(struct srdma_queues *queues, const struct srdma_op *ops, uint32_t count)
{
	int ret;

	for (uint32_t i = 0; i < count; i++)
		*srdma_queues_op(queues, queues->op_ring.count + i) = ops[i];
	ret = srdma_queues_submit(queues, queues->op_ring.count, count, true);
	if (ret == 0)
		queues->op_ring.count += count;
	return ret;
}
