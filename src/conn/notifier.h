/* SPDX-License-Identifier: Apache-2.0 */
/* One completion channel for many connections, and the list of those that something has happened to. One thread's. */
#ifndef SRDMA_NOTIFIER_H
#define SRDMA_NOTIFIER_H

#include "securdma.h"

struct srdma_notifier {
	struct ibv_comp_channel *channel;
	int wake_fd; /* eventfd of the thread; waking one of its connections writes to it */
	struct srdma_conn *first, *last;
};

int srdma_notifier_init(struct srdma_notifier *notifier, struct srdma_device *device, int wake_fd);
/* No connection has it any more. */
void srdma_notifier_release(struct srdma_notifier *notifier);
/* Puts a connection at the end of the list, unless it is in it. */
void srdma_notifier_add(struct srdma_notifier *notifier, struct srdma_conn *conn);
/* Takes the first one out; NULL when there is none. */
struct srdma_conn *srdma_notifier_next(struct srdma_notifier *notifier);
void srdma_notifier_remove(struct srdma_notifier *notifier, struct srdma_conn *conn);
/* Takes the channel's events: their connections are in the list then. Does not block. */
void srdma_notifier_take(struct srdma_notifier *notifier);

#endif
