/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a program's, and what a connection has of it. */
#ifndef SRDMA_MEMORY_H
#define SRDMA_MEMORY_H

#include "region.h"
#include "securdma_memory.h"

#include <pthread.h>

struct srdma_conn;

struct srdma_memory {
	struct srdma_device *device;
	struct srdma_source source;
	unsigned access;
	pthread_mutex_t mutex; /* guards all that follows */
	unsigned owners;       /* references of the program's */
	struct srdma_lease *leases;
	srdma_release_fn *on_release;
	void *arg;
};

/* A connection's use of a memory, with a reference. Only the connection's thread touches it, but for the list of the memory. */
struct srdma_lease {
	struct srdma_conn *conn;
	struct srdma_memory *memory;
	struct srdma_region region; /* all of the memory, for this end's own requests; no `mr` until there is one, nor while sealed */
	struct srdma_lease *next;   /* of the connection */
	struct srdma_lease *next_of_memory, *previous_of_memory;
};

/* Finds the connection's lease of the memory, or makes one. Errors: -EINVAL (another device), -EOPNOTSUPP (sealed, a dmabuf), -ENOMEM. */
int srdma_lease_get(struct srdma_conn *conn, struct srdma_memory *memory, struct srdma_lease **out);
/* Registers the memory for this end's own requests, unless it is or need not be. */
int srdma_lease_register(struct srdma_lease *lease);
/* Lets go of all memory that the program has released and no request uses. */
int srdma_leases_drop_released(struct srdma_conn *conn);
/* For the end: the queue pair is gone. */
void srdma_leases_release(struct srdma_conn *conn);

#endif
