/* SPDX-License-Identifier: Apache-2.0 */
/* Connected clients. A worker's thread sleeps until a completion queue, a TLS channel or another thread has something for one
 * of its clients; what has just been busy is polled for a while instead. With a worker for each client (SRDMA_WORKERS_PER_CLIENT)
 * it is the same, with one client on each. */
#include "clock.h"
#include "device.h"
#include "events.h"
#include "log.h"
#include "metrics.h"
#include "server.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Messages of one client before it is the next one's turn. */
#define TURN 16
#define EVENTS 64
/* Between two looks at the deadlines of clients that have one. */
#define TICK_MS 20
/* Between two looks at clients that have had their bytes for now. */
#define THROTTLE_TICK_MS 2
/* Between two looks at what time and the device's counters bring, where they bring anything. */
#define WATCH_TICK_MS 100
/* Rounds of polling between two looks at the descriptors. */
#define ROUNDS_PER_EVENTS 16
/* Room for a program's handlers. The usual 8 MiB would invite the kernel to back a stack with a huge page. */
#define WORKER_STACK (1024 * 1024)

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void cool(struct srdma_client *client)
{
	struct srdma_worker *worker = client->worker;

	if (!client->hot)
		return;
	client->hot = false;
	for (unsigned i = 0; i < worker->hot_count; i++) {
		if (worker->hot[i] == client) {
			worker->hot[i] = worker->hot[--worker->hot_count];
			return;
		}
	}
}

/* Before the slot is released: who sees the client gone sees it counted, and a stop that begins then is not to blame. */
static void count_end(struct srdma_client *client, int status, bool lost)
{
	struct srdma_server *server = client->server;

	pthread_mutex_lock(&server->mutex);
	srdma_metrics_count_end(server, client->conn, status, lost);
	server->counts.lost += lost;
	server->unclean += lost && atomic_load(&server->stopping);
	pthread_mutex_unlock(&server->mutex);
}

static void release(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	struct srdma_worker *worker = client->worker;
	struct srdma_conn *conn = client->conn;

	pthread_mutex_lock(&server->slots.mutex);
	srdma_metrics_keep_traffic(server, conn);
	client->conn = NULL;
	pthread_mutex_unlock(&server->slots.mutex);
	cool(client);
	worker->ending -= client->ending;
	worker->blocked -= client->blocked;
	worker->changing -= client->changing;
	worker->throttled -= client->throttled;
	if (client->previous)
		client->previous->next = client->next;
	else
		worker->clients = client->next;
	if (client->next)
		client->next->previous = client->previous;
	/* First the objects, then the slot, then the channel: a client that sees it close can come again at once. */
	srdma_conn_release_verbs(conn);
	srdma_slots_release(&server->slots, &client->slot);
	srdma_worker_leave(worker);
	srdma_conn_delete(&conn);
	OPENSSL_cleanse(&client->info, sizeof client->info); /* PSNs */
	free(client);
	pthread_mutex_lock(&server->mutex);
	server->clients--;
	pthread_cond_broadcast(&server->ended);
	pthread_mutex_unlock(&server->mutex);
	if (atomic_load(&server->draining))
		srdma_server_nudge(server);
}

/* `status`: 0 for an end in order; else the thread's last error tells more. The client is gone after it. */
static void finish(struct srdma_client *client, int status, bool lost)
{
	const struct srdma_server_options *o = &client->server->options;
	char text[512];

	snprintf(text, sizeof text, "%s", srdma_error_text());
	if (o->handlers.on_disconnect)
		o->handlers.on_disconnect(client->conn, status, client->arg, o->arg);
	srdma_event_ended(client, status, lost, text);
	count_end(client, status, lost);
	release(client);
}

/* `ret`: how the disconnect went. */
static void finish_ending(struct srdma_client *client, int ret)
{
	if (client->status == 0) {
		finish(client, ret, ret != 0);
	} else {
		/* The program, not the connection, came to the end: a client that was told why is not lost. */
		if (ret == 0)
			srdma_fail(SRDMA_ECLOSED, "disconnected by this server: %s", client->reason);
		finish(client, client->status, ret != 0);
	}
}

/* The client may be gone after it. */
static void go_on_ending(struct srdma_client *client)
{
	int ret;

	srdma_conn_progress(client->conn, false);
	ret = srdma_conn_disconnect_step(client->conn, client->reason[0] ? client->reason : NULL);
	if (ret == -EAGAIN) {
		if (srdma_deadline_left_ms(client->deadline) > 0 && !atomic_load(&client->server->cancelled))
			return;
		ret = srdma_conn_end(client->conn, srdma_fail(-ETIMEDOUT, "timed out waiting for the client to answer the disconnect"));
	}
	finish_ending(client, ret);
}

