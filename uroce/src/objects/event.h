/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous events of a context, and eventfds that count. */
#ifndef UROCE_EVENT_H
#define UROCE_EVENT_H

#include "context.h"

struct async_event {
	struct async_event *next;
	struct ibv_async_event event;
	unsigned taken; /* in the list of taken ones: how many of its object */
};

/* An eventfd. -1 and errno, logged. */
int event_fd(int flags);
/* Counts one more on an eventfd semaphore. `what` names its descriptor, for a message when the program has closed it. */
void event_count(int fd, const char *what);
/* Takes one count back from an eventfd, if there is one. It may be a blocking one that other threads wait at. */
void event_uncount(int fd);
/* Waits until there is one to take, as ibv_get_async_event(3) does. -1 and errno: EAGAIN and EINTR are the caller's. */
int event_wait(int fd);

/* ibv_get_async_event(3), ibv_ack_async_event(3). */
int context_get_event(struct ibv_context *context, struct ibv_async_event *event);
void context_ack_event(const struct ibv_async_event *event);
/* The context of the object that an event is about; NULL: it is about none. */
struct ibv_context *context_of_event(const struct ibv_async_event *event);
/* Drops all events, waiting or taken. */
void context_forget_all(struct context *context);

/* Queues an event on a QP, CQ, SRQ or port (`type` says which `element` is) and makes async_fd readable. The caller may hold
 * any lock but event_lock. Without memory the event is lost, which is logged. */
void context_raise(struct context *context, enum ibv_event_type type, void *element);
/* Drops the queued events of an object that is being destroyed; returns how many of its events the application has
 * taken, so that the destroy function can wait for their acknowledgement as ibv_ack_async_event(3) says. */
unsigned context_forget(struct context *context, const void *element);
/* Waits until all the events that the application has taken are acknowledged: `completed` has reached `taken`. */
void event_wait_acknowledged(pthread_mutex_t *mutex, pthread_cond_t *cond, const uint32_t *completed, uint32_t taken);

#endif
