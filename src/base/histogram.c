/* SPDX-License-Identifier: Apache-2.0 */
#include "histogram.h"

/* 1, 2.5 and 5 of each power of ten: from a set-up's queue pair on good hardware to the default set-up time-out. */
static const uint64_t bounds[SRDMA_HISTOGRAM_BUCKETS - 1] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
};

uint64_t srdma_histogram_bound(unsigned bucket)
{
	return bucket < SRDMA_HISTOGRAM_BUCKETS - 1 ? bounds[bucket] : UINT64_MAX;
}

void srdma_histogram_add(struct srdma_buckets *buckets, uint64_t us)
{
	unsigned bucket = 0;

	while (us > srdma_histogram_bound(bucket))
		bucket++;
	buckets->counts[bucket]++;
	buckets->sum_us += us;
}
