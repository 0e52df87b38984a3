/* SPDX-License-Identifier: Apache-2.0 */
#include "yield.h"

#include "clock.h"

#include <sched.h>

/* A peer that polls gives the processor back sooner, even when it opens and seals meanwhile; a time slice is longer. */
#define LONG_US 2000
/* How much longer than it was away a thread keeps the processor after that. */
#define KEPT 64

uint64_t srdma_yield(struct srdma_yield *yield, uint64_t now)
{
	uint64_t back;

	if (now < yield->not_before)
		return now;
	sched_yield();
	back = srdma_clock_us();
	if (back - now >= LONG_US)
		yield->not_before = back + (back - now) * KEPT;
	return back;
}
