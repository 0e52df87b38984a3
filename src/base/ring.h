/* SPDX-License-Identifier: Apache-2.0 */
/* Which entries of a ring are in use: so many, from the oldest on. The entries themselves are the caller's. */
#ifndef SRDMA_RING_H
#define SRDMA_RING_H

#include <stdint.h>

struct srdma_ring {
	uint32_t room;  /* entries in all */
	uint32_t first; /* the oldest in use */
	uint32_t count; /* in use */
};

/* The entry that comes `index` after the oldest one, index <= room. At `count` lies the next one to be used. */
static inline uint32_t srdma_ring_at(const struct srdma_ring *ring, uint32_t index)
{
	uint32_t at = ring->first + index;

	/* Cheaper than a division. */
	return at < ring->room ? at : at - ring->room;
}

/* Takes the next entry into use, count < room. Returns it. */
static inline uint32_t srdma_ring_push(struct srdma_ring *ring)
{
	return srdma_ring_at(ring, ring->count++);
}

/* Lets the oldest entry go, count > 0. Returns it. */
static inline uint32_t srdma_ring_pop(struct srdma_ring *ring)
{
	uint32_t oldest = ring->first;

	ring->first = srdma_ring_at(ring, 1);
	ring->count--;
	return oldest;
}

#endif
