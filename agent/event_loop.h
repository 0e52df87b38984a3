/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors that the agent's one thread waits for. */
#ifndef AGENT_EVENT_LOOP_H
#define AGENT_EVENT_LOOP_H

#include <stdint.h>

/* A descriptor, and the function that serves it. */
struct source {
	void (*ready)(struct source *source, uint32_t events);
	int fd;
	uint32_t events; /* of epoll(7); 0: it is not waited for */
};

struct event_loop {
	int epoll_fd;
};

/* Errors: -EMFILE and the like. */
int event_loop_open(struct event_loop *loop);
void event_loop_close(struct event_loop *loop);
/* Waits for these events from now on; 0: for none. Errors: -ENOMEM, -ENOSPC. */
int event_loop_watch(struct event_loop *loop, struct source *source, uint32_t events);
/* Serves what is ready, up to `most` events, and never waits. Returns whether there may be more. A function that it calls may free any source. */
int event_loop_serve(struct event_loop *loop, unsigned most);

#endif
