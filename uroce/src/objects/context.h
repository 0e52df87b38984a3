/* SPDX-License-Identifier: Apache-2.0 */
/* A program's opening of the device. All objects belong to one. */
#ifndef UROCE_CONTEXT_H
#define UROCE_CONTEXT_H

#include "device.h"

struct async_event;

struct context {
	struct verbs_context verbs; /* the application holds `verbs.context` */
	struct device *device;
	/* Asynchronous events: `async_fd` of the context is an eventfd that counts the waiting ones. */
	pthread_mutex_t event_lock;
	struct async_event *event_head;
	struct async_event **event_tail;
	struct async_event *event_taken; /* one per object of which the application has taken any */
	atomic_uint objects; /* PDs, CQs, channels... that are alive: tells a leak at close (logged at info) */
};

static inline struct context *context_of(const struct ibv_context *context)
{
	return (struct context *)((char *)(uintptr_t)context - offsetof(struct context, verbs.context));
}

/* One object more, or one less (`change` -1), of the kind that `gauge` counts. */
static inline void context_count(struct context *context, _Atomic int64_t *gauge, int change)
{
	atomic_fetch_add(&context->objects, (unsigned)change);
	counter_object(gauge, change);
}

#endif
