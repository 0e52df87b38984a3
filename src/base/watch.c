/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include "log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int fail(void)
{
	return srdma_fail(-errno, "cannot make the descriptors to wait on: %s", strerror(errno));
}

int srdma_watch_open(struct srdma_watch *watch)
{
	*watch = (struct srdma_watch){.fd = epoll_create1(EPOLL_CLOEXEC), .timer_fd = -1, .at = SRDMA_NEVER};
	return watch->fd < 0 ? fail() : 0;
}

void srdma_watch_close(struct srdma_watch *watch)
{
	if (watch->timer_fd >= 0)
		close(watch->timer_fd);
	if (watch->fd >= 0)
		close(watch->fd);
	watch->timer_fd = watch->fd = -1;
}

int srdma_watch_change(struct srdma_watch *watch, int fd, short before, short events)
{
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u), .data.fd = fd};
	int operation = before == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

	if (before == events)
		return 0;
	return epoll_ctl(watch->fd, operation, fd, &event) != 0 ? fail() : 0;
}

int srdma_watch_add(struct srdma_watch *watch, int fd, short events)
{
	return srdma_watch_change(watch, fd, 0, events);
}

void srdma_watch_remove(struct srdma_watch *watch, int fd)
{
	epoll_ctl(watch->fd, EPOLL_CTL_DEL, fd, NULL);
}

int srdma_watch_until(struct srdma_watch *watch, uint64_t at)
{
	struct itimerspec when = {0};

	if (watch->at == at)
		return 0;
	if (watch->timer_fd < 0) {
		int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

		if (fd < 0 || srdma_watch_add(watch, fd, POLLIN) != 0) {
			int ret = fail();

			if (fd >= 0)
				close(fd);
			return ret;
		}
		watch->timer_fd = fd;
	}
	/* Zero would disarm it. */
	if (at != SRDMA_NEVER) {
		when.it_value.tv_sec = (time_t)(at / 1000000);
		when.it_value.tv_nsec = (long)(at % 1000000 * 1000 + 1);
	}
	if (timerfd_settime(watch->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) != 0)
		return fail();
	watch->at = at;
	return 0;
}
