/* SPDX-License-Identifier: Apache-2.0 */
/* Protection domains, keys and memory regions. */
#ifndef UROCE_MEMORY_H
#define UROCE_MEMORY_H

#include "context.h"
#include "dmabuf.h"

struct pd {
	struct ibv_pd ibv;
	struct device *device;
	atomic_uint uses; /* MRs, MWs, QPs, SRQs, AHs: dealloc fails with EBUSY while there are any */
};

/* A key. The upper 24 bits find it in device->keys, all 32 must agree. Random, and never the same for
 * local and remote use: an lkey is worth nothing to a peer. */
struct key {
	uint32_t value;
	enum key_kind { KEY_LOCAL, KEY_REMOTE, KEY_WINDOW } kind;
	void *owner; /* struct mr or struct mw */
};

struct mr {
	struct ibv_mr ibv;
	struct pd *pd;
	struct key local;
	struct key remote;
	uint64_t iova;   /* the first address, for local and remote use */
	uint8_t *memory; /* which lies here */
	size_t length;
	int access;
	unsigned windows; /* bound to it: dereg fails with EBUSY */
	struct dmabuf dmabuf; /* where `memory` lies, if that is a DMA buffer */
	struct mr *same;  /* another whose address folds to the same number: mr_alive() */
};

/* All these with the device's lock held. A pointer into memory is good until the lock is released. */

/* Local memory of a scatter/gather entry. `access`: 0 or IBV_ACCESS_LOCAL_WRITE. NULL: key, PD, rights or bounds. */
uint8_t *memory_local(const struct pd *pd, uint32_t lkey, uint64_t va, uint64_t length, int access);

/* The key of that value, or NULL. */
struct key *key_find(const struct device *device, uint32_t value);
/* Draws a value and enters it. 0, -ENOMEM, -EIO. */
int key_make(struct device *device, struct key *key, enum key_kind kind, void *owner);
/* Takes it out and wipes it. Nothing happens when it was never made. */
void key_drop(struct device *device, struct key *key);
/* Whether this is a region that is registered: a work request may name one that is gone since. */
bool mr_alive(const struct device *device, const struct ibv_mr *mr);
/* Where [va, va + length) of a region is; NULL: out of bounds. */
uint8_t *mr_at(const struct mr *mr, uint64_t va, uint64_t length);

/* The verbs. */
struct ibv_pd *pd_alloc(struct ibv_context *context);
int pd_dealloc(struct ibv_pd *pd);
struct ibv_mr *mr_reg(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access);
struct ibv_mr *mr_reg_dmabuf(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access);
int mr_rereg(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access);
int mr_dereg(struct ibv_mr *mr);
/* ibv_advise_mr: 0 or a positive errno. advise.c. */
int mr_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *list, uint32_t count);

static inline struct pd *pd_of(struct ibv_pd *pd)
{
	return (struct pd *)pd;
}

#endif
