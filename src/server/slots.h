/* SPDX-License-Identifier: Apache-2.0 */
/* The table of connected clients: it gives them ids and limits their number. It grows and shrinks with use. */
#ifndef SRDMA_SLOTS_H
#define SRDMA_SLOTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A client's place, in the client itself. */
struct srdma_slot {
	void *client;   /* set by the owner before it takes the slot */
	uint64_t id;    /* 0: the client has no place */
	unsigned index; /* in the table */
};

struct srdma_slots {
	pthread_mutex_t mutex; /* guards the members below, and data of the table's owner, which says so there */
	struct srdma_slot **taken; /* the first `used` are set; the last one replaces a client that leaves */
	unsigned capacity;
	unsigned used;
	unsigned max;          /* may be below `used` after a change: the clients beyond it stay */
	uint64_t next_id;      /* no id is used twice */
	bool closed;           /* takes no more clients */
};

void srdma_slots_init(struct srdma_slots *slots, unsigned max);
void srdma_slots_destroy(struct srdma_slots *slots);
/* The functions below are thread-safe. */
/* Puts a client into the table and gives it an id (from 1). -EBUSY: full; -ESHUTDOWN: closed; -ENOMEM. The
 * function calls `may`, unless NULL, with the mutex held, and returns its result if that is not 0. */
int srdma_slots_take(struct srdma_slots *slots, struct srdma_slot *slot, int (*may)(struct srdma_slots *slots, void *arg), void *arg);
/* Does nothing for a client without a place. */
void srdma_slots_release(struct srdma_slots *slots, struct srdma_slot *slot);
void srdma_slots_close(struct srdma_slots *slots);
unsigned srdma_slots_used(struct srdma_slots *slots);
/* Calls visit for each client with the mutex held. */
void srdma_slots_each(struct srdma_slots *slots, void (*visit)(void *client, void *arg), void *arg);

#endif
