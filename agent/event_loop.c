/* SPDX-License-Identifier: Apache-2.0 */
#include "event_loop.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

int event_loop_open(struct event_loop *loop)
{
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd < 0 ? srdma_fail(-errno, "cannot make the descriptor to wait on: %s", strerror(errno)) : 0;
}

void event_loop_close(struct event_loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	loop->epoll_fd = -1;
}

int event_loop_watch(struct event_loop *loop, struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	int operation = source->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

	if (source->events == events)
		return 0;
	if (epoll_ctl(loop->epoll_fd, operation, source->fd, &event) != 0)
		return srdma_fail(-errno, "cannot wait for a descriptor: %s", strerror(errno));
	source->events = events;
	return 0;
}

int event_loop_serve(struct event_loop *loop, unsigned most)
{
	struct epoll_event event;

	/* One at a time: a function may free the source of the next event. The kernel takes ready descriptors by turns. */
	for (unsigned i = 0; i < most; i++) {
		struct source *source;

		if (epoll_wait(loop->epoll_fd, &event, 1, 0) != 1)
			return 0;
		source = event.data.ptr;
		source->ready(source, event.events);
	}
	return 1;
}
