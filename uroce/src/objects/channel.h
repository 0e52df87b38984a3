/* SPDX-License-Identifier: Apache-2.0 */
/* Completion channels: which completion queues have an event to give, and an eventfd that counts the events. */
#ifndef UROCE_CHANNEL_H
#define UROCE_CHANNEL_H

#include "context.h"

struct channel {
	struct ibv_comp_channel ibv; /* `fd`: an eventfd semaphore, one count per event waiting */
	pthread_mutex_t lock;
	struct cq_events *head; /* queues with an event to give */
	struct cq_events **tail;
};

/* A completion queue's events, under the channel's lock. */
struct cq_events {
	struct cq_events *next;
	struct ibv_cq *cq;
	unsigned waiting; /* in the channel's list */
	uint32_t given;   /* that the application has taken */
};

/* One more event of this queue, if it has a channel. The queue's lock may be held. */
void channel_push(struct cq_events *events);
/* Drops those that wait; returns how many the application has taken. */
uint32_t channel_forget(struct cq_events *events);

/* The verbs. */
struct ibv_comp_channel *channel_create(struct ibv_context *context);
int channel_destroy(struct ibv_comp_channel *channel);
int cq_get_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context);
void cq_ack_events(struct ibv_cq *cq, unsigned count);

#endif
