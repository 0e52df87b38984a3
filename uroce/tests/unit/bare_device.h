/* SPDX-License-Identifier: Apache-2.0 */
/* A device for tests of verbs objects: no wire, no thread. What it would send goes nowhere. */
#ifndef BARE_DEVICE_H
#define BARE_DEVICE_H

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "event.h"
#include "link.h"

struct bare {
	struct device device;
	struct counters counters;
	struct context context;
	struct link link;
};

static bool bare_ready(struct link *link)
{
	(void)link;
	return false;
}

static void bare_send(struct link *link, const struct packet_out *packet)
{
	(void)link;
	(void)packet;
}

static void bare_flush(struct link *link)
{
	(void)link;
}

static uint64_t bare_clock(void)
{
	return 1000000000;
}

static const struct link_ops bare_ops = {.ready = bare_ready, .send = bare_send, .flush = bare_flush};

static inline struct bare *bare_new(void)
{
	struct bare *bare = calloc(1, sizeof *bare);
	if (!bare)
		abort();
	bare->link.ops = &bare_ops;
	bare->device.link = &bare->link;
	bare->device.counters = &bare->counters;
	bare->device.clock = bare_clock;
	bare->device.active_tail = &bare->device.active_head;
	pthread_mutex_init(&bare->device.lock, NULL);
	bare->context.device = &bare->device;
	bare->context.event_tail = &bare->context.event_head;
	pthread_mutex_init(&bare->context.event_lock, NULL);
	pthread_mutex_init(&bare->context.verbs.context.mutex, NULL);
	bare->context.verbs.context.async_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	bare->context.verbs.context.num_comp_vectors = 2;
	return bare;
}

static inline void bare_free(struct bare *bare)
{
	while (bare->context.event_head) {
		struct async_event *event = bare->context.event_head;
		bare->context.event_head = event->next;
		free(event);
	}
	close(bare->context.verbs.context.async_fd);
	table_clear(&bare->device.keys);
	free(bare);
}

/* Whether an eventfd's count can be taken back without waiting: not with kernels before 5.8, nor with qemu-user 7.2. What was
 * forgotten then leaves its descriptor readable, once, with nothing behind it. */
static inline bool counts_can_be_taken_back(void)
{
	uint64_t count;
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	event_uncount(fd);
	bool taken = read(fd, &count, sizeof count) < 0;
	close(fd);
	return taken;
}

#endif
