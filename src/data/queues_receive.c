/* SPDX-License-Identifier: Apache-2.0 */
/* The receive queue of a connection: takes arrivals, sorts them, and hands messages to the program. */
#include "queues_parts.h"

#include "log.h"

#include <arpa/inet.h>
#include <string.h>

int srdma_queues_post_receive(struct srdma_queues *queues, uint32_t slot)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)srdma_queues_slot(queues, slot),
		.length = queues->stride,
		.lkey = queues->memory.mr->lkey,
	};
	struct ibv_recv_wr wr = {.wr_id = (uint64_t)queues->generation << GENERATION_SHIFT | slot, .sg_list = &sge, .num_sge = 1}, *bad;
	int error;

	/* srdma_queues_restart posts all free slots. */
	if (queues->stopped)
		return 0;
	error = ibv_post_recv(queues->qp->verbs, &wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post a receive: %s", strerror(error));
	queues->receives_posted++;
	return 0;
}

static int open_arrival(struct srdma_queues *queues, struct srdma_arrival *arrival, void *out)
{
	int ret = srdma_opener_open(queues->opener, arrival->number, &arrival->imm, sizeof arrival->imm,
				    srdma_queues_slot(queues, arrival->slot), arrival->length, out);

	if (ret != 0)
		return ret;
	arrival->sealed = false;
	arrival->length -= queues->overhead;
	queues->unpolled += arrival->length;
	return 0;
}

/* Shorter messages are opened sooner than another thread could begin. */
#define AHEAD_MIN 16384u

/* Lets other threads open a message in its slot, when the program has an earlier one to take. */
static void open_ahead(struct srdma_queues *queues, struct srdma_arrival *arrival)
{
	struct srdma_seal_lane *lane = queues->open_lane;
	const struct srdma_seal_key *key;
	char *slot = srdma_queues_slot(queues, arrival->slot);

	if (!lane || !arrival->sealed || arrival->length < AHEAD_MIN || srdma_seal_lane_count(lane) == SRDMA_SEAL_LANE_ROOM)
		return;
	key = srdma_opener_key(queues->opener, arrival->number);
	if (!key || !srdma_seal_lane_use_key(lane, key))
		return;
	struct srdma_seal_work work = {.number = arrival->number,
				       .length = arrival->length - SRDMA_SEAL_OVERHEAD,
				       .header_length = sizeof arrival->imm,
				       .from = slot,
				       .to = slot};
	memcpy(work.header, &arrival->imm, sizeof arrival->imm);
	arrival->ahead = true;
	srdma_seal_lane_add(lane, &work);
}

/* Takes the oldest arrival out of the lane. If another thread has begun to open it, this waits for the result; a forged record stays
 * sealed, and will fail once more for the error. */
static void take_from_lane(struct srdma_queues *queues, struct srdma_arrival *arrival)
{
	if (!arrival->ahead)
		return;
	arrival->ahead = false;
	while (!srdma_seal_lane_take_back(queues->open_lane)) {
		enum srdma_seal_outcome outcome = srdma_seal_lane_look(queues->open_lane, NULL);

		if (outcome == SRDMA_SEAL_DONE) {
			arrival->sealed = false;
			arrival->length -= queues->overhead;
		}
		if (outcome >= SRDMA_SEAL_DONE) {
			srdma_seal_lane_pop(queues->open_lane);
			return;
		}
		srdma_seal_lane_await(queues->open_lane);
	}
}

/* Takes a record for the library: opens it, uses it, and posts its receive again at once. */
static int take_own(struct srdma_queues *queues, struct srdma_arrival *arrival, uint32_t kind)
{
	int ret;

	/* The writes and reads that the record concerns have ended. */
	if (kind == IMM_CONTROL && queues->over)
		return 0;
	ret = arrival->sealed ? open_arrival(queues, arrival, srdma_queues_slot(queues, arrival->slot)) : 0;
	if (ret == 0 && kind == IMM_CONTROL)
		ret = queues->on_control(queues->arg, srdma_queues_slot(queues, arrival->slot), arrival->length);
	return ret == 0 ? srdma_queues_post_receive(queues, arrival->slot) : ret;
}

