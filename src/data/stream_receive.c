/* SPDX-License-Identifier: Apache-2.0 */
/* A stream's receive queue: takes arrivals, sorts them, and hands messages to the program. */
#include "stream_parts.h"

#include "log.h"

#include <arpa/inet.h>
#include <string.h>

int srdma_stream_post_receive(struct srdma_stream *stream, uint32_t slot)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)srdma_stream_slot(stream, slot),
		.length = stream->stride,
		.lkey = stream->memory.mr->lkey,
	};
	struct ibv_recv_wr wr = {.wr_id = (uint64_t)stream->generation << GENERATION_SHIFT | slot, .sg_list = &sge, .num_sge = 1}, *bad;
	int error;

	/* srdma_stream_restart posts all free slots. */
	if (stream->stopped)
		return 0;
	error = ibv_post_recv(stream->qp->verbs, &wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot post a receive: %s", strerror(error));
	stream->receives_posted++;
	return 0;
}

static int open_arrival(struct srdma_stream *stream, struct srdma_arrival *arrival, void *out)
{
	int ret = srdma_opener_open(stream->opener, arrival->number, &arrival->imm, sizeof arrival->imm,
				    srdma_stream_slot(stream, arrival->slot), arrival->length, out);

	if (ret != 0)
		return ret;
	arrival->sealed = false;
	arrival->length -= stream->overhead;
	return 0;
}

/* Shorter messages are opened sooner than another thread could begin. */
#define AHEAD_MIN 16384u

/* Lets other threads open a message in its slot, when the program has an earlier one to take. */
static void open_ahead(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	struct srdma_seal_lane *lane = stream->open_lane;
	const struct srdma_seal_key *key;
	char *slot = srdma_stream_slot(stream, arrival->slot);

	if (!lane || !arrival->sealed || arrival->length < AHEAD_MIN || srdma_seal_lane_count(lane) == SRDMA_SEAL_LANE_ROOM)
		return;
	key = srdma_opener_key(stream->opener, arrival->number);
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
static void take_from_lane(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	if (!arrival->ahead)
		return;
	arrival->ahead = false;
	while (!srdma_seal_lane_take_back(stream->open_lane)) {
		enum srdma_seal_outcome outcome = srdma_seal_lane_look(stream->open_lane, NULL);

		if (outcome == SRDMA_SEAL_DONE) {
			arrival->sealed = false;
			arrival->length -= stream->overhead;
		}
		if (outcome >= SRDMA_SEAL_DONE) {
			srdma_seal_lane_pop(stream->open_lane);
			return;
		}
		srdma_seal_lane_await(stream->open_lane);
	}
}

/* Takes a record for the library: opens it, uses it, and posts its receive again at once. */
static int take_own(struct srdma_stream *stream, struct srdma_arrival *arrival, uint32_t kind)
{
	int ret;

	/* The writes and reads that the record concerns have ended. */
	if (kind == IMM_CONTROL && stream->over)
		return 0;
	ret = arrival->sealed ? open_arrival(stream, arrival, srdma_stream_slot(stream, arrival->slot)) : 0;
	if (ret == 0 && kind == IMM_CONTROL)
		ret = stream->on_control(stream->arg, srdma_stream_slot(stream, arrival->slot), arrival->length);
	return ret == 0 ? srdma_stream_post_receive(stream, arrival->slot) : ret;
}

static int take_credits(struct srdma_stream *stream, uint32_t credits, uint64_t number)
{
	/* The renewal of the queue pair has counted these credits. */
	if (number < stream->stale_sends)
		return 0;
	/* While sealed, the stream uses the credits before it opens the record. The worst effect of a forged record, before the opening
	 * reveals it, is a message for which the peer has no receive. */
	if (credits > stream->depth - stream->credits)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer returned %u credit%s, more than it was owed", credits, SRDMA_S(credits));
	stream->credits += credits;
	srdma_counter_add(&stream->counters.messages_acknowledged, credits);
	return 0;
}

static int fail_receive(struct srdma_stream *stream, const struct ibv_wc *wc)
{
	/* The completion of a flushed receive does not give the cause; the completion of a send may. */
	int ret = wc->status == IBV_WC_WR_FLUSH_ERR && !stream->stopped ? srdma_stream_poll_sends(stream) : 0;

	return ret == 0 ? srdma_stream_fail_completion(stream, wc, "a receive") : ret;
}

/* Decides by length and immediate data, since nothing else of a record is readable before it is opened. */
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
	if (stream->arrival_ring.count + stream->owed >= stream->depth)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent more messages than it had credits");
	open_ahead(stream, arrival);
	stream->arrivals[srdma_ring_push(&stream->arrival_ring)] = *arrival;
	stream->messages_arrived++;
	return 0;
}

