/* SPDX-License-Identifier: Apache-2.0 */
/* Memory windows: parts of regions that a peer may reach, bound and taken back by work requests.
 *
 * The upper 24 bits of a window's key are the device's choice, for as long as the window lives; each bind chooses the
 * lower 8: ibv_bind_mw() for a type 1 window, the application for a type 2. `ibv.rkey` is the poster's to set: the
 * application reads it without a lock. */
#include "window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "newer.h"
#include "wipe.h"

enum {
	/* IBV_ACCESS_LOCAL_WRITE means nothing for a window, but programs pass a region's flags. */
	WINDOW_ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_ZERO_BASED |
			/* As for a region, not ACCESS_FLUSH_PERSISTENT. FLUSH changes nothing, so the region need not allow it. */
			ACCESS_FLUSH_GLOBAL,
};

static uint8_t *window_at(const struct mw *mw, const struct pd *pd, uint32_t qpn, uint64_t va, uint64_t length, int access)
{
	if (!mw->mr || mw->pd != pd || mw->mr->pd != pd)
		return NULL;
	if (mw->ibv.type == IBV_MW_TYPE_2 && mw->qpn != qpn)
		return NULL;
	if ((mw->access & access) != access)
		return NULL;
	uint64_t base = mw->access & IBV_ACCESS_ZERO_BASED ? 0 : mw->va;
	if (va < base)
		return NULL;
	uint64_t offset = va - base;
	if (offset > mw->length || length > mw->length - offset)
		return NULL;
	return mr_at(mw->mr, mw->va + offset, length);
}

uint8_t *memory_remote(const struct pd *pd, uint32_t qpn, uint32_t rkey, uint64_t va, uint64_t length, int access)
{
	const struct key *key = key_find(pd->device, rkey);
	if (!key || key->kind == KEY_LOCAL)
		return NULL;
	if (key->kind == KEY_WINDOW)
		return window_at(key->owner, pd, qpn, va, length, access);
	const struct mr *mr = key->owner;
	if (mr->pd != pd || (mr->access & access) != access)
		return NULL;
	return mr_at(mr, va, length);
}

static void unbind(struct mw *mw)
{
	if (mw->mr)
		mw->mr->windows--;
	mw->mr = NULL;
	mw->va = 0;
	mw->length = 0;
	mw->access = 0;
	mw->qpn = 0;
}

int window_invalidate(const struct pd *pd, uint32_t qpn, uint32_t rkey, bool remote)
{
	const struct key *key = key_find(pd->device, rkey);
	if (!key || key->kind != KEY_WINDOW)
		return -EACCES;
	struct mw *mw = key->owner;
	if (mw->ibv.type != IBV_MW_TYPE_2 || mw->pd != pd)
		return -EACCES;
	/* The owner of a window may find that the peer was first; rdma_rxe sees no error in that either. */
	if (!mw->mr)
		return remote ? -EACCES : 0;
	if (mw->qpn != qpn)
		return -EACCES;
	unbind(mw);
	return 0;
}

/* Whether the region of a bind allows the bind. */
static int check_region(const struct mw *mw, const struct ibv_mw_bind_info *info)
{
	if (!info->mr || !mr_alive(mw->pd->device, info->mr))
		return -EINVAL;
	const struct mr *mr = (const struct mr *)info->mr;
	if (mr->pd != mw->pd || !(mr->access & IBV_ACCESS_MW_BIND))
		return -EACCES;
	if ((info->mw_access_flags & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) &&
	    !(mr->access & IBV_ACCESS_LOCAL_WRITE))
		return -EACCES;
	return mr_at(mr, info->addr, info->length) ? 0 : -EINVAL;
}

int window_bind(const struct pd *pd, uint32_t qpn, struct mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	/* The window itself may be gone since the bind was posted: its key tells, before the pointer is used. */
	struct key *key = rkey >> 8 == 0 ? NULL : table_find(&pd->device->keys, rkey >> 8);
	if (!key || key->kind != KEY_WINDOW || key->owner != mw)
		return -EINVAL;
	if (mw->pd != pd)
		return -EACCES;
	if (info->mw_access_flags & ~(unsigned)WINDOW_ACCESS)
		return -EINVAL;

	/* Type 2 is taken back by invalidation alone. */
	bool second = mw->ibv.type == IBV_MW_TYPE_2;
	if (second && (mw->mr || info->length == 0))
		return -EINVAL;
	if (info->length != 0) {
		int error = check_region(mw, info);
		if (error != 0)
			return error;
	}

	unbind(mw);
	key->value = rkey;
	if (info->length == 0)
		return 0;
	mw->mr = (struct mr *)info->mr;
	mw->mr->windows++;
	mw->va = info->addr;
	mw->length = info->length;
	mw->access = (int)info->mw_access_flags;
	mw->qpn = second ? qpn : 0;
	return 0;
}

struct ibv_mw *mw_alloc(struct ibv_pd *ibv_pd, enum ibv_mw_type type)
{
	struct pd *pd = pd_of(ibv_pd);
	if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2) {
		errno = EINVAL;
		return NULL;
	}
	struct mw *mw = calloc(1, sizeof *mw);
	if (!mw)
		return NULL;
	mw->ibv.context = ibv_pd->context;
	mw->ibv.pd = ibv_pd;
	mw->ibv.type = type;
	mw->pd = pd;

	device_lock(pd->device);
	int error = key_make(pd->device, &mw->key, KEY_WINDOW, mw);
	mw->ibv.rkey = mw->key.value;
	mw->index = mw->key.value >> 8;
	device_unlock(pd->device);
	if (error != 0) {
		free(mw);
		errno = -error;
		return NULL;
	}
	atomic_fetch_add(&pd->uses, 1);
	context_count(context_of(ibv_pd->context), &pd->device->counters->objects.mw, 1);
	return &mw->ibv;
}

int mw_dealloc(struct ibv_mw *ibv_mw)
{
	struct mw *mw = (struct mw *)ibv_mw;
	struct pd *pd = mw->pd;

	device_lock(pd->device);
	unbind(mw);
	key_drop(pd->device, &mw->key);
	device_unlock(pd->device);

	atomic_fetch_sub(&pd->uses, 1);
	context_count(context_of(ibv_mw->context), &pd->device->counters->objects.mw, -1);
	wipe_free(mw, sizeof *mw);
	return 0;
}
