/* SPDX-License-Identifier: Apache-2.0 */
/* ibv_advise_mr: memory that is registered on demand is faulted in before it is needed. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* Where the entry's memory is. 0 or a positive errno, as ibv_advise_mr(3) says. Lock held. */
static int resolve(const struct pd *pd, const struct ibv_sge *sge, bool write, uint8_t **at)
{
	const struct key *key = key_find(pd->device, sge->lkey);
	if (!key || key->kind != KEY_LOCAL)
		return ENOENT;
	const struct mr *mr = key->owner;
	if (mr->pd != pd || (write && !(mr->access & IBV_ACCESS_LOCAL_WRITE)))
		return EPERM;
	if (!(mr->access & IBV_ACCESS_ON_DEMAND))
		return EINVAL;
	*at = mr_at(mr, sge->addr, sge->length);
	return *at ? 0 : EFAULT;
}

/* Kernels before 5.14 do not know the advice: then the pages come when they are needed. */
static int populate(uint8_t *at, size_t length, bool write)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = (uintptr_t)at & ~(page - 1);
	size_t bytes = ((uintptr_t)at + length - begin + page - 1) & ~(page - 1);
	int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

	if (length == 0 || madvise((void *)begin, bytes, advice) == 0)
		return 0;
	if (errno == EINVAL && madvise((void *)begin, 0, advice) != 0)
		return 0;
	return EFAULT;
}

static int advise(struct ibv_pd *ibv_pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *list, uint32_t count)
{
	struct pd *pd = pd_of(ibv_pd);
	bool write = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;

	if (!write && advice != IBV_ADVISE_MR_ADVICE_PREFETCH && advice != IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT)
		return ENOTSUP;
	if ((flags & ~(uint32_t)IBV_ADVISE_MR_FLAG_FLUSH) || count == 0)
		return EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *at = NULL;
		device_lock(pd->device);
		int error = resolve(pd, &list[i], write, &at);
		device_unlock(pd->device);
		/* Without FLUSH the caller does not wait, and so does not learn what becomes of it. */
		if (error == 0 && advice != IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT &&
		    populate(at, list[i].length, write) != 0 && (flags & IBV_ADVISE_MR_FLAG_FLUSH))
			error = EFAULT;
		if (error != 0)
			return error;
	}
	return 0;
}

int mr_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *list, uint32_t count)
{
	int error = advise(pd, advice, flags, list, count);
	if (error != 0)
		errno = error;
	return error;
}
