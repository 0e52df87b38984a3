/* SPDX-License-Identifier: Apache-2.0 */
/* The one device of a process: put together, listed, left by forked children, settled at the end.
 *
 * The device is made when a program first asks for the list of devices, so that it is only listed when it works, and it
 * stays until the process ends. Closing the last context does not end it: the numbers of its queue pairs would then be
 * free for another process at once, while packets for them may still be under way.
 *
 * A forked child can't go on with the parent's device: its thread is not there, and its ports are the parent's. So the
 * child leaves it and makes one of its own when it opens it. The objects that it has inherited remain: they can be used
 * without harm, and destroyed, but nothing is sent or received for them. */
#include "own_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cm.h"
#include "config.h"
#include "engine.h"
#include "log.h"
#include "own_files.h"
#include "progress.h"
#include "shm.h"
#include "udp.h"

enum {
	/* The kernel charges a lone datagram of 4 KiB to a receive buffer with its next larger piece of memory, and its own
	 * record. */
	DATAGRAM_CHARGE = 9 << 10,
	EXIT_PACKETS = 1024,
	EXIT_WAIT_NS = 100000000,
};

struct own_device {
	struct device device;
	pid_t owner;
	/* Of one that a child has left, for leak checkers: nothing else points there. */
	struct own_device *next;
	struct udp_link *udp;
	struct shm *shm;
	struct progress *progress;
};

static struct ibv_device listed = {
	.node_type = IBV_NODE_CA,
	.transport_type = IBV_TRANSPORT_IB,
	.name = "uroce0",
	/* Where the kernel has nothing: preload/paths.c. With the next number for verbs, once the device is made. */
	.dev_name = "uverbs",
	.dev_path = "/sys/class/infiniband_verbs/uverbs",
	.ibdev_path = "/sys/class/infiniband/uroce0",
};

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER; /* guards the following; above the device's lock */
static _Atomic(struct own_device *) own; /* the exit handler reads it without the lock */
static struct own_device *left;          /* those of parents */
static bool refused;
static bool prepared;
static _Atomic(__be64) guid;             /* read without the lock, under the device's too */

/* ---- its parts ---- */

static uint64_t monotonic(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static bool same_peer(const struct device *device, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	return udp_same_peer(device->udp, dgid, sgid);
}

static uint32_t window_of(size_t receive_buffer)
{
	/* Up to a quarter may still be charged for datagrams that have been read: the kernel gives back in large steps. */
	size_t packets = (receive_buffer - receive_buffer / 4) / DATAGRAM_CHARGE;
	return packets == 0 ? 1 : (uint32_t)packets;
}

static int open_link(struct device *device)
{
	const struct config *config = config_get();
	if (!config)
		return -ENOMEM;
	struct udp_config udp = {
		.addresses = config->addresses,
		.capture = config->capture,
		.fault = config->fault,
		.counters = device->counters,
		.deliver = engine_deliver,
		.readable = gsi_readable,
		.arg = device,
	};
	int error = udp_open(&udp, &device->udp);
	if (error != 0)
		return error;
	device->link = udp_link_of(device->udp);
	device->mtu = udp_mtu(device->udp);
	device->ecn = config->addresses;
	device->keeps_ahead = !config->go_back;
	device->max_window = window_of(udp_receive_buffer(device->udp));
	return 0;
}

/* Captures and injected faults are of packets by UDP. */
static void open_shm(struct device *device)
{
	const struct config *config = config_get();
	if (config->wire || config->capture || config->fault)
		return;
	struct shm_config shm = {
		.udp = device->udp,
		.loopback = !config->addresses,
		.counters = device->counters,
		.deliver = engine_deliver_local,
		.notify = engine_path_event,
		.arg = device,
	};
	int error = shm_open_device(&shm, &device->shm);
	if (error != 0)
		log_write(LOG_INFO, "no shared memory with processes of this host: %s", strerror(-error));
	else
		shm_listen(device->shm, udp_next_block(device->udp));
}

static int assemble(struct device *device)
{
	device->active_tail = &device->active_head;
	device->clock = monotonic;
	device->same_peer = same_peer;
	device->now = monotonic();
	device->hw_counters.next = UINT64_MAX;
	device->counters = counters_open();
	int error = open_link(device);
	if (error != 0)
		goto wipe;
	open_shm(device);
	error = gsi_open(device);
	if (error != 0)
		goto close_link;
	error = progress_start(device);
	if (error != 0)
		goto close_gsi;
	return 0;

close_gsi:
	free(device->gsi);
close_link:
	shm_close(&device->shm);
	udp_close(&device->udp);
wipe:
	explicit_bzero(device, sizeof *device);
	return error;
}

/* ---- forking and ending ---- */

/* State under other locks may be half changed in the child, if a thread of the parent was at work: by POSIX such a child may
 * only call exec. The device's own thread does all its work under this lock. */
static void before_fork(void)
{
	pthread_mutex_lock(&opening);
	struct own_device *mine = atomic_load(&own);
	if (mine)
		device_lock(&mine->device);
}

static void after_fork_in_parent(void)
{
	struct own_device *mine = atomic_load(&own);
	if (mine)
		device_unlock(&mine->device);
	pthread_mutex_unlock(&opening);
}

/* Async-signal-safe, but for unlocking the locks that this thread took before the fork. */
static void after_fork_in_child(void)
{
	static struct counters uncounted; /* the parent's are shared memory */
	struct own_device *mine = atomic_load(&own);

	if (mine) {
		mine->progress = mine->device.progress;
		progress_abandon(&mine->device);
		udp_abandon(mine->device.udp);
		mine->udp = mine->device.udp;
		mine->device.udp = NULL;
		if (mine->device.shm)
			shm_abandon(mine->device.shm);
		mine->shm = mine->device.shm;
		mine->device.shm = NULL;
		gsi_abandon(mine->device.gsi);
		mine->device.parked = NULL;
		atomic_store(&mine->device.waiting, 0); /* those threads are not here */
		mine->device.link = &link_dead;
		mine->device.counters = &uncounted;
		mine->device.hw_counters.next = UINT64_MAX; /* the parent's files */
		device_files_abandon(&mine->device.files);
		mine->next = left;
		left = mine;
		atomic_store(&own, NULL);
		device_unlock(&mine->device);
	}
	pthread_mutex_unlock(&opening);
}

/* A program may end right after its last completion: its last acknowledgement goes out now, lest the peer fail. */
void own_device_settle(void)
{
	struct own_device *mine = atomic_load(&own);

	/* exit() may have been called by a signal handler, in the very thread that has the lock. */
	if (!mine || getpid() != mine->owner || !device_lock_within(&mine->device, EXIT_WAIT_NS))
		return;
	mine->device.now = mine->device.clock();
	if (mine->device.cm)
		cm_settle(mine->device.cm);
	engine_round(&mine->device, EXIT_PACKETS, false);
	if (mine->device.shm)
		shm_leave(mine->device.shm);
	/* Its buffer holds the latest packets. Other handlers, and threads, may still use the device itself. */
	udp_end_capture(mine->device.udp);
	own_files_remove(&mine->device);
	device_unlock(&mine->device);
}

/* ---- making it ---- */

/* Like the identifiers that are made of addresses (RFC 5214, 4291): it is the same for all processes that have the
 * same first address, for it is the same device that they see. */
static __be64 guid_of(const union ibv_gid *gid)
{
	static const uint8_t of_v4[4] = {0x02, 0x00, 0x5e, 0xfe};
	static const uint8_t none[8];
	__be64 made;
	uint8_t bytes[sizeof made];

	if (gid_is_v4(gid)) {
		memcpy(bytes, of_v4, 4);
		memcpy(bytes + 4, gid->raw + 12, 4);
	} else {
		memcpy(bytes, memcmp(gid->raw + 8, none, 8) != 0 ? gid->raw + 8 : gid->raw, 8);
	}
	memcpy(&made, bytes, sizeof made);
	return made;
}

static int prepare(void)
{
	if (prepared)
		return 0;
	if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0 ||
	    atexit(own_device_settle) != 0 || at_quick_exit(own_device_settle) != 0) {
		log_write(LOG_ERROR, "out of memory for the device");
		return -ENOMEM;
	}
	prepared = true;
	return 0;
}

