/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from one thread to another. A lock of its owner's guards the two counters; the bytes between them are the reader's, the others
 * the writer's, so they are copied without the lock. */
#ifndef FILES_RING_H
#define FILES_RING_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define FILES_RING_SIZE ((size_t)1 << 20)

struct files_ring {
	uint8_t *bytes;
	size_t written, read; /* since the start */
};

/* What can be written at once, and where. */
static inline size_t files_ring_room(const struct files_ring *ring, uint8_t **at)
{
	size_t offset = ring->written % FILES_RING_SIZE, room = FILES_RING_SIZE - (ring->written - ring->read);

	*at = ring->bytes + offset;
	return room < FILES_RING_SIZE - offset ? room : FILES_RING_SIZE - offset;
}

/* What can be read at once, and where. */
static inline size_t files_ring_held(const struct files_ring *ring, const uint8_t **at)
{
	size_t offset = ring->read % FILES_RING_SIZE, held = ring->written - ring->read;

	*at = ring->bytes + offset;
	return held < FILES_RING_SIZE - offset ? held : FILES_RING_SIZE - offset;
}

#endif
