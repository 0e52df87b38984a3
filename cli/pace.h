/* SPDX-License-Identifier: Apache-2.0 */
/* How many bytes may pass now, so that not more than so many pass in a second. */
#ifndef CLI_PACE_H
#define CLI_PACE_H

#include <stddef.h>
#include <stdint.h>

struct pace {
	int64_t rate; /* bytes per second; 0: no limit */
	int64_t have; /* bytes that may pass */
	int64_t at;   /* when that was so, in milliseconds; 0: never */
};

/* How many of `wanted` bytes may pass; 0: none, wait for pace_wait_ms(). */
size_t pace_allow(struct pace *pace, size_t wanted);
/* They have passed. */
void pace_take(struct pace *pace, size_t bytes);
/* Milliseconds until some may pass; 0: now. */
int pace_wait_ms(struct pace *pace);

#endif
