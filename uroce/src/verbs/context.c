/* SPDX-License-Identifier: Apache-2.0 */
/* The one device of a process and the contexts opened on it.
 *
 * The device is made when a program first asks for the list of devices, so that it is only listed when it works, and it
 * stays until the process ends. Closing the last context does not end it: the numbers of its queue pairs would then be
 * free for another process at once, while packets for them may still be under way.
 *
 * A forked child can't go on with the parent's device: its thread is not there, and its ports are the parent's. So the
 * child leaves it and makes one of its own when it opens it. The objects that it has inherited remain: they can be used
 * without harm, and destroyed, but nothing is sent or received for them. */
#include "context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "log.h"
#include "progress.h"
#include "qp.h"
#include "qp_state.h"
#include "udp.h"
#include "udp_internal.h"

enum {
	COMPLETION_VECTORS = 2,
	EXIT_PACKETS = 1024,
	EXIT_WAIT_NS = 100000000,
};

struct own_device {
	struct device device;
	/* Of one that a child has left, for leak checkers: nothing else points there. */
	struct own_device *next;
	struct udp_link *udp;
	struct progress *progress;
};

static struct ibv_device listed = {
	.node_type = IBV_NODE_CA,
	.transport_type = IBV_TRANSPORT_IB,
	.name = "uroce0",
	.dev_name = "uverbs_uroce0",
	/* The kernel has nothing there. Programs that look find no NUMA node, no board and so on. */
	.dev_path = "/sys/class/infiniband_verbs/uverbs_uroce0",
	.ibdev_path = "/sys/class/infiniband/uroce0",
};

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER; /* guards what follows; above the device's lock */
static _Atomic(struct own_device *) own; /* the exit handler reads it without the lock */
static struct own_device *left;          /* those of parents */
static bool refused;
static bool prepared;
static __be64 guid;

/* ---- forking and ending ---- */

static bool dead_ready(struct link *link)
{
	(void)link;
	return false;
}

static void dead_send(struct link *link, const struct packet_out *packet)
{
	(void)link;
	(void)packet;
}

static void dead_flush(struct link *link)
{
	(void)link;
}

/* What others' locks guard may be half done in the child, if a thread of the parent was just at it: such a child may do
 * nothing but exec anyhow, by POSIX. What the device's own thread does is all under this lock. */
static void before_fork(void)
{
	pthread_mutex_lock(&opening);
	struct own_device *mine = atomic_load(&own);
	if (mine != NULL)
		pthread_mutex_lock(&mine->device.lock);
}

static void after_fork_in_parent(void)
{
	struct own_device *mine = atomic_load(&own);
	if (mine != NULL)
		pthread_mutex_unlock(&mine->device.lock);
	pthread_mutex_unlock(&opening);
}

/* Async-signal-safe, but for unlocking what this thread has locked before the fork. */
static void after_fork_in_child(void)
{
	static const struct link_ops dead_ops = {.ready = dead_ready, .send = dead_send, .flush = dead_flush};
	static struct link dead = {.ops = &dead_ops};
	static struct counters uncounted; /* the parent's are shared memory */
	struct own_device *mine = atomic_load(&own);

	if (mine != NULL) {
		mine->progress = mine->device.progress;
		progress_abandon(&mine->device);
		udp_abandon(mine->device.udp);
		mine->udp = mine->device.udp;
		mine->device.udp = NULL;
		mine->device.link = &dead;
		mine->device.counters = &uncounted;
		mine->device.hw_counters.next = UINT64_MAX; /* the parent's files */
		mine->next = left;
		left = mine;
		atomic_store(&own, NULL);
		pthread_mutex_unlock(&mine->device.lock);
	}
	pthread_mutex_unlock(&opening);
}

