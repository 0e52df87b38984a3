/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time, and the deadlines that every wait has. */
#ifndef SRDMA_CLOCK_H
#define SRDMA_CLOCK_H

#include <stdint.h>

/* Microseconds on CLOCK_MONOTONIC. */
uint64_t srdma_clock_us(void);

/* A point on that clock, timeout_ms from now. */
uint64_t srdma_deadline(int timeout_ms);

/* Time until `deadline`, rounded up to milliseconds for poll(2); 0 when it has passed. */
int srdma_deadline_left_ms(uint64_t deadline);

#endif
