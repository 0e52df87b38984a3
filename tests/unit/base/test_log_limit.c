/* SPDX-License-Identifier: Apache-2.0 */
#include "log_limit.h"

#include "clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static uint64_t now = 1000000000;

/* In place of the library's. */
uint64_t __wrap_srdma_clock_us(void);
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

static void burst_then_so_many_a_second(void **state)
{
	(void)state;
	forget();
	assert_int_equal(admitted("a", 100), 5);
	now += 1000000;
	assert_int_equal(admitted("a", 100), 2);
	now += 10000000;
	assert_int_equal(admitted("a", 100), 5);
}

static void kinds_do_not_hide_each_other(void **state)
{
	char text[] = "b";

	(void)state;
	forget();
	assert_int_equal(admitted("a", 100), 5);
	assert_int_equal(admitted("b", 1), 1);
	/* The same text elsewhere is the same kind. */
	assert_int_equal(admitted(text, 100), 4);
}

static void what_was_left_out_is_told_once(void **state)
{
	struct srdma_log_omission omission;

	(void)state;
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

static void more_kinds_than_places_are_limited_still(void **state)
{
	static char names[200][8];

	(void)state;
	forget();
	for (unsigned i = 0; i < 200; i++) {
		snprintf(names[i], sizeof names[i], "k%u", i);
		assert_int_equal(admitted(names[i], 10), 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_then_so_many_a_second),
		cmocka_unit_test(kinds_do_not_hide_each_other),
		cmocka_unit_test(what_was_left_out_is_told_once),
		cmocka_unit_test(more_kinds_than_places_are_limited_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
