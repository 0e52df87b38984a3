/* SPDX-License-Identifier: Apache-2.0 */
#include "bulk.h"

#include "clock.h"
#include "conn.h"
#include "log.h"

#include <errno.h>
#include <string.h>

/* Chunks up to this go within their announcement, one round trip and one pull fewer, if a message can be so long. */
#define WITHIN_MAX 2048u
/* An announcement that tells of more is full: more would let an end wait for the other; less would cost more records. */
#define BATCH_BYTES SRDMA_BULK_CHUNK
/* Chunks that lie one after the other are pulled by one read, up to so much: four of 64 KiB with what lies between them. */
#define PULL_BYTES (SRDMA_BULK_CHUNK + 4096)
/* While so many announcements are under way the peer has enough to do: the next one waits until it is full. */
#define BUSY_RECORDS 2
/* Then it is other clients' turn. */
#define CHUNKS_PER_STEP 16
/* Sealed or opened before the device is looked at again: a look costs several system calls on one in software. */
#define POLL_BYTES (SRDMA_BULK_CHUNK / 2)
/* Who waits for more sleeps no sooner than so long after the last chunk: to be woken costs more than it takes to come. And so many
 * bytes of it take a microsecond, at the slowest: the next one will be as long. */
#define ACTIVE_US 200
#define BYTES_PER_US 200

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int take_record(void *arg, const void *data, uint32_t length);
static void finish_pull(void *arg);

int srdma_bulk_start(struct srdma_conn *conn, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret;

	bulk->sealer = sealer;
	bulk->opener = opener;
	ret = srdma_bulk_jobs_init(&bulk->jobs, conn->channel.rdma_depth);
	if (ret != 0)
		return ret;
	bulk->on = true;
	conn->channel.on_control = take_record;
	conn->channel.on_pulled = finish_pull;
	conn->channel.arg = conn;
	return 0;
}

void srdma_bulk_release(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;

	srdma_region_release(&bulk->staging);
	srdma_region_release(&bulk->landing);
	srdma_sealer_delete(&bulk->sealer);
	srdma_opener_delete(&bulk->opener);
	srdma_bulk_jobs_release(&bulk->jobs);
	*bulk = (struct srdma_bulk){0};
}

void srdma_bulk_end(struct srdma_bulk *bulk)
{
	bulk->over = true;
	srdma_bulk_jobs_drop(&bulk->jobs);
	bulk->pull_count = bulk->chunk_count = bulk->answer_count = 0;
	bulk->batch_count = bulk->batch_bytes = 0;
	bulk->acks_owed = 0;
	bulk->active_until = 0;
}

/* A queue pair that failed may be replaced, and all goes on; nothing else is ever made good. */
static int end_unless_mendable(struct srdma_bulk *bulk, int ret)
{
	if (ret < 0 && ret != SRDMA_EVERBS)
		srdma_bulk_end(bulk);
	return ret;
}

static struct srdma_bulk_pull *pull_at(struct srdma_bulk *bulk, uint32_t index)
{
	return &bulk->pulls[(bulk->pull_head + index) % SRDMA_BULK_CHUNKS];
}

bool srdma_bulk_is_idle(const struct srdma_bulk *bulk)
{
	return bulk->jobs.count == 0;
}

bool srdma_bulk_is_active(const struct srdma_bulk *bulk)
{
	return bulk->on && srdma_clock_us() < bulk->active_until;
}

static void note_activity(struct srdma_bulk *bulk, uint32_t length)
{
	bulk->active_until = srdma_clock_us() + ACTIVE_US + length / BYTES_PER_US;
	bulk->unpolled += length;
}

/* Writes and reads never overlap, so that the oldest one tells. */
bool srdma_bulk_has_written(const struct srdma_bulk *bulk)
{
	for (uint32_t i = 0; i < bulk->jobs.count; i++)
		if (srdma_bulk_jobs_at(&bulk->jobs, i)->write)
			return false;
	return true;
}

int srdma_bulk_post(struct srdma_conn *conn, const struct srdma_bulk_job *job)
{
	if (conn->bulk.over || !srdma_bulk_jobs_add(&conn->bulk.jobs, job))
		return srdma_fail(-EAGAIN, "no room for another write or read");
	conn->channel.rdma_queued++;
	return 0;
}

/* In the order of posting. */
static void complete_jobs(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_job job;

	while (srdma_bulk_jobs_take(&bulk->jobs, &job)) {
		bulk->reads_asked -= job.ends_record;
		srdma_channel_complete_rdma(&conn->channel, job.waited ? SRDMA_OP_WAITED : SRDMA_OP_POSTED, job.cookie);
	}
}

