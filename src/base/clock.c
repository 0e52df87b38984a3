/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"

#include <limits.h>
#include <time.h>

uint64_t srdma_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t srdma_deadline(int timeout_ms)
{
	return srdma_clock_us() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000;
}

int srdma_deadline_left_ms(uint64_t deadline)
{
	uint64_t now = srdma_clock_us();

	if (now >= deadline)
		return 0;
	uint64_t left = (deadline - now + 999) / 1000;
	return left > INT_MAX ? INT_MAX : (int)left;
}
