/* SPDX-License-Identifier: Apache-2.0 */
/* Exported functions about devices and contexts: the list, attributes, asynchronous events. Objects made on a context
 * are in preload_objects.c. Nothing else of this library is exported. */
#include "preload.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "paths.h"

/* Not in the public header, though programs call it; 0 is InfiniBand and RoCE version 1, 1 is RoCE version 2. */
int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index, int *type);
enum { SYSFS_ROCE_V2 = 1 };

/* ---- the list ---- */

/* A list that was made here. The application holds `entry`, which is a piece of memory by itself: programs have been seen to
 * free() it, as libibverbs' own allows. */
struct made_list {
	struct made_list *next;
	struct ibv_device **real; /* or NULL */
	struct ibv_device **entry;
};

static pthread_mutex_t made_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next, and `next` of its elements */
static struct made_list *made;

/* Of this thread: libibverbs itself asks for the list, to look behind `struct ibv_device`, where ours has nothing. */
static _Thread_local bool asked_by_libibverbs;

static struct ibv_device **call_real_list(int *count)
{
	PASS(NULL, ibv_get_device_list, count);
}

/* It looks for devices under a lock of its own, which a child must not inherit from another thread. */
static pthread_mutex_t looking_lock = PTHREAD_MUTEX_INITIALIZER; /* above made_lock */

static void before_fork(void)
{
	pthread_mutex_lock(&looking_lock);
	pthread_mutex_lock(&made_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&made_lock);
	pthread_mutex_unlock(&looking_lock);
}

__attribute__((constructor)) static void prepare_forks(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

/* Where it looks at files, it must not find those of our device: it has no driver for that. */
static struct ibv_device **real_list(int *count)
{
	*count = 0;
	int cancel;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&looking_lock);
	paths_hide(true);
	struct ibv_device **list = call_real_list(count);
	paths_hide(false);
	pthread_mutex_unlock(&looking_lock);
	pthread_setcancelstate(cancel, NULL);
	return list;
}

static void call_real_free(struct ibv_device **list)
{
	PASS_VOID(ibv_free_device_list, list);
}

static void free_real_list(struct ibv_device **list)
{
	pthread_mutex_lock(&looking_lock);
	call_real_free(list);
	pthread_mutex_unlock(&looking_lock);
}

/* Takes a list that was made here out of those known; NULL: it was not. */
static struct made_list *withdraw(struct ibv_device **entry)
{
	pthread_mutex_lock(&made_lock);
	struct made_list **at = &made;
	while (*at && (*at)->entry != entry)
		at = &(*at)->next;
	struct made_list *list = *at;
	if (list)
		*at = list->next;
	pthread_mutex_unlock(&made_lock);
	return list;
}

/* The real one's devices, then ours. Takes `real`, unless it fails. */
static struct ibv_device **extend(struct ibv_device **real, int count, struct ibv_device *ours)
{
	size_t others = (size_t)count;
	struct made_list *list = calloc(1, sizeof *list);
	struct ibv_device **entry = calloc(others + 2, sizeof(struct ibv_device *));
	if (!list || !entry) {
		free(list);
		free(entry);
		return NULL;
	}
	/* One that was at the same address: the program has freed it. What it held of the real library's devices may still be in
	 * use, so that list stays. */
	free(withdraw(entry));
	list->real = real;
	list->entry = entry;
	if (others > 0)
		memcpy(entry, real, others * sizeof(struct ibv_device *));
	entry[others] = ours;
	pthread_mutex_lock(&made_lock);
	list->next = made;
	made = list;
	pthread_mutex_unlock(&made_lock);
	return entry;
}

EXPORT struct ibv_device **ibv_get_device_list(int *num_devices)
{
	/* Without the kernel's modules it fails with ENOSYS: then there is only ours. */
	int count = 0;
	struct ibv_device **list = real_list(&count);
	int error = errno;
	struct ibv_device *ours = asked_by_libibverbs ? NULL : own_device_listed();
	if (ours) {
		struct ibv_device **real = list;
		if (!real)
			count = 0;
		list = extend(real, count, ours);
		if (!list) {
			if (real)
				free_real_list(real);
			error = ENOMEM;
			count = 0;
		} else {
			count++;
		}
	}
	if (num_devices)
		*num_devices = count;
	if (!list)
		errno = error;
	return list;
}

EXPORT void ibv_free_device_list(struct ibv_device **entry)
{
	struct made_list *list = withdraw(entry);
	if (!list) {
		free_real_list(entry);
		return;
	}
	if (list->real)
		free_real_list(list->real);
	free(entry);
	free(list);
}

EXPORT const char *ibv_get_device_name(struct ibv_device *device)
{
	if (own_device_is(device))
		return device->name;
	PASS(NULL, ibv_get_device_name, device);
}

EXPORT __be64 ibv_get_device_guid(struct ibv_device *device)
{
	if (own_device_is(device))
		return own_device_guid();
	PASS(0, ibv_get_device_guid, device);
}

EXPORT int ibv_get_device_index(struct ibv_device *device)
{
	/* The kernel counts its own alone. */
	if (own_device_is(device))
		return -1;
	PASS(-1, ibv_get_device_index, device);
}

