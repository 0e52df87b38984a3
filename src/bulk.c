/* SPDX-License-Identifier: Apache-2.0 */
#include "bulk.h"

#include "conn.h"
#include "cursor.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum record {
	RECORD_WRITE = 1, /* a chunk for the receiver's region */
	RECORD_ANSWER = 2, /* a chunk that the receiver asked for */
	RECORD_READ = 3,
	RECORD_ACK = 4,
};

/* All records begin with this. */
struct header {
	uint8_t type;
	bool within;      /* WRITE, ANSWER: the bytes follow; else they are to be pulled */
	uint32_t length;  /* WRITE, ANSWER: of the chunk; ACK: how many chunks */
	uint64_t offset;  /* WRITE, READ: in the region; ANSWER: in what was asked for */
	uint64_t address; /* WRITE, ANSWER: of the chunk; READ: how many bytes */
	uint32_t rkey;
};

/* Chunks up to this go within their announcement, one round trip and one pull fewer, if a message can be so long. */
#define WITHIN_MAX 2048u
#define SLOT_SIZE (SRDMA_BULK_CHUNK + 64u)
/* Then it is other clients' turn. */
#define CHUNKS_PER_STEP 16

static void encode(uint8_t out[SRDMA_BULK_HEADER], const struct header *h)
{
	struct srdma_writer w;

	srdma_writer_init(&w, out, SRDMA_BULK_HEADER);
	srdma_put_u8(&w, h->type);
	srdma_put_u8(&w, h->within);
	srdma_put_u16(&w, 0);
	srdma_put_u32(&w, h->length);
	srdma_put_u64(&w, h->offset);
	srdma_put_u64(&w, h->address);
	srdma_put_u32(&w, h->rkey);
}

