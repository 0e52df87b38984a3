/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { PACKETS = 20000, LENGTH = 64, ROOM = 3 * PACKETS };

/* What came out. */
struct output {
	size_t count;
	uint32_t number[ROOM];
	unsigned flipped[ROOM]; /* bits */
	uint64_t hash;
	bool first_byte_changed;
	bool cookie_lost;
};

struct cookie {
	uint64_t number;
	uint64_t check;
};

static void fill(uint8_t datagram[LENGTH], uint32_t number)
{
	memset(datagram, 0x5a, LENGTH);
	memcpy(datagram + 1, &number, sizeof number);
}

static void collect(void *arg, const void *datagram, size_t length, const void *cookie)
{
	const uint8_t *bytes = datagram;
	struct output *out = arg;
	struct cookie c;
	uint8_t original[LENGTH];
	unsigned flipped = 0;

	assert_int_equal(length, LENGTH);
	assert_true(out->count < ROOM);
	memcpy(&c, cookie, sizeof c);
	if (c.check != ~c.number)
		out->cookie_lost = true;
	fill(original, (uint32_t)c.number);
	for (size_t i = 0; i < LENGTH; i++) {
		flipped += (unsigned)__builtin_popcount(original[i] ^ bytes[i]);
		out->hash = (out->hash ^ bytes[i]) * 0x100000001b3u;
	}
	if (bytes[0] != original[0])
		out->first_byte_changed = true;
	out->number[out->count] = (uint32_t)c.number;
	out->flipped[out->count++] = flipped;
}

static struct fault *parse(const char *text)
{
	struct fault *fault = NULL;

	assert_int_equal(fault_parse(text, &fault), 0);
	assert_non_null(fault);
	return fault;
}

static void offer(struct fault *fault, uint64_t now, uint32_t number, struct output *out)
{
	struct cookie cookie = {number, ~(uint64_t)number};
	uint8_t datagram[LENGTH];

	fill(datagram, number);
	assert_true(fault_apply(fault, now, datagram, LENGTH, &cookie, sizeof cookie, collect, out));
	/* The caller's memory is the caller's again. */
	memset(&cookie, 0, sizeof cookie);
	memset(datagram, 0, sizeof datagram);
}

/* Many packets, 10 us apart, and all that they leave behind. */
static struct output *run(const char *text, struct counters *counters)
{
	struct fault *fault = parse(text);
	struct output *out = calloc(1, sizeof *out);
	uint64_t now = 1000;

	assert_non_null(out);
	fault_set_counters(fault, counters);
	for (uint32_t i = 0; i < PACKETS; i++, now += 10000)
		offer(fault, now, i, out);
	while (fault_next(fault) != UINT64_MAX)
		fault_run(fault, fault_next(fault), collect, out);
	assert_false(out->cookie_lost);
	assert_false(out->first_byte_changed);
	fault_close(&fault);
	assert_null(fault);
	return out;
}

static void assert_about(uint64_t value, uint64_t expected)
{
	assert_uint_in_range(value, expected - expected / 5, expected + expected / 5);
}

static void wrong_texts_are_refused_with_the_bad_word(void **state)
{
	static const char *const wrong[] = {"loss", "loss=", "loss=x", "loss=101%", "loss=1.5", "loss=-1%", "loss=1%%",
					    "los=1%", "delay=5parsecs", "delay=us", "delay=11s", "delay=99999999999s",
					    "seed=", "seed=1x", "seed=18446744073709551616", "seed=-1", "=1",
					    "loss=.", "loss=1%;delay=1ms", "jitter=1e3us", "loss=99999999999999999999%"};
	char message[512];
	char text[128];

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct fault *fault = NULL;

		snprintf(text, sizeof text, "duplicate=1%%,%s,reorder=0", wrong[i]);
		assert_int_equal(fault_parse(text, &fault), -EINVAL);
		assert_null(fault);
		assert_true(fault_explain(text, message, sizeof message));
		assert_non_null(strstr(message, wrong[i]));
		assert_non_null(strstr(message, "allowed are loss, duplicate"));
	}
}

static void texts_of_every_kind_are_understood(void **state)
{
	static const char *const right[] = {"", ",", "loss=1%", "loss=0.01", "loss=.5", "loss=1", "loss=100%", "loss=0",
					    "loss=1%,duplicate=0.5%,reorder=2%,delay=200us,jitter=100us,corrupt=0.1%,seed=42",
					    "loss=1%, delay=1.5ms", "delay=3", "delay=10s", "delay=100ns", "loss=0.0000000000001%",
					    "seed=18446744073709551615"};
	char message[512];

	(void)state;
	for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
		struct fault *fault = parse(right[i]);

		assert_false(fault_explain(right[i], message, sizeof message));
		fault_close(&fault);
	}
}