static int take_credits(struct srdma_queues *queues, uint32_t credits, uint64_t number)
{
	/* The renewal of the queue pair has counted these credits. */
	if (number < queues->stale_sends)
		return 0;
	/* While sealed, the queues use the credits before they open the record. The worst effect of a forged record, before the opening
	 * reveals it, is a message for which the peer has no receive. */
	if (credits > queues->depth - queues->credits)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer returned %u credit%s, more than it was owed", credits, SRDMA_S(credits));
	queues->credits += credits;
	srdma_counter_add(&queues->counters.messages_acknowledged, credits);
	return 0;
}

static int fail_receive(struct srdma_queues *queues, const struct ibv_wc *wc)
{
	/* The completion of a flushed receive does not give the cause; the completion of a send may. */
	int ret = wc->status == IBV_WC_WR_FLUSH_ERR && !queues->stopped ? srdma_queues_poll_sends(queues) : 0;

	return ret == 0 ? srdma_queues_fail_completion(queues, wc, "a receive") : ret;
}

/* Queues a message or a notice for the program. */
static int admit(struct srdma_queues *queues, struct srdma_arrival *arrival)
{
	if (queues->arrival_ring.count + queues->owed >= queues->depth)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent more messages than it had credits");
	open_ahead(queues, arrival);
	queues->arrivals[srdma_ring_push(&queues->arrival_ring)] = *arrival;
	queues->messages_arrived++;
	return 0;
}

/* Decides by length and immediate data, since nothing else of a record is readable before it is opened. */
static int sort_arrival(struct srdma_queues *queues, struct srdma_arrival *arrival)
{
	uint32_t kind = ntohl(arrival->imm) >> IMM_KIND_SHIFT;
	int ret;

	if (kind == IMM_NOTICE && arrival->length == NOTICE_SIZE + queues->overhead && queues->notices && queues->opener) {
		arrival->notice = true;
		kind = IMM_MESSAGE;
	}
	if (kind == IMM_MESSAGE && arrival->length > queues->message_size + queues->overhead)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of %u bytes; the ends agreed on %u at most",
				  arrival->length - queues->overhead, queues->message_size);
	ret = take_credits(queues, ntohl(arrival->imm) & IMM_CREDITS_MASK, arrival->number);
	if (ret != 0)
		return ret;
	if ((kind == IMM_CREDIT && arrival->length == queues->overhead) || (kind == IMM_CONTROL && queues->on_control))
		return take_own(queues, arrival, kind);
	if (kind != IMM_MESSAGE)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message of unknown kind %u", kind);
	return admit(queues, arrival);
}

/* A notice of a plain connection: its immediate data is the program's, and it returns no credits. */
static int take_notice(struct srdma_queues *queues, const struct ibv_wc *wc)
{
	struct srdma_arrival arrival = {.slot = (uint32_t)wc->wr_id, .length = wc->byte_len, .imm = wc->imm_data, .notice = true};

	arrival.number = queues->sends_arrived++;
	return admit(queues, &arrival);
}

/* The record breaks a rule (the thread's last error). If it authenticates, the peer broke the rule; else an attacker forged it. */
static int blame(struct srdma_queues *queues, struct srdma_arrival *arrival)
{
	char rule[256];
	int ret;

	srdma_error_keep(rule, sizeof rule);
	ret = open_arrival(queues, arrival, srdma_queues_slot(queues, arrival->slot));
	return ret == 0 ? srdma_fail(SRDMA_EPROTOCOL, "%s", rule) : ret;
}

static int take_arrival(struct srdma_queues *queues, const struct ibv_wc *wc)
{
	struct srdma_arrival arrival = {
		.slot = (uint32_t)wc->wr_id,
		.length = wc->byte_len,
		.imm = wc->imm_data,
		.sealed = queues->opener != NULL,
	};
	int ret;

	if (wc->status != IBV_WC_SUCCESS)
		return fail_receive(queues, wc);
	if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM && queues->notices && !queues->opener)
		return take_notice(queues, wc);
	/* Neither can be a sealed record. */
	if (wc->opcode != IBV_WC_RECV || !(wc->wc_flags & IBV_WC_WITH_IMM))
		return arrival.sealed ? srdma_fail(SRDMA_ESEAL, "a record came without immediate data, which every sealed record has")
				      : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message without immediate data");
	if (wc->byte_len < queues->overhead)
		return srdma_fail(SRDMA_ESEAL, "a record of %u byte%s came, which is too short for a sealed one", wc->byte_len, SRDMA_S(wc->byte_len));
	arrival.number = queues->sends_arrived++;
	queues->last_imm = arrival.imm;
	ret = sort_arrival(queues, &arrival);
	return ret == SRDMA_EPROTOCOL && arrival.sealed ? blame(queues, &arrival) : ret;
}

