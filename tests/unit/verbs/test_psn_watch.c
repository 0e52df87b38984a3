/* SPDX-License-Identifier: Apache-2.0 */
/* The device's counters, in a folder of this test's own. */
#include "test.h"

#include "folder.h"

#include "psn_watch.h"

#include "clock.h"

static void put(const char *counter, unsigned long long value)
{
	char path[256], text[32];

	snprintf(path, sizeof path, "ports/1/hw_counters/%s", counter);
	snprintf(text, sizeof text, "%llu\n", value);
	write_text(path, text);
}

/* As if the time for the next look had come, `ms` after the last one. */
static uint64_t look_after(struct srdma_psn_watch *sweep, unsigned ms, uint64_t *packets)
{
	sweep->looked = srdma_clock_us() - ms * 1000;
	atomic_store(&sweep->next_look, 0);
	return srdma_psn_watch_look(sweep, packets);
}

TEST(device_without_counters_is_not_watched)
{
	struct srdma_psn_watch sweep;
	uint64_t packets;

	srdma_psn_watch_init(&sweep, "/nonexistent", 1);
	assert_int_equal(sweep.fd_count, 0);
	assert_int_equal(srdma_psn_watch_look(&sweep, &packets), 0);
	assert_int_equal(packets, 0);
	srdma_psn_watch_release(&sweep);
}

TEST(many_in_a_second_are_a_sweep_and_few_are_not)
{
	struct srdma_psn_watch sweep;
	uint64_t packets;

	put("out_of_sequence", 1000000);
	put("duplicate_request", 5);
	srdma_psn_watch_init(&sweep, ".", 1);
	assert_int_equal(sweep.fd_count, 2);
	/* The packets counted before the first look are no sweep. */
	assert_int_equal(srdma_psn_watch_look(&sweep, &packets), 0);
	put("out_of_sequence", 1000000 + SRDMA_PSN_WATCH_PACKETS / 4 - 500);
	assert_int_equal(look_after(&sweep, 250, &packets), 0);
	put("duplicate_request", 5 + SRDMA_PSN_WATCH_PACKETS / 2);
	assert_int_equal(look_after(&sweep, 250, &packets), 1);
	assert_uint_in_range(packets, SRDMA_PSN_WATCH_PACKETS, 2 * SRDMA_PSN_WATCH_PACKETS + 100);
	assert_int_equal(look_after(&sweep, 250, &packets), 1);
	assert_int_equal(packets, 0);
	srdma_psn_watch_release(&sweep);
}

TEST(counter_that_goes_back_or_was_long_not_looked_at_is_no_sweep)
{
	struct srdma_psn_watch sweep;
	uint64_t packets;

	put("out_of_sequence", 1000000);
	srdma_psn_watch_init(&sweep, ".", 1);
	srdma_psn_watch_look(&sweep, &packets);
	put("out_of_sequence", 10);
	assert_int_equal(look_after(&sweep, 250, &packets), 0);
	put("out_of_sequence", 1000000000);
	assert_int_equal(look_after(&sweep, 3600000, &packets), 0);
	srdma_psn_watch_release(&sweep);
}

TEST(counters_are_read_now_and_then_alone)
{
	struct srdma_psn_watch sweep;
	uint64_t packets;

	put("out_of_sequence", 0);
	srdma_psn_watch_init(&sweep, ".", 1);
	srdma_psn_watch_look(&sweep, &packets);
	put("out_of_sequence", 1000000000);
	assert_int_equal(srdma_psn_watch_look(&sweep, &packets), 0);
	assert_int_equal(look_after(&sweep, 250, &packets), 1);
	srdma_psn_watch_release(&sweep);
}

RUN_TESTS_EACH(enter_folder, leave_folder)
