/* SPDX-License-Identifier: Apache-2.0 */
/* One completion channel for the connections of one thread, and the list of those that have something to do. */
#ifndef SRDMA_NOTIFIER_H
#define SRDMA_NOTIFIER_H

#include "securdma.h"

struct srdma_notifier {
	struct ibv_comp_channel *channel;
	int wake_fd; /* the thread's (wake.h): waking one of its connections wakes the thread */
	struct srdma_conn *first, *last;
	/* Called around a long wait in a function of the program, during which other threads may work for the notifier's other
	 * connections and take the channel's events. They signal `wait_fd` for those of `conn`. Both NULL: there is only one thread.
	 * `came_back` returns whether no other thread has taken events. */
	void (*leaves)(struct srdma_notifier *notifier, struct srdma_conn *conn);
	bool (*came_back)(struct srdma_notifier *notifier, struct srdma_conn *conn);
	/* Whether the calling thread works off the list; another one wakes that thread when it has added to it. NULL as above. */
	bool (*serves)(const struct srdma_notifier *notifier);
};

int srdma_notifier_init(struct srdma_notifier *notifier, struct srdma_device *device, int wake_fd);
/* No connection may use it any more. */
void srdma_notifier_release(struct srdma_notifier *notifier);
/* Puts a connection at the end of the list, unless it is in it. */
void srdma_notifier_add(struct srdma_notifier *notifier, struct srdma_conn *conn);
/* Takes the first connection out of the list; NULL when the list is empty. */
struct srdma_conn *srdma_notifier_next(struct srdma_notifier *notifier);
void srdma_notifier_remove(struct srdma_notifier *notifier, struct srdma_conn *conn);
/* Takes the channel's events and adds their connections to the list. Does not block. */
void srdma_notifier_take(struct srdma_notifier *notifier);

#endif
