/* SPDX-License-Identifier: Apache-2.0 */
/* Protection domains, memory regions, and the keys that lead to memory.
 *
 * Nothing is pinned: the device is this process, and copies through the application's own mapping. A region should be
 * mapped for as long as it is registered, as the verbs demand; an access of one that is not fails (guard.h). So
 * IBV_ACCESS_ON_DEMAND is what all regions are anyhow; with it, the memory need not be there yet when it is registered, and a
 * region may be the whole address space. */
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "mapping.h"
#include "newer.h"
#include "random.h"
#include "wipe.h"

enum {
	MAX_KEYS = 3 * MAX_MR + MAX_MW, /* entries of the table: a region has two keys and its address */
	KEY_TRIES = 64, /* at most a fifth of the numbers is taken: that none is found does not happen */
	MR_ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
		    IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_ON_DEMAND |
		    IBV_ACCESS_HUGETLB |
		    /* Not ACCESS_FLUSH_PERSISTENT: nothing tells that memory is persistent. */
		    ACCESS_FLUSH_GLOBAL,
	/* What the kernel lets a program ask for. */
	DMABUF_ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
			IBV_ACCESS_RELAXED_ORDERING,
};

/* ---- keys ---- */

struct key *key_find(const struct device *device, uint32_t value)
{
	if (value >> 8 == 0)
		return NULL;
	struct key *key = table_find(&device->keys, value >> 8);
	return key && key->value == value ? key : NULL;
}

int key_make(struct device *device, struct key *key, enum key_kind kind, void *owner)
{
	if (device->keys.count >= MAX_KEYS)
		return -ENOMEM;
	for (unsigned i = 0; i < KEY_TRIES; i++) {
		uint32_t value;
		int error = random_u32(&value);
		if (error != 0)
			return error;
		if (value >> 8 == 0)
			continue;
		*key = (struct key){.value = value, .kind = kind, .owner = owner};
		error = table_add(&device->keys, value >> 8, key);
		if (error != -EEXIST) {
			if (error != 0)
				key->value = 0;
			return error;
		}
	}
	key->value = 0;
	return -ENOMEM;
}

void key_drop(struct device *device, struct key *key)
{
	if (key->value != 0)
		table_remove(&device->keys, key->value >> 8);
	explicit_bzero(key, sizeof *key);
}

/* ---- which regions there are ----
 *
 * A bind names its region by pointer, and may be executed when the region is gone. So the regions are in the same table
 * by their address too, folded to a number that no key's 24 bits reach. */

static uint32_t address_number(const void *mr)
{
	return 1u << 31 | (uint32_t)((uintptr_t)mr >> 4);
}

static int mr_list(struct device *device, struct mr *mr)
{
	struct mr *first = table_find(&device->keys, address_number(mr));
	if (!first)
		return table_add(&device->keys, address_number(mr), mr);
	mr->same = first->same;
	first->same = mr;
	return 0;
}

static void mr_unlist(struct device *device, struct mr *mr)
{
	uint32_t number = address_number(mr);
	struct mr *first = table_find(&device->keys, number);
	if (first != mr) {
		while (first->same != mr)
			first = first->same;
		first->same = mr->same;
		return;
	}
	table_remove(&device->keys, number);
	/* If there is no memory for it, binds to these regions fail; nothing else. */
	if (mr->same && table_add(&device->keys, number, mr->same) != 0)
		log_write(LOG_WARN, "out of memory: memory windows cannot be bound to some regions");
}

bool mr_alive(const struct device *device, const struct ibv_mr *mr)
{
	const struct mr *at = table_find(&device->keys, address_number(mr));
	while (at && &at->ibv != mr)
		at = at->same;
	return at;
}

/* ---- resolving ---- */

uint8_t *mr_at(const struct mr *mr, uint64_t va, uint64_t length)
{
	if (va < mr->iova)
		return NULL;
	uint64_t offset = va - mr->iova;
	if (offset > mr->length || length > mr->length - offset)
		return NULL;
	/* As a number: a region of the whole address space begins at NULL. */
	return (uint8_t *)((uintptr_t)mr->memory + offset);
}

