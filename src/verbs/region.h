/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: pages of their own, wiped before they go back. */
#ifndef SRDMA_REGION_H
#define SRDMA_REGION_H

#include "securdma.h"

struct srdma_region {
	void *address;
	size_t size;       /* as asked for */
	size_t mapped;     /* whole pages; 0 when the memory is the caller's */
	struct ibv_mr *mr;   /* NULL: not registered */
	struct ibv_mw *mw;   /* the type 2 window that the peer has, once bound */
	bool windowed;       /* remote access goes through such a window alone */
	unsigned rights;     /* of the peer */
};

/* Maps zeroed pages and registers them with `access`. With remote access, the region's remote addresses start at 0, so that
 * no virtual address of this process leaves it. */
int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out);
/* The region that a peer gets: with type 2 windows, where the device has them, its rkey works from one queue pair alone; else it is
 * that of a memory region of the protection domain. */
int srdma_region_offer(const struct srdma_device *device, struct ibv_pd *pd, size_t size, unsigned rights,
		       struct srdma_region *out);
/* Binds the window, a new one each time, to the queue pair, which is in RTS and has nothing posted, and waits for that. Nothing to do
 * without windows. *rkey is then the peer's key: 0 for a region that is not registered, or was withdrawn. */
int srdma_region_bind(struct srdma_region *region, struct ibv_qp *qp, uint32_t *rkey);
/* Frees the window. Before the queue pair goes: rdma_rxe waits for a window that is bound to it. */
int srdma_region_unbind(struct srdma_region *region);
/* No remote access from now on. */
int srdma_region_withdraw(struct srdma_region *region);
/* Pages that no device knows. */
int srdma_region_private(size_t size, struct srdma_region *out);
/* Registers the caller's memory. */
int srdma_region_register(struct ibv_pd *pd, void *memory, size_t size, int access, struct srdma_region *out);
/* Deregisters, wipes and unmaps. A zeroed structure is fine. */
void srdma_region_release(struct srdma_region *region);

#endif
