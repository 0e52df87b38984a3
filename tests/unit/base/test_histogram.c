/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "histogram.h"
#include "metrics.h"

static uint64_t total(const struct srdma_buckets *histogram)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < SRDMA_HISTOGRAM_BUCKETS; i++)
		sum += histogram->counts[i];
	return sum;
}

TEST(bounds_rise_from_100_us_to_10_s_and_the_last_bucket_has_none)
{
	assert_int_equal(srdma_histogram_bound(0), 100);
	assert_int_equal(srdma_histogram_bound(SRDMA_HISTOGRAM_BUCKETS - 2), 10000000);
	assert_true(srdma_histogram_bound(SRDMA_HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
	assert_true(srdma_histogram_bound(UINT32_MAX) == UINT64_MAX);
	for (unsigned i = 1; i < SRDMA_HISTOGRAM_BUCKETS; i++)
		assert_true(srdma_histogram_bound(i) > srdma_histogram_bound(i - 1));
}

TEST(bound_belongs_to_its_bucket_and_one_more_to_the_next)
{
	for (unsigned i = 0; i < SRDMA_HISTOGRAM_BUCKETS - 1; i++) {
		struct srdma_buckets histogram = {0};

		srdma_histogram_add(&histogram, srdma_histogram_bound(i));
		assert_int_equal(histogram.counts[i], 1);
		srdma_histogram_add(&histogram, srdma_histogram_bound(i) + 1);
		assert_int_equal(histogram.counts[i + 1], 1);
		assert_int_equal(total(&histogram), 2);
		assert_int_equal(histogram.sum_us, 2 * srdma_histogram_bound(i) + 1);
	}
}

TEST(extremes_have_a_bucket)
{
	struct srdma_buckets histogram = {0};

	srdma_histogram_add(&histogram, 0);
	assert_int_equal(histogram.counts[0], 1);
	assert_int_equal(histogram.sum_us, 0);
	srdma_histogram_add(&histogram, UINT64_MAX);
	assert_int_equal(histogram.counts[SRDMA_HISTOGRAM_BUCKETS - 1], 1);
	assert_int_equal(total(&histogram), 2);
}

TEST(every_value_is_in_exactly_one_bucket)
{
	struct srdma_buckets histogram = {0};
	uint64_t sum = 0, count = 0;

	for (uint64_t us = 1; us < 100000000; us = us * 3 / 2 + 1, count++) {
		srdma_histogram_add(&histogram, us);
		sum += us;
	}
	assert_int_equal(total(&histogram), count);
	assert_int_equal(histogram.sum_us, sum);
}

TEST(every_label_has_a_word_of_its_own)
{
	for (int i = 0; i < SRDMA_SETUP_FAILURES; i++)
		for (int j = 0; j < i; j++)
			assert_string_not_equal(srdma_setup_failure_name((enum srdma_setup_failure)i),
						srdma_setup_failure_name((enum srdma_setup_failure)j));
	for (int i = 0; i < SRDMA_CLIENT_ENDS; i++)
		for (int j = 0; j < i; j++)
			assert_string_not_equal(srdma_client_end_name((enum srdma_client_end)i),
						srdma_client_end_name((enum srdma_client_end)j));
	for (int i = 0; i < SRDMA_SETUP_PHASES; i++)
		assert_non_null(srdma_setup_phase_name((enum srdma_setup_phase)i));
	assert_null(srdma_setup_failure_name(SRDMA_SETUP_FAILURES));
	assert_null(srdma_client_end_name(SRDMA_CLIENT_ENDS));
	assert_null(srdma_setup_phase_name(SRDMA_SETUP_PHASES));
}

TEST(errors_are_counted_as_what_they_are)
{
	assert_int_equal(srdma_setup_failure_of(SRDMA_ECERT), SRDMA_SETUP_CERTIFICATE);
	assert_int_equal(srdma_setup_failure_of(-ETIMEDOUT), SRDMA_SETUP_TIMEOUT);
	assert_int_equal(srdma_setup_failure_of(-ECANCELED), SRDMA_SETUP_OTHER);
	assert_int_equal(srdma_client_end_of(0, false), SRDMA_END_IN_ORDER);
	assert_int_equal(srdma_client_end_of(SRDMA_ELOST, true), SRDMA_END_LOST);
	/* A program's handler may return any value. */
	assert_int_equal(srdma_client_end_of(-EMSGSIZE, false), SRDMA_END_SERVER);
	assert_int_equal(srdma_client_end_of(42, false), SRDMA_END_SERVER);
	assert_int_equal(srdma_client_end_of(-EMSGSIZE, true), SRDMA_END_OTHER);
}

RUN_TESTS(NULL, NULL)
