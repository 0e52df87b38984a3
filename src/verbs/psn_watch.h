/* SPDX-License-Identifier: Apache-2.0 */
/* Watches a device's counters for a sweep: an attacker that does not know the PSN of a queue pair tries one after the other. Each
 * packet that is ahead of the expected PSN counts as out of sequence, each that is behind as a duplicate. */
#ifndef SRDMA_PSN_WATCH_H
#define SRDMA_PSN_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Such packets in a second that count as a sweep. A loss also causes a window of them, so only thousands of losses a second reach it. */
#define SRDMA_PSN_WATCH_PACKETS 20000u
#define SRDMA_PSN_WATCH_LOOK_MS 250

#define SRDMA_PSN_WATCH_COUNTERS 4

struct srdma_psn_watch {
	int fds[SRDMA_PSN_WATCH_COUNTERS]; /* files of the device's counters */
	size_t fd_count;
	pthread_mutex_t mutex; /* guards the next two; a thread that finds it locked skips the look */
	uint64_t looked;
	uint64_t total;        /* as read at that time */
	atomic_uint_fast64_t next_look;
	atomic_uint_fast64_t seen; /* sweeps */
};

/* `path`: the device's directory (struct ibv_device.ibdev_path). A device without counters is not watched. */
void srdma_psn_watch_init(struct srdma_psn_watch *sweep, const char *path, unsigned port);
/* Sweeps seen so far; looks at the counters when it is time. Thread-safe. *packets: packets a second of a sweep seen just now; 0: none. */
uint64_t srdma_psn_watch_look(struct srdma_psn_watch *sweep, uint64_t *packets);
/* When the counters are to be looked at next, seen from `now`: a moment that all connections of a process share, so that they wake
 * together, and one of them looks. */
uint64_t srdma_psn_watch_next(uint64_t now);
void srdma_psn_watch_release(struct srdma_psn_watch *sweep);

#endif