int srdma_queues_poll_receives(struct srdma_queues *queues)
{
	struct ibv_wc wc[POLL_BATCH];
	uint32_t taken = 0;
	int n, ret = 0;

	queues->unpolled = 0;
	do {
		n = ibv_poll_cq(queues->recv_cq, POLL_BATCH, wc);
		if (n < 0)
			return srdma_fail(SRDMA_EVERBS, "cannot poll the receive completion queue");
		taken += (uint32_t)n;
		/* Looks at each completion, even after the failure of the queue pair. */
		for (int i = 0; i < n; i++) {
			int failed;

			if (!srdma_queues_is_current(queues, &wc[i]))
				continue;
			queues->receives_posted--;
			failed = ret == 0 || ret == SRDMA_EVERBS ? take_arrival(queues, &wc[i]) : 0;
			if (ret == 0 || (failed != 0 && failed != SRDMA_EVERBS))
				ret = failed;
		}
		/* Stops after one round of slots: receives of the library's own records are posted again at once, so a peer could keep this
		 * loop running. */
	} while (n == POLL_BATCH && taken < queues->recv_slots && (ret == 0 || ret == SRDMA_EVERBS));
	queues->receives_left = n == POLL_BATCH && taken >= queues->recv_slots;
	return ret;
}

bool srdma_queues_next_length(const struct srdma_queues *queues, uint32_t *length)
{
	const struct srdma_arrival *first = &queues->arrivals[queues->arrival_ring.first];

	if (!srdma_queues_has_message(queues))
		return false;
	*length = first->length - (first->sealed ? queues->overhead : 0);
	return true;
}

int srdma_queues_peek(struct srdma_queues *queues, const void **data, uint32_t *length)
{
	struct srdma_arrival *first = &queues->arrivals[queues->arrival_ring.first];
	int ret;

	if (!srdma_queues_has_message(queues))
		return 0;
	take_from_lane(queues, first);
	ret = first->sealed ? open_arrival(queues, first, srdma_queues_slot(queues, first->slot)) : 0;
	if (ret != 0)
		return ret;
	*data = srdma_queues_slot(queues, first->slot);
	*length = first->length;
	return 1;
}

int srdma_queues_peek_notice(struct srdma_queues *queues, uint32_t *value, uint64_t *length)
{
	struct srdma_arrival *first = &queues->arrivals[queues->arrival_ring.first];
	const void *data = NULL;
	uint32_t size = 0;
	struct srdma_reader r;

	if (!queues->opener) {
		*value = ntohl(first->imm);
		*length = first->length;
		return 0;
	}
	if (srdma_queues_peek(queues, &data, &size) != 1)
		return SRDMA_ESEAL;
	srdma_reader_init(&r, data, size);
	*value = srdma_get_u32(&r);
	*length = srdma_get_u64(&r);
	return 0;
}

int srdma_queues_read(struct srdma_queues *queues, void *buffer)
{
	struct srdma_arrival *first = &queues->arrivals[queues->arrival_ring.first];
	uint8_t nowhere[1];

	take_from_lane(queues, first);
	if (first->sealed)
		return open_arrival(queues, first, first->length > queues->overhead ? buffer : nowhere);
	if (first->length > 0)
		memcpy(buffer, srdma_queues_slot(queues, first->slot), first->length);
	queues->unpolled += first->length;
	return 0;
}

/* Removes the oldest arrival and returns its slot. */
static uint32_t take_first(struct srdma_queues *queues)
{
	struct srdma_arrival first = queues->arrivals[srdma_ring_pop(&queues->arrival_ring)];

	take_from_lane(queues, &first);

	srdma_counter_add(&queues->counters.messages_received, 1);
	if (!first.notice)
		srdma_counter_add(&queues->counters.bytes_received, first.length - (first.sealed ? queues->overhead : 0));
	return first.slot;
}

void srdma_queues_drop(struct srdma_queues *queues)
{
	take_first(queues);
}

int srdma_queues_consume(struct srdma_queues *queues)
{
	int ret = srdma_queues_post_receive(queues, take_first(queues));

	if (ret != 0)
		return ret;
	queues->owed++;
	return srdma_queues_return_credits(queues);
}
