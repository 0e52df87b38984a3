/* SPDX-License-Identifier: Apache-2.0 */
/* A device for tests, without a thread: its link and its clock are the test's. */
#ifndef UROCE_TESTS_DEVICE_H
#define UROCE_TESTS_DEVICE_H

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "event.h"
#include "eventfd.h"

static inline bool test_same_peer(const struct device *device, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	(void)device;
	return memcmp(dgid, sgid, sizeof *dgid) == 0;
}

/* All that is not set here stays zero. */
static inline void test_device_open(struct device *device, struct context *context, struct counters *counters, struct link *link,
				    uint64_t (*clock)(void))
{
	device->link = link;
	device->counters = counters;
	device->clock = clock;
	device->same_peer = test_same_peer;
	device->mtu = IBV_MTU_4096;
	device->active_tail = &device->active_head;
	context->device = device;
	context->event_tail = &context->event_head;
	pthread_mutex_init(&context->event_lock, NULL);
	pthread_mutex_init(&context->verbs.context.mutex, NULL);
	context->verbs.context.async_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	context->verbs.context.num_comp_vectors = 2;
	context->verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.sz = sizeof context->verbs;
}

static inline void test_device_close(struct device *device, struct context *context)
{
	event_forget_all(context);
	close(context->verbs.context.async_fd);
	timers_clear(&device->timers);
	table_clear(&device->qps);
	table_clear(&device->keys);
	free(device->blocks);
	pthread_mutex_destroy(&context->event_lock);
}

/* ---- one without a wire: what it would send goes nowhere ---- */

struct bare {
	struct device device;
	struct counters counters;
	struct context context;
};

static inline uint64_t bare_clock(void)
{
	return 1000000000;
}

static inline void bare_open(struct bare *bare)
{
	test_device_open(&bare->device, &bare->context, &bare->counters, &link_dead, bare_clock);
}

static inline struct bare *bare_new(void)
{
	struct bare *bare = calloc(1, sizeof *bare);
	if (!bare)
		abort();
	bare_open(bare);
	return bare;
}

static inline void bare_free(struct bare *bare)
{
	test_device_close(&bare->device, &bare->context);
	free(bare);
}

/* Whether an eventfd's count can be taken back without waiting: not with kernels before 5.8, nor with qemu-user 7.2. What was
 * forgotten then leaves its descriptor readable, once, with nothing behind it. */
static inline bool counts_can_be_taken_back(void)
{
	uint64_t count;
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	eventfd_uncount(fd);
	bool taken = read(fd, &count, sizeof count) < 0;
	close(fd);
	return taken;
}

#endif
