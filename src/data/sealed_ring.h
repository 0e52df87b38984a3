/* SPDX-License-Identifier: Apache-2.0 */
/* The places of chunks of ciphertext in a ring: in their order, each in one piece. A chunk that does not fit before the end begins at
 * the start. The code here never touches the memory itself. */
#ifndef SRDMA_SEALED_RING_H
#define SRDMA_SEALED_RING_H

#include <stdbool.h>
#include <stdint.h>

#define SRDMA_SEALED_CHUNK (256u * 1024)
/* Bytes of ciphertext under way in one direction: eight of the longest chunks, or 31 of 64 KiB. */
#define SRDMA_SEALED_RING (SRDMA_SEALED_CHUNK * 8 + 4096)

struct srdma_sealed_ring {
	uint32_t tail, used; /* bytes */
};

/* The distance from the beginning of a chunk of `size` bytes, tag included, to that of the next one. */
uint32_t srdma_sealed_ring_align(uint32_t size);
/* Whether there is room for a chunk of `length` bytes, at most SRDMA_SEALED_CHUNK, and its tag. */
bool srdma_sealed_ring_fits(const struct srdma_sealed_ring *ring, uint32_t length);
/* Takes the place of a chunk that fits. Returns the bytes taken, including those skipped before it; *at: the offset of the chunk.
 * The skipped bytes depend on the lengths alone, so two rings that get the same chunks place them alike. */
uint32_t srdma_sealed_ring_take(struct srdma_sealed_ring *ring, uint32_t length, uint32_t *at);
/* Frees the place of the oldest chunk, which took `taken` bytes. */
void srdma_sealed_ring_free(struct srdma_sealed_ring *ring, uint32_t taken);

#endif