/* The bytes are authenticated, but their sender may still be wrong. */
static int decode(const void *data, uint32_t length, struct header *h)
{
	struct srdma_reader r;
	uint8_t within;
	uint16_t reserved;

	srdma_reader_init(&r, data, length < SRDMA_BULK_HEADER ? length : SRDMA_BULK_HEADER);
	h->type = srdma_get_u8(&r);
	within = srdma_get_u8(&r);
	reserved = srdma_get_u16(&r);
	h->length = srdma_get_u32(&r);
	h->offset = srdma_get_u64(&r);
	h->address = srdma_get_u64(&r);
	h->rkey = srdma_get_u32(&r);
	h->within = within == 1;
	if (!srdma_reader_complete(&r) || within > 1 || reserved != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "a malformed control record of %u bytes", length);
	if (length != SRDMA_BULK_HEADER + (h->within ? h->length : 0))
		return srdma_fail(SRDMA_EPROTOCOL, "a control record of %u bytes, of the wrong length", length);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int take_record(void *arg, const void *data, uint32_t length);
static void finish_pull(void *arg);

int srdma_bulk_start(struct srdma_conn *conn, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	struct srdma_bulk *bulk = &conn->bulk;

	bulk->sealer = sealer;
	bulk->opener = opener;
	bulk->job_room = conn->channel.rdma_depth;
	bulk->jobs = calloc(bulk->job_room, sizeof *bulk->jobs);
	if (!bulk->jobs)
		return srdma_fail(-ENOMEM, "out of memory");
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
	free(bulk->jobs);
	*bulk = (struct srdma_bulk){0};
}

static struct srdma_bulk_job *job_at(struct srdma_bulk *bulk, uint32_t index)
{
	return &bulk->jobs[(bulk->job_head + index) % bulk->job_room];
}

bool srdma_bulk_is_idle(const struct srdma_bulk *bulk)
{
	return bulk->job_count == 0;
}

/* Writes and reads never overlap, so that the oldest one tells. */
bool srdma_bulk_has_written(const struct srdma_bulk *bulk)
{
	for (uint32_t i = 0; i < bulk->job_count; i++)
		if (bulk->jobs[(bulk->job_head + i) % bulk->job_room].write)
			return false;
	return true;
}

void srdma_bulk_post(struct srdma_conn *conn, const struct srdma_bulk_job *job)
{
	struct srdma_bulk *bulk = &conn->bulk;

	*job_at(bulk, bulk->job_count++) = *job;
	conn->channel.rdma_queued++;
}

/* In the order of posting. */
static void complete_jobs(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;

	while (bulk->job_count > 0) {
		struct srdma_bulk_job job = *job_at(bulk, 0);

		/* One of no bytes has a chunk all the same, which counts as one. */
		if (!job.asked || job.done < (job.length > 0 ? job.length : 1))
			return;
		if (!job.write)
			bulk->reads_asked--;
		bulk->job_head = (bulk->job_head + 1) % bulk->job_room;
		bulk->job_count--;
		srdma_channel_complete_rdma(&conn->channel, job.kind, job.cookie);
	}
}

/* ---- chunks of ours -------------------------------------------------------------------------------------------- */

static int send_header(struct srdma_conn *conn, const struct header *header)
{
	uint8_t bytes[SRDMA_BULK_HEADER];

	encode(bytes, header);
	return srdma_channel_send_control(&conn->channel, bytes, sizeof bytes);
}

static int send_within(struct srdma_conn *conn, const struct header *header, const char *data)
{
	uint8_t bytes[SRDMA_BULK_HEADER + WITHIN_MAX];

	encode(bytes, header);
	if (header->length > 0)
		memcpy(bytes + SRDMA_BULK_HEADER, data, header->length);
	return srdma_channel_send_control(&conn->channel, bytes, SRDMA_BULK_HEADER + header->length);
}

static int make_ring(struct srdma_conn *conn, int access, struct srdma_region *ring)
{
	return ring->mr ? 0 : srdma_region_new(conn->pd, (size_t)SRDMA_BULK_CHUNKS * SLOT_SIZE, access, ring);
}

static int send_staged(struct srdma_conn *conn, struct header *header, const char *data)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t slot = (bulk->chunk_head + bulk->chunk_count) % SRDMA_BULK_CHUNKS;
	uint8_t bytes[SRDMA_BULK_HEADER];
	int ret = make_ring(conn, IBV_ACCESS_REMOTE_READ, &bulk->staging);

	if (ret != 0)
		return ret;
	header->address = (uint64_t)slot * SLOT_SIZE;
	header->rkey = bulk->staging.mr->rkey;
	encode(bytes, header);
	ret = srdma_sealer_seal(bulk->sealer, bytes, sizeof bytes, data, header->length,
				(char *)bulk->staging.address + header->address);
	return ret == 0 ? srdma_channel_send_control(&conn->channel, bytes, sizeof bytes) : ret;
}

static int send_chunk(struct srdma_conn *conn, struct header *header, const char *data, struct srdma_bulk_job *job)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_chunk chunk = {.job = job, .length = header->length};
	int ret;

	/* What goes within is there at once; it must not overtake what is still to be pulled. */
	header->within = header->length <= WITHIN_MAX && header->length + SRDMA_BULK_HEADER <= conn->channel.message_size &&
			 bulk->staged == 0;
	chunk.staged = !header->within;
	ret = header->within ? send_within(conn, header, data) : send_staged(conn, header, data);
	if (ret != 0)
		return ret;
	bulk->chunks[(bulk->chunk_head + bulk->chunk_count++) % SRDMA_BULK_CHUNKS] = chunk;
	bulk->staged += chunk.staged;
	return 0;
}

static uint32_t next_length(uint64_t left)
{
	return left < SRDMA_BULK_CHUNK ? (uint32_t)left : SRDMA_BULK_CHUNK;
}

static bool can_send_chunk(const struct srdma_conn *conn)
{
	return conn->bulk.chunk_count < SRDMA_BULK_CHUNKS && srdma_channel_can_control(&conn->channel, 0);
}

