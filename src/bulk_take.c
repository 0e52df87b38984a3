/* SPDX-License-Identifier: Apache-2.0 */
#include "bulk_parts.h"

#include "log.h"

#include <string.h>

/* Chunks that lie one after the other are pulled by one read, up to so much: four of 64 KiB with what lies between them. */
#define PULL_BYTES (SRDMA_BULK_CHUNK + 4096)

static struct srdma_bulk_pull *pull_at(struct srdma_bulk *bulk, uint32_t index)
{
	return &bulk->pulls[(bulk->pull_head + index) % SRDMA_BULK_CHUNKS];
}

/* ---- what the peer says ---------------------------------------------------------------------------------------- */

static int check_bounds(const struct srdma_conn *conn, uint64_t offset, uint64_t length, unsigned right)
{
	if (!conn->region.address || !(conn->region.rights & right))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's %s of a region that is not offered for that",
				  right == IBV_ACCESS_REMOTE_WRITE ? "write" : "read");
	if (offset > conn->region.size || length > conn->region.size - offset)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's request goes beyond the region");
	return 0;
}

/* Which bytes of which read the answer is: it answers them in the order of asking, each byte once, and says nothing else. */
static bool claim_answer(struct srdma_bulk *bulk, const struct srdma_bulk_header *header, struct srdma_bulk_claim *claim)
{
	for (uint32_t i = 0; i < bulk->jobs.count; i++) {
		struct srdma_bulk_job *job = srdma_bulk_jobs_at(&bulk->jobs, i);

		if (job->write || !job->asked)
			return false;
		if (!job->all_claimed)
			return header->offset == job->claimed && srdma_bulk_jobs_claim(job, header->length, claim);
	}
	return false;
}

/* Whether the peer may announce it. */
static int admit_chunk(struct srdma_conn *conn, struct srdma_bulk_pull *pull)
{
	const struct srdma_bulk_header *header = &pull->header;

	if (header->length > SRDMA_BULK_CHUNK)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces a chunk of %u bytes", header->length);
	if (header->type == SRDMA_BULK_WRITE)
		return check_bounds(conn, header->offset, header->length, IBV_ACCESS_REMOTE_WRITE);
	if (!claim_answer(&conn->bulk, header, &pull->claim))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's answer of %u bytes at %llu is not the next part of what was asked for",
				  header->length, (unsigned long long)header->offset);
	return 0;
}

/* Where it belongs, now that it is there. */
static int place_chunk(const struct srdma_conn *conn, const struct srdma_bulk_pull *pull, char **place)
{
	const struct srdma_bulk_header *header = &pull->header;
	int ret;

	if (header->type == SRDMA_BULK_ANSWER)
		return srdma_bulk_jobs_place(&conn->bulk.jobs, &pull->claim, place) ? 0 : srdma_bulk_fail_account();
	ret = check_bounds(conn, header->offset, header->length, IBV_ACCESS_REMOTE_WRITE);
	if (ret == 0)
		*place = (char *)conn->region.address + header->offset;
	return ret;
}

/* A chunk has got to where it belongs. */
static int deliver(struct srdma_conn *conn, struct srdma_bulk_pull *pull)
{
	struct srdma_bulk *bulk = &conn->bulk;

	if (pull->header.type == SRDMA_BULK_ANSWER && !srdma_bulk_jobs_settle(&bulk->jobs, &pull->claim))
		return srdma_bulk_fail_account();
	pull->state = PULL_DONE;
	srdma_bulk_note_activity(bulk, pull->header.length);
	while (bulk->pull_count > 0 && pull_at(bulk, 0)->state == PULL_DONE) {
		srdma_bulk_ring_free(&bulk->landing_ring, pull_at(bulk, 0)->landed);
		bulk->acks_owed += pull_at(bulk, 0)->ends_record;
		bulk->pull_head = (bulk->pull_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->pull_count--;
	}
	srdma_bulk_complete_jobs(conn);
	return 0;
}

/* It came within its announcement, and nothing is before it. */
static int take_within(struct srdma_conn *conn, struct srdma_bulk_pull *pull, const uint8_t *data)
{
	char *place;
	int ret = place_chunk(conn, pull, &place);

	if (ret != 0)
		return ret;
	if (pull->header.length > 0)
		memcpy(place, data, pull->header.length);
	if (pull->header.type == SRDMA_BULK_WRITE)
		srdma_rate_take(&conn->rate, pull->header.length);
	return deliver(conn, pull);
}

static int take_chunk(struct srdma_conn *conn, const struct srdma_bulk_header *header, bool last, const uint8_t *data)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_pull pull = {.header = *header, .ends_record = last}, *placed;
	uint32_t at;
	int ret;

	if (bulk->pull_count == SRDMA_BULK_CHUNKS || (header->within ? bulk->pull_count > 0 : !srdma_bulk_ring_fits(&bulk->landing_ring, header->length)))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces more chunks than may be under way");
	ret = admit_chunk(conn, &pull);
	if (ret == 0 && !header->within)
		ret = srdma_bulk_make_memory(conn, IBV_ACCESS_LOCAL_WRITE, &bulk->landing);
	if (ret != 0)
		return ret;
	if (!header->within) {
		pull.landed = srdma_bulk_ring_take(&bulk->landing_ring, header->length, &at);
		pull.landing = (char *)bulk->landing.address + at;
	}
	placed = pull_at(bulk, bulk->pull_count++);
	*placed = pull;
	return header->within ? take_within(conn, placed, data) : 0;
}

