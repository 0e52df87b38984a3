/* SPDX-License-Identifier: Apache-2.0 */
/* Times in fixed buckets. */
#ifndef SRDMA_HISTOGRAM_H
#define SRDMA_HISTOGRAM_H

#include "securdma_server.h"

#define SRDMA_HISTOGRAM_BUCKETS 17

/* The internal form of a struct srdma_histogram. */
struct srdma_buckets {
	uint64_t counts[SRDMA_HISTOGRAM_BUCKETS];
	uint64_t sum_us;
};

void srdma_histogram_add(struct srdma_buckets *buckets, uint64_t us);

#endif
