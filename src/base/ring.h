/* SPDX-License-Identifier: Apache-2.0 */
/* The indices of a ring: the entries in use begin with the oldest one. The caller owns the entries themselves. */
#ifndef SRDMA_RING_H
#define SRDMA_RING_H

#include <stdint.h>

struct srdma_ring {
	uint32_t room;  /* entries in all */
	uint32_t first; /* the oldest in use */
	uint32_t count; /* in use */
};

/* The entry `index` places after the oldest one, index <= room. At `count` lies the next free entry. */
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

/* Frees the oldest entry, count > 0. Returns it. */
static inline uint32_t srdma_ring_pop(struct srdma_ring *ring)
{
	uint32_t oldest = ring->first;

	ring->first = srdma_ring_at(ring, 1);
	ring->count--;
	return oldest;
}

#endif
