/* SPDX-License-Identifier: Apache-2.0 */
/* Giving the processor away while a thread polls. Both ends of a connection may share one processor: on a machine with one, or because
 * other programs keep the others busy. A thread that polls there keeps the peer from doing what it waits for, for a whole time slice. */
#ifndef SRDMA_YIELD_H
#define SRDMA_YIELD_H

#include <stdint.h>

struct srdma_yield {
	uint64_t not_before; /* on the clock */
};

/* Lets another thread run on this processor, if there is one. `now` is the time on the clock, and the time afterwards is returned. A
 * thread that only computes keeps the processor for its whole time slice, and would get nearly all of it: after a yield that took
 * long there is none for a while. */
uint64_t srdma_yield(struct srdma_yield *yield, uint64_t now);

#endif
