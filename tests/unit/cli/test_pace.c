/* SPDX-License-Identifier: Apache-2.0 */
/* A limit of bytes per second, on a clock that the test turns. */
#include "test.h"

#include "cli.h"
#include "pace.h"

static int64_t now = 1000000;

int64_t cli_now_ms(void)
{
	return now;
}

TEST(no_limit_lets_all_pass_at_once)
{
	struct pace pace = {0};

	assert_int_equal(pace_allow(&pace, 123456789), 123456789);
	assert_int_equal(pace_wait_ms(&pace), 0);
}

/* Sends as much as it may, and waits as long as it is told to. Returns bytes. */
static uint64_t send_for(struct pace *pace, int64_t ms, size_t piece)
{
	int64_t end = now + ms;
	uint64_t sent = 0;

	while (now < end) {
		size_t bytes = pace_allow(pace, piece);

		pace_take(pace, bytes);
		sent += bytes;
		now += bytes == 0 ? pace_wait_ms(pace) : 0;
	}
	return sent;
}

TEST(over_time_as_much_passes_as_the_limit_says)
{
	static const int64_t rates[] = {65536, 1000003, 300000000};
	static const size_t pieces[] = {1 << 20, 1000};

	for (size_t i = 0; i < COUNT(rates); i++)
		for (size_t j = 0; j < COUNT(pieces); j++) {
			struct pace pace = {.rate = rates[i]};
			uint64_t sent = send_for(&pace, 60000, pieces[j]);

			assert_uint_in_range(sent, 60 * (uint64_t)rates[i] * 99 / 100, 60 * (uint64_t)rates[i] * 101 / 100);
		}
}

TEST(a_pause_saves_nothing_up)
{
	struct pace pace = {.rate = 1000000};

	send_for(&pace, 1000, 1000);
	now += 600000;
	assert_uint_in_range(send_for(&pace, 100, 1 << 20), 1, 300000);
}

RUN_TESTS(NULL, NULL)
