/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include "conn.h"
#include "device.h"
#include "log.h"
#include "regions.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REMOTE_CHANGES (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)
#define ACCESS_KNOWN (IBV_ACCESS_LOCAL_WRITE | REMOTE_CHANGES | IBV_ACCESS_REMOTE_READ)

/* ---- the object ------------------------------------------------------------------------------------------------ */

static int check_access(unsigned access)
{
	if (access & ~(unsigned)ACCESS_KNOWN)
		return srdma_fail(-EINVAL, "access 0x%x has other bits than local write and remote write, read and atomic", access);
	return 0;
}

/* Checks by the list of mappings: a peer's write to memory that is not writable would end the process. A system without the list is
 * taken at the program's word. */
static int check_mapped(uintptr_t from, uintptr_t to, bool writable)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uintptr_t start, end, at = from;
	char rights[5], line[512];
	bool whole_line = true;

	if (!maps)
		return 0;
	while (at < to && fgets(line, sizeof line, maps)) {
		bool is_start = whole_line;

		whole_line = strchr(line, '\n') != NULL;
		if (!is_start || sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, rights) != 3 || end <= at)
			continue;
		if (start > at || rights[0] != 'r' || (writable && rights[1] != 'w'))
			break;
		at = end;
	}
	fclose(maps);
	if (at >= to)
		return 0;
	return srdma_fail(-EFAULT, "the memory is not mapped, or not %s, from its byte %zu on", writable ? "writable" : "readable", (size_t)(at - from));
}

static int memory_new(struct srdma_device *device, const struct srdma_source *source, unsigned access, struct srdma_memory **out)
{
	struct srdma_memory *memory = calloc(1, sizeof *memory);

	if (!memory)
		return srdma_fail(-ENOMEM, "out of memory");
	memory->device = srdma_device_ref(device);
	memory->source = *source;
	memory->access = access | (access & REMOTE_CHANGES ? (unsigned)IBV_ACCESS_LOCAL_WRITE : 0u);
	memory->owners = 1;
	pthread_mutex_init(&memory->mutex, NULL);
	*out = memory;
	return 0;
}

int srdma_memory_register(struct srdma_device *device, void *address, size_t length, unsigned access, struct srdma_memory **out)
{
	const struct srdma_source source = {.address = address, .fd = -1, .length = length};
	int ret = check_access(access);

	if (ret != 0)
		return ret;
	if (!address || length == 0 || length > UINTPTR_MAX - (uintptr_t)address)
		return srdma_fail(-EINVAL, "cannot register %zu byte%s at %p: that is no memory", length, SRDMA_S(length), address);
	ret = check_mapped((uintptr_t)address, (uintptr_t)address + length, (access & (IBV_ACCESS_LOCAL_WRITE | REMOTE_CHANGES)) != 0);
	return ret == 0 ? memory_new(device, &source, access, out) : ret;
}

/* Whether the device takes the dmabuf, so that the program learns it now. */
static int try_dmabuf(struct srdma_device *device, const struct srdma_source *source, unsigned access)
{
	struct ibv_pd *pd = ibv_alloc_pd(srdma_device_context(device));
	struct srdma_region region;
	int ret;

	if (!pd)
		return srdma_fail(SRDMA_EVERBS, "cannot make a protection domain on %s: %s", srdma_device_name(device), strerror(errno));
	ret = srdma_region_of(pd, source, 0, source->length, (int)(access & IBV_ACCESS_LOCAL_WRITE), &region);
	if (ret == 0)
		srdma_region_release(&region);
	ibv_dealloc_pd(pd);
	return ret;
}

