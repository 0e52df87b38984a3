/* SPDX-License-Identifier: Apache-2.0 */
/* Where chunks of ciphertext lie in a ring: in their order, each in one piece. One that does not fit before the end begins at the
 * start. Knows nothing of the memory itself. */
#ifndef SRDMA_SEALED_RING_H
#define SRDMA_SEALED_RING_H

#include <stdbool.h>
#include <stdint.h>

#define SRDMA_SEALED_CHUNK (256u * 1024)
/* Of ciphertext under way in one direction: eight of the longest chunks, or 31 of 64 KiB. */
#define SRDMA_SEALED_RING (SRDMA_SEALED_CHUNK * 8 + 4096)

struct srdma_sealed_ring {
	uint32_t tail, used; /* bytes */
};

/* Where the next chunk begins after `size` bytes from the beginning of one, of ciphertext and tags, if it is not left out at the end. */
uint32_t srdma_sealed_ring_align(uint32_t size);
/* Whether there is room for a chunk of `length` bytes, at most SRDMA_SEALED_CHUNK, and its tag. */
bool srdma_sealed_ring_fits(const struct srdma_sealed_ring *ring, uint32_t length);
/* Takes the place for one that fits. Returns the bytes that it takes, with those before it that are left out; *at: where it lies.
 * What is left out depends on the lengths alone: two rings that are given the same chunks place them alike. */
uint32_t srdma_sealed_ring_take(struct srdma_sealed_ring *ring, uint32_t length, uint32_t *at);
/* The oldest chunk goes, which took `taken` bytes. */
void srdma_sealed_ring_free(struct srdma_sealed_ring *ring, uint32_t taken);

#endif
