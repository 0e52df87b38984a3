/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks, and timers of a device: a binary heap by deadline. All under the device's lock. */
#ifndef UROCE_TIMER_H
#define UROCE_TIMER_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Nanoseconds of a clock. */
static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

enum { DEVICE_TIMERS = 2 }; /* of a device, besides those of its queue pairs: of gsi.c and cm.c */

struct timer {
	uint64_t deadline; /* nanoseconds of CLOCK_MONOTONIC */
	size_t place;      /* in the heap, from 1; 0 when not set */
	void (*fire)(struct timer *timer);
};

struct timers {
	struct timer **heap; /* from 1 */
	size_t count;
	size_t room; /* timers that fit: made by timers_reserve */
};

/* Makes room for one more timer, so that timer_set never fails. 0 or -ENOMEM. `count` timers exist in all. */
int timers_reserve(struct timers *timers, size_t count);
void timers_clear(struct timers *timers);

/* Sets or moves. */
void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline);
void timer_cancel(struct timers *timers, struct timer *timer);
/* UINT64_MAX when none is set. */
uint64_t timers_next(const struct timers *timers);
/* Fires all that are due; each is unset before its function is called. */
void timers_run(struct timers *timers, uint64_t now);

#endif
