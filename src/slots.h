/* SPDX-License-Identifier: Apache-2.0 */
/* The table of connected clients: who is in, under which number, and how many may be. */
#ifndef SRDMA_SLOTS_H
#define SRDMA_SLOTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct srdma_slots {
	pthread_mutex_t mutex; /* guards everything below, and what the owner of the table says it guards */
	void **clients;        /* capacity entries; NULL: free */
	unsigned capacity;
	unsigned used;
	unsigned max;          /* may be below used after a change */
	uint64_t next_id;      /* ids are never used twice */
	bool closed;           /* nobody gets in any more */
};

int srdma_slots_init(struct srdma_slots *slots, unsigned max);
void srdma_slots_destroy(struct srdma_slots *slots);
/* Clients beyond a lower limit stay. -ENOMEM. Thread-safe, like all below. */
int srdma_slots_set_max(struct srdma_slots *slots, unsigned max);
/* Puts `client` into a free slot and gives it an id (from 1). -EBUSY: full; -ESHUTDOWN: closed. */
int srdma_slots_take(struct srdma_slots *slots, void *client, uint64_t *id);
void srdma_slots_release(struct srdma_slots *slots, void *client);
void srdma_slots_close(struct srdma_slots *slots);
unsigned srdma_slots_used(struct srdma_slots *slots);
/* Calls visit for each client with the mutex held. */
void srdma_slots_each(struct srdma_slots *slots, void (*visit)(void *client, void *arg), void *arg);

#endif
