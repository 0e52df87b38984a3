/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap for the clock and sched_yield: the test sets how long the thread was away. */
#include "test.h"

#include "clock.h"
#include "yield.h"

static uint64_t now, away;
static unsigned yields;

uint64_t __wrap_srdma_clock_us(void)
{
	return now;
}

int __wrap_sched_yield(void)
{
	yields++;
	now += away;
	return 0;
}

static void polls(struct srdma_yield *yield, unsigned count, uint64_t pause)
{
	for (unsigned i = 0; i < count; i++, now += pause)
		assert_true(srdma_yield(yield, now) == now);
}

TEST(each_poll_gives_way_to_a_peer_that_gives_way_too)
{
	struct srdma_yield yield = {0};

	yields = 0;
	away = 0;
	polls(&yield, 100, 10);
	away = 500;
	polls(&yield, 100, 10);
	assert_int_equal(yields, 200);
}

TEST(program_that_keeps_the_processor_gets_it_only_now_and_then)
{
	struct srdma_yield yield = {0};
	uint64_t began;

	yields = 0;
	away = 3000;
	began = now;
	polls(&yield, 100000, 10);
	/* In all, it was away for 1 to 3 of 100 parts of the time. */
	assert_uint_in_range(yields * away, (now - began) / 100, (now - began) / 100 * 3);
	/* Afterwards it gives way as before. */
	away = 0;
	now += 1000000;
	yields = 0;
	polls(&yield, 100, 10);
	assert_int_equal(yields, 100);
}

RUN_TESTS(NULL, NULL)