/* ---- chunks of ours -------------------------------------------------------------------------------------------- */

static uint32_t headers_per_record(const struct srdma_conn *conn)
{
	uint32_t room = conn->channel.message_size / SRDMA_BULK_HEADER;

	return room < SRDMA_BULK_BATCH ? room : SRDMA_BULK_BATCH;
}

/* What goes within is there at once: it must not overtake what is still to be pulled. */
static bool goes_within(const struct srdma_conn *conn, uint32_t length)
{
	return length <= WITHIN_MAX && length + SRDMA_BULK_HEADER <= conn->channel.message_size && conn->bulk.staging_ring.used == 0;
}

static bool batch_is_full(const struct srdma_conn *conn)
{
	return conn->bulk.batch_count == headers_per_record(conn) || conn->bulk.batch_bytes > BATCH_BYTES;
}

static bool can_announce(const struct srdma_conn *conn)
{
	return conn->bulk.records < SRDMA_BULK_RECORDS && srdma_channel_can_control(&conn->channel);
}

static bool batch_is_due(const struct srdma_conn *conn)
{
	return conn->bulk.batch_count > 0 && (batch_is_full(conn) || conn->bulk.records < BUSY_RECORDS) && can_announce(conn);
}

static bool can_send_chunk(const struct srdma_conn *conn, uint32_t length)
{
	const struct srdma_bulk *bulk = &conn->bulk;

	if (bulk->chunk_count == SRDMA_BULK_CHUNKS)
		return false;
	if (goes_within(conn, length))
		return can_announce(conn);
	return srdma_bulk_ring_fits(&bulk->staging_ring, length) && (bulk->batch_count > 0 ? !batch_is_full(conn) : can_announce(conn));
}

static struct srdma_bulk_chunk *youngest_chunk(struct srdma_bulk *bulk)
{
	return &bulk->chunks[(bulk->chunk_head + bulk->chunk_count - 1) % SRDMA_BULK_CHUNKS];
}

static int announce(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t length = bulk->batch_count * SRDMA_BULK_HEADER;

	youngest_chunk(bulk)->ends_record = true;
	bulk->records++;
	bulk->batch_count = bulk->batch_bytes = 0;
	return srdma_channel_send_control(&conn->channel, bulk->batch, length);
}

static int announce_if_due(struct srdma_conn *conn)
{
	return batch_is_due(conn) ? announce(conn) : 0;
}

static int send_within(struct srdma_conn *conn, struct srdma_bulk_header *header, const char *data)
{
	uint8_t bytes[SRDMA_BULK_HEADER + WITHIN_MAX];

	header->within = true;
	srdma_bulk_encode(bytes, header);
	if (header->length > 0)
		memcpy(bytes + SRDMA_BULK_HEADER, data, header->length);
	conn->bulk.records++;
	return srdma_channel_send_control(&conn->channel, bytes, SRDMA_BULK_HEADER + header->length);
}

static int make_memory(struct srdma_conn *conn, int access, struct srdma_region *ring)
{
	return ring->mr ? 0 : srdma_region_new(conn->pd, SRDMA_BULK_RING, access, ring);
}

/* Seals it into the ring, to be announced with others. */
static int stage(struct srdma_conn *conn, struct srdma_bulk_header *header, const char *data, uint32_t *staged)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint8_t *bytes = bulk->batch + bulk->batch_count * SRDMA_BULK_HEADER;
	uint32_t at;
	int ret = make_memory(conn, IBV_ACCESS_REMOTE_READ, &bulk->staging);

	if (ret != 0)
		return ret;
	*staged = srdma_bulk_ring_take(&bulk->staging_ring, header->length, &at);
	header->address = at;
	header->rkey = bulk->staging.mr->rkey;
	srdma_bulk_encode(bytes, header);
	bulk->batch_count++;
	bulk->batch_bytes += header->length;
	return srdma_sealer_seal(bulk->sealer, bytes, SRDMA_BULK_HEADER, data, header->length,
				 (char *)bulk->staging.address + at);
}

static int send_chunk(struct srdma_conn *conn, struct srdma_bulk_header *header, const char *data, const struct srdma_bulk_claim *claim)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_chunk chunk = {.claim = *claim};
	bool within = goes_within(conn, header->length);
	int ret = within ? send_within(conn, header, data) : stage(conn, header, data, &chunk.staged);

	if (ret != 0)
		return ret;
	note_activity(bulk, header->length);
	chunk.ends_record = within;
	bulk->chunk_count++;
	*youngest_chunk(bulk) = chunk;
	return announce_if_due(conn);
}