/* The record breaks a rule (the thread's last error). If it authenticates, the peer broke the rule; else an attacker forged it. */
static int blame(struct srdma_stream *stream, struct srdma_arrival *arrival)
{
	char rule[256];
	int ret;

	srdma_error_keep(rule, sizeof rule);
	ret = open_arrival(stream, arrival, srdma_stream_slot(stream, arrival->slot));
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
		return arrival.sealed ? srdma_fail(SRDMA_ESEAL, "a record came without immediate data, which every sealed record has")
				      : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a message without immediate data");
	if (wc->byte_len < stream->overhead)
		return srdma_fail(SRDMA_ESEAL, "a record of %u byte%s came, which is too short for a sealed one", wc->byte_len, SRDMA_S(wc->byte_len));
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
		/* Looks at each completion, even after the failure of the queue pair. */
		for (int i = 0; i < n; i++) {
			int failed;

			if (!srdma_stream_is_current(stream, &wc[i]))
				continue;
			stream->receives_posted--;
			failed = ret == 0 || ret == SRDMA_EVERBS ? take_arrival(stream, &wc[i]) : 0;
			if (ret == 0 || (failed != 0 && failed != SRDMA_EVERBS))
				ret = failed;
		}
		/* Stops after one round of slots: receives of the library's own records are posted again at once, so a peer could keep this
		 * loop running. */
	} while (n == POLL_BATCH && taken < stream->recv_slots && (ret == 0 || ret == SRDMA_EVERBS));
	stream->receives_left = n == POLL_BATCH && taken >= stream->recv_slots;
	return ret;
}

bool srdma_stream_next_length(const struct srdma_stream *stream, uint32_t *length)
{
	const struct srdma_arrival *first = &stream->arrivals[stream->arrival_ring.first];

	if (!srdma_stream_has_message(stream))
		return false;
	*length = first->length - (first->sealed ? stream->overhead : 0);
	return true;
}

int srdma_stream_peek(struct srdma_stream *stream, const void **data, uint32_t *length)
{
	struct srdma_arrival *first = &stream->arrivals[stream->arrival_ring.first];
	int ret;

	if (!srdma_stream_has_message(stream))
		return 0;
	take_from_lane(stream, first);
	ret = first->sealed ? open_arrival(stream, first, srdma_stream_slot(stream, first->slot)) : 0;
	if (ret != 0)
		return ret;
	*data = srdma_stream_slot(stream, first->slot);
	*length = first->length;
	return 1;
}

int srdma_stream_read(struct srdma_stream *stream, void *buffer)
{
	struct srdma_arrival *first = &stream->arrivals[stream->arrival_ring.first];
	uint8_t nowhere[1];

	take_from_lane(stream, first);
	if (first->sealed)
		return open_arrival(stream, first, first->length > stream->overhead ? buffer : nowhere);
	if (first->length > 0)
		memcpy(buffer, srdma_stream_slot(stream, first->slot), first->length);
	return 0;
}

/* Removes the oldest arrival and returns its slot. */
static uint32_t take_first(struct srdma_stream *stream)
{
	struct srdma_arrival first = stream->arrivals[srdma_ring_pop(&stream->arrival_ring)];

	take_from_lane(stream, &first);

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
	return srdma_stream_return_credits(stream);
}
