/* SPDX-License-Identifier: Apache-2.0 */
/* How often connections wake a program on which nothing happens. */
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#define MEASURED_MS 1000
#define MOST        64

static long switches_of_this_thread(void)
{
	struct rusage usage;

	CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
	return usage.ru_nvcsw;
}

/* What an event loop does that has nothing to send. */
static void drain(struct srdma_conn *conn)
{
	char data[64];
	size_t length;

	EXPECT(srdma_conn_recv(conn, data, sizeof data, &length, 0), -EAGAIN);
}

/* Returns how often epoll_wait(2) slept within the time. */
static long loop(struct rig *rig, struct srdma_conn **conns, int count)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t until, now;
	long before;

	for (int i = 0; i < count; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = conns[i]};

		/* Connections begin to wait at all times. */
		pause_ms(5);
		drain(conns[i]);
		CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, srdma_conn_fd(conns[i]), &event) == 0);
	}
	before = switches_of_this_thread();
	until = clock_ms() + MEASURED_MS;
	while ((now = clock_ms()) < until) {
		struct epoll_event events[MOST];
		int n = epoll_wait(epoll_fd, events, MOST, (int)(until - now));

		for (int i = 0; i < n; i++)
			drain(events[i].data.ptr);
	}
	close(epoll_fd);
	return switches_of_this_thread() - before;
}

static long switches_of_the_process(void)
{
	struct rusage usage;

	CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
	return usage.ru_nvcsw;
}

void mode_idle(struct rig *rig, char **args)
{
	struct srdma_conn *conns[MOST];
	struct srdma_conn_info info;
	int count = atoi(args[0]);
	long before;

	CHECK(count <= MOST);
	rig->server_limits.max_clients = (unsigned)count;
	/* New epochs by time are the clients' matter alone. */
	rig->server_conn.epoch_ms = 0;
	rig_serve(rig);
	for (int i = 0; i < count; i++)
		conns[i] = rig_connect(rig);
	rig_wait_clients(rig, (unsigned)count);
	fact(rig, "in_a_loop", loop(rig, conns, count));
	srdma_conn_get_info(conns[0], &info);
	fact(rig, "epoch", info.epoch);
	/* The threads of the server and of the device. */
	before = switches_of_the_process();
	pause_ms(MEASURED_MS);
	fact(rig, "of_the_server", switches_of_the_process() - before);
	for (int i = 0; i < count; i++)
		rig_leave(&conns[i]);
	rig_stop(rig, 0);
}
