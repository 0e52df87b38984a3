/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_rdma_parts.h"

#include "log.h"

#include <string.h>

/* One read pulls chunks that lie one after the other, up to this many bytes: four of 64 KiB with their tags and padding. */
#define PULL_BYTES (SRDMA_SEALED_CHUNK + 4096)

static struct srdma_sealed_pull *pull_at(struct srdma_sealed_rdma *rdma, uint32_t index)
{
	return &rdma->pulls[srdma_ring_at(&rdma->pull_ring, index)];
}

static int check_bounds(const struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header, uint64_t length, unsigned right)
{
	const struct srdma_region *region = srdma_sealed_rdma_region(rdma, header->region);

	if (!region || !(region->rights & right))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer requests a %s that its rights to the region do not allow",
				  right == IBV_ACCESS_REMOTE_WRITE ? "write" : "read");
	if (header->offset > region->size || length > region->size - header->offset)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's request goes beyond the region");
	return 0;
}

/* Finds the bytes of the read that the chunk answers: the peer answers reads in the order of asking, each byte once. */
static bool claim_answer(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header, struct srdma_sealed_claim *claim)
{
	for (uint32_t i = 0; i < rdma->jobs.ring.count; i++) {
		struct srdma_sealed_job *job = srdma_sealed_jobs_at(&rdma->jobs, i);

		if (job->write || !job->asked)
			return false;
		if (!job->all_claimed)
			return header->offset == job->claimed && srdma_sealed_jobs_claim(job, header->length, claim);
	}
	return false;
}

/* Checks whether the peer may announce this chunk. */
static int admit_chunk(struct srdma_sealed_rdma *rdma, struct srdma_sealed_pull *pull)
{
	const struct srdma_sealed_header *header = &pull->header;

	if (header->length > SRDMA_SEALED_CHUNK)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces a chunk of %u bytes", header->length);
	if (header->type == SRDMA_SEALED_WRITE)
		return check_bounds(rdma, header, header->length, IBV_ACCESS_REMOTE_WRITE);
	if (!claim_answer(rdma, header, &pull->claim))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's answer of %u byte%s at offset %llu is not the next part of what this end asked for",
				  header->length, SRDMA_S(header->length), (unsigned long long)header->offset);
	return 0;
}

/* Where the chunk belongs, now that it has arrived. */
static int place_chunk(const struct srdma_sealed_rdma *rdma, const struct srdma_sealed_pull *pull, char **place)
{
	const struct srdma_sealed_header *header = &pull->header;
	int ret;

	if (header->type == SRDMA_SEALED_ANSWER)
		return srdma_sealed_jobs_place(&rdma->jobs, &pull->claim, place) ? 0 : srdma_sealed_rdma_fail_account();
	ret = check_bounds(rdma, header, header->length, IBV_ACCESS_REMOTE_WRITE);
	if (ret == 0)
		*place = (char *)srdma_sealed_rdma_region(rdma, header->region)->address + header->offset;
	return ret;
}

/* Settles a chunk that is in place. */
static int deliver(struct srdma_sealed_rdma *rdma, struct srdma_sealed_pull *pull)
{
	if (pull->header.type == SRDMA_SEALED_ANSWER && !srdma_sealed_jobs_settle(&rdma->jobs, &pull->claim))
		return srdma_sealed_rdma_fail_account();
	pull->state = PULL_DONE;
	srdma_sealed_rdma_note_activity(rdma, pull->header.length);
	while (rdma->pull_ring.count > 0 && pull_at(rdma, 0)->state == PULL_DONE) {
		if (pull_at(rdma, 0)->header.type == SRDMA_SEALED_WRITE)
			rdma->peer_wrote += pull_at(rdma, 0)->header.length;
		srdma_sealed_ring_free(&rdma->landing_ring, pull_at(rdma, 0)->landed);
		rdma->acks_owed += pull_at(rdma, 0)->ends_record;
		srdma_ring_pop(&rdma->pull_ring);
	}
	return srdma_sealed_rdma_complete_jobs(rdma);
}

