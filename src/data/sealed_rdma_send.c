/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_rdma_parts.h"

#include "log.h"

#include <errno.h>
#include <string.h>

/* Chunks up to this length travel within their announcement, if a message can be so long, which saves a pull. */
#define WITHIN_MAX 2048u
/* An announcement with this many bytes is full: one of the longest chunks, or what one read of the peer's pulls. Larger ones would make the
 * ends wait for each other, smaller ones cost more records. */
#define BATCH_BYTES SRDMA_SEALED_CHUNK
/* While this many announcements are under way the peer is busy, so the next one waits until it is full. */
#define BUSY_RECORDS 2

static uint32_t headers_per_record(const struct srdma_sealed_rdma *rdma)
{
	uint32_t room = rdma->queues->message_size / SRDMA_SEALED_HEADER;

	return room < SRDMA_SEALED_BATCH ? room : SRDMA_SEALED_BATCH;
}

/* A chunk within its announcement arrives at once, so it must not overtake chunks that are still to be pulled. */
static bool goes_within(const struct srdma_sealed_rdma *rdma, uint32_t length)
{
	return length <= WITHIN_MAX && length + SRDMA_SEALED_HEADER <= rdma->queues->message_size && rdma->staging_ring.used == 0;
}

static bool batch_is_full(const struct srdma_sealed_rdma *rdma)
{
	return rdma->batch_count == headers_per_record(rdma) || rdma->batch_bytes >= BATCH_BYTES;
}

static bool can_announce(const struct srdma_sealed_rdma *rdma)
{
	return rdma->records < SRDMA_SEALED_RECORDS && srdma_queues_can_control(rdma->queues);
}

static bool batch_is_due(const struct srdma_sealed_rdma *rdma)
{
	return rdma->batch_count > 0 && (batch_is_full(rdma) || rdma->records < BUSY_RECORDS) && can_announce(rdma);
}

static bool batch_has_room(const struct srdma_sealed_rdma *rdma)
{
	return rdma->batch_count > 0 ? !batch_is_full(rdma) : can_announce(rdma);
}

/* Chunks in the lane, the youngest ones. */
static uint32_t sealing(const struct srdma_sealed_rdma *rdma)
{
	return rdma->seal_lane ? srdma_seal_lane_count(rdma->seal_lane) : 0;
}

static bool can_send_chunk(const struct srdma_sealed_rdma *rdma, uint32_t length)
{
	if (rdma->chunk_ring.count == rdma->chunk_ring.room)
		return false;
	if (goes_within(rdma, length))
		return can_announce(rdma);
	if (!srdma_sealed_ring_fits(&rdma->staging_ring, length))
		return false;
	/* Works of a lane have one key. */
	if (rdma->seal_lane)
		return sealing(rdma) < SRDMA_SEAL_LANE_ROOM && (sealing(rdma) == 0 || !srdma_sealer_key_changes(rdma->sealer));
	return batch_has_room(rdma);
}

/* The youngest chunk that is in the announcement to come. */
static struct srdma_sealed_chunk *youngest_chunk(struct srdma_sealed_rdma *rdma)
{
	return &rdma->chunks[srdma_ring_at(&rdma->chunk_ring, rdma->chunk_ring.count - 1 - sealing(rdma))];
}

int srdma_sealed_rdma_announce(struct srdma_sealed_rdma *rdma)
{
	uint32_t length = rdma->batch_count * SRDMA_SEALED_HEADER;

	if (!batch_is_due(rdma))
		return 0;
	youngest_chunk(rdma)->ends_record = true;
	rdma->records++;
	rdma->batch_count = rdma->batch_bytes = 0;
	return srdma_queues_send_control(rdma->queues, rdma->batch, length);
}

static int send_within(struct srdma_sealed_rdma *rdma, struct srdma_sealed_header *header, const char *data)
{
	uint8_t bytes[SRDMA_SEALED_HEADER + WITHIN_MAX];

	header->within = true;
	srdma_sealed_encode(bytes, header);
	if (header->length > 0)
		memcpy(bytes + SRDMA_SEALED_HEADER, data, header->length);
	rdma->records++;
	return srdma_queues_send_control(rdma->queues, bytes, SRDMA_SEALED_HEADER + header->length);
}

static void add_to_batch(struct srdma_sealed_rdma *rdma, const uint8_t header[SRDMA_SEALED_HEADER], uint32_t length)
{
	memcpy(rdma->batch + rdma->batch_count * SRDMA_SEALED_HEADER, header, SRDMA_SEALED_HEADER);
	rdma->batch_count++;
	rdma->batch_bytes += length;
}

