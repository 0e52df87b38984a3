/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_ring.h"

#include "seal.h"

#define ALIGN 64u /* a cache line: no two chunks share one */

uint32_t srdma_sealed_ring_align(uint32_t size)
{
	return (size + ALIGN - 1) / ALIGN * ALIGN;
}

static uint32_t size_of(uint32_t length)
{
	return srdma_sealed_ring_align(length + SRDMA_SEAL_OVERHEAD);
}

/* Bytes at the end of the ring that a chunk of this size skips. */
static uint32_t left_out(const struct srdma_sealed_ring *ring, uint32_t size)
{
	uint32_t to_end = SRDMA_SEALED_RING - ring->tail;

	return size <= to_end ? 0 : to_end;
}

bool srdma_sealed_ring_fits(const struct srdma_sealed_ring *ring, uint32_t length)
{
	uint32_t size = size_of(length);

	return ring->used + left_out(ring, size) + size <= SRDMA_SEALED_RING;
}

uint32_t srdma_sealed_ring_take(struct srdma_sealed_ring *ring, uint32_t length, uint32_t *at)
{
	uint32_t size = size_of(length), before = left_out(ring, size);

	*at = (ring->tail + before) % SRDMA_SEALED_RING;
	ring->tail = *at + size;
	ring->used += before + size;
	return before + size;
}

void srdma_sealed_ring_free(struct srdma_sealed_ring *ring, uint32_t taken)
{
	ring->used -= taken;
}
