/* SPDX-License-Identifier: Apache-2.0 */
/* Completion channels: queues with an event to give, and an eventfd that counts the events. */
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "eventfd.h"

static struct channel *channel_of(struct ibv_comp_channel *channel)
{
	return (struct channel *)channel;
}

struct ibv_comp_channel *channel_create(struct ibv_context *ibv_context)
{
	struct context *context = context_of(ibv_context);
	struct channel *channel = calloc(1, sizeof *channel);
	if (!channel)
		return NULL;
	/* Blocking, as the application expects: it makes the descriptor non-blocking if it wants that. */
	channel->ibv.fd = eventfd_open(EFD_SEMAPHORE);
	if (channel->ibv.fd < 0) {
		int error = errno;
		free(channel);
		errno = error;
		return NULL;
	}
	channel->ibv.context = ibv_context;
	channel->tail = &channel->head;
	pthread_mutex_init(&channel->lock, NULL);
	context_count(context, &context->device->counters->objects.channel, 1);
	return &channel->ibv;
}

int channel_destroy(struct ibv_comp_channel *ibv_channel)
{
	struct channel *channel = channel_of(ibv_channel);
	struct context *context = context_of(ibv_channel->context);

	pthread_mutex_lock(&ibv_channel->context->mutex);
	bool used = ibv_channel->refcnt != 0;
	pthread_mutex_unlock(&ibv_channel->context->mutex);
	if (used)
		return EBUSY;

	close(ibv_channel->fd);
	pthread_mutex_destroy(&channel->lock);
	context_count(context, &context->device->counters->objects.channel, -1);
	free(channel);
	return 0;
}

/* ---- events ---- */

/* A queue is in the list once, however many events it has. Lock held, for both. */
static void channel_append(struct channel *channel, struct cq_events *events)
{
	events->next = NULL;
	*channel->tail = events;
	channel->tail = &events->next;
}

static void channel_take_out(struct channel *channel, struct cq_events *events)
{
	struct cq_events **at = &channel->head;
	while (*at != events)
		at = &(*at)->next;
	*at = events->next;
	if (channel->tail == &events->next)
		channel->tail = at;
	events->next = NULL;
}

void channel_push(struct cq_events *events)
{
	if (!events->cq->channel)
		return;
	struct channel *channel = channel_of(events->cq->channel);
	pthread_mutex_lock(&channel->lock);
	if (events->waiting++ == 0)
		channel_append(channel, events);
	/* Under the lock: else channel_forget could drop the event before it is counted. */
	eventfd_count(channel->ibv.fd, "a completion channel");
	pthread_mutex_unlock(&channel->lock);
}

uint32_t channel_forget(struct cq_events *events)
{
	if (!events->cq->channel)
		return 0;
	struct channel *channel = channel_of(events->cq->channel);
	pthread_mutex_lock(&channel->lock);
	if (events->waiting > 0)
		channel_take_out(channel, events);
	for (; events->waiting > 0; events->waiting--)
		eventfd_uncount(channel->ibv.fd); /* if it does not, cq_get_event finds the list empty */
	uint32_t given = events->given;
	pthread_mutex_unlock(&channel->lock);
	return given;
}

/* False when the event that was counted has been dropped since. */
static bool channel_next(struct channel *channel, struct ibv_cq **cq, void **cq_context)
{
	pthread_mutex_lock(&channel->lock);
	struct cq_events *events = channel->head;
	if (events) {
		channel_take_out(channel, events);
		if (--events->waiting > 0)
			channel_append(channel, events);
		events->given++;
		/* Read here: the queue can't go before this event is acknowledged, but only from now on. */
		*cq = events->cq;
		*cq_context = events->cq->cq_context;
	}
	pthread_mutex_unlock(&channel->lock);
	return events;
}

int cq_get_event(struct ibv_comp_channel *ibv_channel, struct ibv_cq **cq, void **cq_context)
{
	do {
		if (eventfd_wait(ibv_channel->fd) != 0)
			return -1;
	} while (!channel_next(channel_of(ibv_channel), cq, cq_context));
	return 0;
}

void cq_ack_events(struct ibv_cq *cq, unsigned count)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += count;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}
