/* SPDX-License-Identifier: Apache-2.0 */
/* Measured times, all kept, so that percentiles are exact. */
#ifndef CLI_SAMPLES_H
#define CLI_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
	uint64_t *values; /* nanoseconds */
	size_t count, room;
};

/* Makes room for `room` samples; those beyond it are not kept. Errors: -ENOMEM. */
int samples_init(struct samples *samples, size_t room);
void samples_free(struct samples *samples);
void samples_add(struct samples *samples, uint64_t nanoseconds);

/* The smallest sample that at least `percent` of them do not exceed, in microseconds; 0 when there are none.
 * Sorts the samples. */
double samples_percentile(struct samples *samples, unsigned percent);

/* Monotonic time in nanoseconds. */
uint64_t samples_now(void);

#endif
