/* SPDX-License-Identifier: Apache-2.0 */
/* The limit of bytes per second, on a clock that the tests set. */
#include "rate.h"
#include "range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t now_us;

uint64_t __wrap_srdma_clock_us(void);

uint64_t __wrap_srdma_clock_us(void)
{
	return now_us;
}

static void without_a_limit_it_is_always_open(void **state)
{
	struct srdma_rate rate = {0};

	(void)state;
	now_us = 1000000;
	srdma_rate_take(&rate, UINT64_MAX);
	assert_true(srdma_rate_is_open(&rate));
	assert_int_equal(srdma_rate_left_ms(&rate), -1);
}

static void what_was_taken_has_its_time(void **state)
{
	struct srdma_rate rate = {.per_second = 1000000};

	(void)state;
	now_us = 5000000;
	assert_true(srdma_rate_is_open(&rate));
	srdma_rate_take(&rate, 110000); /* 110 ms, of which 10 may be ahead */
	assert_false(srdma_rate_is_open(&rate));
	assert_int_equal(srdma_rate_left_ms(&rate), 100);
	now_us += 99999;
	assert_false(srdma_rate_is_open(&rate));
	assert_int_equal(srdma_rate_left_ms(&rate), 1);
	now_us += 1;
	assert_true(srdma_rate_is_open(&rate));
	assert_int_equal(srdma_rate_left_ms(&rate), 0);
}

/* Whoever takes whenever it may, in pieces of any length. */
static void taken_over_a_while(void **state)
{
	static const uint64_t pieces[] = {1, 64, 4096, 131072, 1 << 20};

	(void)state;
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		struct srdma_rate rate = {.per_second = 50000000};
		uint64_t taken = 0, duration = pieces[i] < 64 ? 200 : 2000; /* one byte at a time is a lot of work */

		for (uint64_t ms = 0; ms < duration; ms++) {
			now_us = 1000000 + ms * 1000;
			for (unsigned n = 0; n < 100000 && srdma_rate_is_open(&rate); n++) {
				srdma_rate_take(&rate, pieces[i]);
				taken += pieces[i];
			}
		}
		assert_uint_in_range(taken, pieces[i] < 64 ? 0 : 99000000, duration * 50000 + 500000 + pieces[i] + 50000);
	}
}

static void rest_is_not_saved_up(void **state)
{
	struct srdma_rate rate = {.per_second = 1000};

	(void)state;
	now_us = 1000000;
	srdma_rate_take(&rate, 1000);
	now_us += 3600000000u;
	srdma_rate_take(&rate, 1000);
	assert_false(srdma_rate_is_open(&rate));
	now_us += 990000;
	assert_true(srdma_rate_is_open(&rate));
}

static void empty_pieces_have_a_cost(void **state)
{
	struct srdma_rate rate = {.per_second = 6400};

	(void)state;
	now_us = 1000000;
	for (unsigned i = 0; i < 100; i++)
		srdma_rate_take(&rate, 0);
	assert_int_equal(srdma_rate_left_ms(&rate), 1000 - 10);
}

static void one_piece_never_stops_it_for_more_than_a_minute(void **state)
{
	struct srdma_rate rate = {.per_second = 1};

	(void)state;
	now_us = 1000000;
	srdma_rate_take(&rate, 1 << 20);
	assert_int_equal(srdma_rate_left_ms(&rate), 60000 - 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_limit_it_is_always_open),
		cmocka_unit_test(what_was_taken_has_its_time),
		cmocka_unit_test(taken_over_a_while),
		cmocka_unit_test(rest_is_not_saved_up),
		cmocka_unit_test(empty_pieces_have_a_cost),
		cmocka_unit_test(one_piece_never_stops_it_for_more_than_a_minute),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