/* Hands a chunk to the lane. */
static int seal_ahead(struct srdma_sealed_rdma *rdma, const uint8_t header[SRDMA_SEALED_HEADER], const char *data, uint32_t length, void *out)
{
	struct srdma_seal_work work = {.length = length, .header_length = SRDMA_SEALED_HEADER, .from = data, .to = out};
	int ret = srdma_sealer_reserve(rdma->sealer, &work.number);

	if (ret != 0)
		return ret;
	srdma_seal_lane_use_key(rdma->seal_lane, srdma_sealer_key(rdma->sealer));
	memcpy(work.header, header, SRDMA_SEALED_HEADER);
	srdma_seal_lane_add(rdma->seal_lane, &work);
	return 0;
}

bool srdma_sealed_rdma_can_gather(const struct srdma_sealed_rdma *rdma)
{
	enum srdma_seal_outcome outcome = rdma->seal_lane ? srdma_seal_lane_look(rdma->seal_lane, NULL) : SRDMA_SEAL_NONE;

	return outcome == SRDMA_SEAL_FAILED || (outcome == SRDMA_SEAL_DONE && batch_has_room(rdma));
}

int srdma_sealed_rdma_gather(struct srdma_sealed_rdma *rdma)
{
	while (srdma_sealed_rdma_can_gather(rdma)) {
		const struct srdma_seal_work *work;

		if (srdma_seal_lane_look(rdma->seal_lane, &work) == SRDMA_SEAL_FAILED)
			return srdma_fail(SRDMA_ESEAL, "cannot seal record %llu of %u bytes", (unsigned long long)work->number, work->length);
		add_to_batch(rdma, work->header, work->length);
		srdma_seal_lane_pop(rdma->seal_lane);
	}
	return 0;
}

/* Seals a chunk into the staging ring, to be announced together with others. */
static int stage(struct srdma_sealed_rdma *rdma, struct srdma_sealed_header *header, const char *data, uint32_t *staged)
{
	uint8_t bytes[SRDMA_SEALED_HEADER];
	uint32_t at;
	int ret = srdma_sealed_rdma_make_memory(rdma, IBV_ACCESS_REMOTE_READ, &rdma->staging);

	if (ret != 0)
		return ret;
	*staged = srdma_sealed_ring_take(&rdma->staging_ring, header->length, &at);
	header->address = at;
	header->rkey = rdma->staging.mr->rkey;
	srdma_sealed_encode(bytes, header);
	if (rdma->seal_lane)
		return seal_ahead(rdma, bytes, data, header->length, (char *)rdma->staging.address + at);
	add_to_batch(rdma, bytes, header->length);
	return srdma_sealer_seal(rdma->sealer, bytes, SRDMA_SEALED_HEADER, data, header->length, (char *)rdma->staging.address + at);
}

static int send_chunk(struct srdma_sealed_rdma *rdma, struct srdma_sealed_header *header, const char *data,
		      const struct srdma_sealed_claim *claim)
{
	struct srdma_sealed_chunk chunk = {.claim = *claim};
	bool within = goes_within(rdma, header->length);
	int ret = within ? send_within(rdma, header, data) : stage(rdma, header, data, &chunk.staged);

	if (ret != 0)
		return ret;
	srdma_sealed_rdma_note_activity(rdma, header->length);
	chunk.ends_record = within;
	rdma->chunks[srdma_ring_push(&rdma->chunk_ring)] = chunk;
	return srdma_sealed_rdma_announce(rdma);
}

static uint32_t next_length(uint64_t left)
{
	return left < SRDMA_SEALED_CHUNK ? (uint32_t)left : SRDMA_SEALED_CHUNK;
}

static bool has_answer(const struct srdma_sealed_rdma *rdma)
{
	const struct srdma_sealed_answer *answer = &rdma->answers[rdma->answer_ring.first];

	return rdma->answer_ring.count > 0 && srdma_rate_is_open(rdma->rate) &&
	       can_send_chunk(rdma, next_length(answer->length - answer->announced));
}

static int send_answer(struct srdma_sealed_rdma *rdma)
{
	struct srdma_sealed_answer *answer = &rdma->answers[rdma->answer_ring.first];
	struct srdma_sealed_header header = {
		.type = SRDMA_SEALED_ANSWER, .length = next_length(answer->length - answer->announced), .offset = answer->announced};
	const struct srdma_region *region = srdma_sealed_rdma_region(rdma, answer->region);
	const struct srdma_sealed_claim none = {0};
	int ret;

	if (!region || !(region->rights & IBV_ACCESS_REMOTE_READ))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was reading the region when it was withdrawn");
	ret = send_chunk(rdma, &header, (char *)region->address + answer->offset + answer->announced, &none);
	srdma_rate_take(rdma->rate, header.length);
	answer->announced += header.length;
	if (ret == 0 && answer->announced == answer->length)
		srdma_ring_pop(&rdma->answer_ring);
	return ret;
}