/* ---- contexts ---- */

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	if (own_device_is(device))
		return context_open();
	PASS(NULL, ibv_open_device, device);
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
	if (context_is_ours(context))
		return context_close(context);
	PASS(-1, ibv_close_device, context);
}

static struct ibv_context *import_real(int cmd_fd)
{
	PASS(NULL, ibv_import_device, cmd_fd);
}

EXPORT struct ibv_context *ibv_import_device(int cmd_fd)
{
	/* That of our contexts. */
	if (cmd_fd == -1) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	asked_by_libibverbs = true;
	struct ibv_context *context = import_real(cmd_fd);
	asked_by_libibverbs = false;
	return context;
}

EXPORT int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	if (context_is_ours(context)) {
		struct ibv_device_attr_ex ex;
		int error = context_query_device_ex(context, NULL, &ex, sizeof ex);
		if (error == 0)
			*attr = ex.orig_attr;
		return answer(error);
	}
	PASS(ENOSYS, ibv_query_device, context, attr);
}

EXPORT int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	/* Only programs that were built long ago call this with an object of their own: theirs ends here. */
	if (context_is_ours(context))
		return context_query_port(context, port, (struct ibv_port_attr *)attr,
					  offsetof(struct ibv_port_attr, port_cap_flags2));
	PASS(ENOSYS, ibv_query_port, context, port, attr);
}

EXPORT int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	if (context_is_ours(context)) {
		struct ibv_gid_entry entry;
		/* A negative number becomes one that is too large. */
		if (context_query_gid(context, port, (uint32_t)index, &entry) != 0)
			return -1;
		*gid = entry.gid;
		return 0;
	}
	PASS(-1, ibv_query_gid, context, port, index, gid);
}

EXPORT int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index, int *type)
{
	if (context_is_ours(context)) {
		struct ibv_gid_entry entry;
		if (context_query_gid(context, port, index, &entry) != 0)
			return -1;
		*type = SYSFS_ROCE_V2;
		return 0;
	}
	PASS(-1, ibv_query_gid_type, context, port, index, type);
}

/* Programs may have been built with a shorter or a longer entry. */
static void give_entry(void *to, size_t room, const struct ibv_gid_entry *entry)
{
	memset(to, 0, room);
	memcpy(to, entry, room < sizeof *entry ? room : sizeof *entry);
}

EXPORT int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
			     uint32_t flags, size_t entry_size)
{
	if (context_is_ours(context)) {
		struct ibv_gid_entry known;
		if (flags != 0)
			return answer(EOPNOTSUPP);
		int error = context_query_gid(context, port, index, &known);
		if (error == 0)
			give_entry(entry, entry_size, &known);
		return error;
	}
	PASS(ENOSYS, _ibv_query_gid_ex, context, port, index, entry, flags, entry_size);
}

static ssize_t gid_table(struct ibv_context *context, char *to, size_t room, size_t entry_size)
{
	struct ibv_gid_entry known;
	uint32_t count = 0;
	while (context_query_gid(context, 1, count, &known) == 0) {
		if (count == room)
			return -EINVAL;
		give_entry(to + count * entry_size, entry_size, &known);
		count++;
	}
	return count;
}

EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries,
				    uint32_t flags, size_t entry_size)
{
	if (context_is_ours(context)) {
		int saved = errno;
		ssize_t count = flags != 0 ? -EOPNOTSUPP : gid_table(context, (char *)entries, max_entries, entry_size);
		errno = count < 0 ? (int)-count : saved;
		return count;
	}
	PASS(-ENOSYS, _ibv_query_gid_table, context, entries, max_entries, flags, entry_size);
}

/* One partition, the default one. */
#define PKEY 0xffff

EXPORT int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	if (context_is_ours(context)) {
		if (port != 1 || index != 0) {
			errno = EINVAL;
			return -1;
		}
		*pkey = PKEY; /* the same in either order */
		return 0;
	}
	PASS(-1, ibv_query_pkey, context, port, index, pkey);
}

EXPORT int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey)
{
	if (context_is_ours(context)) {
		if (port == 1 && pkey == PKEY)
			return 0;
		errno = EINVAL;
		return -1;
	}
	PASS(-1, ibv_get_pkey_index, context, port, pkey);
}

EXPORT int ibv_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr,
				       uint8_t eth_mac[ETHERNET_LL_SIZE], uint16_t *vid)
{
	/* The kernel's network stack finds the way: there is no Ethernet address to be had. */
	if (context_is_ours(context))
		return answer(EOPNOTSUPP);
	PASS(ENOSYS, ibv_resolve_eth_l2_from_gid, context, attr, eth_mac, vid);
}

/* ---- asynchronous events ---- */

EXPORT int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	if (context_is_ours(context))
		return event_get(context, event);
	PASS(-1, ibv_get_async_event, context, event);
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
	if (context_is_ours(event_context(event))) {
		event_ack(event);
		return;
	}
	/* Of an event about no object neither keeps anything. */
	PASS_VOID(ibv_ack_async_event, event);
}

/* ---- forks ---- */

EXPORT int ibv_fork_init(void)
{
	/* Ours pins no pages, so that copies of them do no harm. The answer is about other devices, if any. */
	__typeof__(ibv_fork_init) *real = REAL(ibv_fork_init);
	return real ? real() : 0;
}
