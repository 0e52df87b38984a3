/* SPDX-License-Identifier: Apache-2.0 */
/* Completion channels: queues with an event to give, and an eventfd that counts the events. */
#include "cq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log.h"

static struct channel *channel_of(struct ibv_comp_channel *channel)
{
	return (struct channel *)channel;
}

struct ibv_comp_channel *channel_create(struct ibv_context *ibv_context)
{
	struct context *context = context_of(ibv_context);
	struct channel *channel = calloc(1, sizeof(*channel));
	if (channel == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	/* Blocking, as the application expects: it makes the descriptor non-blocking if it wants that. */
	channel->ibv.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (channel->ibv.fd < 0) {
		int error = errno;
		free(channel);
		errno = error;
		return NULL;
	}
	channel->ibv.context = ibv_context;
	channel->tail = &channel->head;
	pthread_mutex_init(&channel->lock, NULL);
	atomic_fetch_add(&context->objects, 1);
	counter_object(&context->device->counters->objects.channel, 1);
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
	atomic_fetch_sub(&context->objects, 1);
	counter_object(&context->device->counters->objects.channel, -1);
	free(channel);
	return 0;
}

/* ---- events ---- */

/* A queue is in the list once, however many events it has. Lock held, for both. */
static void append(struct channel *channel, struct cq *cq)
{
	cq->next = NULL;
	*channel->tail = cq;
	channel->tail = &cq->next;
}

static void take_out(struct channel *channel, struct cq *cq)
{
	struct cq **at = &channel->head;
	while (*at != cq)
		at = &(*at)->next;
	*at = cq->next;
	if (channel->tail == &cq->next)
		channel->tail = at;
	cq->next = NULL;
}

void channel_push(struct cq *cq)
{
	struct channel *channel = channel_of(cq->ibv.channel);
	static const uint64_t one = 1;

	pthread_mutex_lock(&channel->lock);
	if (cq->events++ == 0)
		append(channel, cq);
	/* Under the lock: else channel_forget could drop the event before it is counted. */
	if (write(channel->ibv.fd, &one, sizeof(one)) != sizeof(one))
		log_write(LOG_ERROR, "the program has closed the descriptor of a completion channel, or put another in its place: %s", strerror(errno));
	pthread_mutex_unlock(&channel->lock);
}

uint32_t channel_forget(struct cq *cq)
{
	if (cq->ibv.channel == NULL)
		return 0;
	struct channel *channel = channel_of(cq->ibv.channel);
	pthread_mutex_lock(&channel->lock);
	if (cq->events > 0)
		take_out(channel, cq);
	for (; cq->events > 0; cq->events--)
		event_uncount(channel->ibv.fd); /* if it does not, cq_get_event finds the list empty */
	uint32_t given = cq->given;
	pthread_mutex_unlock(&channel->lock);
	return given;
}

/* False when the event that was counted has been dropped since. */
static bool next_event(struct channel *channel, struct ibv_cq **cq_out, void **cq_context)
{
	pthread_mutex_lock(&channel->lock);
	struct cq *cq = channel->head;
	if (cq != NULL) {
		take_out(channel, cq);
		if (--cq->events > 0)
			append(channel, cq);
		cq->given++;
		/* Read here: the queue can't go before this event is acknowledged, but only from now on. */
		*cq_out = &cq->ibv;
		*cq_context = cq->ibv.cq_context;
	}
	pthread_mutex_unlock(&channel->lock);
	return cq != NULL;
}

int cq_get_event(struct ibv_comp_channel *ibv_channel, struct ibv_cq **cq, void **cq_context)
{
	do {
		/* As with the kernel's descriptor: EAGAIN and EINTR are the caller's. */
		uint64_t count;
		ssize_t got = read(ibv_channel->fd, &count, sizeof(count));
		if (got != sizeof(count))
			return -1;
	} while (!next_event(channel_of(ibv_channel), cq, cq_context));
	return 0;
}

void cq_ack_events(struct ibv_cq *cq, unsigned count)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += count;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}