static uint32_t next_length(uint64_t left)
{
	return left < SRDMA_BULK_CHUNK ? (uint32_t)left : SRDMA_BULK_CHUNK;
}

static bool has_answer(const struct srdma_conn *conn)
{
	const struct srdma_bulk_answer *answer = &conn->bulk.answers[conn->bulk.answer_head];

	return conn->bulk.answer_count > 0 && srdma_rate_is_open(&conn->rate) && can_send_chunk(conn, next_length(answer->length - answer->announced));
}

static int send_answer(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_answer *answer = &bulk->answers[bulk->answer_head];
	struct srdma_bulk_header header = {.type = SRDMA_BULK_ANSWER,
					   .length = next_length(answer->length - answer->announced),
					   .offset = answer->announced};
	const struct srdma_bulk_claim none = {0};
	int ret;

	if (!(conn->region.rights & IBV_ACCESS_REMOTE_READ))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was reading the region when it was withdrawn");
	ret = send_chunk(conn, &header, (char *)conn->region.address + answer->offset + answer->announced, &none);
	srdma_rate_take(&conn->rate, header.length);
	answer->announced += header.length;
	if (ret == 0 && answer->announced == answer->length) {
		bulk->answer_head = (bulk->answer_head + 1) % (SRDMA_BULK_READS * SRDMA_BULK_BATCH);
		bulk->answer_count--;
	}
	return ret;
}

static int send_write(struct srdma_conn *conn, struct srdma_bulk_job *job)
{
	struct srdma_bulk_header header = {.type = SRDMA_BULK_WRITE,
					   .length = next_length(job->length - job->claimed),
					   .offset = job->offset + job->claimed};
	struct srdma_bulk_claim claim;
	char *data;

	if (!srdma_bulk_jobs_claim(job, header.length, &claim) || !srdma_bulk_jobs_place(&conn->bulk.jobs, &claim, &data))
		return srdma_fail(-EINVAL, "a write that has nothing left to send");
	return send_chunk(conn, &header, data, &claim);
}

/* The reads from `first` on that fit into one record. */
static int send_reads(struct srdma_conn *conn, uint32_t first)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint8_t bytes[SRDMA_BULK_BATCH * SRDMA_BULK_HEADER];
	uint32_t count = 0, most = headers_per_record(conn);
	struct srdma_bulk_job *job = NULL;

	for (uint32_t i = first; i < bulk->jobs.count && count < most && !srdma_bulk_jobs_at(&bulk->jobs, i)->write; i++, count++) {
		job = srdma_bulk_jobs_at(&bulk->jobs, i);
		srdma_bulk_encode(bytes + count * SRDMA_BULK_HEADER,
				  &(struct srdma_bulk_header){
					  .type = SRDMA_BULK_READ, .offset = job->offset, .address = job->length});
		job->asked = true;
	}
	if (!job)
		return 0;
	job->ends_record = true;
	bulk->reads_asked++;
	return srdma_channel_send_control(&conn->channel, bytes, count * SRDMA_BULK_HEADER);
}

/* The oldest job that is not wholly out, if it may be now; jobs.count: none. A read after a write sees what was written, and a
 * write after a read does not show in it: only what is of one kind is under way together. */
static uint32_t find_job(const struct srdma_conn *conn)
{
	const struct srdma_bulk *bulk = &conn->bulk;
	const struct srdma_bulk_jobs *jobs = &bulk->jobs;
	bool write = jobs->count > 0 && srdma_bulk_jobs_at(jobs, 0)->write;

	for (uint32_t i = 0; i < jobs->count; i++) {
		const struct srdma_bulk_job *job = srdma_bulk_jobs_at(jobs, i);
		bool can;

		if (job->write != write)
			break;
		if (write ? job->all_claimed : job->asked)
			continue;
		if (write)
			can = can_send_chunk(conn, next_length(job->length - job->claimed));
		else
			can = bulk->reads_asked < SRDMA_BULK_READS && srdma_channel_can_control(&conn->channel) &&
			      (bulk->reads_asked < BUSY_RECORDS || jobs->count - i >= headers_per_record(conn) / 2);
		return can ? i : jobs->count;
	}
	return jobs->count;
}

/* Can't be: what holds a claim keeps its job from being over. */
static int fail_account(void)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer's chunk belongs to a write or read that is over");
}