static int take_read(struct srdma_conn *conn, const struct srdma_bulk_header *header)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t room = SRDMA_BULK_READS * SRDMA_BULK_BATCH;
	int ret = check_bounds(conn, header->offset, header->address, IBV_ACCESS_REMOTE_READ);

	if (ret == 0 && bulk->answer_count >= room)
		ret = srdma_fail(SRDMA_EPROTOCOL, "the peer asks for more reads than may be under way");
	if (ret != 0)
		return ret;
	bulk->answers[(bulk->answer_head + bulk->answer_count++) % room] =
		(struct srdma_bulk_answer){.offset = header->offset, .length = header->address};
	return 0;
}

int srdma_bulk_execute(struct srdma_conn *conn, const void *data, uint32_t length)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_header headers[SRDMA_BULK_BATCH];
	int count = srdma_bulk_decode(data, length, headers), ret = 0;

	if (count < 0)
		return count;
	if (headers[0].type == SRDMA_BULK_ACK)
		return srdma_bulk_take_ack(conn, &headers[0]);
	if (headers[0].type != SRDMA_BULK_READ && bulk->peer_records++ >= SRDMA_BULK_RECORDS)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer makes more announcements than may be under way");
	for (int i = 0; i < count && ret == 0; i++) {
		if (headers[i].type == SRDMA_BULK_READ)
			ret = take_read(conn, &headers[i]);
		else
			ret = take_chunk(conn, &headers[i], i == count - 1, (const uint8_t *)data + SRDMA_BULK_HEADER);
	}
	return ret;
}

/* ---- fetching -------------------------------------------------------------------------------------------------- */

/* The oldest pull in that state; pull_count: none. */
static uint32_t first_in(const struct srdma_bulk *bulk, unsigned state)
{
	uint32_t i = 0;

	while (i < bulk->pull_count && bulk->pulls[(bulk->pull_head + i) % SRDMA_BULK_CHUNKS].state != state)
		i++;
	return i;
}

/* Joins the pull to the one before it in its read, when it lies right behind it at both ends. */
static bool extend(struct srdma_op *op, const struct srdma_bulk_pull *pull)
{
	uint64_t before = (uintptr_t)pull->landing - op->local, length = before + pull->header.length + SRDMA_SEAL_OVERHEAD;

	if (before != srdma_bulk_ring_align(op->length) || pull->header.address != op->remote + before || pull->header.rkey != op->rkey ||
	    length > PULL_BYTES)
		return false;
	op->length = (uint32_t)length;
	return true;
}

int srdma_bulk_post_pulls(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_pull *first = NULL;
	struct srdma_op ops[SRDMA_SUBMIT_MAX];
	uint32_t count = 0, room = srdma_channel_room_for_pulls(&conn->channel, PULL_BYTES);

	for (uint32_t i = first_in(bulk, PULL_WAITING); i < bulk->pull_count; i++) {
		struct srdma_bulk_pull *pull = pull_at(bulk, i);
		bool write = pull->header.type == SRDMA_BULK_WRITE;

		if (write && !srdma_rate_is_open(&conn->rate))
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
							 .lkey = bulk->landing.mr->lkey};
		} else {
			break;
		}
		if (write)
			srdma_rate_take(&conn->rate, pull->header.length);
		pull->state = PULL_POSTED;
	}
	return count > 0 ? srdma_channel_post_pulls(&conn->channel, ops, count) : 0;
}

/* What the oldest read of them fetched has arrived: RC completes in order. */
void srdma_bulk_finish_pull(void *arg)
{
	struct srdma_conn *conn = arg;
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t first = first_in(bulk, PULL_POSTED);

	if (first == bulk->pull_count)
		return;
	for (uint32_t i = pull_at(bulk, first)->together; i > 0; i--)
		pull_at(bulk, first + i - 1)->state = PULL_ARRIVED;
}

static int open_chunk(struct srdma_conn *conn, struct srdma_bulk_pull *pull)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint8_t header[SRDMA_BULK_HEADER];
	char *place;
	int ret;

	/* What was withdrawn meanwhile is not written to any more. */
	if (pull->header.type == SRDMA_BULK_WRITE && !(conn->region.rights & IBV_ACCESS_REMOTE_WRITE))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was writing to the region when it was withdrawn");
	ret = place_chunk(conn, pull, &place);
	if (ret != 0)
		return ret;
	srdma_bulk_encode(header, &pull->header);
	ret = srdma_opener_open(bulk->opener, bulk->opened++, header, sizeof header, pull->landing,
				pull->header.length + SRDMA_SEAL_OVERHEAD, place);
	return ret == 0 ? deliver(conn, pull) : ret;
}

bool srdma_bulk_has_arrived(const struct srdma_bulk *bulk)
{
	return first_in(bulk, PULL_ARRIVED) < bulk->pull_count;
}

int srdma_bulk_open_next(struct srdma_conn *conn)
{
	uint32_t arrived = first_in(&conn->bulk, PULL_ARRIVED);
	int ret;

	if (arrived == conn->bulk.pull_count)
		return 0;
	ret = open_chunk(conn, pull_at(&conn->bulk, arrived));
	return ret == 0 ? 1 : ret;
}

int srdma_bulk_send_acks(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_header header = {.type = SRDMA_BULK_ACK, .length = bulk->acks_owed};
	uint8_t bytes[SRDMA_BULK_HEADER];

	/* What came within its announcement can be held back by that alone. */
	if (bulk->acks_owed == 0 || !srdma_channel_can_control(&conn->channel) || !srdma_rate_is_open(&conn->rate))
		return 0;
	bulk->peer_records -= bulk->acks_owed;
	bulk->acks_owed = 0;
	srdma_bulk_encode(bytes, &header);
	return srdma_channel_send_control(&conn->channel, bytes, sizeof bytes);
}