static int send_answer(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_answer *answer = &bulk->answers[bulk->answer_head];
	struct header header = {.type = RECORD_ANSWER,
				.length = next_length(answer->length - answer->announced),
				.offset = answer->announced};
	int ret;

	if (!(conn->region.rights & IBV_ACCESS_REMOTE_READ))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was reading the region when it was withdrawn");
	ret = send_chunk(conn, &header, (char *)conn->region.address + answer->offset + answer->announced, NULL);
	answer->announced += header.length;
	if (ret == 0 && answer->announced == answer->length) {
		bulk->answer_head = (bulk->answer_head + 1) % SRDMA_BULK_READS;
		bulk->answer_count--;
	}
	return ret;
}

static int send_write(struct srdma_conn *conn, struct srdma_bulk_job *job)
{
	struct header header = {.type = RECORD_WRITE,
				.length = next_length(job->length - job->announced),
				.offset = job->offset + job->announced};
	int ret = send_chunk(conn, &header, job->local + job->announced, job);

	job->announced += header.length;
	job->asked = job->announced == job->length;
	return ret;
}

static int send_read(struct srdma_conn *conn, struct srdma_bulk_job *job)
{
	struct header header = {.type = RECORD_READ, .offset = job->offset, .address = job->length};

	job->asked = true;
	conn->bulk.reads_asked++;
	return send_header(conn, &header);
}

/* The oldest one that is not wholly out; has_job has said that it may be now. A read after a write sees what was written, and a
 * write after a read does not show in it: only what is of one kind is under way together. */
static int send_jobs(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	uint32_t index = 0;
	struct srdma_bulk_job *job;

	while (job_at(bulk, index)->asked)
		index++;
	job = job_at(bulk, index);
	return job->write ? send_write(conn, job) : send_read(conn, job);
}

static int take_ack(struct srdma_conn *conn, const struct header *header)
{
	struct srdma_bulk *bulk = &conn->bulk;

	if (header->length == 0 || header->length > bulk->chunk_count)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer acknowledges %u chunks of %u", header->length, bulk->chunk_count);
	for (uint32_t i = 0; i < header->length; i++) {
		const struct srdma_bulk_chunk *chunk = &bulk->chunks[bulk->chunk_head];

		if (chunk->job)
			chunk->job->done += chunk->length > 0 ? chunk->length : 1;
		bulk->staged -= chunk->staged;
		bulk->chunk_head = (bulk->chunk_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->chunk_count--;
	}
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

/* The read that its answer belongs to: they come in the order of asking. */
static struct srdma_bulk_job *job_of_answer(struct srdma_bulk *bulk, const struct header *header)
{
	for (uint32_t i = 0; i < bulk->job_count; i++) {
		struct srdma_bulk_job *job = job_at(bulk, i);

		if (job->write || !job->asked)
			return NULL;
		if (job->announced < job->length || (job->length == 0 && job->done == 0))
			return header->offset == job->announced && header->length <= job->length - job->announced ? job : NULL;
	}
	return NULL;
}

static int place_chunk(struct srdma_conn *conn, const struct header *header, struct srdma_bulk_pull *pull)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret;

	if (header->length > SRDMA_BULK_CHUNK)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces a chunk of %u bytes", header->length);
	if (header->type == RECORD_WRITE) {
		ret = check_bounds(conn, header->offset, header->length, IBV_ACCESS_REMOTE_WRITE);
		if (ret == 0)
			pull->destination = (char *)conn->region.address + header->offset;
		return ret;
	}
	pull->job = job_of_answer(bulk, header);
	if (!pull->job)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer answers what was not asked");
	pull->destination = pull->job->local + pull->job->announced;
	pull->job->announced += header->length;
	return 0;
}

/* A chunk has got to where it belongs. */
static void deliver(struct srdma_conn *conn, struct srdma_bulk_pull *pull)
{
	struct srdma_bulk *bulk = &conn->bulk;

	pull->state = PULL_DONE;
	if (pull->job)
		pull->job->done += pull->length > 0 ? pull->length : 1;
	while (bulk->pull_count > 0 && bulk->pulls[bulk->pull_head].state == PULL_DONE) {
		bulk->pull_head = (bulk->pull_head + 1) % SRDMA_BULK_CHUNKS;
		bulk->pull_count--;
		bulk->acks_owed++;
	}
	complete_jobs(conn);
}

static int take_chunk(struct srdma_conn *conn, const struct header *header, const uint8_t *data)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_pull pull = {.length = header->length, .rkey = header->rkey, .address = header->address}, *placed;
	int ret;

	if (bulk->pull_count + bulk->acks_owed >= SRDMA_BULK_CHUNKS || (header->within && bulk->pull_count > 0))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces more chunks than may be under way");
	ret = place_chunk(conn, header, &pull);
	if (ret != 0)
		return ret;
	encode(pull.header, header);
	placed = &bulk->pulls[(bulk->pull_head + bulk->pull_count++) % SRDMA_BULK_CHUNKS];
	*placed = pull;
	if (header->within) {
		if (header->length > 0)
			memcpy(pull.destination, data, header->length);
		deliver(conn, placed);
	}
	return 0;
}