static int take_ack(struct srdma_conn *conn, const struct srdma_bulk_header *header)
{
	struct srdma_bulk *bulk = &conn->bulk;

	if (header->length == 0 || header->length > bulk->records)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer acknowledges %u announcements of %u", header->length, bulk->records);
	for (uint32_t i = 0; i < header->length;) {
		const struct srdma_bulk_chunk *chunk = &bulk->chunks[bulk->chunk_head];

		if (chunk->claim.job != 0 && !srdma_bulk_jobs_settle(&bulk->jobs, &chunk->claim))
			return fail_account();
		i += chunk->ends_record;
		srdma_bulk_ring_free(&bulk->staging_ring, chunk->staged);
		bulk->chunk_head = (bulk->chunk_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->chunk_count--;
	}
	bulk->records -= header->length;
	complete_jobs(conn);
	return 0;
}

/* ---- chunks of the peer's -------------------------------------------------------------------------------------- */

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
		return srdma_bulk_jobs_place(&conn->bulk.jobs, &pull->claim, place) ? 0 : fail_account();
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
		return fail_account();
	pull->state = PULL_DONE;
	note_activity(bulk, pull->header.length);
	while (bulk->pull_count > 0 && pull_at(bulk, 0)->state == PULL_DONE) {
		srdma_bulk_ring_free(&bulk->landing_ring, pull_at(bulk, 0)->landed);
		bulk->acks_owed += pull_at(bulk, 0)->ends_record;
		bulk->pull_head = (bulk->pull_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->pull_count--;
	}
	complete_jobs(conn);
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
		ret = make_memory(conn, IBV_ACCESS_LOCAL_WRITE, &bulk->landing);
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

static int execute(struct srdma_conn *conn, const void *data, uint32_t length)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_header headers[SRDMA_BULK_BATCH];
	int count = srdma_bulk_decode(data, length, headers), ret = 0;

	if (count < 0)
		return count;
	if (headers[0].type == SRDMA_BULK_ACK)
		return take_ack(conn, &headers[0]);
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

static int take_record(void *arg, const void *data, uint32_t length)
{
	struct srdma_conn *conn = arg;

	return conn->bulk.over ? 0 : end_unless_mendable(&conn->bulk, execute(conn, data, length));
}

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

static int post_pulls(struct srdma_conn *conn)
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
static void finish_pull(void *arg)
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

/* ---- progress -------------------------------------------------------------------------------------------------- */

static int send_acks(struct srdma_conn *conn)
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

bool srdma_bulk_has_work(const struct srdma_conn *conn)
{
	const struct srdma_bulk *bulk = &conn->bulk;

	if (!bulk->on || bulk->over)
		return false;
	return first_in(bulk, PULL_ARRIVED) < bulk->pull_count || has_answer(conn) || find_job(conn) < bulk->jobs.count || batch_is_due(conn);
}

/* One chunk is opened or sealed, those that came first, or reads are asked for. 1; 0: there was nothing; or an error. */
static int work(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t arrived = first_in(bulk, PULL_ARRIVED);
	int ret;

	if (arrived < bulk->pull_count) {
		ret = open_chunk(conn, pull_at(bulk, arrived));
	} else if (has_answer(conn)) {
		ret = send_answer(conn);
	} else {
		uint32_t index = find_job(conn);
		struct srdma_bulk_job *job = srdma_bulk_jobs_at(&bulk->jobs, index);

		if (index == bulk->jobs.count)
			return 0;
		ret = job->write ? send_write(conn, job) : send_reads(conn, index);
	}
	return ret == 0 ? 1 : ret;
}

int srdma_bulk_step(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret = 1;

	if (!bulk->on || bulk->over)
		return 0;
	/* In between the device is looked at: it may be moved on by that alone, and what it needs to go on comes first. */
	for (int chunks = 0; ret == 1 && chunks < CHUNKS_PER_STEP; chunks++) {
		ret = bulk->pull_count > 0 ? post_pulls(conn) : 0;
		if (ret == 0)
			ret = send_acks(conn);
		if (ret == 0)
			ret = announce_if_due(conn);
		if (ret == 0)
			ret = work(conn);
		if (ret == 1 && bulk->unpolled >= POLL_BYTES) {
			int polled = srdma_channel_poll(&conn->channel);

			bulk->unpolled = 0;
			ret = polled != 0 ? polled : 1;
		}
	}
	return ret > 0 ? 0 : end_unless_mendable(bulk, ret);
}