/* status 0: the peer, or a stop of the server, ends it. */
static void begin_ending(struct srdma_client *client, int status, const char *reason)
{
	if (client->ending)
		return;
	cool(client);
	client->worker->blocked -= client->blocked;
	client->blocked = false;
	client->ending = true;
	client->worker->ending++;
	client->status = status;
	if (reason != client->reason)
		snprintf(client->reason, sizeof client->reason, "%s", reason);
	client->deadline = srdma_deadline(client->server->options.drain_timeout_ms);
}

/* ---- service --------------------------------------------------------------------------------------------------- */

/* The program does, or does not, take the oldest message now. */
static void block(struct srdma_client *client, bool blocked, bool got_on)
{
	if (blocked && (!client->blocked || got_on))
		client->deadline = srdma_deadline(client->server->options.conn.timeout_ms);
	client->worker->blocked += (unsigned)blocked - (unsigned)client->blocked;
	client->blocked = blocked;
}

/* Hands over what is there, up to a turn. Returns whether there was anything. */
static bool serve_messages(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	struct srdma_conn *conn = client->conn;
	const void *data;
	uint32_t length;
	int ret = 0, taken = 0;

	while (taken < TURN && ret == 0 && srdma_rate_is_open(&conn->rate) && srdma_conn_peek(conn, &data, &length) == 1) {
		if (o->handlers.on_message)
			ret = o->handlers.on_message(conn, data, length, client->reason, client->arg, o->arg);
		if (ret == 0) {
			srdma_rate_take(&conn->rate, length);
			ret = srdma_stream_consume(&conn->stream);
		}
		taken += ret == 0;
	}
	block(client, ret == -EAGAIN, taken > 0);
	if (ret == -EAGAIN)
		client->wants_room = !srdma_conn_can_send(conn);
	else if (ret != 0 && conn->status == 0)
		/* What can't be done because the client is leaving is no fault. */
		begin_ending(client, conn->closing.peer_requested ? 0 : ret,
			     client->reason[0] ? client->reason : "ended by the server");
	return taken > 0;
}

/* Whether a run of this client would get anywhere. */
static bool has_work(const struct srdma_client *client)
{
	const struct srdma_conn *conn = client->conn;

	if (conn->status != 0)
		return true;
	if (client->blocked && (srdma_sealed_rdma_has_work(&conn->sealed_rdma) || conn->control_more))
		return true;
	if (client->blocked)
		return client->wants_room && srdma_conn_can_send(conn);
	return (srdma_stream_has_message(&conn->stream) && !client->throttled) || conn->closing.peer_requested || conn->control_more ||
	       srdma_sealed_rdma_has_work(&conn->sealed_rdma);
}

/* A client that is getting new PSNs has a deadline, and so has one that does not read its TLS channel. */
static void watch_change(struct srdma_client *client)
{
	bool changing = client->conn->status == 0 &&
			(srdma_epoch_is_changing(client->conn) || srdma_conn_control_is_stalled(client->conn));

	client->worker->changing += (unsigned)changing - (unsigned)client->changing;
	client->changing = changing;
}

/* One that has had its bytes for now is looked at again when it may have more: nothing else will call for it. */
static void watch_rate(struct srdma_client *client)
{
	bool throttled = !srdma_rate_is_open(&client->conn->rate);

	client->worker->throttled += (unsigned)throttled - (unsigned)client->throttled;
	client->throttled = throttled;
}

static void watch_socket(struct srdma_client *client, int operation)
{
	/* The last thing to wait for is that the peer closes. */
	short events = srdma_conn_control_events(client->conn) | (client->conn->closing.finished ? POLLIN : 0);
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u), .data.ptr = client};

	if (operation == EPOLL_CTL_MOD && events == client->events)
		return;
	client->events = events;
	if (epoll_ctl(client->worker->epoll_fd, operation, srdma_tls_fd(client->conn->tls), &event) != 0)
		srdma_conn_end(client->conn, srdma_fail(-errno, "cannot watch a socket: %s", strerror(errno)));
}

static void progress(struct srdma_client *client, bool control)
{
	srdma_conn_progress(client->conn, control);
	watch_socket(client, EPOLL_CTL_MOD);
	watch_change(client);
	watch_rate(client);
}

