/* SPDX-License-Identifier: Apache-2.0 */
/* The limit of bytes per second, on a clock that the tests set. */
#include "test.h"

#include "rate.h"

static uint64_t now_us;

uint64_t __wrap_srdma_clock_us(void)
{
	return now_us;
}

TEST(without_a_limit_it_is_always_open)
{
	struct srdma_rate rate = {0};

	now_us = 1000000;
	srdma_rate_take(&rate, UINT64_MAX);
	assert_true(srdma_rate_is_open(&rate));
	assert_int_equal(srdma_rate_left_ms(&rate), -1);
}

TEST(bytes_taken_cost_their_time)
{
	struct srdma_rate rate = {.per_second = 1000000};

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

/* A user that takes whenever the limit allows, in pieces of any length. */
TEST(limit_holds_over_a_while)
{
	static const uint64_t pieces[] = {1, 64, 4096, 131072, 1 << 20};

	for (size_t i = 0; i < COUNT(pieces); i++) {
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

TEST(rest_is_not_saved_up)
{
	struct srdma_rate rate = {.per_second = 1000};

	now_us = 1000000;
	srdma_rate_take(&rate, 1000);
	now_us += 3600000000u;
	srdma_rate_take(&rate, 1000);
	assert_false(srdma_rate_is_open(&rate));
	now_us += 990000;
	assert_true(srdma_rate_is_open(&rate));
}

TEST(empty_pieces_have_a_cost)
{
	struct srdma_rate rate = {.per_second = 6400};

	now_us = 1000000;
	for (unsigned i = 0; i < 100; i++)
		srdma_rate_take(&rate, 0);
	assert_int_equal(srdma_rate_left_ms(&rate), 1000 - 10);
}

TEST(one_piece_never_stops_it_for_more_than_a_minute)
{
	struct srdma_rate rate = {.per_second = 1};

	now_us = 1000000;
	srdma_rate_take(&rate, 1 << 20);
	assert_int_equal(srdma_rate_left_ms(&rate), 60000 - 10);
}

RUN_TESTS(NULL, NULL)
