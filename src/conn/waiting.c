/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors that a connection sleeps on, and the one wait that all calls share. */
#include "clock.h"
#include "conn.h"
#include "log.h"
#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define STALLED_TICK_MS 20
#define SLICE_MS 20
/* A polling waiter looks at the clock and the descriptors once in this many rounds, since a look costs more than a round. */
#define ROUNDS_PER_SENDS 4
#define ROUNDS_PER_CLOCK 64
#define ROUNDS_PER_EVENTS 4096
/* In a sealed transfer, a peer that has a processor of its own mostly answers sooner, and must not find this end away. Other waits are
 * too short for it. */
#define ALONE_US 10

int srdma_conn_prepare_waiting(struct srdma_conn *conn)
{
	int flags = fcntl(conn->comp->fd, F_GETFL), ret;

	if (conn->notifier)
		return 0;
	conn->wake_fd = srdma_wake_new();
	/* The completion channel of a raw connection belongs to the program, so it stays blocking and is not watched here. */
	if (flags < 0 || conn->wake_fd < 0 || (!conn->options.raw && fcntl(conn->comp->fd, F_SETFL, flags | O_NONBLOCK) != 0))
		return srdma_fail(-errno, "cannot make the descriptors to wait on: %s", strerror(errno));
	ret = srdma_watch_open(&conn->watch);
	if (ret == 0 && !conn->options.raw)
		ret = srdma_watch_add(&conn->watch, conn->comp->fd, POLLIN);
	if (ret == 0)
		ret = srdma_watch_add(&conn->watch, srdma_tls_fd(conn->tls), POLLIN);
	if (ret == 0)
		ret = srdma_watch_add(&conn->watch, conn->wake_fd, POLLIN);
	conn->control_watch = POLLIN;
	return ret;
}

void srdma_conn_watch_control(struct srdma_conn *conn)
{
	short events = srdma_conn_control_events(conn);

	if (conn->notifier)
		return;
	srdma_watch_change(&conn->watch, srdma_tls_fd(conn->tls), conn->control_watch, events);
	conn->control_watch = events;
}

int srdma_conn_share_wake(struct srdma_conn *conn, int fd, atomic_bool *requested)
{
	int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0), ret;

	if (shared < 0)
		return srdma_fail(-errno, "cannot duplicate the descriptor for wake-ups: %s", strerror(errno));
	ret = srdma_watch_add(&conn->watch, shared, POLLIN);
	if (ret != 0) {
		close(shared);
		return ret;
	}
	srdma_watch_remove(&conn->watch, conn->wake_fd);
	close(conn->wake_fd);
	conn->wake_fd = shared;
	conn->shared_request = requested;
	return 0;
}

int srdma_conn_fd(struct srdma_conn *conn)
{
	return conn->watch.fd;
}

void srdma_conn_wake(struct srdma_conn *conn)
{
	atomic_store(&conn->wake_requested, true);
	srdma_conn_nudge(conn);
}

void srdma_conn_nudge(struct srdma_conn *conn)
{
	srdma_wake_send(conn->notifier ? conn->notifier->wake_fd : conn->wake_fd);
}

void srdma_conn_fail_later(struct srdma_conn *conn, enum ibv_event_type event)
{
	atomic_store(&conn->device_event, (int)event + 1);
	srdma_conn_wake(conn);
}

void srdma_conn_cancel(struct srdma_conn *conn)
{
	atomic_store(&conn->cancelled, true);
	srdma_conn_wake(conn);
}

void srdma_conn_arm(struct srdma_conn *conn)
{
	srdma_sealed_rdma_arm(&conn->sealed_rdma);
	if (conn->armed || conn->options.raw || conn->status != 0)
		return;
	if (ibv_req_notify_cq(conn->recv_cq, 0) != 0 || ibv_req_notify_cq(conn->send_cq, 0) != 0) {
		srdma_fail(SRDMA_EVERBS, "cannot arm the completion queues");
		srdma_conn_end(conn, SRDMA_EVERBS);
		return;
	}
	conn->armed = true;
}

struct srdma_conn *srdma_conn_take_cq_event(struct ibv_comp_channel *channel)
{
	struct srdma_conn *conn;
	struct ibv_cq *cq;
	void *context;