uint8_t *memory_local(const struct pd *pd, uint32_t lkey, uint64_t va, uint64_t length, int access)
{
	const struct key *key = key_find(pd->device, lkey);
	if (!key || key->kind != KEY_LOCAL)
		return NULL;
	const struct mr *mr = key->owner;
	if (mr->pd != pd || (mr->access & access) != access)
		return NULL;
	return mr_at(mr, va, length);
}

/* ---- protection domains ---- */

struct ibv_pd *pd_alloc(struct ibv_context *ibv_context)
{
	struct context *context = context_of(ibv_context);
	struct pd *pd = calloc(1, sizeof *pd);
	if (!pd)
		return NULL;
	pd->ibv.context = ibv_context;
	pd->device = context->device;
	context_count(context, &pd->device->counters->objects.pd, 1);
	return &pd->ibv;
}

int pd_dealloc(struct ibv_pd *ibv_pd)
{
	struct pd *pd = pd_of(ibv_pd);
	if (atomic_load(&pd->uses) != 0)
		return EBUSY;
	context_count(context_of(ibv_pd->context), &pd->device->counters->objects.pd, -1);
	free(pd);
	return 0;
}

/* ---- memory regions ---- */

/* Without the optional range, which a device may ignore by definition. */
static int relevant(int access)
{
	return (int)((unsigned)access & ~(unsigned)IBV_ACCESS_OPTIONAL_RANGE);
}

static int check_access(int access)
{
	if (relevant(access) & ~MR_ACCESS)
		return -EINVAL;
	if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) && !(access & IBV_ACCESS_LOCAL_WRITE))
		return -EINVAL;
	return 0;
}

/* Zero bytes are allowed anywhere, and lead nowhere. */
static int check_range(const void *addr, size_t length, uint64_t iova, int access)
{
	uint64_t end;
	if (__builtin_add_overflow((uintptr_t)addr, length, &end) || __builtin_add_overflow(iova, length, &end))
		return -EINVAL;
	return access & IBV_ACCESS_ON_DEMAND ? 0 : mapping_check(addr, length, access & IBV_ACCESS_LOCAL_WRITE);
}

static void set_translation(struct mr *mr, void *addr, size_t length, uint64_t iova)
{
	mr->ibv.addr = addr;
	mr->ibv.length = length;
	mr->iova = iova;
	/* A resolved address is never NULL, even that of no bytes at NULL. */
	mr->memory = addr || length > 0 ? addr : (uint8_t *)mr;
	mr->length = length;
}

/* Enters the keys and the address, or nothing. */
static int mr_enter(struct device *device, struct mr *mr)
{
	int error = key_make(device, &mr->local, KEY_LOCAL, mr);
	if (error != 0)
		return error;
	error = key_make(device, &mr->remote, KEY_REMOTE, mr);
	if (error != 0)
		goto drop_local;
	error = mr_list(device, mr);
	if (error != 0)
		goto drop_remote;
	return 0;
drop_remote:
	key_drop(device, &mr->remote);
drop_local:
	key_drop(device, &mr->local);
	return error;
}

/* Of memory and access that have been checked. 0, -ENOMEM, -EIO. */
static int mr_make(struct ibv_pd *ibv_pd, void *addr, size_t length, uint64_t iova, int access, const struct dmabuf *dmabuf, struct mr **out)
{
	struct pd *pd = pd_of(ibv_pd);
	struct mr *mr = calloc(1, sizeof *mr);

	if (!mr)
		return -ENOMEM;
	mr->ibv.context = ibv_pd->context;
	mr->ibv.pd = ibv_pd;
	mr->pd = pd;
	mr->access = relevant(access);
	set_translation(mr, addr, length, iova);
	if (dmabuf)
		mr->dmabuf = *dmabuf;

	device_lock(pd->device);
	int error = mr_enter(pd->device, mr);
	if (error == 0) {
		mr->ibv.lkey = mr->local.value;
		mr->ibv.rkey = mr->remote.value;
	}
	device_unlock(pd->device);
	if (error != 0) {
		free(mr);
		return error;
	}
	atomic_fetch_add(&pd->uses, 1);
	context_count(context_of(ibv_pd->context), &pd->device->counters->objects.mr, 1);
	*out = mr;
	return 0;
}

