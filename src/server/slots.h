/* SPDX-License-Identifier: Apache-2.0 */
/* The table of connected clients: their numbers, and how many may be connected. It grows and shrinks with use. */
#ifndef SRDMA_SLOTS_H
#define SRDMA_SLOTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A client's place, in the client itself. */
struct srdma_slot {
	void *client;   /* set by the owner before it takes the slot */
	uint64_t id;    /* 0: has no place */
	unsigned index; /* in the table */
};

struct srdma_slots {
	pthread_mutex_t mutex; /* guards everything below, and what the owner of the table says it guards */
	struct srdma_slot **taken; /* the first `used` are set; the last one replaces a client that leaves */
	unsigned capacity;
	unsigned used;
	unsigned max;          /* may be below `used` after a change: those beyond it stay */
	uint64_t next_id;      /* ids are never used twice */
	bool closed;           /* nobody gets in any more */
};

void srdma_slots_init(struct srdma_slots *slots, unsigned max);
void srdma_slots_destroy(struct srdma_slots *slots);
/* All below are thread-safe. */
/* Puts a client into the table and gives it an id (from 1). -EBUSY: full; -ESHUTDOWN: closed; -ENOMEM. `may`, unless NULL,
 * is asked with the mutex held; what it returns, if not 0, is the answer. */
int srdma_slots_take(struct srdma_slots *slots, struct srdma_slot *slot, int (*may)(struct srdma_slots *slots, void *arg),
		     void *arg);
/* Nothing for one that has no place. */
void srdma_slots_release(struct srdma_slots *slots, struct srdma_slot *slot);
void srdma_slots_close(struct srdma_slots *slots);
unsigned srdma_slots_used(struct srdma_slots *slots);
/* Calls visit for each client with the mutex held. */
void srdma_slots_each(struct srdma_slots *slots, void (*visit)(void *client, void *arg), void *arg);

#endif
