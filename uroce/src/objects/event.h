/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous events of a context. */
#ifndef UROCE_EVENT_H
#define UROCE_EVENT_H

#include "context.h"

struct async_event {
	struct async_event *next;
	struct ibv_async_event event;
	unsigned taken; /* in the list of taken ones: how many of its object */
};

/* ibv_get_async_event(3), ibv_ack_async_event(3). */
int event_get(struct ibv_context *context, struct ibv_async_event *event);
void event_ack(const struct ibv_async_event *event);
/* The context of the object that an event is about; NULL: it is about none. */
struct ibv_context *event_context(const struct ibv_async_event *event);
/* Drops all events, waiting or taken. */
void event_forget_all(struct context *context);

/* Queues an event on a QP, CQ, SRQ or port (`type` says which `element` is) and makes async_fd readable. The caller may hold
 * any lock but event_lock. Without memory the event is lost, which is logged. */
void event_raise(struct context *context, enum ibv_event_type type, void *element);
/* Drops the queued events of an object that is being destroyed; returns how many of its events the application has
 * taken, so that the destroy function can wait for their acknowledgement as ibv_ack_async_event(3) says. */
unsigned event_forget(struct context *context, const void *element);
/* Waits until all the events that the application has taken are acknowledged: `completed` has reached `taken`. */
void event_wait_acknowledged(pthread_mutex_t *mutex, pthread_cond_t *cond, const uint32_t *completed, uint32_t taken);

#endif