	if (ibv_get_cq_event(channel, &cq, &context) != 0)
		return NULL;
	conn = context;
	if (cq == conn->send_cq)
		conn->unacked_send++;
	else
		conn->unacked_recv++;
	/* The next sleep arms both queues, so it does not matter which one raised the event. */
	conn->armed = false;
	return conn;
}

/* The wait of a worker's connection, for handlers that block. The channel also carries other connections' events, which the
 * worker handles later, or another thread meanwhile. A wake-up of this connection only sets a flag. */
static int take_shared_events(struct srdma_conn *conn, int timeout_ms)
{
	struct srdma_notifier *notifier = conn->notifier;
	bool leaves = conn->waited_us >= SLICE_MS * 1000 && timeout_ms > 0 && notifier->leaves, takes = true;
	uint64_t start = timeout_ms > 0 ? srdma_clock_us() : 0;
	struct pollfd fds[] = {
		{.fd = conn->comp->fd, .events = POLLIN},
		{.fd = srdma_conn_control_events(conn) ? srdma_tls_fd(conn->tls) : -1, .events = srdma_conn_control_events(conn)},
	};
	int n, error;

	if (leaves) {
		notifier->leaves(notifier, conn);
		fds[0].fd = conn->wait_fd;
	}
	n = poll(fds, 2, timeout_ms > SLICE_MS ? SLICE_MS : timeout_ms);
	error = n < 0 && errno != EINTR ? errno : 0;
	if (leaves) {
		takes = notifier->came_back(notifier, conn);
		srdma_wake_take(conn->wait_fd);
	}
	if (error != 0)
		return srdma_fail(-error, "cannot wait: %s", strerror(error));
	if (timeout_ms > 0)
		conn->waited_us += srdma_clock_us() - start;
	if (takes && (fds[0].revents || leaves))
		srdma_notifier_take(notifier);
	/* The thread that serves the list may sleep. */
	if (notifier->first && notifier->serves && !notifier->serves(notifier))
		srdma_wake_send(notifier->wake_fd);
	if (fds[1].revents || conn->control_more)
		srdma_conn_progress_control(conn);
	if (atomic_exchange(&conn->wake_requested, false))
		conn->woken = true;
	return 0;
}

static int take_events(struct srdma_conn *conn, int timeout_ms)
{
	struct epoll_event events[4];
	int n;

	if (conn->notifier)
		return take_shared_events(conn, timeout_ms);
	n = epoll_wait(conn->watch.fd, events, 4, timeout_ms);
	if (n < 0 && errno != EINTR)
		return srdma_fail(-errno, "cannot wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == srdma_tls_fd(conn->tls)) {
			srdma_conn_progress_control(conn);
		} else if (events[i].data.fd == conn->wake_fd) {
			srdma_wake_take(conn->wake_fd);
			conn->woken = atomic_exchange(&conn->wake_requested, false) || conn->woken;
			if (conn->shared_request)
				conn->woken = atomic_exchange(conn->shared_request, false) || conn->woken;
		} else if (events[i].data.fd == conn->watch.timer_fd) {
			/* A call that waits knows the time itself; the next one that declines sets it anew. What is due may be an epoch. */
			srdma_watch_until(&conn->watch, SRDMA_NEVER);
			srdma_conn_progress_control(conn);
		} else {
			while (srdma_conn_take_cq_event(conn->comp))
				;
		}
	}
	return 0;
}

static int still_waiting(struct srdma_conn *conn)
{
	if (atomic_load_explicit(&conn->cancelled, memory_order_relaxed))
		return srdma_fail(-ECANCELED, "the server is shutting down");
	return conn->status != 0 ? srdma_conn_check(conn) : 0;
}

