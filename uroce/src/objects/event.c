/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous events: each context has a queue and an eventfd that counts its events. Events that the application has taken
 * are remembered for each object, because an object must not go before all its events are acknowledged. */
#include "event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "eventfd.h"
#include "log.h"

enum about { ABOUT_PORT, ABOUT_QP, ABOUT_CQ, ABOUT_SRQ, ABOUT_WQ };

static enum about about(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return ABOUT_QP;
	case IBV_EVENT_CQ_ERR:
		return ABOUT_CQ;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		return ABOUT_SRQ;
	case IBV_EVENT_WQ_FATAL:
		return ABOUT_WQ;
	default:
		return ABOUT_PORT;
	}
}

/* The object of an event; all kinds share one place. NULL for an event of the port or the device. */
static const void *element_of(const struct ibv_async_event *event)
{
	return about(event->event_type) == ABOUT_PORT ? NULL : event->element.qp;
}

struct ibv_context *event_context(const struct ibv_async_event *event)
{
	_Static_assert(offsetof(struct ibv_qp, context) == 0 && offsetof(struct ibv_cq, context) == 0 &&
			       offsetof(struct ibv_srq, context) == 0 && offsetof(struct ibv_wq, context) == 0, "layout");
	struct ibv_context *const *element = element_of(event);
	return element ? *element : NULL;
}

/* ---- raising ---- */

void event_raise(struct context *context, enum ibv_event_type type, void *element)
{
	struct async_event *event = calloc(1, sizeof *event);
	if (!event) {
		log_write(LOG_ERROR, "out of memory: lost an asynchronous event (%d)", (int)type);
		return;
	}
	event->event.event_type = type;
	if (about(type) == ABOUT_PORT)
		event->event.element.port_num = 1;
	else
		event->event.element.qp = element;

	pthread_mutex_lock(&context->event_lock);
	*context->event_tail = event;
	context->event_tail = &event->next;
	/* Under the lock: else event_forget could drop the event before it is counted. */
	eventfd_count(context->verbs.context.async_fd, "asynchronous events");
	pthread_mutex_unlock(&context->event_lock);
}

/* ---- taking ---- */

/* Remembers that an event was taken. The event itself becomes the record, so that no memory can be missing. */
static void remember(struct context *context, struct async_event *event)
{
	const void *element = element_of(&event->event);
	if (!element) {
		free(event);
		return;
	}
	struct async_event *record = context->event_taken;
	while (record && element_of(&record->event) != element)
		record = record->next;
	if (record) {
		record->taken++;
		free(event);
		return;
	}
	event->taken = 1;
	event->next = context->event_taken;
	context->event_taken = event;
}

/* False when the event that was counted has been dropped since. */
static bool take_event(struct context *context, struct ibv_async_event *out)
{
	pthread_mutex_lock(&context->event_lock);
	struct async_event *event = context->event_head;
	if (event) {
		context->event_head = event->next;
		if (!context->event_head)
			context->event_tail = &context->event_head;
		*out = event->event;
		remember(context, event);
	}
	pthread_mutex_unlock(&context->event_lock);
	return event;
}

int event_get(struct ibv_context *ibv_context, struct ibv_async_event *event)
{
	do {
		if (eventfd_wait(ibv_context->async_fd) != 0)
			return -1;
	} while (!take_event(context_of(ibv_context), event));
	return 0;
}

static void acknowledge(pthread_mutex_t *mutex, pthread_cond_t *cond, uint32_t *completed)
{
	pthread_mutex_lock(mutex);
	++*completed;
	pthread_cond_signal(cond);
	pthread_mutex_unlock(mutex);
}

void event_ack(const struct ibv_async_event *event)
{
	switch (about(event->event_type)) {
	case ABOUT_QP: {
		struct ibv_qp *qp = event->element.qp;
		acknowledge(&qp->mutex, &qp->cond, &qp->events_completed);
		break;
	}
	case ABOUT_CQ: {
		struct ibv_cq *cq = event->element.cq;
		acknowledge(&cq->mutex, &cq->cond, &cq->async_events_completed);
		break;
	}
	case ABOUT_SRQ: {
		struct ibv_srq *srq = event->element.srq;
		acknowledge(&srq->mutex, &srq->cond, &srq->events_completed);
		break;
	}
	default:
		break; /* nothing waits for these */
	}
}

void event_wait_acknowledged(pthread_mutex_t *mutex, pthread_cond_t *cond, const uint32_t *completed, uint32_t taken)
{
	pthread_mutex_lock(mutex);
	while ((int32_t)(taken - *completed) > 0)
		pthread_cond_wait(cond, mutex);
	pthread_mutex_unlock(mutex);
}

/* ---- forgetting ---- */

static unsigned forget_taken(struct context *context, const void *element)
{
	for (struct async_event **at = &context->event_taken; *at; at = &(*at)->next) {
		struct async_event *record = *at;
		if (element_of(&record->event) != element)
			continue;
		unsigned taken = record->taken;
		*at = record->next;
		free(record);
		return taken;
	}
	return 0;
}

unsigned event_forget(struct context *context, const void *element)
{
	pthread_mutex_lock(&context->event_lock);
	struct async_event **at = &context->event_head;
	while (*at) {
		struct async_event *event = *at;
		if (element_of(&event->event) != element) {
			at = &event->next;
			continue;
		}
		*at = event->next;
		free(event);
		eventfd_uncount(context->verbs.context.async_fd); /* if it does not, event_get finds none */
	}
	context->event_tail = at;
	unsigned taken = forget_taken(context, element);
	pthread_mutex_unlock(&context->event_lock);
	return taken;
}

static void free_list(struct async_event **list)
{
	while (*list) {
		struct async_event *event = *list;
		*list = event->next;
		free(event);
	}
}

void event_forget_all(struct context *context)
{
	pthread_mutex_lock(&context->event_lock);
	free_list(&context->event_head);
	free_list(&context->event_taken);
	context->event_tail = &context->event_head;
	pthread_mutex_unlock(&context->event_lock);
}
