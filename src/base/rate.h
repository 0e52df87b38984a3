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

/* Something may be taken, whatever its length: over any time it comes to per_second and one such piece, plus 10 ms' worth. */
bool srdma_rate_is_open(const struct srdma_rate *rate);
void srdma_rate_take(struct srdma_rate *rate, uint64_t bytes);
/* Until it is open, rounded up to milliseconds for poll(2); 0: it is; -1: there is no limit. */
int srdma_rate_left_ms(const struct srdma_rate *rate);

#endif
