/* SPDX-License-Identifier: Apache-2.0 */
/* A ring between two ends of one process, and with an end that breaks the rules. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "packet_ring.h"
#include "random.h"

enum { HEADER = 12 };

struct ends {
	struct ring_out out;
	struct ring_in in;
};

static struct ends open_ends(void)
{
	struct ends ends;
	int fd = ring_create(&ends.out);
	assert_true(fd >= 0);
	assert_int_equal(ring_map(fd, &ends.in), 0);
	close(fd);
	return ends;
}

static void close_ends(struct ends *ends)
{
	ring_unmap(&ends->out.shared);
	ring_unmap(&ends->in.shared);
}

/* A packet whose bytes depend on its number. */
static void put(struct ends *ends, uint32_t number, size_t length)
{
	size_t padded = (length + 3) & ~(size_t)3;
	uint8_t *to = ring_begin(&ends->out, sizeof number + padded);
	memcpy(to, &number, sizeof number);
	memset(to + sizeof number, (int)number, padded);
	ring_publish(&ends->out,
		     (struct ring_word){ .kind = RING_PACKET, .gid_index = 3, .length = (uint32_t)(sizeof number + padded) });
}

static void take(struct ends *ends, uint32_t number, size_t length)
{
	struct ring_word word;
	const uint8_t *bytes;
	assert_int_equal(ring_peek(&ends->in, &word, &bytes), 1);
	assert_int_equal(word.kind, RING_PACKET);
	assert_int_equal(word.gid_index, 3);
	assert_int_equal(word.length, sizeof number + ((length + 3) & ~(size_t)3));
	assert_memory_equal(bytes, &number, sizeof number);
	for (size_t i = 0; i < length; i++)
		assert_int_equal(bytes[sizeof number + i], (uint8_t)number);
	ring_take(&ends->in, &word);
}

static bool is_empty(struct ends *ends)
{
	struct ring_word word;
	const uint8_t *bytes;
	return ring_peek(&ends->in, &word, &bytes) == 0;
}

/* Many times around, with more and with fewer of them under way. */
static void test_packets_arrive_in_order(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	uint32_t put_next = 0, take_next = 0, random;
	size_t lengths[4096];
	while (take_next < 20000) {
		assert_int_equal(random_u32(&random), 0);
		uint32_t most = random >> 24 < 20 ? 4000 : 3;
		for (uint32_t n = random % 64; n > 0 && put_next - take_next < most && ring_has_room(&ends.out); n--) {
			assert_int_equal(random_u32(&random), 0);
			lengths[put_next % 4096] = random % 4 == 0 ? random % (RING_PAYLOAD + 1) : random % 300;
			put(&ends, put_next, lengths[put_next % 4096]);
			put_next++;
		}
		assert_int_equal(random_u32(&random), 0);
		for (uint32_t n = random % 64; n > 0 && take_next != put_next; n--, take_next++)
			take(&ends, take_next, lengths[take_next % 4096]);
		if (take_next == put_next)
			assert_true(is_empty(&ends));
	}
	close_ends(&ends);
}

static void test_full_ring_waits_for_its_receiver(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	uint32_t count = 0, shorts = 0;
	for (; ring_has_room(&ends.out); count++)
		put(&ends, count, RING_PAYLOAD);
	assert_true(count >= RING_BYTES / RING_PAYLOAD - 8);
	assert_int_equal(atomic_load(&ends.out.shared->waits), 1);
	/* Room is left for those that have no payload. */
	for (; ring_has_short_room(&ends.out); shorts++)
		put(&ends, count + shorts, 0);
	assert_true(shorts > 500);
	for (uint32_t i = 0; i < count; i++)
		take(&ends, i, RING_PAYLOAD);
	assert_true(ring_has_room(&ends.out));
	for (uint32_t i = 0; i < shorts; i++)
		take(&ends, count + i, 0);
	assert_true(is_empty(&ends));
	close_ends(&ends);
}

/* Few packets at a time use a small part of the ring. */
static void test_ring_starts_again_when_it_is_drained(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	for (uint32_t i = 0; i < 10000; i++) {
		put(&ends, i, 4096);
		take(&ends, i, 4096);
		assert_true(ring_is_drained(&ends.out));
		assert_true(ends.out.head % RING_BYTES < RING_BYTES / 4);
	}
	close_ends(&ends);
}

static void test_sleeper_is_told_what_is_there(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	assert_true(ring_sleep(&ends.in));
	put(&ends, 0, 10);
	assert_false(ring_sleep(&ends.in));
	assert_int_equal(atomic_load(&ends.out.shared->sleeps), 1);
	take(&ends, 0, 10);
	assert_true(ring_sleep(&ends.in));
	close_ends(&ends);
}

/* Whatever the sender writes: an entry lies within the ring, or it is refused. */
static void test_receiver_believes_nothing(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	for (uint32_t i = 0; i < 200000; i++) {
		struct ring_word word;
		const uint8_t *bytes;
		uint32_t random[3];
		for (unsigned r = 0; r < 3; r++)
			assert_int_equal(random_u32(&random[r]), 0);
		ends.in.tail = (uint64_t)(random[0] % (RING_BYTES / RING_LINE)) * RING_LINE;
		word = (struct ring_word){ .length = random[1] % 3 == 0 ? random[1] : random[1] % 40000, .kind = (uint8_t)(random[2] % 5) };
		memcpy(ends.out.shared->bytes + ends.in.tail, &word, sizeof word);
		int found = ring_peek(&ends.in, &word, &bytes);
		if (found == 1) {
			assert_true(bytes >= ends.in.shared->bytes && bytes + word.length <= ends.in.shared->bytes + RING_BYTES - RING_LINE);
			assert_true(word.length <= RING_ENTRY);
			ring_take(&ends.in, &word);
			assert_true(ends.in.tail % RING_LINE == 0);
		} else {
			assert_true(found == 0 || found == -EBADMSG);
		}
	}
	close_ends(&ends);
}

static void test_from_the_start_to_the_start_is_no_entry(void **state)
{
	(void)state;
	struct ends ends = open_ends();
	struct ring_word word = { .kind = RING_WRAP };
	const uint8_t *bytes;
	memcpy(ends.out.shared->bytes, &word, sizeof word);
	assert_int_equal(ring_peek(&ends.in, &word, &bytes), -EBADMSG);
	close_ends(&ends);
}

/* It could be made shorter under the receiver. */
static void test_memory_that_may_shrink_is_refused(void **state)
{
	(void)state;
	struct ring_in in;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(struct ring_shared)), 0);
	assert_int_equal(ring_map(fd, &in), -EINVAL);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(ring_map(fd, &in), 0);
	ring_unmap(&in.shared);
	assert_int_equal(ftruncate(fd, sizeof(struct ring_shared) + 1), 0);
	assert_int_equal(ring_map(fd, &in), -EINVAL);
	close(fd);
	assert_int_equal(ring_map(-1, &in), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packets_arrive_in_order),
		cmocka_unit_test(test_full_ring_waits_for_its_receiver),
		cmocka_unit_test(test_ring_starts_again_when_it_is_drained),
		cmocka_unit_test(test_sleeper_is_told_what_is_there),
		cmocka_unit_test(test_receiver_believes_nothing),
		cmocka_unit_test(test_from_the_start_to_the_start_is_no_entry),
		cmocka_unit_test(test_memory_that_may_shrink_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