static int take_read(struct srdma_conn *conn, const struct header *header)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret = check_bounds(conn, header->offset, header->address, IBV_ACCESS_REMOTE_READ);

	if (ret == 0 && bulk->answer_count >= SRDMA_BULK_READS)
		ret = srdma_fail(SRDMA_EPROTOCOL, "the peer asks for more reads than may be under way");
	if (ret != 0)
		return ret;
	bulk->answers[(bulk->answer_head + bulk->answer_count++) % SRDMA_BULK_READS] =
		(struct srdma_bulk_answer){.offset = header->offset, .length = header->address};
	return 0;
}

static int take_record(void *arg, const void *data, uint32_t length)
{
	struct srdma_conn *conn = arg;
	struct header header;
	int ret = decode(data, length, &header);

	if (ret != 0)
		return ret;
	switch (header.type) {
	case RECORD_WRITE:
	case RECORD_ANSWER: return take_chunk(conn, &header, (const uint8_t *)data + SRDMA_BULK_HEADER);
	case RECORD_READ: return take_read(conn, &header);
	case RECORD_ACK: return take_ack(conn, &header);
	default: return srdma_fail(SRDMA_EPROTOCOL, "a control record of unknown type %u", header.type);
	}
}

static char *landing_slot(const struct srdma_bulk *bulk, const struct srdma_bulk_pull *pull)
{
	return (char *)bulk->landing.address + (size_t)(pull - bulk->pulls) * SLOT_SIZE;
}

static int post_pulls(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret = 0;

	for (uint32_t i = 0; i < bulk->pull_count && ret == 0; i++) {
		struct srdma_bulk_pull *pull = &bulk->pulls[(bulk->pull_head + i) % SRDMA_BULK_CHUNKS];
		struct srdma_op op = {.kind = SRDMA_OP_PULL,
				      .length = pull->length + SRDMA_SEAL_OVERHEAD,
				      .remote = pull->address,
				      .rkey = pull->rkey};

		if (pull->state != PULL_WAITING)
			continue;
		if (!srdma_channel_can_control(&conn->channel, op.length))
			break;
		ret = make_ring(conn, IBV_ACCESS_LOCAL_WRITE, &bulk->landing);
		if (ret != 0)
			break;
		op.local = (uintptr_t)landing_slot(bulk, pull);
		op.lkey = bulk->landing.mr->lkey;
		ret = srdma_channel_post_rdma(&conn->channel, &op);
		pull->state = PULL_POSTED;
	}
	return ret;
}

static struct srdma_bulk_pull *oldest_in(struct srdma_bulk *bulk, int state)
{
	for (uint32_t i = 0; i < bulk->pull_count; i++) {
		struct srdma_bulk_pull *pull = &bulk->pulls[(bulk->pull_head + i) % SRDMA_BULK_CHUNKS];

		if ((int)pull->state == state)
			return pull;
	}
	return NULL;
}

