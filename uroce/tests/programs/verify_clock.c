/* SPDX-License-Identifier: Apache-2.0 */
/* The time that a step may take. */
#include <time.h>

#include "verify.h"

unsigned deadline_seconds = 60;
static uint64_t deadline;

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void deadline_start(void)
{
	deadline = now_ns() + deadline_seconds * UINT64_C(1000000000);
}

int deadline_left(void)
{
	uint64_t now = now_ns();

	return now >= deadline ? 0 : (int)((deadline - now) / 1000000) + 1;
}
