/* SPDX-License-Identifier: Apache-2.0 */
/* A write or read ends when its bytes are in place, or when its connection ends; from then on its memory is the program's.
 * Here are single attacks of a peer on that; test_sealed_rdma.c tries random sequences of such records. */
#include "test.h"

#include "end_rig.h"

#include "log.h"
#include "securdma_link.h"
#include "wake.h"

#include <sys/mman.h>
#include <unistd.h>

enum { REGION = 65536 };

static struct end_rig rig; /* its connection is NULL once a link has freed it */
static char nowhere[1];

/* ---- the peer's records ---------------------------------------------------------------------------------------- */

struct part {
	uint64_t offset;
	uint32_t length;
};

static void say(const struct srdma_sealed_header *headers, unsigned count, const void *data, uint32_t length)
{
	uint8_t bytes[RIG_MESSAGE_SIZE];

	for (unsigned i = 0; i < count; i++)
		srdma_sealed_encode(bytes + i * SRDMA_SEALED_HEADER, &headers[i]);
	if (length > 0)
		memcpy(bytes + count * SRDMA_SEALED_HEADER, data, length);
	assert_true(rig_deliver(&rig, RIG_CONTROL, bytes, count * SRDMA_SEALED_HEADER + length));
}

/* Answers, in one record, that are to be pulled. Each lies in the peer's ring behind the one before. */
static void answer(struct srdma_sealed_ring *ring, const struct part *parts, unsigned count, char letter)
{
	struct srdma_sealed_header headers[SRDMA_SEALED_BATCH];
	uint8_t bytes[SRDMA_SEALED_HEADER];
	char text[4096];
	uint32_t at;

	memset(text, letter, sizeof text);
	for (unsigned i = 0; i < count; i++) {
		srdma_sealed_ring_take(ring, parts[i].length, &at);
		headers[i] = (struct srdma_sealed_header){.type = SRDMA_SEALED_ANSWER, .length = parts[i].length, .offset = parts[i].offset, .address = at, .rkey = RIG_KEY};
		srdma_sealed_encode(bytes, &headers[i]);
		assert_int_equal(srdma_sealer_seal(rig.chunks_out, bytes, sizeof bytes, text, parts[i].length, rig.staging + at), 0);
	}
	say(headers, count, NULL, 0);
}

static void answer_within(uint64_t offset, const char *data, uint32_t length)
{
	const struct srdma_sealed_header header = {.type = SRDMA_SEALED_ANSWER, .within = true, .length = length, .offset = offset};

	say(&header, 1, data, length);
}

static void let_device_work(void)
{
	while (rig_execute(&rig))
		;
	rig_settle(&rig);
}

/* ---- the program's calls --------------------------------------------------------------------------------------- */

static char *map_page(void)
{
	char *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(page != MAP_FAILED);
	return page;
}

/* The program takes its memory back: from here on any access to it raises a signal. */
static void take_back(struct srdma_buffer **buffer, char *page)
{
	srdma_buffer_free(buffer);
	assert_int_equal(munmap(page, (size_t)sysconf(_SC_PAGESIZE)), 0);
}

static struct srdma_buffer *post_read(char *memory, size_t length, uint64_t cookie)
{
	struct srdma_buffer *buffer;

	assert_int_equal(srdma_buffer_new(rig.conn, memory, length > 0 ? length : 1, &buffer), 0);
	assert_int_equal(srdma_conn_post_read(rig.conn, buffer, 0, length, 0, cookie), 0);
	return buffer;
}