static void nothing_happens_without_a_fault(void **state)
{
	struct output *out = run("seed=1", NULL);

	(void)state;
	assert_int_equal(out->count, PACKETS);
	for (uint32_t i = 0; i < PACKETS; i++) {
		assert_int_equal(out->number[i], i);
		assert_int_equal(out->flipped[i], 0);
	}
	free(out);
}

static void packets_are_lost_as_often_as_said(void **state)
{
	struct counters counters = {0};
	struct output *out = run("loss=5%,seed=1", &counters);

	(void)state;
	assert_about(counters.fault_loss, PACKETS / 20);
	assert_int_equal(out->count, PACKETS - counters.fault_loss);
	free(out);
	out = run("loss=1", NULL);
	assert_int_equal(out->count, 0);
	free(out);
}

static void duplicates_are_whole_and_follow_their_originals(void **state)
{
	struct counters counters = {0};
	struct output *out = run("duplicate=0.1,seed=1", &counters);
	size_t twins = 0;

	(void)state;
	assert_about(counters.fault_duplicate, PACKETS / 10);
	assert_int_equal(out->count, PACKETS + counters.fault_duplicate);
	for (size_t i = 1; i < out->count; i++)
		twins += out->number[i] == out->number[i - 1];
	assert_int_equal(twins, counters.fault_duplicate);
	free(out);
}

static void corruption_flips_one_to_three_bits_and_never_the_opcode(void **state)
{
	struct counters counters = {0};
	struct output *out = run("corrupt=10%,seed=1", &counters);
	size_t with[4] = {0};

	(void)state;
	assert_int_equal(out->count, PACKETS);
	for (size_t i = 0; i < out->count; i++) {
		assert_true(out->flipped[i] <= 3);
		with[out->flipped[i]]++;
	}
	assert_int_equal(with[1] + with[2] + with[3], counters.fault_corrupt);
	assert_about(counters.fault_corrupt, PACKETS / 10);
	for (unsigned i = 1; i <= 3; i++)
		assert_about(with[i], PACKETS / 30);
	free(out);
}

static void held_packets_are_overtaken_by_one_to_three(void **state)
{
	struct counters counters = {0};
	struct output *out = run("reorder=1%,seed=1", &counters);
	size_t late = 0;
	uint32_t highest = 0;

	(void)state;
	assert_int_equal(out->count, PACKETS);
	for (size_t i = 0; i < out->count; i++) {
		if (out->number[i] < highest) {
			late++;
			/* Two that are held at once make it more than three. */
			assert_uint_in_range(highest - out->number[i], 1, 6);
		} else {
			highest = out->number[i];
		}
	}
	assert_about(counters.fault_reorder, PACKETS / 100);
	assert_uint_in_range(late, counters.fault_reorder * 9 / 10, counters.fault_reorder);
	free(out);
}

static void a_held_packet_goes_out_when_nothing_follows_it(void **state)
{
	struct fault *fault = parse("reorder=100%");
	struct output *out = calloc(1, sizeof *out);

	(void)state;
	assert_non_null(out);
	assert_true(fault_next(fault) == UINT64_MAX);
	offer(fault, 5000, 7, out);
	assert_int_equal(out->count, 0);
	assert_int_equal(fault_next(fault), 5000 + 1000000);
	fault_run(fault, 5000 + 999999, collect, out);
	assert_int_equal(out->count, 0);
	fault_run(fault, 5000 + 1000000, collect, out);
	assert_int_equal(out->count, 1);
	assert_true(fault_next(fault) == UINT64_MAX);
	fault_close(&fault);
	free(out);
}

static void delay_holds_each_packet_as_long_as_said(void **state)
{
	struct fault *fault = parse("delay=200us");
	struct output *out = calloc(1, sizeof *out);
	struct counters counters = {0};

	(void)state;
	assert_non_null(out);
	fault_set_counters(fault, &counters);
	for (uint32_t i = 0; i < 100; i++) {
		offer(fault, 1000 + i, i, out);
		assert_int_equal(fault_next(fault), 201000);
	}
	assert_int_equal(out->count, 0);
	fault_run(fault, 201049, collect, out);
	assert_int_equal(out->count, 50);
	/* A new packet does not overtake those that are due. */
	offer(fault, 300000, 100, out);
	assert_int_equal(out->count, 100);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(out->number[i], i);
	assert_int_equal(fault_next(fault), 500000);
	assert_int_equal(counters.fault_delay, 101);
	fault_close(&fault); /* with one inside */
	free(out);
}

