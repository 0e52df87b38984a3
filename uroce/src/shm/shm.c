/* SPDX-License-Identifier: Apache-2.0 */
#include "shm_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "wipe.h"

enum {
	EVENTS = 32,
	PATIENCE = 128, /* looks at busy rings between two at everything else */
	OVERFLOW_UID = 65534,
};

/* ---- events ---- */

static void outgoing_event(struct shm *shm, struct shm_path *path, unsigned *taken)
{
	char byte = 0;
	bool open = shm_read_bytes(path->watch.fd, &byte);
	if (byte == SAY_REFUSED) {
		path_end(path, SHM_REFUSED);
	} else if (!open) {
		*taken += shm_take_all(shm);
		path_end(path, atomic_load(&path->ring.shared->left) != 0 ? SHM_LEFT : SHM_KILLED);
	}
}

static unsigned handle_events(struct shm *shm, bool thorough)
{
	struct epoll_event events[EVENTS];
	unsigned taken = 0;
	int n = epoll_wait(shm->epoll_fd, events, EVENTS, 0);
	/* Ends of others last, and one at a time: what is handled may end other watches. */
	for (int kind = LISTENER; kind <= OUTGOING; kind++) {
		for (int i = 0; i < n; i++) {
			struct watch *watch = events[i].data.ptr;
			if (!watch || watch->kind != (enum kind)kind)
				continue;
			events[i].data.ptr = NULL;
			switch (watch->kind) {
			case LISTENER: shm_accept_all(shm, watch); break;
			case INCOMING:
				incoming_event(shm, (struct incoming *)watch, events[i].events & EPOLLHUP, thorough, &taken);
				break;
			case OUTGOING:
				outgoing_event(shm, (struct shm_path *)watch, &taken);
				return taken; /* the others are still there the next time */
			}
		}
	}
	return taken;
}

unsigned shm_receive(struct shm *shm, unsigned budget, bool thorough)
{
	unsigned taken = 0;
	if (thorough || ++shm->looks % PATIENCE == 0)
		taken = handle_events(shm, thorough);
	if (shm->busy)
		taken += shm_look_at_busy(shm, budget);
	struct counters *counters = shm->config.counters;
	traffic_count(&shm->received, &counters->rx_packets, &counters->rx_bytes, &counters->rx_local);
	return taken;
}

unsigned shm_receive_briefly(struct shm *shm, unsigned budget)
{
	return shm_look_at_busy(shm, budget);
}

bool shm_is_busy(const struct shm *shm)
{
	return shm->busy;
}

bool shm_sleep(struct shm *shm)
{
	for (struct incoming *in = shm->busy; in; in = in->next_busy) {
		incoming_settle(in);
		if (!ring_sleep(&in->ring))
			return false;
	}
	return true;
}

int shm_fd(const struct shm *shm)
{
	return shm->epoll_fd;
}

/* ---- opening and closing ---- */

/* The kernel shows all users that a user namespace has no number for as one. */
static bool users_look_alike(void)
{
	unsigned first = 0, outside = 0, count = 0;
	if (geteuid() != OVERFLOW_UID)
		return false;
	FILE *map = fopen("/proc/self/uid_map", "re");
	bool all = map && fscanf(map, "%u %u %u", &first, &outside, &count) == 3 && first == 0 && outside == 0 && count == UINT32_MAX;
	if (map)
		fclose(map);
	return !all;
}

int shm_open_device(const struct shm_config *config, struct shm **out)
{
	if (users_look_alike())
		return -EPERM;
	struct shm *shm = calloc(1, sizeof *shm);
	if (!shm)
		return -ENOMEM;
	shm->config = *config;
	shm->uid = geteuid();
	shm->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (shm->epoll_fd < 0) {
		int error = errno;
		free(shm);
		return -error;
	}
	*out = shm;
	return 0;
}

void shm_leave(struct shm *shm)
{
	for (struct watch *watch = shm->watches; watch; watch = watch->next) {
		struct incoming *in = (struct incoming *)watch;
		if (watch->kind == INCOMING && in->ring.shared)
			atomic_store(&in->ring.shared->left, 1);
	}
}

void shm_abandon(struct shm *shm)
{
	for (struct watch *watch = shm->watches; watch; watch = watch->next)
		close(watch->fd);
	close(shm->epoll_fd);
}

void shm_close(struct shm **handle)
{
	struct shm *shm = *handle;
	if (!shm)
		return;
	*handle = NULL;
	while (shm->watches) {
		struct watch *watch = shm->watches;
		switch (watch->kind) {
		case LISTENER:
			watch_remove(shm, watch);
			free(watch);
			break;
		case INCOMING: incoming_end(shm, (struct incoming *)watch); break;
		case OUTGOING: path_free((struct shm_path *)watch); break;
		}
	}
	/* Those that have ended are watched no more. */
	for (unsigned block = 0; block < BLOCK_COUNT; block++)
		while (shm->paths[block])
			path_free(shm->paths[block]);
	close(shm->epoll_fd);
	wipe_free(shm, sizeof *shm);
}

