/* SPDX-License-Identifier: Apache-2.0 */
#include "bulk_parts.h"

#include "log.h"

#include <errno.h>
#include <string.h>

/* Chunks up to this go within their announcement, one round trip and one pull fewer, if a message can be so long. */
#define WITHIN_MAX 2048u
/* An announcement that tells of more is full: more would let an end wait for the other; less would cost more records. */
#define BATCH_BYTES SRDMA_BULK_CHUNK
/* While so many announcements are under way the peer has enough to do: the next one waits until it is full. */
#define BUSY_RECORDS 2

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

int srdma_bulk_announce(struct srdma_conn *conn)
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

/* Seals it into the ring, to be announced with others. */
static int stage(struct srdma_conn *conn, struct srdma_bulk_header *header, const char *data, uint32_t *staged)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint8_t *bytes = bulk->batch + bulk->batch_count * SRDMA_BULK_HEADER;
	uint32_t at;
	int ret = srdma_bulk_make_memory(conn, IBV_ACCESS_REMOTE_READ, &bulk->staging);

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
	srdma_bulk_note_activity(bulk, header->length);
	chunk.ends_record = within;
	bulk->chunk_count++;
	*youngest_chunk(bulk) = chunk;
	return srdma_bulk_announce(conn);
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

int srdma_bulk_take_ack(struct srdma_conn *conn, const struct srdma_bulk_header *header)
{
	struct srdma_bulk *bulk = &conn->bulk;

	if (header->length == 0 || header->length > bulk->records)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer acknowledges %u announcements of %u", header->length, bulk->records);
	for (uint32_t i = 0; i < header->length;) {
		const struct srdma_bulk_chunk *chunk = &bulk->chunks[bulk->chunk_head];

		if (chunk->claim.job != 0 && !srdma_bulk_jobs_settle(&bulk->jobs, &chunk->claim))
			return srdma_bulk_fail_account();
		i += chunk->ends_record;
		srdma_bulk_ring_free(&bulk->staging_ring, chunk->staged);
		bulk->chunk_head = (bulk->chunk_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->chunk_count--;
	}
	bulk->records -= header->length;
	srdma_bulk_complete_jobs(conn);
	return 0;
}

bool srdma_bulk_can_send(const struct srdma_conn *conn)
{
	return has_answer(conn) || find_job(conn) < conn->bulk.jobs.count || batch_is_due(conn);
}

int srdma_bulk_send_next(struct srdma_conn *conn)
{
	struct srdma_bulk_jobs *jobs = &conn->bulk.jobs;
	struct srdma_bulk_job *job;
	uint32_t index;
	int ret;

	if (has_answer(conn)) {
		ret = send_answer(conn);
	} else {
		index = find_job(conn);
		if (index == jobs->count)
			return 0;
		job = srdma_bulk_jobs_at(jobs, index);
		ret = job->write ? send_write(conn, job) : send_reads(conn, index);
	}
	return ret == 0 ? 1 : ret;
}