/* Waits for the next event, or is polled for a while. */
static void rest(struct srdma_client *client, bool was_busy)
{
	struct srdma_worker *worker = client->worker;
	int spin = client->server->options.conn.spin;

	was_busy = was_busy || srdma_sealed_rdma_is_active(&client->conn->sealed_rdma);
	if (was_busy && spin != 0 && (client->hot || worker->hot_count < SRDMA_HOT_MAX)) {
		if (!client->hot)
			worker->hot[worker->hot_count++] = client;
		client->hot = true;
		client->hot_until = spin < 0 ? UINT64_MAX : srdma_clock_us() + (uint64_t)spin;
	}
	if (client->hot)
		return;
	srdma_conn_arm(client->conn);
	/* What came between the last look and the arming raises no event. */
	progress(client, false);
	if (has_work(client))
		srdma_notifier_add(&worker->notifier, client->conn);
}

/* Does what there is to do for a client, which may be gone after it. */
static void run(struct srdma_client *client)
{
	struct srdma_conn *conn = client->conn;
	bool busy;

	watch_change(client);
	if (client->ending) {
		go_on_ending(client);
		return;
	}
	progress(client, false);
	busy = serve_messages(client);
	if (busy)
		progress(client, false); /* credits, and what came meanwhile */
	if (conn->status != 0) {
		finish(client, srdma_conn_check(conn), true);
		return;
	}
	if (conn->closing.peer_requested && !srdma_stream_has_message(&conn->stream))
		begin_ending(client, 0, "");
	else if (atomic_load_explicit(&client->kicked, memory_order_acquire))
		begin_ending(client, -ECONNABORTED, client->kick_reason); /* which was written before and stays */
	else if (atomic_load_explicit(&client->server->stopping, memory_order_relaxed))
		begin_ending(client, 0, "the server is shutting down");
	if (client->ending) {
		go_on_ending(client);
		return;
	}
	if (has_work(client))
		srdma_notifier_add(&client->worker->notifier, conn);
	else
		rest(client, busy);
}

/* What `run` and `rest` leave to a client that is being disconnected: its completions have to be heard of. */
static void rest_ending(struct srdma_client *client)
{
	srdma_conn_arm(client->conn);
	go_on_ending(client);
}

static void poll_hot(struct srdma_worker *worker)
{
	uint64_t now = worker->hot_count > 0 ? srdma_clock_us() : 0;

	for (unsigned i = worker->hot_count; i > 0; i--) {
		struct srdma_client *client = worker->hot[i - 1];

		progress(client, false);
		if (has_work(client)) {
			run(client);
		} else if (now >= client->hot_until && !srdma_sealed_rdma_is_active(&client->conn->sealed_rdma)) {
			cool(client);
			rest(client, false);
		}
	}
}

/* ---- coming ---------------------------------------------------------------------------------------------------- */

static void take_client(struct srdma_worker *worker, struct srdma_client *client)
{
	const struct srdma_server_options *o = &worker->server->options;
	int ret = 0;

	client->next = worker->clients;
	client->previous = NULL;
	if (client->next)
		client->next->previous = client;
	worker->clients = client;
	watch_socket(client, EPOLL_CTL_ADD);
	if (client->conn->status != 0) {
		finish(client, srdma_conn_check(client->conn), true);
		return;
	}
	if (o->handlers.on_connect)
		ret = o->handlers.on_connect(client->conn, &client->arg, o->arg);
	if (ret != 0)
		begin_ending(client, ret, "refused by the server");
	/* The client may have spoken before there was anybody to listen. */
	progress(client, true);
	run(client);
}

static void take_arrivals(struct srdma_worker *worker)
{
	struct srdma_client *arrivals;

	pthread_mutex_lock(&worker->mutex);
	arrivals = worker->arrivals;
	worker->arrivals = NULL;
	pthread_mutex_unlock(&worker->mutex);
	while (arrivals) {
		struct srdma_client *next = arrivals->next;

		take_client(worker, arrivals);
		arrivals = next;
	}
}

/* Somebody wants something: of the worker (to stop), or of a client whose program may take its message now. */
static void be_woken(struct srdma_worker *worker)
{
	struct srdma_client *next;
	uint64_t count;
	ssize_t n = read(worker->wake_fd, &count, sizeof count);
	bool stopping = atomic_load(&worker->server->stopping);

	(void)n;
	take_arrivals(worker);
	for (struct srdma_client *client = worker->clients; client; client = next) {
		next = client->next;
		if (stopping || atomic_exchange(&client->conn->wake_requested, false) || atomic_load(&client->kicked) ||
		    atomic_load(&client->conn->epoch.wanted))
			run(client);
	}
}

