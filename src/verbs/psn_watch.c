/* SPDX-License-Identifier: Apache-2.0 */
#include "psn_watch.h"

#include "clock.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The names that mlx5 and uroce use, and those of rxe. */
static const char *const counters[SRDMA_PSN_WATCH_COUNTERS] = {"out_of_sequence", "duplicate_request", "out_of_seq_request",
							   "rcvd_seq_err"};

void srdma_psn_watch_init(struct srdma_psn_watch *sweep, const char *path, unsigned port)
{
	char name[PATH_MAX];

	*sweep = (struct srdma_psn_watch){0};
	pthread_mutex_init(&sweep->mutex, NULL);
	for (size_t i = 0; i < SRDMA_PSN_WATCH_COUNTERS; i++) {
		int fd;

		if (snprintf(name, sizeof name, "%s/ports/%u/hw_counters/%s", path, port, counters[i]) >= (int)sizeof name)
			continue;
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			sweep->fds[sweep->fd_count++] = fd;
	}
}

static uint64_t read_total(const struct srdma_psn_watch *sweep)
{
	uint64_t total = 0;

	for (size_t i = 0; i < sweep->fd_count; i++) {
		char text[32];
		ssize_t n = pread(sweep->fds[i], text, sizeof text - 1, 0);

		if (n <= 0)
			continue;
		text[n] = '\0';
		total += strtoull(text, NULL, 10);
	}
	return total;
}

#define LOOK_US (SRDMA_PSN_WATCH_LOOK_MS * UINT64_C(1000))

uint64_t srdma_psn_watch_next(uint64_t now)
{
	return (now / LOOK_US + 1) * LOOK_US;
}

uint64_t srdma_psn_watch_look(struct srdma_psn_watch *sweep, uint64_t *packets)
{
	uint64_t now, total, elapsed;

	*packets = 0;
	if (sweep->fd_count == 0)
		return 0;
	now = srdma_clock_us();
	if (now < atomic_load_explicit(&sweep->next_look, memory_order_relaxed) || pthread_mutex_trylock(&sweep->mutex) != 0)
		return atomic_load(&sweep->seen);
	total = read_total(sweep);
	elapsed = now - sweep->looked;
	/* After a long time without a look their rate is unknown, so only a new count begins. */
	if (sweep->looked != 0 && total > sweep->total && elapsed > 0 && elapsed < 20u * SRDMA_PSN_WATCH_LOOK_MS * 1000u) {
		uint64_t rate = (total - sweep->total) * 1000000 / elapsed;

		if (rate >= SRDMA_PSN_WATCH_PACKETS) {
			*packets = rate;
			atomic_fetch_add(&sweep->seen, 1);
		}
	}
	sweep->looked = now;
	sweep->total = total;
	/* Not shortly after a look between two such moments: a burst would look like a high rate. */
	atomic_store(&sweep->next_look, srdma_psn_watch_next(now + LOOK_US / 2));
	pthread_mutex_unlock(&sweep->mutex);
	return atomic_load(&sweep->seen);
}

void srdma_psn_watch_release(struct srdma_psn_watch *sweep)
{
	for (size_t i = 0; i < sweep->fd_count; i++)
		close(sweep->fds[i]);
	sweep->fd_count = 0;
	pthread_mutex_destroy(&sweep->mutex);
}
