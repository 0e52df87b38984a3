/* SPDX-License-Identifier: Apache-2.0 */
/* A limit of bytes per second, without a timer: the bytes taken so far decide when more may be taken. */
#ifndef SRDMA_RATE_H
#define SRDMA_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct srdma_rate {
	uint64_t per_second; /* bytes; 0: no limit */
	uint64_t paid_until; /* nanoseconds on the clock */
};

/* Whether a piece of any length may be taken. In any period the total stays below per_second, one such piece and 10 ms' worth. */
bool srdma_rate_is_open(const struct srdma_rate *rate);
/* Counts a piece of `bytes`, and one of less than 64 bytes as 64. */
void srdma_rate_take(struct srdma_rate *rate, uint64_t bytes);
/* The time until it is open, rounded up to milliseconds for poll(2); 0: it is open; -1: there is no limit. */
int srdma_rate_left_ms(const struct srdma_rate *rate);

#endif