int srdma_memory_register_dmabuf(struct srdma_device *device, int fd, uint64_t offset, size_t length, unsigned access, struct srdma_memory **out)
{
	struct srdma_source source = {.offset = offset, .length = length};
	int ret = check_access(access);

	if (ret != 0)
		return ret;
	if (length == 0 || length > UINT64_MAX - offset)
		return srdma_fail(-EINVAL, "cannot register %zu byte%s at offset %llu of a dmabuf", length, SRDMA_S(length), (unsigned long long)offset);
	source.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (source.fd < 0)
		return srdma_fail(errno == EBADF ? -EINVAL : -errno, "cannot duplicate the descriptor %d of a dmabuf: %s", fd, strerror(errno));
	ret = try_dmabuf(device, &source, access);
	if (ret == 0)
		ret = memory_new(device, &source, access, out);
	if (ret != 0)
		close(source.fd);
	return ret;
}

struct srdma_memory *srdma_memory_ref(struct srdma_memory *memory)
{
	pthread_mutex_lock(&memory->mutex);
	memory->owners++;
	pthread_mutex_unlock(&memory->mutex);
	return memory;
}

void srdma_memory_on_release(struct srdma_memory *memory, srdma_release_fn *fn, void *arg)
{
	pthread_mutex_lock(&memory->mutex);
	memory->on_release = fn;
	memory->arg = arg;
	pthread_mutex_unlock(&memory->mutex);
}

static void memory_free(struct srdma_memory *memory)
{
	srdma_release_fn *fn = memory->on_release;
	void *arg = memory->arg;

	if (memory->source.fd >= 0)
		close(memory->source.fd);
	pthread_mutex_destroy(&memory->mutex);
	srdma_device_unref(&memory->device);
	free(memory);
	if (fn)
		fn(arg);
}

void srdma_memory_unref(struct srdma_memory **out)
{
	struct srdma_memory *memory = *out;
	bool last;

	*out = NULL;
	if (!memory)
		return;
	pthread_mutex_lock(&memory->mutex);
	memory->owners--;
	last = memory->owners == 0 && !memory->leases;
	/* A connection leaves the list before it goes, and waits for the mutex to do so. */
	for (struct srdma_lease *lease = memory->leases; memory->owners == 0 && lease; lease = lease->next_of_memory) {
		atomic_store(&lease->conn->memory_due, true);
		srdma_conn_nudge(lease->conn);
	}
	pthread_mutex_unlock(&memory->mutex);
	if (last)
		memory_free(memory);
}

/* ---- leases ---------------------------------------------------------------------------------------------------- */

static struct srdma_lease *find(const struct srdma_conn *conn, const struct srdma_memory *memory)
{
	struct srdma_lease *lease = conn->leases;

	while (lease && lease->memory != memory)
		lease = lease->next;
	return lease;
}

int srdma_lease_get(struct srdma_conn *conn, struct srdma_memory *memory, struct srdma_lease **out)
{
	struct srdma_lease *lease = find(conn, memory);

	*out = lease;
	if (lease)
		return 0;
	if (srdma_device_context(memory->device) != srdma_device_context(conn->device))
		return srdma_fail(-EINVAL, "the memory was registered for another device (%s) than the connection's (%s)",
				  srdma_device_name(memory->device), srdma_device_name(conn->device));
	if (conn->sealed && !memory->source.address)
		return srdma_fail(-EOPNOTSUPP, "a dmabuf cannot be used over a sealed connection: the library cannot read it");
	lease = calloc(1, sizeof *lease);
	if (!lease)
		return srdma_fail(-ENOMEM, "out of memory");
	lease->conn = conn;
	lease->memory = memory;
	lease->next = conn->leases;
	conn->leases = lease;
	pthread_mutex_lock(&memory->mutex);
	lease->next_of_memory = memory->leases;
	if (memory->leases)
		memory->leases->previous_of_memory = lease;
	memory->leases = lease;
	pthread_mutex_unlock(&memory->mutex);
	*out = lease;
	return 0;
}

int srdma_lease_register(struct srdma_lease *lease)
{
	const struct srdma_memory *memory = lease->memory;

	if (lease->conn->sealed || lease->region.mr)
		return 0;
	return srdma_region_of(lease->conn->pd, &memory->source, 0, memory->source.length, (int)(memory->access & IBV_ACCESS_LOCAL_WRITE), &lease->region);
}

