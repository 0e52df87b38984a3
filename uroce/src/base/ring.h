/* SPDX-License-Identifier: Apache-2.0 */
/* Rings of slots: positions count up for ever, and a power of two of slots makes a mask of the position. */
#ifndef UROCE_RING_H
#define UROCE_RING_H

#include <stddef.h>
#include <stdint.h>

/* How many slots a ring for `count` things has. */
static inline uint32_t ring_size(uint32_t count)
{
	uint32_t size = 1;
	while (size < count)
		size *= 2;
	return size;
}

static inline void *ring_slot(const void *ring, size_t stride, uint32_t size, uint32_t position)
{
	return (uint8_t *)(uintptr_t)ring + (position & (size - 1)) * stride;
}

#endif