/* Takes a chunk that came within its announcement; no other chunk precedes it. */
static int take_within(struct srdma_sealed_rdma *rdma, struct srdma_sealed_pull *pull, const uint8_t *data)
{
	char *place;
	int ret = place_chunk(rdma, pull, &place);

	if (ret != 0)
		return ret;
	if (pull->header.length > 0)
		memcpy(place, data, pull->header.length);
	if (pull->header.type == SRDMA_SEALED_WRITE)
		srdma_rate_take(rdma->rate, pull->header.length);
	return deliver(rdma, pull);
}

static int take_chunk(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header, bool last, const uint8_t *data)
{
	struct srdma_sealed_pull pull = {.header = *header, .ends_record = last}, *placed;
	uint32_t at;
	int ret;

	if (rdma->pull_ring.count == rdma->pull_ring.room ||
	    (header->within ? rdma->pull_ring.count > 0 : !srdma_sealed_ring_fits(&rdma->landing_ring, header->length)))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces more chunks than may be under way");
	ret = admit_chunk(rdma, &pull);
	if (ret == 0 && !header->within)
		ret = srdma_sealed_rdma_make_memory(rdma, IBV_ACCESS_LOCAL_WRITE, &rdma->landing);
	if (ret != 0)
		return ret;
	if (!header->within) {
		pull.landed = srdma_sealed_ring_take(&rdma->landing_ring, header->length, &at);
		pull.landing = (char *)rdma->landing.address + at;
	}
	placed = &rdma->pulls[srdma_ring_push(&rdma->pull_ring)];
	*placed = pull;
	return header->within ? take_within(rdma, placed, data) : 0;
}

static int take_read(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header)
{
	int ret = check_bounds(rdma, header, header->address, IBV_ACCESS_REMOTE_READ);

	if (ret == 0 && rdma->answer_ring.count == rdma->answer_ring.room)
		ret = srdma_fail(SRDMA_EPROTOCOL, "the peer asks for more reads than may be under way");
	if (ret != 0)
		return ret;
	rdma->answers[srdma_ring_push(&rdma->answer_ring)] =
		(struct srdma_sealed_answer){.offset = header->offset, .length = header->address, .region = header->region};
	return 0;
}

int srdma_sealed_rdma_execute(struct srdma_sealed_rdma *rdma, const void *data, uint32_t length)
{
	struct srdma_sealed_header headers[SRDMA_SEALED_BATCH];
	int count = srdma_sealed_decode(data, length, headers), ret = 0;

	if (count < 0)
		return count;
	if (headers[0].type == SRDMA_SEALED_ACK)
		return srdma_sealed_rdma_take_ack(rdma, &headers[0]);
	if (headers[0].type != SRDMA_SEALED_READ && rdma->peer_records++ >= SRDMA_SEALED_RECORDS)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer makes more announcements than may be under way");
	for (int i = 0; i < count && ret == 0; i++) {
		if (headers[i].type == SRDMA_SEALED_READ)
			ret = take_read(rdma, &headers[i]);
		else
			ret = take_chunk(rdma, &headers[i], i == count - 1, (const uint8_t *)data + SRDMA_SEALED_HEADER);
	}
	return ret;
}

/* Finds the oldest pull in this state; pull_ring.count: none. */
static uint32_t first_in(const struct srdma_sealed_rdma *rdma, unsigned state)
{
	uint32_t i = 0;

	while (i < rdma->pull_ring.count && rdma->pulls[srdma_ring_at(&rdma->pull_ring, i)].state != state)
		i++;
	return i;
}

/* Adds the chunk to the read of the one before it, when it lies right behind that one at both ends. */
static bool extend(struct srdma_op *op, const struct srdma_sealed_pull *pull)
{
	uint64_t before = (uintptr_t)pull->landing - op->local, length = before + pull->header.length + SRDMA_SEAL_OVERHEAD;

	if (before != srdma_sealed_ring_align(op->length) || pull->header.address != op->remote + before || pull->header.rkey != op->rkey ||
	    length > PULL_BYTES)
		return false;
	op->length = (uint32_t)length;
	return true;
}