static int send_write(struct srdma_sealed_rdma *rdma, struct srdma_sealed_job *job)
{
	struct srdma_sealed_header header = {
		.type = SRDMA_SEALED_WRITE, .length = next_length(job->length - job->claimed), .offset = job->offset + job->claimed, .region = job->region};
	struct srdma_sealed_claim claim;
	char *data;

	if (!srdma_sealed_jobs_claim(job, header.length, &claim) || !srdma_sealed_jobs_place(&rdma->jobs, &claim, &data))
		return srdma_fail(-EINVAL, "the write has nothing left to send");
	return send_chunk(rdma, &header, data, &claim);
}

/* Asks for as many reads, from `first` on, as fit into one record. */
static int send_reads(struct srdma_sealed_rdma *rdma, uint32_t first)
{
	uint8_t bytes[SRDMA_SEALED_BATCH * SRDMA_SEALED_HEADER];
	uint32_t count = 0, most = headers_per_record(rdma);
	struct srdma_sealed_job *job = NULL;

	for (uint32_t i = first; i < rdma->jobs.ring.count && count < most && !srdma_sealed_jobs_at(&rdma->jobs, i)->write; i++, count++) {
		job = srdma_sealed_jobs_at(&rdma->jobs, i);
		srdma_sealed_encode(bytes + count * SRDMA_SEALED_HEADER,
				  &(struct srdma_sealed_header){
					  .type = SRDMA_SEALED_READ, .offset = job->offset, .address = job->length, .region = job->region});
		job->asked = true;
	}
	if (!job)
		return 0;
	job->ends_record = true;
	rdma->reads_asked++;
	return srdma_queues_send_control(rdma->queues, bytes, count * SRDMA_SEALED_HEADER);
}

/* The oldest job that is not wholly sent, if it may be sent now; jobs.ring.count: none. Only writes, or only reads, are under way at a
 * time, so that a read sees every earlier write and no later one. */
static uint32_t find_job(const struct srdma_sealed_rdma *rdma)
{
	const struct srdma_sealed_jobs *jobs = &rdma->jobs;
	bool write = jobs->ring.count > 0 && srdma_sealed_jobs_at(jobs, 0)->write;

	for (uint32_t i = 0; i < jobs->ring.count; i++) {
		const struct srdma_sealed_job *job = srdma_sealed_jobs_at(jobs, i);
		bool can;

		if (job->write != write)
			break;
		if (write ? job->all_claimed : job->asked)
			continue;
		if (write)
			can = can_send_chunk(rdma, next_length(job->length - job->claimed));
		else
			can = rdma->reads_asked < SRDMA_SEALED_READS && srdma_queues_can_control(rdma->queues) &&
			      (rdma->reads_asked < BUSY_RECORDS || jobs->ring.count - i >= headers_per_record(rdma) / 2);
		return can ? i : jobs->ring.count;
	}
	return jobs->ring.count;
}

int srdma_sealed_rdma_take_ack(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header)
{
	if (header->length == 0 || header->length > rdma->records)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer acknowledges %u announcement%s of %u", header->length, SRDMA_S(header->length), rdma->records);
	for (uint32_t i = 0; i < header->length;) {
		const struct srdma_sealed_chunk *chunk = &rdma->chunks[rdma->chunk_ring.first];

		if (chunk->claim.job != 0 && !srdma_sealed_jobs_settle(&rdma->jobs, &chunk->claim))
			return srdma_sealed_rdma_fail_account();
		i += chunk->ends_record;
		srdma_sealed_ring_free(&rdma->staging_ring, chunk->staged);
		srdma_ring_pop(&rdma->chunk_ring);
	}
	rdma->records -= header->length;
	return srdma_sealed_rdma_complete_jobs(rdma);
}

bool srdma_sealed_rdma_can_send(const struct srdma_sealed_rdma *rdma)
{
	return has_answer(rdma) || find_job(rdma) < rdma->jobs.ring.count || batch_is_due(rdma);
}

int srdma_sealed_rdma_send_next(struct srdma_sealed_rdma *rdma)
{
	struct srdma_sealed_jobs *jobs = &rdma->jobs;
	struct srdma_sealed_job *job;
	uint32_t index;
	int ret;

	if (has_answer(rdma)) {
		ret = send_answer(rdma);
	} else {
		index = find_job(rdma);
		if (index == jobs->ring.count)
			return 0;
		job = srdma_sealed_jobs_at(jobs, index);
		ret = job->write ? send_write(rdma, job) : send_reads(rdma, index);
	}
	return ret == 0 ? 1 : ret;
}
