/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that seal and open records ahead for many connections. Lanes (seal_lane.h) with work wait in one queue; a thread takes the
 * oldest lane, does one turn of its works, and puts it behind the others: a connection with much work gets no more turns than one
 * with little. The threads sleep while the queue is empty.
 *
 * A server has a pool for all its clients; all other connections of a process share one. */
#ifndef SRDMA_SEAL_POOL_H
#define SRDMA_SEAL_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define SRDMA_SEAL_THREADS_MAX 64u

struct srdma_seal_lane;
struct srdma_seal_pool;

/* 1 to SRDMA_SEAL_THREADS_MAX threads. Errors: -EAGAIN: no thread; -ENOMEM. */
int srdma_seal_pool_new(unsigned threads, struct srdma_seal_pool **out);
/* Ends the threads. No lane of the pool may be left. */
void srdma_seal_pool_delete(struct srdma_seal_pool **pool);

/* Returns the process's pool, which then has this many threads at least; srdma_seal_pool_leave gives it back, and the last call ends
 * its threads. Thread-safe. After a fork the child has a pool of its own. */
int srdma_seal_pool_share(unsigned threads, struct srdma_seal_pool **out);
void srdma_seal_pool_leave(struct srdma_seal_pool **pool);

/* Thread-safe. */
unsigned srdma_seal_pool_threads(const struct srdma_seal_pool *pool);
/* Bytes sealed and opened by a thread, counted from 1; 0: by the connections' own threads. Thread-safe. */
uint64_t srdma_seal_pool_bytes(const struct srdma_seal_pool *pool, unsigned thread);

/* For lanes. Thread-safe. */
void srdma_seal_pool_count(struct srdma_seal_pool *pool, unsigned thread, uint32_t bytes);
/* Puts a lane at the end of the queue, with a reference to it, and wakes a thread. False: the queue is full. */
bool srdma_seal_pool_offer(struct srdma_seal_pool *pool, struct srdma_seal_lane *lane);

#endif