int srdma_sealed_rdma_post_pulls(struct srdma_sealed_rdma *rdma)
{
	struct srdma_sealed_pull *first = NULL;
	struct srdma_op ops[SRDMA_SUBMIT_MAX];
	uint32_t count = 0, room = srdma_queues_room_for_pulls(rdma->queues, PULL_BYTES);

	for (uint32_t i = first_in(rdma, PULL_WAITING); i < rdma->pull_ring.count; i++) {
		struct srdma_sealed_pull *pull = pull_at(rdma, i);
		bool write = pull->header.type == SRDMA_SEALED_WRITE;

		if (write && !srdma_rate_is_open(rdma->rate))
			break;
		if (first && extend(&ops[count - 1], pull)) {
			first->together++;
		} else if (count < room) {
			first = pull;
			first->together = 1;
			ops[count++] = (struct srdma_op){.kind = SRDMA_OP_PULL,
							 .length = pull->header.length + SRDMA_SEAL_OVERHEAD,
							 .remote = pull->header.address,
							 .rkey = pull->header.rkey,
							 .local = (uintptr_t)pull->landing,
							 .lkey = rdma->landing.mr->lkey};
		} else {
			break;
		}
		if (write)
			srdma_rate_take(rdma->rate, pull->header.length);
		pull->state = PULL_POSTED;
	}
	return count > 0 ? srdma_queues_post_pulls(rdma->queues, ops, count) : 0;
}

void srdma_sealed_rdma_finish_pull(void *arg)
{
	struct srdma_sealed_rdma *rdma = arg;
	uint32_t first = first_in(rdma, PULL_POSTED);

	if (first == rdma->pull_ring.count)
		return;
	for (uint32_t i = pull_at(rdma, first)->together; i > 0; i--)
		pull_at(rdma, first + i - 1)->state = PULL_ARRIVED;
}

/* This end may have withdrawn its region meanwhile, and then nothing may be written to it. */
static bool may_write(const struct srdma_sealed_rdma *rdma, const struct srdma_sealed_pull *pull)
{
	const struct srdma_region *region;

	if (pull->header.type != SRDMA_SEALED_WRITE)
		return true;
	region = srdma_sealed_rdma_region(rdma, pull->header.region);
	return region && (region->rights & IBV_ACCESS_REMOTE_WRITE);
}

/* Prepares to open a chunk: finds its place, and encodes its header again. */
static int prepare_opening(const struct srdma_sealed_rdma *rdma, const struct srdma_sealed_pull *pull, char **place,
			   uint8_t header[SRDMA_SEALED_HEADER])
{
	if (!may_write(rdma, pull))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was writing to the region when it was withdrawn");
	srdma_sealed_encode(header, &pull->header);
	return place_chunk(rdma, pull, place);
}

static int open_chunk(struct srdma_sealed_rdma *rdma, struct srdma_sealed_pull *pull)
{
	uint8_t header[SRDMA_SEALED_HEADER];
	char *place;
	int ret = prepare_opening(rdma, pull, &place, header);

	if (ret == 0)
		ret = srdma_opener_open(rdma->opener, rdma->opened++, header, sizeof header, pull->landing,
					pull->header.length + SRDMA_SEAL_OVERHEAD, place);
	return ret == 0 ? deliver(rdma, pull) : ret;
}

/* Hands a chunk to the lane. */
static int open_ahead(struct srdma_sealed_rdma *rdma, struct srdma_sealed_pull *pull)
{
	struct srdma_seal_work work = {
		.number = rdma->opened, .length = pull->header.length, .header_length = SRDMA_SEALED_HEADER, .from = pull->landing};
	char *place;
	int ret = prepare_opening(rdma, pull, &place, work.header);

	if (ret != 0)
		return ret;
	work.to = pull->place = place;
	rdma->opened++;
	pull->state = PULL_OPENING;
	srdma_seal_lane_add(rdma->open_lane, &work);
	return 0;
}

/* Takes the oldest chunk out of the lane. One that failed is opened once more, for the error that this thread alone would report. */
static int take_opened(struct srdma_sealed_rdma *rdma, bool failed)
{
	struct srdma_sealed_pull *pull = pull_at(rdma, first_in(rdma, PULL_OPENING));
	const struct srdma_seal_work *work;
	int ret = 0;

	srdma_seal_lane_look(rdma->open_lane, &work);
	if (failed)
		ret = srdma_opener_open(rdma->opener, work->number, work->header, work->header_length, work->from,
					work->length + SRDMA_SEAL_OVERHEAD, work->to);
	srdma_seal_lane_pop(rdma->open_lane);
	return ret == 0 ? deliver(rdma, pull) : ret;
}