/* A program may end right after its last completion: its last acknowledgement goes out now, lest the peer fail. */
static void settle_at_exit(void)
{
	struct own_device *mine = atomic_load(&own);
	struct timespec limit;

	/* exit() may have been called by a signal handler, in the very thread that has the lock. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_nsec += EXIT_WAIT_NS;
	limit.tv_sec += limit.tv_nsec / 1000000000;
	limit.tv_nsec %= 1000000000;
	if (mine == NULL || pthread_mutex_timedlock(&mine->device.lock, &limit) != 0)
		return;
	mine->device.now = mine->device.clock();
	engine_round(&mine->device, EXIT_PACKETS);
	/* Its buffer holds the latest packets. Other handlers, and threads, may still use the device itself. */
	capture_close(&mine->device.udp->capture);
	hw_counters_remove(&mine->device.hw_counters);
	pthread_mutex_unlock(&mine->device.lock);
}

/* ---- the device ---- */

/* Like the identifiers that are made of addresses (RFC 5214, 4291): it is the same for all processes that have the
 * same first address, for it is the same device that they see. */
static __be64 guid_of(const union ibv_gid *gid)
{
	static const uint8_t of_v4[4] = {0x02, 0x00, 0x5e, 0xfe};
	static const uint8_t none[8];
	__be64 made;
	uint8_t bytes[sizeof(made)];

	if (gid_is_v4(gid)) {
		memcpy(bytes, of_v4, 4);
		memcpy(bytes + 4, gid->raw + 12, 4);
	} else {
		memcpy(bytes, memcmp(gid->raw + 8, none, 8) != 0 ? gid->raw + 8 : gid->raw, 8);
	}
	memcpy(&made, bytes, sizeof(made));
	return made;
}

static int prepare(void)
{
	if (prepared)
		return 0;
	if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0 ||
	    atexit(settle_at_exit) != 0) {
		log_write(LOG_ERROR, "out of memory for the device");
		return -ENOMEM;
	}
	prepared = true;
	return 0;
}

/* The lock is held. */
static struct own_device *make_device(void)
{
	struct own_device *mine = calloc(1, sizeof(*mine));
	if (mine == NULL) {
		log_write(LOG_ERROR, "out of memory for the device");
		return NULL;
	}
	if (device_init(&mine->device) != 0) /* logged */
		goto free_device;
	if (prepare() != 0)
		goto clear_device;
	guid = guid_of(udp_gid(mine->device.udp, 0));
	log_write(LOG_INFO, "device %s: %u GIDs, MTU %u", listed.name, udp_gid_count(mine->device.udp),
		  128u << mine->device.mtu);
	return mine;

clear_device:
	device_clear(&mine->device);
free_device:
	free(mine);
	return NULL;
}

/* What has failed once is not tried again: the reason is told once, and a device does not come up late in a program
 * that has gone on without. */
static struct device *obtain(void)
{
	pthread_mutex_lock(&opening);
	struct own_device *mine = atomic_load(&own);
	if (mine == NULL && !refused) {
		mine = make_device();
		refused = mine == NULL;
		atomic_store(&own, mine);
	}
	pthread_mutex_unlock(&opening);
	return mine == NULL ? NULL : &mine->device;
}

struct ibv_device *context_device(void)
{
	int saved = errno;
	struct device *device = obtain();
	errno = saved;
	return device == NULL ? NULL : &listed;
}

bool context_is_our_device(const struct ibv_device *device)
{
	return device == &listed;
}

bool context_is_ours(const struct ibv_context *context)
{
	return context != NULL && context_is_our_device(context->device);
}

__be64 context_guid(void)
{
	pthread_mutex_lock(&opening);
	__be64 known = guid;
	pthread_mutex_unlock(&opening);
	return known;
}

/* ---- contexts ---- */

/* In nanoseconds altogether, as a counter that the completion timestamps are of. Devices with a counter of cycles leave
 * the seconds 0 too. */
static int query_clock(struct ibv_context *ibv_context, struct ibv_values_ex *values)
{
	uint32_t wanted = values->comp_mask;
	values->comp_mask = 0;
	if (wanted & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK)
		return EINVAL;
	if (wanted & IBV_VALUES_MASK_RAW_CLOCK) {
		values->raw_clock.tv_sec = 0;
		values->raw_clock.tv_nsec = (long)context_of(ibv_context)->device->clock();
		values->comp_mask = IBV_VALUES_MASK_RAW_CLOCK;
	}
	return 0;
}

