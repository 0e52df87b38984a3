/* SPDX-License-Identifier: Apache-2.0 */
/* The device as libibverbs shows it: one entry of the device list, and contexts opened on it. */
#ifndef UROCE_CONTEXT_H
#define UROCE_CONTEXT_H

#include "device.h"

struct async_event {
	struct async_event *next;
	struct ibv_async_event event;
	unsigned taken; /* in the list of taken ones: how many of its object */
};

struct context {
	struct verbs_context verbs; /* `verbs.context` is what the application holds */
	struct device *device;
	/* Asynchronous events: `async_fd` of the context is an eventfd that counts the waiting ones. */
	pthread_mutex_t event_lock;
	struct async_event *event_head;
	struct async_event **event_tail;
	struct async_event *event_taken; /* one per object of which the application has taken any */
	atomic_uint objects; /* PDs, CQs, channels... that are alive: tells a leak at close (logged at info) */
};

/* Whether an object's context is ours. Exported functions ask this first, and pass all others through. */
bool context_is_ours(const struct ibv_context *context);
static inline struct context *context_of(const struct ibv_context *context)
{
	return (struct context *)((char *)(uintptr_t)context - offsetof(struct context, verbs.context));
}

/* The device of this process as a list entry; NULL (logged why, once) when it can't be had. */
struct ibv_device *context_device(void);
bool context_is_our_device(const struct ibv_device *device);
struct ibv_context *context_open(void); /* NULL and errno */
int context_close(struct ibv_context *context);

int context_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t size);
int context_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size);

/* 0, or EINVAL with errno set: there is no such port or index. */
int context_query_gid(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry);
/* The GUID of the node and of the system image. Never 0. */
__be64 context_guid(void);

/* ibv_get_async_event(3), ibv_ack_async_event(3). */
int context_get_event(struct ibv_context *context, struct ibv_async_event *event);
/* Takes one count back from an eventfd, if there is one. It may be a blocking one that other threads wait at. */
void event_uncount(int fd);
void context_ack_event(const struct ibv_async_event *event);
/* The context of the object that an event is about; NULL: it is about none. */
struct ibv_context *context_of_event(const struct ibv_async_event *event);
/* Drops all events, waiting or taken. */
void context_forget_all(struct context *context);

/* Queues an event of type `type` on a QP, CQ, SRQ or port (what `element` is follows from the type) and makes async_fd
 * readable. `events` counts, for destroy functions to wait on, the events given out and not acknowledged.
 * Any lock may be held but event_lock. Memory for it may be missing: then it is logged and lost. */
void context_raise(struct context *context, enum ibv_event_type type, void *element);
/* Drops the queued events of an object that is being destroyed; returns how many of its events the application has
 * taken, so that the destroy function can wait for their acknowledgement as ibv_ack_async_event(3) says. */
unsigned context_forget(struct context *context, const void *element);

#endif
