/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: pages that hold nothing else, wiped before they are unmapped. */
#ifndef SRDMA_REGION_H
#define SRDMA_REGION_H

#include "securdma.h"

struct srdma_region {
	void *address;
	size_t size;       /* as asked for */
	size_t mapped;     /* whole pages; 0: the caller owns the memory */
	struct ibv_mr *mr;   /* NULL: not registered */
	struct ibv_mw *mw;   /* the type 2 window that the peer has, once bound */
	bool windowed;       /* remote access goes only through such a window */
	uint64_t base;       /* where the region begins for the device */
	unsigned rights;     /* the peer's access rights */
};

/* Memory of a program's: in this process, or a part of a dmabuf. */
struct srdma_source {
	void *address;   /* NULL: of the dmabuf */
	int fd;          /* of the dmabuf; else -1 */
	uint64_t offset; /* in the dmabuf */
	size_t length;
};

/* Registers `length` bytes at `offset` of a program's memory. For the device the region begins at `base`, which is the place of its first
 * byte within a page, so the peer learns no more of the address. Errors: -ENOMEM, -EFAULT, -EOPNOTSUPP (a dmabuf), SRDMA_EVERBS. */
int srdma_region_of(struct ibv_pd *pd, const struct srdma_source *source, uint64_t offset, size_t length, int access, struct srdma_region *out);
/* The same for memory that a peer gets, with `rights` for it. `windowed`: through a type 2 window alone (out->windowed), if the device
 * gives the memory one: the kernel gives none to memory that is not writable. */
int srdma_region_grant(struct ibv_pd *pd, const struct srdma_source *source, uint64_t offset, size_t length, unsigned rights, bool windowed,
		       struct srdma_region *out);
/* Maps zeroed pages and registers them with `access`. With remote access, the region's remote addresses start at 0, so that
 * the peer learns no virtual address of this process. */
int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out);
/* Makes the region that a peer gets. With type 2 windows, where the device has them, its rkey works over one queue pair only; otherwise
 * the rkey is that of a memory region and works over every queue pair of the protection domain. */
int srdma_region_offer(const struct srdma_device *device, struct ibv_pd *pd, size_t size, unsigned rights, struct srdma_region *out);
/* Binds a new window to the queue pair, which is in RTS and has nothing posted, and waits for the completion. Does nothing without
 * windows. *rkey is then the peer's key: 0 for a region that is not registered, or was withdrawn. */
int srdma_region_bind(struct srdma_region *region, struct ibv_qp *qp, uint32_t *rkey);
/* Makes a new window and the work request that binds it, for a queue pair that has others posted. The region's rkey is that of the new
 * window, and works when the work request has completed. */
int srdma_region_prepare_bind(struct srdma_region *region, struct ibv_send_wr *wr);
/* The peer's key: 0 for a region that is not registered, or whose window is not there. */
uint32_t srdma_region_rkey(const struct srdma_region *region);
/* Frees the window. Must come before the queue pair is destroyed, since rdma_rxe waits for a window that is bound to it. */
int srdma_region_unbind(struct srdma_region *region);
/* Ends all remote access. */
int srdma_region_withdraw(struct srdma_region *region);
/* Maps pages without registering them. */
int srdma_region_private(size_t size, struct srdma_region *out);
int srdma_region_register(struct ibv_pd *pd, void *memory, size_t size, int access, struct srdma_region *out);
/* Deregisters, wipes and unmaps. A zeroed structure is fine. */
void srdma_region_release(struct srdma_region *region);

#endif