/* What stays NULL is what libibverbs' inline functions say EOPNOTSUPP for: device memory, flows, counters, XRC and so
 * on. What is not inline is in the exported functions. */
static void set_operations(struct verbs_context *verbs)
{
	struct ibv_context_ops *ops = &verbs->context.ops;
	ops->alloc_mw = mw_alloc;
	ops->bind_mw = qp_bind_mw;
	ops->dealloc_mw = mw_dealloc;
	ops->poll_cq = cq_poll;
	ops->req_notify_cq = cq_req_notify;
	ops->post_srq_recv = srq_post_recv;
	ops->post_send = qp_post_send;
	ops->post_recv = qp_post_recv;

	verbs->query_port = context_query_port;
	verbs->query_device_ex = context_query_device_ex;
	verbs->query_rt_values = query_clock;
	verbs->create_cq_ex = cq_create_ex;
	verbs->create_srq_ex = srq_create_ex;
	verbs->create_qp_ex = qp_create_ex;
}

/* When a device is first opened, and not when devices are listed: most programs do no more than that. */
static void show_counters(struct device *device)
{
	pthread_mutex_lock(&opening);
	engine_enter(device);
	if (device->hw_counters.owner == 0) {
		hw_counters_open(device);
		if (device->hw_counters.path[0] != '\0')
			snprintf(listed.ibdev_path, sizeof(listed.ibdev_path), "%s", device->hw_counters.path);
	}
	engine_leave(device);
	pthread_mutex_unlock(&opening);
}

struct ibv_context *context_open(void)
{
	struct device *device = obtain();
	if (device == NULL) {
		errno = ENODEV;
		return NULL;
	}
	struct context *context = calloc(1, sizeof(*context));
	if (context == NULL)
		return NULL;
	struct ibv_context *ibv_context = &context->verbs.context;
	/* Blocking, as the application expects: it makes the descriptor non-blocking if it wants that. */
	ibv_context->async_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (ibv_context->async_fd < 0) {
		int error = errno;
		log_write(LOG_ERROR, "cannot make an eventfd: %s; raise the limit of open files (ulimit -n)", strerror(error));
		free(context);
		errno = error;
		return NULL;
	}
	context->device = device;
	context->event_tail = &context->event_head;
	pthread_mutex_init(&context->event_lock, NULL);
	pthread_mutex_init(&ibv_context->mutex, NULL);
	ibv_context->device = &listed;
	ibv_context->cmd_fd = -1; /* of the kernel's commands */
	ibv_context->num_comp_vectors = COMPLETION_VECTORS;
	ibv_context->abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.sz = sizeof(context->verbs);
	set_operations(&context->verbs);
	show_counters(device);
	counter_object(&device->counters->objects.ctx, 1);
	return ibv_context;
}

/* The kernel ends all that was made on a context. Memory of the objects is the application's leak, but no peer may
 * reach what it frees next. */
static void disconnect_all(struct context *context)
{
	struct device *device = context->device;
	engine_enter(device);
	for (size_t i = 0; i < device->qps.size; i++) {
		/* Not the slot's `thing`: it may stand for one that was removed. */
		struct qp *qp = table_find(&device->qps, device->qps.slot[i].number);
		if (qp != NULL && qp->context == context)
			qp_reset(qp);
	}
	engine_leave(device);
}

int context_close(struct ibv_context *ibv_context)
{
	struct context *context = context_of(ibv_context);
	unsigned objects = atomic_load(&context->objects);

	if (objects != 0) {
		log_write(LOG_INFO, "the program closed a context without destroying %u of its objects", objects);
		disconnect_all(context);
	}
	context_forget_all(context);
	close(ibv_context->async_fd);
	ibv_context->async_fd = -1;
	counter_object(&context->device->counters->objects.ctx, -1);
	/* What is left points there. */
	if (objects != 0)
		return 0;
	pthread_mutex_destroy(&ibv_context->mutex);
	pthread_mutex_destroy(&context->event_lock);
	explicit_bzero(context, sizeof(*context));
	free(context);
	return 0;
}