/* The lock is held. */
static struct own_device *make_device(void)
{
	struct own_device *mine = calloc(1, sizeof *mine);
	if (!mine) {
		log_write(LOG_ERROR, "out of memory for the device");
		return NULL;
	}
	mine->owner = getpid();
	if (prepare() != 0 || assemble(&mine->device) != 0) { /* logged */
		free(mine);
		return NULL;
	}
	guid = guid_of(udp_gid(mine->device.udp, 0));
	snprintf(listed.dev_name, sizeof listed.dev_name, "uverbs%u", own_files_number(&listed));
	snprintf(listed.dev_path, sizeof listed.dev_path, "/sys/class/infiniband_verbs/%s", listed.dev_name);
	log_write(LOG_INFO, "device %s: %u GIDs, MTU %u", listed.name, udp_gid_count(mine->device.udp),
		  128u << mine->device.mtu);
	return mine;
}

/* A failure is not tried again: its reason is told once, and a device does not appear late in a program that has gone on
 * without it. */
struct device *own_device(void)
{
	int cancel;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&opening);
	struct own_device *mine = atomic_load(&own);
	if (!mine && !refused) {
		mine = make_device();
		refused = !mine;
		atomic_store(&own, mine);
	}
	pthread_mutex_unlock(&opening);
	pthread_setcancelstate(cancel, NULL);
	return mine ? &mine->device : NULL;
}

struct ibv_device *own_device_listed(void)
{
	int saved = errno;
	struct device *device = own_device();
	errno = saved;
	return device ? &listed : NULL;
}

bool own_device_is(const struct ibv_device *device)
{
	return device == &listed;
}

bool context_is_ours(const struct ibv_context *context)
{
	return context && own_device_is(context->device);
}

__be64 own_device_guid(void)
{
	return atomic_load(&guid);
}

/* When a device is first opened, or its files are looked for, and not when devices are listed: most programs do no more than that. */
void own_device_show_files(struct device *device)
{
	pthread_mutex_lock(&opening);
	engine_enter(device);
	if (device->files.owner == 0) {
		own_files_make(device, &listed, guid);
		/* The real path, so that it leads there whoever looks. */
		if (device->files.root[0] != '\0')
			snprintf(listed.ibdev_path, sizeof listed.ibdev_path, "%s/sys/class/infiniband/%s", device->files.root,
				 listed.name);
	}
	engine_leave(device);
	pthread_mutex_unlock(&opening);
}

const char *own_device_files(void)
{
	struct device *device = own_device();
	if (!device)
		return NULL;
	own_device_show_files(device);
	return device->files.root[0] != '\0' ? device->files.root : NULL;
}

void own_device_refresh_file(const char *path)
{
	struct device *device = own_device();
	if (device)
		own_files_refresh(device, &listed, path);
}

void own_device_add_kernel_files(const char *folder)
{
	struct device *device = own_device();
	if (device)
		own_files_add_kernel(device, folder);
}
