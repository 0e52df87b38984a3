/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

int samples_init(struct samples *samples, size_t room)
{
	*samples = (struct samples){.values = calloc(room ? room : 1, sizeof *samples->values), .room = room};
	return samples->values ? 0 : -ENOMEM;
}

void samples_free(struct samples *samples)
{
	free(samples->values);
	*samples = (struct samples){0};
}

void samples_add(struct samples *samples, uint64_t nanoseconds)
{
	if (samples->count < samples->room)
		samples->values[samples->count++] = nanoseconds;
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

double samples_percentile(struct samples *samples, unsigned percent)
{
	size_t rank;

	if (samples->count == 0)
		return 0;
	qsort(samples->values, samples->count, sizeof *samples->values, compare);
	rank = (samples->count * percent + 99) / 100;
	return (double)samples->values[rank ? rank - 1 : 0] / 1000;
}

uint64_t samples_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
