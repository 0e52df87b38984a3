/* SPDX-License-Identifier: Apache-2.0 */
/* Memory windows, and remote access: through a region or a window. */
#ifndef UROCE_WINDOW_H
#define UROCE_WINDOW_H

#include "memory.h"

struct mw {
	struct ibv_mw ibv;
	struct pd *pd;
	struct key key;
	uint32_t index; /* the upper 24 bits of the key: read without a lock */
	struct mr *mr; /* NULL: not bound */
	uint64_t va;
	uint64_t length;
	int access;
	uint32_t qpn; /* type 2: the queue pair it was bound through */
};

/* All three with the device's lock held, for a queue pair of `pd`; its `qpn` decides about type 2 windows. */

/* The memory that a packet asks for. `access`: IBV_ACCESS_REMOTE_WRITE, _READ or _ATOMIC. The pointer is good until the lock is
 * released. NULL: key, PD, rights or bounds. */
uint8_t *memory_remote(const struct pd *pd, uint32_t qpn, uint32_t rkey, uint64_t va, uint64_t length, int access);
/* IBV_WR_LOCAL_INV and send with invalidate: a type 2 window. 0 or -EACCES. */
int window_invalidate(const struct pd *pd, uint32_t qpn, uint32_t rkey, bool remote);
/* IBV_WR_BIND_MW. 0 or a negative errno. */
int window_bind(const struct pd *pd, uint32_t qpn, struct mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info);

/* The verbs. */
struct ibv_mw *mw_alloc(struct ibv_pd *pd, enum ibv_mw_type type);
int mw_dealloc(struct ibv_mw *mw);

#endif
