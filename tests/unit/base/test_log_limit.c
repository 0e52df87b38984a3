/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "log_limit.h"

#include "clock.h"

static uint64_t now = 1000000000;

/* In place of the library's. */
uint64_t __wrap_srdma_clock_us(void)
{
	return now;
}

static const struct srdma_log_rate rate = {.burst = 5, .per_second = 2};

static unsigned admitted(const char *kind, unsigned tries)
{
	unsigned count = 0;

	for (unsigned i = 0; i < tries; i++)
		count += srdma_log_limit_admits(kind, rate);
	return count;
}

static void forget(void)
{
	struct srdma_log_omission omission;

	now += 3600 * (uint64_t)1000000;
	while (srdma_log_limit_take_omission(true, &omission))
		;
}

TEST(burst_then_so_many_a_second)
{
	forget();
	assert_int_equal(admitted("a", 100), 5);
	now += 1000000;
	assert_int_equal(admitted("a", 100), 2);
	now += 10000000;
	assert_int_equal(admitted("a", 100), 5);
}

TEST(kinds_do_not_hide_each_other)
{
	char text[] = "b";

	forget();
	assert_int_equal(admitted("a", 100), 5);
	assert_int_equal(admitted("b", 1), 1);
	/* The same text elsewhere is the same kind. */
	assert_int_equal(admitted(text, 100), 4);
}

TEST(what_was_left_out_is_told_once)
{
	struct srdma_log_omission omission;

	forget();
	admitted("a", 15);
	admitted("b", 6);
	assert_false(srdma_log_limit_take_omission(false, &omission)); /* not within a second */
	now += 1000000;
	assert_true(srdma_log_limit_take_omission(false, &omission));
	assert_string_equal(omission.kind, "a");
	assert_int_equal(omission.lines, 10);
	assert_true(srdma_log_limit_take_omission(false, &omission));
	assert_string_equal(omission.kind, "b");
	assert_int_equal(omission.lines, 1);
	assert_false(srdma_log_limit_take_omission(true, &omission));
}

TEST(more_kinds_than_places_are_limited_still)
{
	static char names[200][8];

	forget();
	for (unsigned i = 0; i < 200; i++) {
		snprintf(names[i], sizeof names[i], "k%u", i);
		assert_int_equal(admitted(names[i], 10), 5);
	}
}

RUN_TESTS(NULL, NULL)
