/* SPDX-License-Identifier: Apache-2.0 */
/* How often something may happen: so many times a second, and as many in one burst. */
#ifndef AGENT_ALLOWANCE_H
#define AGENT_ALLOWANCE_H

#include "clock.h"

#include <stdbool.h>
#include <stdint.h>

struct allowance {
	double left; /* times, as of `at` */
	uint64_t at; /* on the clock */
};

static inline void allowance_init(struct allowance *allowance, unsigned rate)
{
	*allowance = (struct allowance){.left = rate, .at = srdma_clock_us()};
}

/* Whether it may happen now. */
static inline bool allowance_has(struct allowance *allowance, unsigned rate)
{
	uint64_t now = srdma_clock_us();

	allowance->left += (double)(now - allowance->at) * rate / 1e6;
	allowance->at = now;
	if (allowance->left > rate)
		allowance->left = rate;
	return allowance->left >= 1;
}

/* The same, and it happens. */
static inline bool allowance_take(struct allowance *allowance, unsigned rate)
{
	bool has = allowance_has(allowance, rate);

	allowance->left -= has;
	return has;
}

#endif