/* The oldest one that was posted has arrived: RC completes in order. */
static void finish_pull(void *arg)
{
	struct srdma_conn *conn = arg;
	struct srdma_bulk_pull *pull = oldest_in(&conn->bulk, PULL_POSTED);

	if (pull)
		pull->state = PULL_ARRIVED;
}

static int open_chunk(struct srdma_conn *conn, struct srdma_bulk_pull *pull)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret;

	/* What was withdrawn meanwhile is not written to any more. */
	if (!pull->job && !(conn->region.rights & IBV_ACCESS_REMOTE_WRITE))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer was writing to the region when it was withdrawn");
	ret = srdma_opener_open(bulk->opener, bulk->opened++, pull->header, sizeof pull->header, landing_slot(bulk, pull),
				pull->length + SRDMA_SEAL_OVERHEAD, pull->destination);
	if (ret == 0)
		deliver(conn, pull);
	return ret;
}

/* ---- progress -------------------------------------------------------------------------------------------------- */

static int send_acks(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct header header = {.type = RECORD_ACK, .length = bulk->acks_owed};

	/* Together, while others are coming. */
	if (bulk->acks_owed == 0 || (bulk->acks_owed < SRDMA_BULK_CHUNKS / 4 && bulk->pull_count > 0) ||
	    !srdma_channel_can_control(&conn->channel, 0))
		return 0;
	bulk->acks_owed = 0;
	return send_header(conn, &header);
}

static bool has_answer(const struct srdma_conn *conn)
{
	return conn->bulk.answer_count > 0 && can_send_chunk(conn);
}

static bool has_job(const struct srdma_conn *conn)
{
	const struct srdma_bulk *bulk = &conn->bulk;
	bool write = bulk->job_count > 0 && bulk->jobs[bulk->job_head].write;

	for (uint32_t i = 0; i < bulk->job_count; i++) {
		const struct srdma_bulk_job *job = &bulk->jobs[(bulk->job_head + i) % bulk->job_room];

		if (job->write != write)
			return false;
		if (!job->asked)
			return write ? can_send_chunk(conn)
				     : bulk->reads_asked < SRDMA_BULK_READS && srdma_channel_can_control(&conn->channel, 0);
	}
	return false;
}

bool srdma_bulk_has_work(const struct srdma_conn *conn)
{
	const struct srdma_bulk *bulk = &conn->bulk;

	if (!bulk->on)
		return false;
	for (uint32_t i = 0; i < bulk->pull_count; i++)
		if (bulk->pulls[(bulk->pull_head + i) % SRDMA_BULK_CHUNKS].state == PULL_ARRIVED)
			return true;
	return has_answer(conn) || has_job(conn);
}

/* One chunk is opened or sealed, those that came first. 1; 0: there was none; or an error. */
static int work(struct srdma_conn *conn)
{
	struct srdma_bulk_pull *pull = oldest_in(&conn->bulk, PULL_ARRIVED);
	int ret;

	if (pull) {
		ret = open_chunk(conn, pull);
	} else if (has_answer(conn)) {
		ret = send_answer(conn);
	} else if (has_job(conn)) {
		ret = send_jobs(conn);
	} else {
		return 0;
	}
	return ret == 0 ? 1 : ret;
}

int srdma_bulk_step(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret = 1;

	if (!bulk->on)
		return 0;
	/* Between two chunks the device is looked at: it may be moved on by that alone, and what it needs to go on comes first. */
	for (int chunks = 0; ret == 1 && chunks < CHUNKS_PER_STEP; chunks++) {
		ret = bulk->pull_count > 0 ? post_pulls(conn) : 0;
		if (ret == 0)
			ret = send_acks(conn);
		if (ret == 0)
			ret = work(conn);
		if (ret == 1) {
			int polled = srdma_channel_poll(&conn->channel);

			ret = polled != 0 ? polled : 1;
		}
	}
	return ret > 0 ? 0 : ret;
}