static void jitter_spreads_the_delay_around_its_middle(void **state)
{
	struct fault *fault = parse("delay=200us,jitter=100us,seed=3");
	struct output *out = calloc(1, sizeof *out);

	(void)state;
	assert_non_null(out);
	for (uint32_t i = 0; i < 1000; i++)
		offer(fault, 0, i, out);
	fault_run(fault, 99999, collect, out);
	assert_int_equal(out->count, 0);
	fault_run(fault, 200000, collect, out);
	assert_about(out->count, 500);
	fault_run(fault, 300000, collect, out);
	assert_int_equal(out->count, 1000);
	fault_close(&fault);
	free(out);
}

static void a_seed_repeats_everything(void **state)
{
	static const char text[] = "loss=2%,duplicate=2%,reorder=5%,delay=200us,jitter=100us,corrupt=2%,seed=";
	uint64_t hash[3];
	char whole[128];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct output *out;

		snprintf(whole, sizeof whole, "%s%d", text, i == 2 ? 43 : 42);
		out = run(whole, NULL);
		hash[i] = out->hash;
		free(out);
	}
	assert_true(hash[0] == hash[1]);
	assert_true(hash[0] != hash[2]);
}

static void one_more_kind_of_fault_does_not_shift_the_others(void **state)
{
	struct output *plain = run("loss=3%,seed=9", NULL);
	struct output *more = run("loss=3%,corrupt=50%,seed=9", NULL);

	(void)state;
	assert_int_equal(plain->count, more->count);
	assert_memory_equal(plain->number, more->number, plain->count * sizeof plain->number[0]);
	free(plain);
	free(more);
}

/* Everything at once: each packet comes out exactly as often as the counters say. */
static void no_packet_vanishes_uncounted(void **state)
{
	struct counters counters = {0};
	struct output *out = run("loss=10%,duplicate=10%,reorder=30%,delay=1ms,jitter=2ms,corrupt=10%,seed=5", &counters);

	(void)state;
	assert_int_equal(out->count, PACKETS - counters.fault_loss + counters.fault_duplicate);
	free(out);
}

/* More than a device may hold: emitted at once, and said so. */
static void without_memory_packets_go_out_as_they_are(void **state)
{
	struct fault *fault = parse("delay=10s,corrupt=100%");
	struct output *out = calloc(1, sizeof *out);
	struct cookie cookie = {1, ~(uint64_t)1};
	size_t huge = (size_t)257 << 20;
	uint8_t datagram[LENGTH];

	(void)state;
	assert_non_null(out);
	fill(datagram, 1);
	/* The cookie is not read: its length alone is too much. */
	assert_false(fault_apply(fault, 0, datagram, LENGTH, &cookie, huge, collect, out));
	assert_int_equal(out->count, 1);
	assert_int_equal(out->flipped[0], 0);
	fault_close(&fault);
	free(out);
}

static void measure(void *arg, const void *datagram, size_t length, const void *cookie)
{
	size_t *sum = arg;

	(void)datagram;
	assert_null(cookie);
	*sum += 1 + length;
}

/* Too short for a bit that may be flipped. */
static void short_datagrams_pass(void **state)
{
	struct fault *fault = parse("corrupt=100%,reorder=100%");
	size_t sum = 0;

	(void)state;
	assert_true(fault_apply(fault, 0, "", 0, NULL, 0, measure, &sum));
	assert_true(fault_apply(fault, 0, "x", 1, NULL, 0, measure, &sum));
	fault_run(fault, 1000000, measure, &sum);
	assert_int_equal(sum, 3);
	fault_close(&fault);
	fault_close(&fault);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_texts_are_refused_with_the_bad_word),
		cmocka_unit_test(texts_of_every_kind_are_understood),
		cmocka_unit_test(nothing_happens_without_a_fault),
		cmocka_unit_test(packets_are_lost_as_often_as_said),
		cmocka_unit_test(duplicates_are_whole_and_follow_their_originals),
		cmocka_unit_test(corruption_flips_one_to_three_bits_and_never_the_opcode),
		cmocka_unit_test(held_packets_are_overtaken_by_one_to_three),
		cmocka_unit_test(a_held_packet_goes_out_when_nothing_follows_it),
		cmocka_unit_test(delay_holds_each_packet_as_long_as_said),
		cmocka_unit_test(jitter_spreads_the_delay_around_its_middle),
		cmocka_unit_test(a_seed_repeats_everything),
		cmocka_unit_test(one_more_kind_of_fault_does_not_shift_the_others),
		cmocka_unit_test(no_packet_vanishes_uncounted),
		cmocka_unit_test(without_memory_packets_go_out_as_they_are),
		cmocka_unit_test(short_datagrams_pass),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