static void check_deadlines(struct srdma_worker *worker)
{
	struct srdma_client *next;
	uint64_t now = srdma_clock_us();

	for (struct srdma_client *client = worker->clients; client; client = next) {
		next = client->next;
		if (srdma_epoch_is_due(client->conn, now) || srdma_conn_control_is_stalled(client->conn)) {
			progress(client, true);
			if (client->ending || has_work(client))
				run(client);
		} else if (client->ending) {
			rest_ending(client);
		} else if (client->blocked && srdma_deadline_left_ms(client->deadline) == 0) {
			srdma_fail(-ETIMEDOUT, "timed out waiting for the client to take its messages");
			begin_ending(client, -ETIMEDOUT, "the client did not take its messages in time");
			run(client);
		}
	}
}

static void release_throttled(struct srdma_worker *worker)
{
	struct srdma_client *next;

	for (struct srdma_client *client = worker->clients; client; client = next) {
		next = client->next;
		if (client->throttled && srdma_rate_is_open(&client->conn->rate))
			run(client);
	}
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void take_events(struct srdma_worker *worker, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(worker->epoll_fd, events, EVENTS, timeout_ms);
	bool woken = false;

	for (int i = 0; i < n; i++) {
		struct srdma_client *client = events[i].data.ptr;

		if (events[i].data.ptr == worker) {
			woken = true;
		} else if (events[i].data.ptr == &worker->notifier) {
			srdma_notifier_take(&worker->notifier);
		} else {
			progress(client, true);
			/* A program that said "not now" need not be asked again for that. */
			if (client->ending || has_work(client))
				srdma_notifier_add(&worker->notifier, client->conn);
		}
	}
	/* Last: a client that goes must not have an event left here. */
	if (woken)
		be_woken(worker);
}

static bool is_over(struct srdma_worker *worker)
{
	bool over;

	if (!atomic_load(&worker->server->stopping) || worker->clients)
		return false;
	pthread_mutex_lock(&worker->mutex);
	over = worker->arrivals == NULL && worker->over;
	pthread_mutex_unlock(&worker->mutex);
	return over;
}

static void *worker_main(void *arg)
{
	struct srdma_worker *worker = arg;
	bool watched = worker->server->options.conn.epoch_ms > 0 || srdma_device_watches(worker->server->device);
	uint64_t checked = 0, released = 0;
	unsigned round = 0;

	while (!is_over(worker)) {
		bool idle = !worker->notifier.first && worker->hot_count == 0;
		const struct srdma_conn *last;
		struct srdma_conn *conn;

		int tick = worker->ending + worker->blocked + worker->changing > 0 ? TICK_MS : watched ? WATCH_TICK_MS : -1;

		if (idle || ++round % ROUNDS_PER_EVENTS == 0)
			take_events(worker, !idle ? 0 : worker->throttled > 0 ? THROTTLE_TICK_MS : tick);
		/* Each that is in the list now; who comes into it meanwhile has its turn after the others. */
		last = worker->notifier.last;
		do {
			conn = srdma_notifier_next(&worker->notifier);
			if (conn)
				run(conn->owner);
		} while (conn != last);
		poll_hot(worker);
		if (worker->throttled > 0 && srdma_clock_us() - released >= THROTTLE_TICK_MS * 1000) {
			release_throttled(worker);
			released = srdma_clock_us();
		}
		if (tick > 0 && srdma_clock_us() - checked >= (uint64_t)tick * 1000) {
			check_deadlines(worker);
			checked = srdma_clock_us();
		}
	}
	return NULL;
}

static int add_to_epoll(struct srdma_worker *worker, int fd, void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

	return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static int create_thread(struct srdma_worker *worker)
{
	pthread_attr_t attr;
	int error = pthread_attr_init(&attr);

	if (error != 0)
		return error;
	error = pthread_attr_setstacksize(&attr, WORKER_STACK);
	if (error == 0)
		error = pthread_create(&worker->thread, &attr, worker_main, worker);
	pthread_attr_destroy(&attr);
	return error;
}

static void worker_delete(struct srdma_worker *worker)
{
	srdma_notifier_release(&worker->notifier);
	if (worker->epoll_fd >= 0)
		close(worker->epoll_fd);
	if (worker->wake_fd >= 0)
		close(worker->wake_fd);
	pthread_mutex_destroy(&worker->mutex);
	free(worker);
}

static int worker_new(struct srdma_server *server, struct srdma_worker **out)
{
	struct srdma_worker *worker = calloc(1, sizeof *worker);
	int ret, error = 0;

	if (!worker)
		return srdma_fail(-ENOMEM, "out of memory");
	worker->server = server;
	worker->number = (int)server->worker_count;
	pthread_mutex_init(&worker->mutex, NULL);
	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = srdma_notifier_init(&worker->notifier, server->device, worker->wake_fd);
	if (ret == 0 && (worker->epoll_fd < 0 || worker->wake_fd < 0 || add_to_epoll(worker, worker->wake_fd, worker) != 0 ||
			 add_to_epoll(worker, worker->notifier.channel->fd, &worker->notifier) != 0))
		error = errno;
	if (ret == 0 && error == 0)
		error = create_thread(worker);
	if (error != 0)
		ret = srdma_fail(-EAGAIN, "cannot start a worker: %s", strerror(error));
	if (ret != 0) {
		worker_delete(worker);
		return ret;
	}
	*out = worker;
	return 0;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

/* server->mutex is held, or no other thread runs. */
static int add_worker(struct srdma_server *server, struct srdma_worker **out)
{
	struct srdma_worker **grown = realloc(server->workers, (server->worker_count + 1) * sizeof(struct srdma_worker *));
	int ret;

	if (!grown)
		return srdma_fail(-ENOMEM, "out of memory");
	server->workers = grown;
	ret = worker_new(server, out);
	if (ret == 0)
		grown[server->worker_count++] = *out;
	return ret;
}

static unsigned wanted_workers(const struct srdma_server *server)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (server->options.workers > 0)
		return (unsigned)server->options.workers;
	return server->options.workers < 0 ? 0 : processors > 0 ? (unsigned)processors : 1;
}

int srdma_workers_start(struct srdma_server *server)
{
	unsigned wanted = wanted_workers(server);
	struct srdma_worker *worker;
	int ret = 0;

	while (ret == 0 && server->worker_count < wanted)
		ret = add_worker(server, &worker);
	return ret;
}

int srdma_worker_choose(struct srdma_server *server, struct srdma_worker **out)
{
	struct srdma_worker *least = NULL;
	int ret = 0;

	pthread_mutex_lock(&server->mutex);
	for (unsigned i = 0; i < server->worker_count && !(least && least->load == 0); i++)
		if (!least || server->workers[i]->load < least->load)
			least = server->workers[i];
	/* With a worker for each client, one that has become free is used again. */
	if (!least || (server->options.workers < 0 && least->load > 0))
		ret = add_worker(server, &least);
	if (ret == 0) {
		least->load++;
		*out = least;
	}
	pthread_mutex_unlock(&server->mutex);
	return ret;
}

void srdma_worker_leave(struct srdma_worker *worker)
{
	pthread_mutex_lock(&worker->server->mutex);
	worker->load--;
	pthread_mutex_unlock(&worker->server->mutex);
}

void srdma_worker_wake(struct srdma_worker *worker)
{
	uint64_t one = 1;

	if (write(worker->wake_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot wake a worker: %s", strerror(errno));
}

void srdma_worker_give(struct srdma_worker *worker, struct srdma_client *client)
{
	pthread_mutex_lock(&worker->mutex);
	client->next = worker->arrivals;
	worker->arrivals = client;
	pthread_mutex_unlock(&worker->mutex);
	srdma_worker_wake(worker);
}

void srdma_workers_wake(struct srdma_server *server)
{
	pthread_mutex_lock(&server->mutex);
	for (unsigned i = 0; i < server->worker_count; i++)
		srdma_worker_wake(server->workers[i]);
	pthread_mutex_unlock(&server->mutex);
}

void srdma_workers_stop(struct srdma_server *server)
{
	for (unsigned i = 0; i < server->worker_count; i++) {
		struct srdma_worker *worker = server->workers[i];

		pthread_mutex_lock(&worker->mutex);
		worker->over = true;
		pthread_mutex_unlock(&worker->mutex);
		srdma_worker_wake(worker);
		pthread_join(worker->thread, NULL);
		worker_delete(worker);
	}
	free(server->workers);
	server->workers = NULL;
	server->worker_count = 0;
}
