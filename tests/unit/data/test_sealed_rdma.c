/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed writes and reads of one end, whose peer has all keys and obeys no rule: random sequences of good and bad records, of
 * steps of the device, and of the program's calls. After each step the library's state must equal the model's.
 *
 * SECURDMA_TEST_SEED=N runs that sequence alone; SECURDMA_TEST_SEQUENCES says how many there are. */
#include "test.h"

#include "sealed_model.h"

#include "log.h"

#include <signal.h>
#include <unistd.h>

enum { SEQUENCES = 400, STEPS = 300, WITHIN_MAX = 2048 };

static struct model model;
static char place_text[96];
static uint64_t random_state;
static unsigned spite; /* one record in so many breaks a rule: some peers keep them long enough for much to be under way */
/* Counts of outcomes: a generator that reaches too few of them would find nothing. */
static struct {
	unsigned completed, refused, forged, given_up, lost, deleted, late;
} seen;

/* ---- chance ---------------------------------------------------------------------------------------------------- */

static uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* 0 to n - 1 */
static uint64_t below(uint64_t n)
{
	return n > 0 ? (draw() >> 11) % n : 0;
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

/* Few are long: they are the same as short ones, but for the chunks, of which there are up to three. */
static uint64_t some_length(uint64_t most)
{
	static const uint32_t limits[] = {1, 8, 64, 2049, 4096, 9000, 70000, 600000};
	uint64_t limit = limits[one_in(8) ? below(8) : below(6)];

	return below((limit < most ? limit : most) + 1);
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	while (bytes-- > 0) {
		at[bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void put_header(uint8_t *at, uint8_t type, bool within, uint64_t length, uint64_t offset, uint64_t address, uint32_t rkey)
{
	memset(at, 0, SRDMA_SEALED_HEADER);
	at[0] = type;
	at[1] = within;
	put(at + 4, length, 4);
	put(at + 8, offset, 8);
	put(at + 16, address, 8);
	put(at + 24, rkey, 4);
}

/* Its bytes are `from`'s, or any when that is NULL. */
static uint8_t *make_content(struct model_record *record, const uint8_t *from, uint32_t length)
{
	uint8_t *bytes = malloc(length + 1);

	if (!bytes)
		model_fail(&model, "out of memory");
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(from ? from[i] : random_state >> i % 56);
	record->contents[record->length / SRDMA_SEALED_HEADER].bytes = bytes;
	return bytes;
}

static void add_within(struct model_record *record, uint8_t type, uint64_t offset, const uint8_t *from, uint32_t length)
{
	const uint8_t *bytes = make_content(record, from, length);

	put_header(record->bytes, type, true, length, offset, 0, 0);
	memcpy(record->bytes + SRDMA_SEALED_HEADER, bytes, length);
	record->length = SRDMA_SEALED_HEADER + length;
}

/* Sealed into the peer's staging ring, which is laid out like the model's; where that has no room it lies anywhere. */
static void add_chunk(struct model_record *record, struct srdma_sealed_ring *ring, uint8_t type, uint64_t offset, const uint8_t *from, uint32_t length)
{
	struct model_content *content = &record->contents[record->length / SRDMA_SEALED_HEADER];
	uint8_t *at = record->bytes + record->length;
	uint32_t place = 0;

	make_content(record, from, length);
	if (length <= SRDMA_SEALED_CHUNK && srdma_sealed_ring_fits(ring, length))
		srdma_sealed_ring_take(ring, length, &place);
	put_header(at, type, false, length, offset, place, RIG_KEY);
	if (length <= SRDMA_SEALED_CHUNK && srdma_sealer_seal(model.rig.chunks_out, at, SRDMA_SEALED_HEADER, content->bytes, length, model.rig.staging + place) != 0)
		model_fail(&model, "cannot seal");
	record->length += SRDMA_SEALED_HEADER;
}

static void add_plain(struct model_record *record, uint8_t type, uint64_t length, uint64_t offset, uint64_t address)
{
	put_header(record->bytes + record->length, type, false, length, offset, address, 0);
	record->length += SRDMA_SEALED_HEADER;
}

/* ---- a peer that keeps the rules ------------------------------------------------------------------------------- */

static bool can_pull(const struct srdma_sealed_ring *ring, uint32_t length, unsigned more)
{
	return model.chunk_count + more < SRDMA_SEALED_CHUNKS && srdma_sealed_ring_fits(ring, length);
}

static uint32_t some_part(uint64_t left)
{
	uint64_t most = left < SRDMA_SEALED_CHUNK ? left : SRDMA_SEALED_CHUNK;

	return left == 0 ? 0 : (uint32_t)(one_in(2) ? most : 1 + below(most));
}

/* Answers the next bytes of the reads in up to eight chunks. `claimed` is a copy of the account. */
static bool answer_well(struct model_record *record)
{
	struct srdma_sealed_ring ring = model.ring;
	unsigned chunks = 1 + (unsigned)below(SRDMA_SEALED_BATCH), job = 0, made = 0;
	struct model_job *owed = model_owed(&model);
	uint64_t claimed = owed ? owed->claimed : 0;
	uint32_t length;

	if (!owed || model.announcements >= SRDMA_SEALED_RECORDS)
		return false;
	length = some_part(owed->length - claimed);
	if (model.chunk_count == 0 && length <= WITHIN_MAX && one_in(2)) {
		add_within(record, 2, claimed, model.peer_region + owed->offset + claimed, length);
		return true;
	}
	for (job = (unsigned)(owed - model.jobs); made < chunks && can_pull(&ring, length, made); made++) {
		add_chunk(record, &ring, 2, claimed, model.peer_region + owed->offset + claimed, length);
		claimed += length;
		if (claimed == owed->length) {
			if (++job == model.job_count || model.jobs[job].write || !model.jobs[job].asked)
				return true;
			owed = &model.jobs[job];
			claimed = 0;
		}
		length = some_part(owed->length - claimed);
	}
	return record->length > 0;
}

static bool write_well(struct model_record *record)
{
	struct srdma_sealed_ring ring = model.ring;
	unsigned chunks = 1 + (unsigned)below(3);

	if (model.withdrawn || model.announcements >= SRDMA_SEALED_RECORDS)
		return false;
	for (unsigned i = 0; i < chunks; i++) {
		uint32_t length = (uint32_t)some_length(SRDMA_SEALED_CHUNK);
		uint64_t offset = below(MODEL_REGION - length + 1);

		if (i == 0 && model.chunk_count == 0 && length <= WITHIN_MAX && one_in(2)) {
			add_within(record, 1, offset, NULL, length);
			return true;
		}
		if (can_pull(&ring, length, i))
			add_chunk(record, &ring, 1, offset, NULL, length);
	}
	return record->length > 0;
}

static bool read_well(struct model_record *record)
{
	unsigned count = 1 + (unsigned)below(3);

	for (unsigned i = 0; i < count && !model.withdrawn && model.asked_count + i < MODEL_ASKED; i++) {
		uint64_t length = some_length(MODEL_REGION);

		add_plain(record, 3, 0, below(MODEL_REGION - length + 1), length);
	}
	return record->length > 0;
}

static bool acknowledge_well(struct model_record *record)
{
	if (model.sent_count == 0)
		return false;
	add_plain(record, 4, 1 + below(model.sent_count), 0, 0);
	return true;
}

static bool behave(struct model_record *record)
{
	switch (below(6)) {
	case 0: return write_well(record);
	case 1: return read_well(record);
	case 2:
	case 3: return acknowledge_well(record);
	default: return answer_well(record);
	}
}

/* ---- and one that does not ------------------------------------------------------------------------------------- */

/* Chunks of no bytes, as an answer to a read of some; and at their end one that says more. */
static void answer_with_nothing(struct model_record *record, uint64_t at)
{
	struct srdma_sealed_ring ring = model.ring;
	unsigned chunks = (unsigned)below(SRDMA_SEALED_BATCH);

	if (one_in(3)) {
		add_within(record, 2, at, NULL, 0);
		return;
	}
	for (unsigned i = 0; i <= chunks; i++)
		add_chunk(record, &ring, 2, at, NULL, 0);
	if (chunks + 1 < SRDMA_SEALED_BATCH)
		add_chunk(record, &ring, 2, at, NULL, 1 + (uint32_t)below(200));
}

static void answer_badly(struct model_record *record)
{
	struct srdma_sealed_ring ring = model.ring;
	struct model_job *owed = model_owed(&model);
	uint64_t left = owed ? owed->length - owed->claimed : 0, at = owed ? owed->claimed : 0;
	uint32_t length = some_part(left);

	switch (below(5)) {
	case 0: answer_with_nothing(record, at); break;
	case 1: add_chunk(record, &ring, 2, at + 1 + below(100), NULL, length); break;           /* further on */
	case 2: add_chunk(record, &ring, 2, at - 1 - below(at + 1), NULL, length); break;        /* once more */
	case 3: add_chunk(record, &ring, 2, at, NULL, (uint32_t)(left < 200000 ? left + 1 : SRDMA_SEALED_CHUNK + 1)); break;
	default:
		/* All that is owed, and one more. */
		if (left <= SRDMA_SEALED_CHUNK)
			add_chunk(record, &ring, 2, at, NULL, (uint32_t)left);
		add_chunk(record, &ring, 2, one_in(2) ? left : 0, NULL, (uint32_t)below(2));
		break;
	}
}

static void ask_for_what_is_not_there(struct model_record *record)
{
	static const uint64_t edges[] = {MODEL_REGION, MODEL_REGION + 1, UINT64_MAX, UINT64_MAX - 99, UINT64_C(1) << 63};
	struct srdma_sealed_ring ring = model.ring;
	uint64_t edge = edges[below(5)];

	if (one_in(2))
		add_plain(record, 3, 0, one_in(2) ? edge : below(MODEL_REGION), one_in(2) ? edge : MODEL_REGION + 1);
	else if (one_in(2))
		add_chunk(record, &ring, 1, edge, NULL, 1 + (uint32_t)below(9000));
	else
		add_within(record, 1, edge, NULL, 1 + (uint32_t)below(WITHIN_MAX));
}

/* If the record still has a good form, it announces a chunk that was never sealed. */
static void spoil_form(struct model_record *record)
{
	for (unsigned i = 0, count = 1 + (unsigned)below(2); i < count; i++) {
		make_content(record, NULL, 1);
		record->contents[i].wrong = true;
		add_plain(record, (uint8_t)(1 + below(4)), 1, 0, 0);
	}
	switch (below(4)) {
	case 0: record->bytes[one_in(2) ? 0 : 2] = (uint8_t)(5 + below(250)); break;
	case 1: record->bytes[1] = (uint8_t)(1 + below(255)); break;
	case 2: record->length += 1 + (uint32_t)below(27); break;
	default: record->length -= 1 + (uint32_t)below(28); break;
	}
}

static void misbehave(struct model_record *record)
{
	struct srdma_sealed_ring ring = model.ring;

	switch (below(6)) {
	case 0: ask_for_what_is_not_there(record); break;
	case 1: add_plain(record, 4, one_in(2) ? 0 : model.sent_count + 1 + (one_in(2) ? 0 : below(UINT32_MAX)), 0, 0); break;
	case 2: spoil_form(record); break;
	case 3: add_chunk(record, &ring, (uint8_t)(1 + below(2)), 0, NULL, SRDMA_SEALED_CHUNK + 1 + (uint32_t)below(99)); break;
	default: answer_badly(record); break;
	}
}

/* As the rules have it, but that the bytes are not those that were sealed: they are elsewhere, or have been changed. */
static bool forge(struct model_record *record)
{
	uint8_t *header = record->bytes;

	if (!(one_in(2) ? write_well(record) : answer_well(record)) || header[1])
		return false;
	if (one_in(2))
		put(header + 24, RIG_KEY + 1, 4);
	else
		model.rig.staging[(uint32_t)header[20] << 24 | (uint32_t)header[21] << 16 | (uint32_t)header[22] << 8 | header[23]] ^= 1;
	record->contents[0].wrong = true;
	return true;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

/* The connection's state must be `expected`, the effect of the peer's records, or else the effect of the chunks now in place. */
static void settle(int expected)
{
	struct srdma_conn *conn = model.rig.conn;

	rig_settle(&model.rig);
	if (expected == 0)
		expected = model_place(&model);
	/* The end was answering a read when the program withdrew the region. */
	if (expected == 0 && model.withdrawn && model.asked_count > 0 && conn->status == SRDMA_EPROTOCOL)
		expected = SRDMA_EPROTOCOL;
	if (conn->status != expected)
		model_fail(&model, expected == 0 ? "the connection has ended" : expected == SRDMA_ESEAL ? "a forgery was taken" : "a breach of the rules was taken");
	seen.completed += model.over_count;
	model_check(&model);
	seen.refused += expected == SRDMA_EPROTOCOL;
	seen.forged += expected == SRDMA_ESEAL;
}

static bool make_record(struct model_record *record)
{
	*record = (struct model_record){0};
	if (model.rig.receive_count == 0 || model.rig.failed)
		return false;
	if (one_in(spite))
		misbehave(record);
	else if (one_in(2 * spite))
		return forge(record);
	else
		return behave(record);
	return true;
}

static void drop_contents(struct model_record *record)
{
	for (unsigned i = 0; i < SRDMA_SEALED_BATCH; i++)
		free(record->contents[i].bytes);
}

/* Frees the contents that the model has not taken over. */
static int deliver(struct model_record *record)
{
	unsigned before = model.chunk_count;
	int ret;

	if (!rig_deliver(&model.rig, RIG_CONTROL, record->bytes, record->length))
		model_fail(&model, "no receive is posted");
	ret = model_take(&model, record);
	for (unsigned i = 0; i < SRDMA_SEALED_BATCH; i++) {
		bool kept = false;

		for (unsigned chunk = before; chunk < model.chunk_count; chunk++)
			kept = kept || model.chunks[chunk].content.bytes == record->contents[i].bytes;
		if (kept || (record->bytes[1] == 1 && i == 0 && ret == 0))
			record->contents[i].bytes = NULL;
	}
	drop_contents(record);
	return ret;
}

/* One to three records that the end looks at together. */
static void hear_from_peer(void)
{
	unsigned count = 1 + (unsigned)below(3);
	struct model_record record;
	int expected = 0;

	for (unsigned i = 0; i < count && expected == 0; i++) {
		if (make_record(&record))
			expected = deliver(&record);
		else
			drop_contents(&record);
	}
	settle(expected);
}

static void let_device_work(void)
{
	for (uint64_t n = 1 + below(one_in(3) ? 40 : 4); n > 0; n--)
		rig_execute(&model.rig);
	settle(0);
}

static void call(uint64_t *cookie)
{
	bool write = one_in(3);
	uint64_t length = some_length(MODEL_PEER_REGION);

	if (model.job_count + model.over_count == RIG_RDMA_DEPTH)
		return;
	model_post(&model, write, length, below(MODEL_PEER_REGION - length + 1), ++*cookie);
	settle(0);
}

/* The program gives up, or takes its memory back too early, or the TLS channel closes. Returns the error that must follow. */
static int end_somehow(void)
{
	struct srdma_conn *conn = model.rig.conn;
	struct model_job *job = &model.jobs[below(model.job_count)];

	switch (below(3)) {
	case 0:
		seen.lost++;
		srdma_conn_progress(conn, true);
		return SRDMA_ELOST;
	case 1:
		if (model.job_count == 0)
			break;
		seen.deleted++;
		srdma_buffer_free(&job->buffer);
		return -EINVAL;
	default: break;
	}
	seen.given_up++;
	return srdma_conn_end(conn, srdma_fail(-ETIMEDOUT, "given up"));
}

/* Records come that the end does not look at; then the connection ends; then, as a link does, the end looks at them. */
static void end_with_records_unread(void)
{
	struct srdma_conn *conn = model.rig.conn;
	struct model_record record;

	for (unsigned i = 0; i < 4; i++) {
		if (make_record(&record) && rig_deliver(&model.rig, RIG_CONTROL, record.bytes, record.length))
			seen.late++;
		drop_contents(&record);
	}
	for (uint64_t n = below(4); n > 0; n--)
		rig_execute(&model.rig);
	model.rig.tls = SRDMA_ECLOSED;
	if (end_somehow() != conn->status)
		model_fail(&model, "the connection has not ended");
	model_end(&model);
	srdma_queues_poll_receives(&conn->queues);
}

/* Records that still come have no effect: the program has all its memory back. */
static void check_end(void)
{
	struct srdma_conn *conn = model.rig.conn;
	uint64_t cookies[RIG_RDMA_DEPTH];

	if (conn->status == 0)
		end_with_records_unread();
	model_end(&model);
	while (rig_execute(&model.rig))
		;
	srdma_queues_poll_receives(&conn->queues);
	srdma_conn_progress(conn, true);
	rig_settle(&model.rig);
	if (srdma_conn_complete(conn, cookies, RIG_RDMA_DEPTH, 0) >= 0)
		model_fail(&model, "a write or read is complete after the end");
	if (model.rig.late_looks > 0)
		model_fail(&model, "frames were looked for after the end");
}

static void run_sequence(uint64_t seed)
{
	uint64_t cookie = 0;

	random_state = seed * 0x9e3779b97f4a7c15u + 1;
	spite = 20u << 2 * below(4);
	model.where = place_text;
	snprintf(place_text, sizeof place_text, "SECURDMA_TEST_SEED=%llu, set-up", (unsigned long long)seed);
	model_new(&model);
	for (unsigned step = 0; step < STEPS && model.rig.conn->status == 0; step++) {
		snprintf(place_text, sizeof place_text, "SECURDMA_TEST_SEED=%llu, step %u", (unsigned long long)seed, step);
		switch (below(10)) {
		case 0:
		case 1: call(&cookie); break;
		case 2:
		case 3:
		case 4: let_device_work(); break;
		default: hear_from_peer(); break;
		}
		if (model.rig.conn->status == 0 && one_in(300)) {
			model.withdrawn = srdma_conn_withdraw_region(model.rig.conn) == 0 || model.withdrawn;
			settle(0);
		}
		if (model.rig.conn->status == 0 && one_in(200))
			end_with_records_unread();
	}
	check_end();
	model_delete(&model);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void caught(int signal)
{
	static const char text[] = ": memory was touched that had been handed back, or that lies beside what was lent\n";

	/* Which test it was counts for more than the text. */
	_exit(write(STDERR_FILENO, place_text, strlen(place_text)) < 0 || write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 2 : 1);
}

static void say_nothing(const struct srdma_log_record *record, void *arg)
{
}

TEST(end_does_what_the_model_says_whatever_the_peer_does)
{
	const char *seed = getenv("SECURDMA_TEST_SEED"), *count = getenv("SECURDMA_TEST_SEQUENCES");
	uint64_t sequences = count ? strtoull(count, NULL, 10) : SEQUENCES;

	signal(SIGSEGV, caught);
	signal(SIGBUS, caught);
	srdma_log_set(SRDMA_LOG_ERROR, say_nothing, NULL);
	if (seed) {
		run_sequence(strtoull(seed, NULL, 10));
		return;
	}
	for (uint64_t i = 1; i <= sequences; i++)
		run_sequence(i);
	print_message("%u writes and reads complete; connections ended: %u by a breach, %u by a forgery, %u given up, %u lost, "
		      "%u by a buffer that was deleted; %u records came too late\n",
		      seen.completed, seen.refused, seen.forged, seen.given_up, seen.lost, seen.deleted, seen.late);
	if (sequences >= SEQUENCES) {
		assert_true(seen.completed > SEQUENCES && seen.refused > SEQUENCES / 4 && seen.forged > SEQUENCES / 20);
		assert_true(seen.given_up > SEQUENCES / 20 && seen.lost > SEQUENCES / 20 && seen.deleted > SEQUENCES / 20);
		assert_true(seen.late > SEQUENCES / 10);
	}
}

RUN_TESTS(NULL, NULL)