/* Polls for the spin time. Returns whether `ready` became true. */
static bool spin(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), uint64_t deadline)
{
	/* One that always polls would keep a worker's other clients from being served. */
	int limit = conn->notifier && conn->options.spin < 0 ? SLICE_MS * 1000 : conn->options.spin;
	uint64_t began = 0, until = 0;

	for (unsigned round = 1; limit != 0; round++) {
		if (round % ROUNDS_PER_SENDS == 0)
			srdma_conn_progress(conn, false);
		else
			srdma_conn_progress_receives(conn);
		if (ready(conn))
			return true;
		if (conn->status != 0)
			return false;
		if (round % ROUNDS_PER_EVENTS == 0 &&
		    (take_events(conn, 0) != 0 || atomic_load_explicit(&conn->cancelled, memory_order_relaxed)))
			return ready(conn);
		if (round % ROUNDS_PER_CLOCK == 0) {
			uint64_t now = srdma_clock_us();

			if (began == 0)
				began = now;
			if (now - began >= ALONE_US && srdma_sealed_rdma_is_active(&conn->sealed_rdma))
				now = srdma_yield(&conn->yield, now);
			if (until == 0)
				until = limit > 0 ? now + (uint64_t)limit : deadline;
			if ((now >= until && !srdma_sealed_rdma_is_active(&conn->sealed_rdma)) || now >= deadline)
				return false;
		}
	}
	return false;
}

struct srdma_patience srdma_conn_patience(const struct srdma_conn *conn, int timeout_ms)
{
	return (struct srdma_patience){.ms = timeout_ms < 0 ? conn->options.timeout_ms : timeout_ms};
}

/* Whether there is work that no descriptor announces, such as data that OpenSSL or a completion queue holds already. */
static bool has_work(const struct srdma_conn *conn)
{
	return srdma_sealed_rdma_has_work(&conn->sealed_rdma) || conn->control_more || conn->queues.receives_left;
}

/* When something is due by the clock alone. */
static uint64_t next_due(const struct srdma_conn *conn)
{
	uint64_t now = srdma_clock_us();
	uint64_t due = srdma_conn_control_is_stalled(conn) ? now + STALLED_TICK_MS * 1000 : srdma_epoch_next(conn, now);
	int closed = srdma_rate_left_ms(&conn->rate);

	return closed > 0 && now + (uint64_t)closed * 1000 < due ? now + (uint64_t)closed * 1000 : due;
}

/* The end of a call that must not wait: the program will wait for the descriptor, or a server for `ready`. */
static int decline(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), const char *what)
{
	uint64_t due = next_due(conn);
	int ret = 0;

	conn->declined = ready;
	if (has_work(conn))
		due = 0;
	if (conn->leave_deadline != 0 && conn->leave_deadline < due)
		due = conn->leave_deadline;
	if (!conn->notifier)
		ret = srdma_watch_until(&conn->watch, due);
	return ret == 0 ? srdma_again(what) : ret;
}

int srdma_conn_wait_until(struct srdma_conn *conn, bool (*ready)(const struct srdma_conn *), const char *what,
			  struct srdma_patience *patience)
{
	bool waits = patience->ms != 0;
	int ret;

	srdma_conn_progress(conn, false);
	if (ready(conn))
		return 0;
	if (patience->deadline == 0)
		patience->deadline = srdma_deadline(patience->ms);
	for (bool first = true;; first = false) {
		/* Spins the first time, and again after each sleep during a sealed transfer. */
		if (waits && (first || srdma_sealed_rdma_is_active(&conn->sealed_rdma)) && spin(conn, ready, patience->deadline))
			return 0;
		ret = take_events(conn, 0);
		if (ret == 0) {
			srdma_conn_arm(conn);
			/* A completion between the last look and the arming raises no event. */
			srdma_conn_progress(conn, false);
		}
		if (ready(conn))
			return 0;
		if (ret == 0)
			ret = still_waiting(conn);
		if (ret != 0)
			return ret;
		if (!waits)
			return decline(conn, ready, what);
		int left = srdma_deadline_left_ms(patience->deadline);
		uint64_t due = next_due(conn);
		if (left == 0)
			return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for %s", patience->ms, what);
		if (due < patience->deadline)
			left = srdma_deadline_left_ms(due);
		ret = take_events(conn, has_work(conn) ? 0 : left);
		if (ret == 0 && due != SRDMA_NEVER)
			srdma_conn_progress_control(conn);
		srdma_conn_progress(conn, false);
		if (ready(conn))
			return 0;
		if (ret != 0)
			return ret;
	}
}