/* Whether a chunk in the lane has bytes of the same memory, which must get those of the later chunk. */
static bool overlaps(const struct srdma_sealed_rdma *rdma, const struct srdma_sealed_pull *pull)
{
	uintptr_t from, other;
	char *place;

	if (pull->header.type == SRDMA_SEALED_WRITE)
		place = (char *)srdma_sealed_rdma_region(rdma, pull->header.region)->address + pull->header.offset; /* may_write */
	else if (!srdma_sealed_jobs_place(&rdma->jobs, &pull->claim, &place))
		return true;
	from = (uintptr_t)place;
	for (uint32_t i = 0; i < rdma->pull_ring.count; i++) {
		const struct srdma_sealed_pull *earlier = &rdma->pulls[srdma_ring_at(&rdma->pull_ring, i)];

		other = (uintptr_t)earlier->place;
		if (earlier->state == PULL_OPENING && from < other + earlier->header.length && other < from + pull->header.length)
			return true;
	}
	return false;
}

/* Whether the next chunk can be opened by this thread, or handed to the lane: works of a lane have one key, and only the opener can
 * take a new one into use, with the first record that has it. */
static bool can_begin_opening(const struct srdma_sealed_rdma *rdma)
{
	uint32_t opening = rdma->open_lane ? srdma_seal_lane_count(rdma->open_lane) : 0, arrived = first_in(rdma, PULL_ARRIVED);
	const struct srdma_sealed_pull *pull;
	const struct srdma_seal_key *key;

	if (arrived == rdma->pull_ring.count)
		return false;
	if (opening == 0)
		return true;
	/* The chunks before one that ends the connection are still delivered. */
	pull = &rdma->pulls[srdma_ring_at(&rdma->pull_ring, arrived)];
	if (!may_write(rdma, pull) || overlaps(rdma, pull))
		return false;
	key = srdma_opener_key(rdma->opener, rdma->opened);
	return opening < SRDMA_SEAL_LANE_ROOM && key && srdma_seal_lane_has_key(rdma->open_lane, key);
}

static bool has_opened(const struct srdma_sealed_rdma *rdma)
{
	return rdma->open_lane && srdma_seal_lane_look(rdma->open_lane, NULL) >= SRDMA_SEAL_DONE;
}

bool srdma_sealed_rdma_can_open(const struct srdma_sealed_rdma *rdma)
{
	return has_opened(rdma) || can_begin_opening(rdma);
}

int srdma_sealed_rdma_open_next(struct srdma_sealed_rdma *rdma)
{
	const struct srdma_seal_key *key;
	struct srdma_sealed_pull *pull;
	int ret;

	if (has_opened(rdma)) {
		ret = take_opened(rdma, srdma_seal_lane_look(rdma->open_lane, NULL) == SRDMA_SEAL_FAILED);
	} else if (can_begin_opening(rdma)) {
		pull = pull_at(rdma, first_in(rdma, PULL_ARRIVED));
		key = rdma->open_lane ? srdma_opener_key(rdma->opener, rdma->opened) : NULL;
		ret = key && srdma_seal_lane_use_key(rdma->open_lane, key) ? open_ahead(rdma, pull) : open_chunk(rdma, pull);
	} else {
		return 0;
	}
	return ret == 0 ? 1 : ret;
}

int srdma_sealed_rdma_send_acks(struct srdma_sealed_rdma *rdma)
{
	struct srdma_sealed_header header = {.type = SRDMA_SEALED_ACK, .length = rdma->acks_owed};
	uint8_t bytes[SRDMA_SEALED_HEADER];

	/* The rate limit can hold back chunks within their announcements only by holding back their acknowledgement. */
	if (rdma->acks_owed == 0 || !srdma_queues_can_control(rdma->queues) || !srdma_rate_is_open(rdma->rate))
		return 0;
	rdma->peer_records -= rdma->acks_owed;
	rdma->acks_owed = 0;
	srdma_sealed_encode(bytes, &header);
	return srdma_queues_send_control(rdma->queues, bytes, sizeof bytes);
}
