/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "sealed_model.h"

#include <sys/mman.h>
#include <unistd.h>

#define UNTOUCHED 0x5a
#define CHUNK (256u * 1024)

_Noreturn void model_fail(struct model *model, const char *what)
{
	fprintf(stderr, "%s: %s; the connection's state is %d (%s)\n", model->where, what,
		model->rig.conn ? model->rig.conn->status : 0, model->rig.conn ? model->rig.conn->status_text : "");
	exit(1);
}

static void require(struct model *model, bool condition, const char *what)
{
	if (!condition)
		model_fail(model, what);
}

/* ---- memory that is lent --------------------------------------------------------------------------------------- */

/* Its end is that of a page, or its beginning is that of one. */
static void lend(struct model *model, struct guarded *memory, size_t length, bool at_end)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (length / page + 1) * page;

	memory->mapped = inner + 2 * page;
	memory->map = mmap(NULL, memory->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(model, memory->map != MAP_FAILED && mprotect(memory->map + page, inner, PROT_READ | PROT_WRITE) == 0, "no memory");
	memory->length = length;
	memory->data = memory->map + page + (at_end ? inner - length : 0);
	memset(memory->map + page, UNTOUCHED, inner);
}

/* From here on any access to it raises a signal. */
static void hand_back(struct model *model, struct guarded *memory)
{
	require(model, munmap(memory->map, memory->mapped) == 0, "munmap");
	require(model, mmap(memory->map, memory->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED,
		"mmap");
}

static void let_go(struct model *model, struct model_job *job)
{
	srdma_buffer_free(&job->buffer);
	hand_back(model, &job->memory);
	free(job->expected);
	job->expected = NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void note_record(void *arg, enum rig_kind kind, const uint8_t *data, uint32_t length);
static void note_fetched(void *arg, uint64_t remote, uint32_t rkey, uint32_t length);

void model_new(struct model *model)
{
	const char *where = model->where;

	*model = (struct model){.where = where};
	rig_new(&model->rig, MODEL_REGION, MODEL_PEER_REGION);
	model->rig.on_record = note_record;
	model->rig.on_fetched = note_fetched;
	model->rig.arg = model;
	model->region = calloc(1, MODEL_REGION);
	model->peer_region = malloc(MODEL_PEER_REGION);
	require(model, model->region && model->peer_region, "out of memory");
	for (uint32_t i = 0; i < MODEL_PEER_REGION; i++)
		model->peer_region[i] = (uint8_t)(i * 7 + (i >> 8));
}

void model_delete(struct model *model)
{
	for (unsigned i = 0; i < model->chunk_count; i++)
		free(model->chunks[i].content.bytes);
	rig_delete(&model->rig);
	free(model->region);
	free(model->peer_region);
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

void model_post(struct model *model, bool write, uint64_t length, uint64_t offset, uint64_t cookie)
{
	struct model_job *job = &model->jobs[model->job_count++];
	uint64_t size = length > 0 ? length : 1; /* a transfer may have no bytes, its buffer has some */
	int ret;

	*job = (struct model_job){.write = write, .cookie = cookie, .length = length, .offset = offset};
	lend(model, &job->memory, size, cookie % 2);
	if (write)
		for (uint64_t i = 0; i < length; i++)
			job->memory.data[i] = (char)(cookie * 31 + i * 3 + (i >> 8));
	else
		job->expected = malloc(length + 1);
	require(model, srdma_buffer_new(model->rig.conn, job->memory.data, size, &job->buffer) == 0, "no buffer");
	/* Its first records may be on their way before it returns. */
	ret = write ? srdma_conn_post_write(model->rig.conn, job->buffer, 0, length, offset, cookie)
		    : srdma_conn_post_read(model->rig.conn, job->buffer, 0, length, offset, cookie);
	require(model, ret == 0, "a write or read was not posted");
}

static struct model_job *job_of(struct model *model, uint64_t cookie)
{
	for (unsigned i = 0; i < model->job_count; i++)
		if (model->jobs[i].cookie == cookie)
			return &model->jobs[i];
	model_fail(model, "a chunk of a write or read that is over");
}

static bool is_owed(const struct model_job *job)
{
	return job->claimed < job->length || job->claimed_chunks == 0;
}

static void place(struct model_job *job, uint32_t length)
{
	job->placed += length;
	job->placed_chunks++;
}

static void finish_jobs(struct model *model)
{
	while (model->job_count > 0 && !is_owed(&model->jobs[0]) && model->jobs[0].placed_chunks == model->jobs[0].claimed_chunks) {
		model->over[model->over_count++] = model->jobs[0];
		memmove(model->jobs, model->jobs + 1, --model->job_count * sizeof *model->jobs);
	}
}

struct model_job *model_owed(struct model *model)
{
	for (unsigned i = 0; i < model->job_count; i++) {
		if (model->jobs[i].write || !model->jobs[i].asked)
			return NULL;
		if (is_owed(&model->jobs[i]))
			return &model->jobs[i];
	}
	return NULL;
}

/* ---- the end's records ----------------------------------------------------------------------------------------- */

static uint64_t number(const uint8_t *bytes, unsigned count)
{
	uint64_t n = 0;

	while (count-- > 0)
		n = n << 8 | *bytes++;
	return n;
}

struct header {
	uint8_t type;
	uint8_t within;
	uint32_t length, rkey;
	uint64_t offset, address;
};

static struct header read_header(const uint8_t *bytes)
{
	return (struct header){.type = bytes[0],
			       .within = bytes[1],
			       .length = (uint32_t)number(bytes + 4, 4),
			       .offset = number(bytes + 8, 8),
			       .address = number(bytes + 16, 8),
			       .rkey = (uint32_t)number(bytes + 24, 4)};
}

static const uint8_t *open_sent(struct model *model, const struct header *h, const uint8_t *bytes, uint8_t *plain)
{
	const uint8_t *sealed;

	if (h->within)
		return bytes + SRDMA_SEALED_HEADER;
	sealed = rig_remote(h->rkey, h->address, h->length + SRDMA_SEAL_OVERHEAD);
	require(model, sealed != NULL, "the end announces what is not in its staging ring");
	require(model, srdma_opener_open(model->rig.chunks_in, model->rig.chunks_opened++, bytes, SRDMA_SEALED_HEADER, sealed,
					 h->length + SRDMA_SEAL_OVERHEAD, plain) == 0,
		"the end's chunk does not authenticate");
	return plain;
}

/* A chunk of the end's own write, or of its answer to a read of the peer's. The peer takes it at once, and acknowledges it later. */
static uint64_t take_sent(struct model *model, const struct header *h, const uint8_t *bytes)
{
	static uint8_t room[CHUNK];
	struct model_job *job = NULL;
	const uint8_t *plain;

	require(model, h->length <= CHUNK, "the end announces a chunk that is too long");
	plain = open_sent(model, h, bytes, room);
	if (h->type == 2) {
		require(model, model->asked_count > 0 && h->offset == model->asked[0].answered &&
				       h->length <= model->asked[0].length - h->offset,
			"the end answers what was not asked");
		require(model, model->asked[0].version != model->version || memcmp(plain, model->region + model->asked[0].offset + h->offset, h->length) == 0,
			"the end answers with other bytes than its region has");
		model->asked[0].answered += h->length;
		if (model->asked[0].answered == model->asked[0].length)
			memmove(model->asked, model->asked + 1, --model->asked_count * sizeof *model->asked);
		return 0;
	}
	for (unsigned i = 0; i < model->job_count && !job; i++)
		job = is_owed(&model->jobs[i]) ? &model->jobs[i] : NULL;
	require(model, job && job->write && h->offset == job->offset + job->claimed && h->length <= job->length - job->claimed,
		"the end writes what nobody has asked it to write");
	require(model, memcmp(plain, job->memory.data + job->claimed, h->length) == 0, "the end writes other bytes");
	memcpy(model->peer_region + h->offset, plain, h->length);
	job->claimed += h->length;
	job->claimed_chunks++;
	return job->cookie;
}

static void note_record(void *arg, enum rig_kind kind, const uint8_t *data, uint32_t length)
{
	struct model *model = arg;
	struct model_sent sent = {0};

	for (const uint8_t *at = data; kind == RIG_CONTROL && at + SRDMA_SEALED_HEADER <= data + length; at += SRDMA_SEALED_HEADER) {
		struct header h = read_header(at);
		struct model_job *job = model->jobs;

		if (h.type == 4) {
			require(model, h.length <= model->announcements, "the end acknowledges more than was announced");
			model->announcements -= h.length;
		} else if (h.type == 3) {
			while (job < model->jobs + model->job_count && (job->asked || job->write))
				job++;
			require(model, job < model->jobs + model->job_count && h.offset == job->offset && h.address == job->length,
				"the end asks for what nobody has asked it for");
			job->asked = true;
		} else {
			sent.cookies[sent.chunks] = take_sent(model, &h, at);
			sent.lengths[sent.chunks++] = h.length;
		}
		if (h.within)
			break;
	}
	if (sent.chunks > 0) {
		require(model, model->sent_count < SRDMA_SEALED_RECORDS, "the end makes too many announcements");
		model->sent[model->sent_count++] = sent;
	}
}

/* ---- the peer's records ---------------------------------------------------------------------------------------- */

static bool is_in_region(const struct model *model, uint64_t offset, uint64_t length)
{
	return !model->withdrawn && offset <= MODEL_REGION && length <= MODEL_REGION - offset;
}

static int take_ack(struct model *model, const struct header *h)
{
	if (h->length == 0 || h->length > model->sent_count)
		return SRDMA_EPROTOCOL;
	for (unsigned i = 0; i < h->length; i++)
		for (unsigned chunk = 0; chunk < model->sent[i].chunks; chunk++)
			if (model->sent[i].cookies[chunk] != 0)
				place(job_of(model, model->sent[i].cookies[chunk]), model->sent[i].lengths[chunk]);
	model->sent_count -= h->length;
	memmove(model->sent, model->sent + h->length, model->sent_count * sizeof *model->sent);
	return 0;
}

static int take_read(struct model *model, const struct header *h)
{
	if (!is_in_region(model, h->offset, h->address) || model->asked_count == MODEL_ASKED)
		return SRDMA_EPROTOCOL;
	model->asked[model->asked_count].offset = h->offset;
	model->asked[model->asked_count].length = h->address;
	model->asked[model->asked_count].answered = 0;
	model->asked[model->asked_count++].version = model->version;
	return 0;
}

static int put_in_place(struct model *model, struct model_chunk *chunk)
{
	int ret = 0;

	if (chunk->cookie == 0 && model->withdrawn)
		ret = SRDMA_EPROTOCOL;
	else if (chunk->content.wrong)
		ret = SRDMA_ESEAL;
	else if (chunk->cookie != 0)
		place(job_of(model, chunk->cookie), chunk->length);
	else
		memcpy(model->region + chunk->offset, chunk->content.bytes, chunk->length);
	model->version += chunk->cookie == 0;
	free(chunk->content.bytes);
	chunk->content.bytes = NULL;
	return ret;
}

static int take_chunk(struct model *model, const struct header *h, const struct model_content *content)
{
	struct model_chunk chunk = {
		.offset = h->offset, .length = h->length, .address = h->address, .rkey = h->rkey, .fetched = h->within, .content = *content};
	struct model_job *job = model_owed(model);
	uint32_t at;

	if (h->length > CHUNK || model->chunk_count == SRDMA_SEALED_CHUNKS || (h->within && model->chunk_count > 0) ||
	    (!h->within && !srdma_sealed_ring_fits(&model->ring, h->length)))
		return SRDMA_EPROTOCOL;
	if (h->type == 1 && !is_in_region(model, h->offset, h->length))
		return SRDMA_EPROTOCOL;
	/* Nothing but the next bytes of the oldest read that is not answered whole; none at all answer nothing but a read of none. */
	if (h->type == 2 && (!job || h->offset != job->claimed || h->length > job->length - job->claimed || (h->length == 0) != (job->length == 0)))
		return SRDMA_EPROTOCOL;
	if (h->type == 2) {
		chunk.cookie = job->cookie;
		memcpy(job->expected + job->claimed, content->bytes, h->length);
		job->claimed += h->length;
		job->claimed_chunks++;
	}
	if (h->within)
		return put_in_place(model, &chunk);
	chunk.taken = srdma_sealed_ring_take(&model->ring, h->length, &at);
	model->chunks[model->chunk_count++] = chunk;
	return 0;
}

/* How many headers there are; 0: it is no record. */
static unsigned count_headers(const struct model_record *record)
{
	const uint8_t *bytes = record->bytes;
	unsigned count = record->length / SRDMA_SEALED_HEADER;

	if (count > 0 && bytes[1] == 1 && (bytes[0] == 1 || bytes[0] == 2))
		count = number(bytes + 4, 4) == record->length - SRDMA_SEALED_HEADER ? 1 : 0;
	else if (record->length % SRDMA_SEALED_HEADER != 0 || count > SRDMA_SEALED_BATCH)
		count = 0;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *at = bytes + i * SRDMA_SEALED_HEADER;
		bool chunk = at[0] == 1 || at[0] == 2, first_chunk = bytes[0] == 1 || bytes[0] == 2;

		if (at[0] < 1 || at[0] > 4 || at[1] > 1 || at[2] != 0 || at[3] != 0 || (at[1] && (!chunk || i > 0)))
			return 0;
		if (i > 0 && (bytes[0] == 4 || chunk != first_chunk || (!chunk && at[0] != bytes[0])))
			return 0;
	}
	return count;
}

int model_take(struct model *model, const struct model_record *record)
{
	unsigned count = count_headers(record), i;
	int ret = count > 0 ? 0 : SRDMA_EPROTOCOL;

	if (count > 0 && record->bytes[0] < 3 && model->announcements++ >= SRDMA_SEALED_RECORDS)
		ret = SRDMA_EPROTOCOL;
	for (i = 0; i < count && ret == 0; i++) {
		struct header h = read_header(record->bytes + i * SRDMA_SEALED_HEADER);

		if (h.type == 4)
			ret = take_ack(model, &h);
		else if (h.type == 3)
			ret = take_read(model, &h);
		else
			ret = take_chunk(model, &h, &record->contents[i]);
	}
	finish_jobs(model);
	return ret;
}

/* An end may fetch chunks together that lie one after the other at both ends. */
static void note_fetched(void *arg, uint64_t remote, uint32_t rkey, uint32_t length)
{
	struct model *model = arg;
	uint64_t at = remote;
	unsigned i = 0;

	while (i < model->chunk_count && model->chunks[i].fetched)
		i++;
	require(model, i < model->chunk_count, "the end fetches what was not announced");
	do {
		struct model_chunk *chunk = &model->chunks[i++];

		require(model, chunk->address == at && chunk->rkey == rkey, "the end fetches something else than was announced");
		at += chunk->length + SRDMA_SEAL_OVERHEAD;
		require(model, at <= remote + length, "the end fetches less than was announced");
		chunk->fetched = true;
		if (at < remote + length)
			at = remote + srdma_sealed_ring_align((uint32_t)(at - remote));
	} while (at < remote + length && i < model->chunk_count);
	require(model, at == remote + length, "the end fetches more than was announced");
}

int model_place(struct model *model)
{
	int ret = 0;

	while (ret == 0 && model->chunk_count > 0 && model->chunks[0].fetched) {
		ret = put_in_place(model, &model->chunks[0]);
		srdma_sealed_ring_free(&model->ring, model->chunks[0].taken);
		memmove(model->chunks, model->chunks + 1, --model->chunk_count * sizeof *model->chunks);
		finish_jobs(model);
	}
	return ret;
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

static bool is_untouched(const struct guarded *memory, uint64_t from)
{
	return from == memory->length || (memory->data[from] == UNTOUCHED && memcmp(memory->data + from, memory->data + from + 1, memory->length - from - 1) == 0);
}

void model_check(struct model *model)
{
	struct srdma_conn *conn = model->rig.conn;
	uint64_t cookies[RIG_RDMA_DEPTH];

	require(model, conn->queues.done_ring.count == model->over_count, "another number of writes and reads is complete");
	if (model->over_count > 0)
		require(model, srdma_conn_complete(conn, cookies, RIG_RDMA_DEPTH, 0) == (int)model->over_count, "they can't be collected");
	for (unsigned i = 0; i < model->over_count; i++) {
		struct model_job *job = &model->over[i];

		require(model, cookies[i] == job->cookie, "another write or read is complete");
		require(model, job->write || memcmp(job->memory.data, job->expected, job->length) == 0, "a complete read has other bytes");
		let_go(model, job);
	}
	model->over_count = 0;
	require(model, memcmp(conn->region.address, model->region, MODEL_REGION) == 0 || conn->status == SRDMA_ESEAL, "the region has other bytes");
	for (unsigned i = 0; i < model->job_count && conn->status == 0; i++) {
		struct model_job *job = &model->jobs[i];

		if (job->write)
			continue;
		require(model, memcmp(job->memory.data, job->expected, job->placed) == 0, "a read has other bytes so far");
		require(model, is_untouched(&job->memory, job->placed), "a read has bytes that nobody has sent");
	}
}

void model_end(struct model *model)
{
	for (unsigned i = 0; i < model->job_count; i++)
		let_go(model, &model->jobs[i]);
	model->job_count = 0;
}