static int lease_free(struct srdma_lease *lease)
{
	struct srdma_memory *memory = lease->memory;
	struct srdma_lease **at = &lease->conn->leases;
	int ret = srdma_region_withdraw(&lease->region);
	bool last;

	while (*at != lease)
		at = &(*at)->next;
	*at = lease->next;
	pthread_mutex_lock(&memory->mutex);
	if (lease->previous_of_memory)
		lease->previous_of_memory->next_of_memory = lease->next_of_memory;
	else
		memory->leases = lease->next_of_memory;
	if (lease->next_of_memory)
		lease->next_of_memory->previous_of_memory = lease->previous_of_memory;
	last = memory->owners == 0 && !memory->leases;
	pthread_mutex_unlock(&memory->mutex);
	free(lease);
	if (last)
		memory_free(memory);
	return ret;
}

static bool is_in_use(const struct srdma_lease *lease)
{
	const struct srdma_conn *conn = lease->conn;

	if (conn->status != 0)
		return false;
	if (srdma_regions_are_binding(conn, lease))
		return true;
	return conn->sealed ? srdma_sealed_jobs_use(&conn->sealed_rdma.jobs, lease)
			    : lease->region.mr && srdma_queues_uses(&conn->queues, lease->region.mr->lkey);
}

/* Also ends what the peer has of it. */
static int let_go(struct srdma_lease *lease)
{
	int ret = srdma_regions_withdraw_of(lease->conn, lease), freed = lease_free(lease);

	return ret == 0 ? freed : ret;
}

int srdma_leases_drop_released(struct srdma_conn *conn)
{
	struct srdma_lease *next;
	bool waits = false;
	int ret = 0;

	if (!atomic_load_explicit(&conn->memory_due, memory_order_relaxed))
		return 0;
	atomic_store(&conn->memory_due, false);
	for (struct srdma_lease *lease = conn->leases; lease && ret == 0; lease = next) {
		bool released;

		next = lease->next;
		pthread_mutex_lock(&lease->memory->mutex);
		released = lease->memory->owners == 0;
		pthread_mutex_unlock(&lease->memory->mutex);
		if (released && is_in_use(lease))
			waits = true;
		else if (released)
			ret = let_go(lease);
	}
	if (waits)
		atomic_store(&conn->memory_due, true);
	return ret;
}

void srdma_leases_release(struct srdma_conn *conn)
{
	while (conn->leases)
		if (lease_free(conn->leases) != 0)
			srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
}

int srdma_conn_forget(struct srdma_conn *conn, struct srdma_memory *memory)
{
	struct srdma_lease *lease = find(conn, memory);
	int ret;

	if (!lease)
		return 0;
	srdma_conn_progress(conn, false);
	if (srdma_regions_are_binding(conn, lease))
		return srdma_fail(-EBUSY, "the device is still binding the window of a region of the memory; call again later");
	if (is_in_use(lease))
		return srdma_fail(-EBUSY, "a request that uses the memory is under way; collect its completion first");
	/* The progress may have let go of it, but not while the program has a reference. */
	ret = let_go(lease);
	return ret == 0 || conn->status != 0 ? ret : srdma_conn_end(conn, ret);
}

int srdma_conn_local_memory(struct srdma_conn *conn, struct srdma_memory *memory, uint64_t *address, uint32_t *lkey)
{
	struct srdma_lease *lease;
	int ret;

	if (!conn->options.raw)
		return srdma_fail(-EOPNOTSUPP, "only a raw connection has work requests of the program's; use srdma_conn_post()");
	ret = srdma_lease_get(conn, memory, &lease);
	if (ret == 0)
		ret = srdma_lease_register(lease);
	if (ret != 0)
		return ret;
	*address = lease->region.base;
	*lkey = lease->region.mr->lkey;
	return 0;
}
