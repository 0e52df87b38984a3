/* SPDX-License-Identifier: Apache-2.0 */
/* One descriptor that stands for several others, and for a time: an epoll(7) descriptor, which a program can give to poll(2) or to an
 * epoll of its own. */
#ifndef SRDMA_WATCH_H
#define SRDMA_WATCH_H

#include <stdint.h>

#define SRDMA_NEVER UINT64_MAX

struct srdma_watch {
	int fd;       /* readable when one of the others is ready, or the time has come; -1: there is none */
	int timer_fd; /* -1: it was not needed yet */
	uint64_t at;  /* the time (clock.h), or SRDMA_NEVER */
};

/* Makes the descriptor. Errors: -EMFILE and the like. */
int srdma_watch_open(struct srdma_watch *watch);
/* Also for one that was never opened, whose `fd` and `timer_fd` are -1. */
void srdma_watch_close(struct srdma_watch *watch);
/* From now on it is readable when `fd` has one of these events of poll(2). Errors: as above. */
int srdma_watch_add(struct srdma_watch *watch, int fd, short events);
/* Sets other events; with `before` 0 `fd` is new, and with `events` 0 it is taken out. */
int srdma_watch_change(struct srdma_watch *watch, int fd, short before, short events);
/* To be called before `fd` is closed: a child process may have a duplicate of it, which would stay in the set. */
void srdma_watch_remove(struct srdma_watch *watch, int fd);
/* From this time on it is readable, too, until the next call. SRDMA_NEVER: it is not. Errors: as above. */
int srdma_watch_until(struct srdma_watch *watch, uint64_t at);

#endif
