/* SPDX-License-Identifier: Apache-2.0 */
/* What the modes about a program's own memory have in common. */
#ifndef PROBE_MEMORY_H
#define PROBE_MEMORY_H

#include "probe.h"

#include "securdma_memory.h"

#include <stdatomic.h>

enum { MEMORY_SIZE = 64 * 1024, REMOTE_ALL = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };

/* The end that offers, in a thread of its own: all calls need both programs to be in calls of the library. */
struct offering {
	struct rig *rig;
	struct srdma_conn *conn;
	pthread_t thread;
	atomic_bool over;
	char *data;
	struct srdma_memory *memory;
	uint32_t ids[3];
	int status; /* of its last call */
};

/* Both ends have regions with names from now on. */
void memory_agree(struct rig *rig);
struct srdma_memory *memory_registered(struct rig *rig, void *data, size_t size, unsigned access);
struct srdma_piece memory_piece(struct srdma_memory *memory, uint64_t offset, uint64_t length);
/* Posts one request and waits until it is complete. */
void memory_post(struct srdma_conn *conn, struct srdma_request *request, enum srdma_request_kind kind, uint32_t region, uint64_t offset,
		 const struct srdma_piece *pieces, size_t count);
/* Writes into the region in several pieces, and reads that again in others. */
void memory_write_and_read(struct rig *rig, struct srdma_conn *conn, const struct srdma_peer_region *region, unsigned round);

#endif