struct ibv_mr *mr_reg(struct ibv_pd *ibv_pd, void *addr, size_t length, uint64_t iova, int access)
{
	struct mr *mr;

	if (access & IBV_ACCESS_ZERO_BASED)
		iova = 0;
	int error = check_access(access);
	if (error == 0)
		error = check_range(addr, length, iova, access);
	if (error == 0)
		error = mr_make(ibv_pd, addr, length, iova, access, NULL, &mr);
	if (error == 0)
		return &mr->ibv;
	errno = -error;
	return NULL;
}

static int register_dmabuf(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access, struct mr **out)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end;
	struct dmabuf dmabuf;
	void *memory;

	if (offset % page != iova % page || (access & ~DMABUF_ACCESS) || __builtin_add_overflow(iova, length, &end))
		return -EINVAL;
	int error = check_access(access);
	if (error == 0)
		error = dmabuf_map(fd, offset, length, access & IBV_ACCESS_LOCAL_WRITE, &dmabuf, &memory);
	if (error != 0)
		return error;
	error = mr_make(pd, memory, length, iova, access, &dmabuf, out);
	if (error != 0)
		dmabuf_unmap(&dmabuf);
	return error;
}

struct ibv_mr *mr_reg_dmabuf(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access)
{
	struct mr *mr;
	int error = register_dmabuf(pd, offset, length, iova, fd, access, &mr);
	if (error != 0) {
		errno = -error;
		return NULL;
	}
	/* As libibverbs has it: the program has no address for it. */
	mr->ibv.addr = (void *)(uintptr_t)offset;
	return &mr->ibv;
}

/* 0 or a negative errno. The keys stay valid, within the new rights and bounds. */
static int reregister(struct mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	if (flags == 0 || (flags & ~IBV_REREG_MR_FLAGS_SUPPORTED) || mr->dmabuf.start)
		return -EINVAL;
	if (flags & IBV_REREG_MR_CHANGE_ACCESS) {
		int error = check_access(access);
		if (error != 0)
			return error;
		access = relevant(access);
	} else if (access != 0) {
		return -EINVAL;
	} else {
		access = mr->access;
	}
	if ((flags & IBV_REREG_MR_CHANGE_PD) && (!pd || pd->context != mr->ibv.context))
		return -EINVAL;

	uint64_t iova = mr->iova;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
		if (!addr || length == 0)
			return -EINVAL;
		iova = access & IBV_ACCESS_ZERO_BASED ? 0 : (uintptr_t)addr;
	} else {
		addr = mr->ibv.addr;
		length = mr->length;
	}
	int error = check_range(addr, length, iova, access);
	if (error != 0)
		return error;

	device_lock(mr->pd->device);
	if (mr->windows != 0) {
		error = -EBUSY;
	} else {
		mr->access = access;
		if (flags & IBV_REREG_MR_CHANGE_TRANSLATION)
			set_translation(mr, addr, length, iova);
		if (flags & IBV_REREG_MR_CHANGE_PD) {
			atomic_fetch_sub(&mr->pd->uses, 1);
			mr->pd = pd_of(pd);
			mr->ibv.pd = pd;
			atomic_fetch_add(&mr->pd->uses, 1);
		}
	}
	device_unlock(mr->pd->device);
	return error;
}

int mr_rereg(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	int error = reregister((struct mr *)mr, flags, pd, addr, length, access);
	if (error == 0)
		return 0;
	/* Of the codes there are, the one that says that the region is as it was. */
	errno = -error;
	return IBV_REREG_MR_ERR_INPUT;
}

int mr_dereg(struct ibv_mr *ibv_mr)
{
	struct mr *mr = (struct mr *)ibv_mr;
	struct pd *pd = mr->pd;
	struct device *device = pd->device;

	device_lock(device);
	bool bound = mr->windows != 0;
	if (!bound) {
		mr_unlist(device, mr);
		key_drop(device, &mr->remote);
		key_drop(device, &mr->local);
	}
	device_unlock(device);
	if (bound)
		return EBUSY;

	atomic_fetch_sub(&pd->uses, 1);
	context_count(context_of(ibv_mr->context), &device->counters->objects.mr, -1);
	dmabuf_unmap(&mr->dmabuf);
	wipe_free(mr, sizeof *mr);
	return 0;
}
