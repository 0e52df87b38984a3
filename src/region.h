/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: pages of their own, wiped before they go back. */
#ifndef SRDMA_REGION_H
#define SRDMA_REGION_H

#include "securdma.h"

struct srdma_region {
	void *address;
	size_t size;       /* as asked for */
	size_t mapped;     /* whole pages; 0 when the memory is the caller's */
	struct ibv_mr *mr;
};

/* Maps zeroed pages and registers them with `access`. With remote access, the region's remote addresses start at 0, so that
 * no virtual address of this process leaves it. */
int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out);
/* Registers the caller's memory. */
int srdma_region_register(struct ibv_pd *pd, void *memory, size_t size, int access, struct srdma_region *out);
/* Deregisters, wipes and unmaps. A zeroed structure is fine. */
void srdma_region_release(struct srdma_region *region);

#endif