static void expect_completions(unsigned count, uint64_t first)
{
	uint64_t cookies[RIG_RDMA_DEPTH];

	assert_int_equal(rig.conn->queues.done_ring.count, count);
	if (count > 0)
		assert_int_equal(srdma_conn_complete(rig.conn, cookies, RIG_RDMA_DEPTH, 0), count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(cookies[i], first + i);
}

static void say_nothing(const struct srdma_log_record *record, void *arg)
{
}

static int start(void **state)
{
	srdma_log_set(SRDMA_LOG_ERROR, say_nothing, NULL);
	rig_new(&rig, REGION, REGION);
	return 0;
}

static int finish(void **state)
{
	rig_delete(&rig);
	return 0;
}

/* ---- complete, or not ------------------------------------------------------------------------------------------ */

TEST(read_is_not_complete_by_answers_of_no_bytes)
{
	static const struct part nothing[SRDMA_SEALED_BATCH] = {{0, 0}}, last[] = {{0, 0}, {0, 17}};
	struct srdma_sealed_ring ring = {0};
	char *memory = map_page();
	struct srdma_buffer *buffer = post_read(memory, 17, 1);

	/* Sixteen, which count for as many bytes; then one more, and all seventeen bytes behind it. */
	answer(&ring, nothing, 8, 0);
	answer(&ring, nothing, 8, 0);
	answer(&ring, last, 2, 'x');
	rig_settle(&rig);
	let_device_work();
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
	expect_completions(0, 0);
	take_back(&buffer, memory);
	srdma_queues_poll_receives(&rig.conn->queues);
	rig_settle(&rig);
}

TEST(read_is_not_complete_by_an_answer_of_no_bytes_within_its_record)
{
	char byte = 'u';
	struct srdma_buffer *buffer = post_read(&byte, 1, 1);

	answer_within(0, NULL, 0);
	rig_settle(&rig);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
	expect_completions(0, 0);
	assert_int_equal(byte, 'u');
	srdma_buffer_free(&buffer);
}

/* A later answer does not reach the account of a read that is complete. */
TEST(read_of_no_bytes_is_answered_once)
{
	static const struct part twice[] = {{0, 0}, {0, 0}, {0, 0}};
	struct srdma_sealed_ring ring = {0};
	struct srdma_buffer *buffer = post_read(nowhere, 0, 1);

	answer(&ring, twice, 3, 0);
	rig_settle(&rig);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
	expect_completions(0, 0);
	srdma_buffer_free(&buffer);
}

TEST(read_of_no_bytes_may_be_answered_with_others)
{
	static const struct part parts[] = {{0, 0}, {0, 2}, {2, 1}}, rest[] = {{0, 3}, {3, 1}};
	struct srdma_sealed_ring ring = {0};
	char first[4] = "...", last[5] = "....";
	struct srdma_buffer *buffers[] = {post_read(nowhere, 0, 1), post_read(first, 3, 2), post_read(last, 4, 3)};

	let_device_work();
	answer(&ring, parts, 3, 'x');
	rig_settle(&rig);
	let_device_work();
	answer(&ring, rest, 2, 'x');
	rig_settle(&rig);
	let_device_work();
	assert_int_equal(rig.conn->status, 0);
	expect_completions(3, 1);
	assert_string_equal(first, "xxx");
	assert_string_equal(last, "xxxx");
	for (unsigned i = 0; i < 3; i++)
		srdma_buffer_free(&buffers[i]);
}

TEST(after_a_breach_nothing_is_executed)
{
	static const struct srdma_sealed_header read_nothing = {.type = SRDMA_SEALED_READ};
	char byte = 'u';
	struct srdma_buffer *buffer = post_read(&byte, 1, 1);

	/* The sixteenth is the last one of a look at the device: the good one behind it is still there. */
	for (unsigned i = 0; i < 15; i++)
		say(&read_nothing, 1, NULL, 0);
	answer_within(5, "x", 1);
	answer_within(0, "x", 1);
	rig_settle(&rig);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
	srdma_queues_poll_receives(&rig.conn->queues);
	assert_int_equal(byte, 'u');
	srdma_buffer_free(&buffer);
}

/* ---- regions with names ---------------------------------------------------------------------------------------- */

enum { NAMED = 5 };

static char named_bytes[8];
static struct srdma_region named = {.address = named_bytes, .size = 4, .rights = IBV_ACCESS_REMOTE_WRITE};

static const struct srdma_region *find_named(const void *arg, uint16_t id)
{
	return id == NAMED ? &named : NULL;
}

static void write_to(uint16_t region, uint64_t offset, uint32_t length)
{
	const struct srdma_sealed_header header = {.type = SRDMA_SEALED_WRITE, .within = true, .length = length, .offset = offset, .region = region};

	say(&header, 1, "bytes of the peer's", length);
	rig_settle(&rig);
}

TEST(chunk_for_a_region_with_a_name_goes_there_and_not_beyond)
{
	rig.conn->sealed_rdma.find_named = find_named;
	write_to(NAMED, 1, 3);
	assert_int_equal(rig.conn->status, 0);
	assert_memory_equal(named_bytes, "\0byt\0\0\0", 8);
	write_to(NAMED, 1, 4);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
	assert_memory_equal(named_bytes, "\0byt\0\0\0", 8);
}

TEST(chunk_for_a_region_that_is_not_offered_ends_the_connection)
{
	rig.conn->sealed_rdma.find_named = find_named;
	write_to(NAMED + 1, 0, 1);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
}

TEST(read_of_a_region_without_that_right_ends_the_connection)
{
	const struct srdma_sealed_header header = {.type = SRDMA_SEALED_READ, .address = 1, .region = NAMED};

	rig.conn->sealed_rdma.find_named = find_named;
	say(&header, 1, NULL, 0);
	rig_settle(&rig);
	assert_int_equal(rig.conn->status, SRDMA_EPROTOCOL);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void time_out(void)
{
	srdma_conn_end(rig.conn, srdma_fail(-ETIMEDOUT, "nothing came in time"));
}

static void lose(void)
{
	rig.tls = SRDMA_ECLOSED;
	srdma_conn_progress(rig.conn, true);
}

static void fail_device(void)
{
	atomic_store(&rig.conn->device_event, IBV_EVENT_DEVICE_FATAL + 1);
	rig.tls = SRDMA_ECLOSED;
	/* The end sees the event before the records, which it looks at later. */
	rig.received.count = 0;
	srdma_conn_progress(rig.conn, false);
}

/* An answer has come, the end has not looked, and the connection ends; the program takes its memory back. */
static void nothing_is_written_after(void (*end)(void))
{
	char *memory = map_page();
	struct srdma_buffer *buffer = post_read(memory, 5, 1);
	unsigned unread;

	let_device_work();
	answer_within(0, "LATE!", 5);
	unread = rig.received.count;
	end();
	assert_int_not_equal(rig.conn->status, 0);
	assert_int_equal(rig.late_looks, 0);
	take_back(&buffer, memory);
	rig.received.count += rig.received.count < unread ? unread : 0;
	srdma_queues_poll_receives(&rig.conn->queues);
	let_device_work();
	expect_completions(0, 0);
}

TEST(answer_that_comes_with_a_time_out_is_not_taken)
{
	nothing_is_written_after(time_out);
}

TEST(answer_that_comes_with_the_loss_is_not_taken)
{
	nothing_is_written_after(lose);
}

TEST(after_a_failure_of_the_device_no_frame_is_taken)
{
	nothing_is_written_after(fail_device);
}

/* The device is reading from the peer's ring when the program gives up. */
TEST(pull_that_is_under_way_at_the_end_goes_nowhere)
{
	static const struct part whole = {0, 4096};
	struct srdma_sealed_ring ring = {0};
	char *memory = map_page();
	struct srdma_buffer *buffer = post_read(memory, 4096, 1);

	let_device_work();
	answer(&ring, &whole, 1, 'x');
	rig_settle(&rig);
	while (rig_execute(&rig))
		;
	time_out();
	take_back(&buffer, memory);
	srdma_queues_poll(&rig.conn->queues);
	srdma_sealed_rdma_step(&rig.conn->sealed_rdma);
	rig_settle(&rig);
	expect_completions(0, 0);
}

TEST(deleting_a_buffer_in_use_ends_the_connection)
{
	char *memory = map_page();
	struct srdma_buffer *buffer = post_read(memory, 5, 1);

	let_device_work();
	answer_within(0, "LATE!", 5);
	take_back(&buffer, memory);
	assert_int_equal(rig.conn->status, -EINVAL);
	srdma_queues_poll_receives(&rig.conn->queues);
	rig_settle(&rig);
}

TEST(deleting_another_buffer_of_the_same_memory_ends_nothing)
{
	char byte = 'u';
	struct srdma_buffer *buffer = post_read(&byte, 1, 1), *other;

	assert_int_equal(srdma_buffer_new(rig.conn, &byte, 1, &other), 0);
	srdma_buffer_free(&other);
	assert_int_equal(rig.conn->status, 0);
	answer_within(0, "x", 1);
	rig_settle(&rig);
	expect_completions(1, 1);
	srdma_buffer_free(&buffer);
	assert_int_equal(rig.conn->status, 0);
}

TEST(buffer_outlives_its_connection)
{
	struct srdma_buffer *buffer, *other;

	assert_int_equal(srdma_buffer_new(rig.conn, NULL, 5000, &buffer), 0);
	assert_int_equal(srdma_buffer_new(rig.conn, NULL, 5000, &other), 0);
	rig_delete(&rig);
	memset(srdma_buffer_data(buffer), 'x', 5000);
	rig_new(&rig, REGION, REGION);
	assert_int_equal(srdma_conn_post_read(rig.conn, buffer, 0, 1, 0, 1), -EINVAL);
	srdma_buffer_free(&buffer);
	srdma_buffer_free(&other);
}

/* ---- a link ---------------------------------------------------------------------------------------------------- */

static bool connects;
static struct srdma_connect *const connecting = (struct srdma_connect *)&connects; /* nobody looks into it */
static int connecting_fd;

int __wrap_srdma_conn_connect_start(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
				    const struct srdma_conn_options *options, struct srdma_connect **out)
{
	connecting_fd = srdma_wake_new();
	*out = connecting;
	return 0;
}

int __wrap_srdma_connect_fd(const struct srdma_connect *connect)
{
	return connecting_fd;
}

void __wrap_srdma_connect_free(struct srdma_connect **connect)
{
	if (*connect)
		srdma_wake_close(connecting_fd);
	*connect = NULL;
}

/* The rig's, once. */
int __wrap_srdma_connect_step(struct srdma_connect *connect, struct srdma_conn **out)
{
	assert_ptr_equal(connect, connecting);
	if (!connects)
		return srdma_fail(-ECONNREFUSED, "nobody is there");
	connects = false;
	*out = rig.conn;
	return 0;
}

int __wrap_srdma_conn_share_wake(struct srdma_conn *conn, int fd, atomic_bool *requested)
{
	return 0;
}

/* There is none. */
struct srdma_tls_context *__wrap_srdma_tls_context_ref(struct srdma_tls_context *context)
{
	return context;
}

int __wrap_srdma_tls_context_check(const struct srdma_tls_context *context, bool server)
{
	assert_non_null(context);
	assert_false(server);
	return 0;
}

struct srdma_device *__wrap_srdma_device_ref(struct srdma_device *device)
{
	return device;
}

void __wrap_srdma_conn_get_info_sized(const struct srdma_conn *conn, struct srdma_conn_info *info, size_t size)
{
	assert_int_equal(size, sizeof *info);
	*info = (struct srdma_conn_info){0};
	srdma_conn_read_counters(conn, info);
}

static struct srdma_link *make_link(void)
{
	struct srdma_endpoint endpoint = {sizeof endpoint, "nowhere", "1"};
	struct srdma_link_options options;
	struct srdma_link *link;

	srdma_link_options_init(&options);
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	options.reconnect_ms = options.pause_min_ms = options.pause_max_ms = 1;
	connects = true;
	/* In the place of both, which are not looked at: no count of references there ever comes to 0. */
	static max_align_t room[64];
	assert_int_equal(srdma_link_connect(&options, (struct srdma_tls_context *)room, (struct srdma_device *)room, &link), 0);
	return link;
}

/* When its connection ends, the link still delivers the messages that have come. */
TEST(link_keeps_messages_and_executes_nothing)
{
	struct srdma_link *link = make_link();
	char *memory = map_page(), text[16];
	struct srdma_buffer *buffer = post_read(memory, 5, 1);
	size_t length;

	let_device_work();
	assert_true(rig_deliver(&rig, RIG_MESSAGE, "before", 6));
	answer_within(0, "LATE!", 5);
	assert_true(rig_deliver(&rig, RIG_MESSAGE, "behind", 6));
	lose();
	take_back(&buffer, memory);
	assert_int_equal(srdma_link_recv(link, text, sizeof text, &length, 1000), 0);
	assert_true(length == 6 && memcmp(text, "before", 6) == 0);
	assert_null(srdma_link_conn(link)); /* and no new connection can be made */
	assert_int_equal(srdma_link_recv(link, text, sizeof text, &length, 1000), 0);
	assert_true(length == 6 && memcmp(text, "behind", 6) == 0);
	srdma_link_free(&link);
	rig.conn = NULL;
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

/* A peer on a device in software waits until this end looks at its own. */
TEST(device_is_looked_at_between_long_messages)
{
	char message[RIG_MESSAGE_SIZE];
	size_t length;

	memset(message, 'm', sizeof message);
	for (unsigned bytes = 0; bytes < 4 * SRDMA_POLL_BYTES; bytes += sizeof message) {
		/* Two that this end has seen, and one that it has not. */
		while (rig.conn->queues.arrival_ring.count < 2) {
			assert_true(rig_deliver(&rig, RIG_MESSAGE, message, sizeof message));
			srdma_conn_progress_receives(rig.conn);
		}
		rig.conn->queues.unpolled = bytes % SRDMA_POLL_BYTES;
		assert_true(rig_deliver(&rig, RIG_MESSAGE, message, sizeof message));
		assert_int_equal(srdma_conn_recv(rig.conn, message, sizeof message, &length, 0), 0);
		assert_int_equal(rig.conn->queues.arrival_ring.count, bytes % SRDMA_POLL_BYTES + sizeof message >= SRDMA_POLL_BYTES ? 2 : 1);
		srdma_conn_progress_receives(rig.conn);
		/* The peer gets its credits with what this end sends. */
		while (rig_execute(&rig))
			;
	}
}

RUN_TESTS_EACH(start, finish)
