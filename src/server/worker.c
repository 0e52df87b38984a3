/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of connected clients. A worker sleeps until a completion queue, a TLS channel or another thread has something for one
 * of its clients; it polls clients that have just been busy for a while instead. With SRDMA_WORKERS_PER_CLIENT each worker has one
 * client. */
#include "clock.h"
#include "device.h"
#include "log.h"
#include "server.h"
#include "thread.h"
#include "wake.h"
#include "watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 64
/* Between two looks at the deadlines of clients that have one. */
#define TICK_MS 20
/* Between two looks at clients that have used up their bytes for now. */
#define THROTTLE_TICK_MS 2
/* The least time between two looks at whose epoch is over. */
#define EPOCH_TICK_MS 100
/* Rounds of polling between two looks at the descriptors. */
#define ROUNDS_PER_EVENTS 16
/* In a sealed transfer, rounds in vain until it gives the processor away: a client with a processor of its own sends sooner. */
#define ROUNDS_PER_YIELD 64
/* Room for a program's handlers. The usual 8 MiB would invite the kernel to back a stack with a huge page. */
#define WORKER_STACK (1024 * 1024)

/* A function of the program has waited since, so other threads have worked for the worker: clients may have gone. */
static bool was_absent(const struct srdma_worker *worker, unsigned absences)
{
	return worker->turn.absences != absences;
}

/* Returns whether any had work. */
static bool poll_hot(struct srdma_worker *worker)
{
	uint64_t now = worker->hot_count > 0 ? srdma_clock_us() : 0;
	unsigned absences = worker->turn.absences;
	bool busy = false;

	for (unsigned i = worker->hot_count; i > 0 && !was_absent(worker, absences); i--) {
		struct srdma_client *client = worker->hot[i - 1];

		srdma_client_progress(client, false);
		if (srdma_client_has_work(client)) {
			srdma_client_run(client);
			busy = true;
		} else if (now >= client->hot_until && !srdma_sealed_rdma_is_active(&client->conn->sealed_rdma)) {
			srdma_client_cool(client);
			srdma_client_rest(client, false);
		}
	}
	return busy;
}

/* Whether a client that is polled is in a sealed transfer. */
static bool has_transfer(const struct srdma_worker *worker)
{
	for (unsigned i = 0; i < worker->hot_count; i++)
		if (srdma_sealed_rdma_is_active(&worker->hot[i]->conn->sealed_rdma))
			return true;
	return false;
}

static void note_due(struct srdma_worker *worker, const struct srdma_client *client, uint64_t now)
{
	uint64_t due = srdma_epoch_next_by_time(client->conn, now);

	if (due < worker->due)
		worker->due = due;
}

static void take_client(struct srdma_worker *worker, struct srdma_client *client)
{
	const struct srdma_server_options *o = &worker->server->options;
	int ret = 0;

	note_due(worker, client, srdma_clock_us());

	srdma_clients_append(&worker->clients, client);
	srdma_client_watch(client, EPOLL_CTL_ADD);
	if (client->conn->status != 0) {
		srdma_client_finish(client, srdma_conn_check(client->conn), true);
		return;
	}
	worker->served = client;
	if (o->on_connect)
		ret = o->on_connect(client->conn, &client->arg, o->arg);
	if (ret != 0)
		srdma_client_end(client, ret, "refused by the server");
	/* Messages of the client may have come before its worker had it. */
	srdma_client_progress(client, true);
	srdma_client_run(client);
}

/* Another thread has woken the worker to stop it, or because a client's program may take its message now. */
static void be_woken(struct srdma_worker *worker)
{
	unsigned absences = worker->turn.absences;
	struct srdma_client *client, *next;
	bool stopping;

	srdma_wake_take(worker->wake_fd);
	stopping = atomic_load(&worker->server->stopping);
	if (!worker->arrived)
		worker->arrived = srdma_arrivals_take(&worker->arrivals);
	while ((client = worker->arrived) != NULL && !was_absent(worker, absences)) {
		worker->arrived = client->next;
		take_client(worker, client);
	}
	for (client = worker->clients.first; client && !was_absent(worker, absences); client = next) {
		bool woken;

		next = client->next;
		if (client->waits)
			continue;
		woken = atomic_exchange(&client->conn->wake_requested, false);
		client->conn->woken = client->conn->woken || (woken && worker->server->options.on_wake);
		if (woken)
			srdma_client_retry(client);
		if (stopping || woken || atomic_load(&client->kicked) || atomic_load(&client->conn->epoch.wanted) || atomic_load(&client->conn->memory_due) ||
		    srdma_sealed_rdma_has_work(&client->conn->sealed_rdma))
			srdma_client_run(client);
	}
}

static void check_deadlines(struct srdma_worker *worker)
{
	unsigned absences = worker->turn.absences;
	struct srdma_client *next;
	uint64_t now = srdma_clock_us();

	worker->due = SRDMA_NEVER;
	for (struct srdma_client *client = worker->clients.first; client && !was_absent(worker, absences); client = next) {
		next = client->next;
		note_due(worker, client, now);
		if (client->waits)
			continue;
		if (srdma_epoch_is_due(client->conn, now) || srdma_conn_control_is_stalled(client->conn)) {
			srdma_client_progress(client, true);
			if (client->marks[SRDMA_MARK_ENDING] || srdma_client_has_work(client))
				srdma_client_run(client);
		} else if (client->marks[SRDMA_MARK_ENDING]) {
			srdma_client_rest_ending(client);
		} else if (client->marks[SRDMA_MARK_BLOCKED] && srdma_deadline_left_ms(client->deadline) == 0) {
			srdma_fail(-ETIMEDOUT, "timed out waiting for the client to take its messages");
			srdma_client_end(client, -ETIMEDOUT, "the client did not take its messages in time");
			srdma_client_run(client);
		}
	}
	/* Not all clients were seen if the worker was absent. */
	if (worker->due < now + EPOCH_TICK_MS * 1000 || was_absent(worker, absences))
		worker->due = now + EPOCH_TICK_MS * 1000;
}

static void release_throttled(struct srdma_worker *worker)
{
	unsigned absences = worker->turn.absences;
	struct srdma_client *next;

	for (struct srdma_client *client = worker->clients.first; client && !was_absent(worker, absences); client = next) {
		next = client->next;
		if (client->marks[SRDMA_MARK_THROTTLED] && srdma_rate_is_open(&client->conn->rate))
			srdma_client_run(client);
	}
}

static void take_events(struct srdma_worker *worker, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	unsigned absences = worker->turn.absences;
	bool woken = false;
	int n;

	if (timeout_ms != 0)
		srdma_turn_exit(&worker->turn);
	n = epoll_wait(worker->epoll_fd, events, EVENTS, timeout_ms);
	if (timeout_ms != 0)
		srdma_turn_enter(&worker->turn);
	for (int i = 0; i < n; i++) {
		struct srdma_client *client = events[i].data.ptr;

		if (events[i].data.ptr == worker) {
			woken = true;
		} else if (events[i].data.ptr == &worker->notifier) {
			srdma_notifier_take(&worker->notifier);
		/* Another thread may have freed the client. The next wait reports its event again. */
		} else if (!was_absent(worker, absences)) {
			srdma_client_progress(client, true);
			/* An event of a blocked client is no reason to ask the program for its message again. */
			if (client->marks[SRDMA_MARK_ENDING] || srdma_client_has_work(client))
				srdma_notifier_add(&worker->notifier, client->conn);
		}
	}
	/* Wake-ups come last, because they may free a client that has an event left in this array. */
	if (woken)
		be_woken(worker);
}

/* `over` is read before the arrivals, so that none is missed. */
static bool is_over(struct srdma_worker *worker)
{
	return !worker->clients.first && atomic_load(&worker->over) && !atomic_load(&worker->arrivals) && !worker->arrived;
}

static bool has_deadlines(const struct srdma_worker *worker)
{
	return worker->marked[SRDMA_MARK_ENDING] + worker->marked[SRDMA_MARK_BLOCKED] + worker->marked[SRDMA_MARK_CHANGING] > 0;
}

/* How long the worker may sleep. */
static int rest_ms(const struct srdma_worker *worker)
{
	if (worker->marked[SRDMA_MARK_THROTTLED] > 0)
		return THROTTLE_TICK_MS;
	if (has_deadlines(worker))
		return TICK_MS;
	return worker->due == SRDMA_NEVER ? -1 : srdma_deadline_left_ms(worker->due);
}

/* Looks at the deadlines when it is time, or the acceptor has told of a sweep. Nothing is due in most rounds, which come often. */
static void check_time(struct srdma_worker *worker, uint64_t *checked)
{
	uint64_t sweeps = atomic_load_explicit(&worker->server->sweeps, memory_order_relaxed), now;

	if (sweeps == worker->sweeps_seen && worker->due == SRDMA_NEVER && !has_deadlines(worker))
		return;
	now = srdma_clock_us();
	if (sweeps == worker->sweeps_seen && now < worker->due && !(has_deadlines(worker) && now - *checked >= TICK_MS * 1000))
		return;
	worker->sweeps_seen = sweeps;
	*checked = now;
	check_deadlines(worker);
}

/* Serves each client that is in the list now; a client that enters the list meanwhile waits for the next round. Returns
 * whether there was any. */
static bool serve_noted(struct srdma_worker *worker)
{
	const struct srdma_conn *last = worker->notifier.last;
	unsigned absences = worker->turn.absences;
	struct srdma_conn *conn;

	do {
		conn = srdma_notifier_next(&worker->notifier);
		if (conn)
			srdma_client_run(conn->owner);
	} while (conn && conn != last && !was_absent(worker, absences));
	return last != NULL;
}

/* Serves all clients until there are none left, or another thread does it. */
static void work(struct srdma_worker *worker)
{
	uint64_t checked = 0, released = 0;
	unsigned round = 0, vain = 0;

	while (srdma_turn_is_mine(&worker->turn) && !is_over(worker)) {
		bool idle, served;

		srdma_turn_let_in(&worker->turn);
		idle = !worker->notifier.first && worker->hot_count == 0;
		if (idle || ++round % ROUNDS_PER_EVENTS == 0)
			take_events(worker, idle ? rest_ms(worker) : 0);
		served = serve_noted(worker);
		vain = poll_hot(worker) || served ? 0 : vain + 1;
		if (vain % ROUNDS_PER_YIELD == ROUNDS_PER_YIELD - 1 && has_transfer(worker))
			srdma_yield(&worker->yield, srdma_clock_us());
		if (worker->marked[SRDMA_MARK_THROTTLED] > 0 && srdma_clock_us() - released >= THROTTLE_TICK_MS * 1000) {
			release_throttled(worker);
			released = srdma_clock_us();
		}
		check_time(worker, &checked);
	}
}

static void *worker_main(void *arg)
{
	struct srdma_worker *worker = arg;

	srdma_turn_enter(&worker->turn);
	while (srdma_turn_take(&worker->turn)) {
		work(worker);
		if (is_over(worker))
			srdma_turn_end(&worker->turn);
		/* The thread that has its place may sleep, while clients have come into its lists. */
		else
			srdma_worker_wake(worker);
	}
	srdma_turn_exit(&worker->turn);
	return NULL;
}

/* A function of the program waits for `conn`, usually its own client's. Another thread serves the others meanwhile, and looks at
 * everything that this one was about to. */
static void leave(struct srdma_notifier *notifier, struct srdma_conn *conn)
{
	struct srdma_client *client = conn->owner;
	struct srdma_worker *worker = client->worker;

	(void)notifier;
	if (conn->wait_fd < 0)
		conn->wait_fd = srdma_wake_new();
	client->waits_for = worker->served;
	client->waits_for->waits = client->waits = true;
	srdma_client_cool(client);
	srdma_client_cool(client->waits_for);
	/* This thread waits for its events, and no other may. */
	srdma_client_watch(client, EPOLL_CTL_DEL);
	if (srdma_turn_is_mine(&worker->turn))
		srdma_worker_wake(worker);
	srdma_turn_leave(&worker->turn);
}

static bool serves(const struct srdma_notifier *notifier)
{
	const struct srdma_worker *worker = (const void *)((const char *)notifier - offsetof(struct srdma_worker, notifier));

	return srdma_turn_is_mine(&worker->turn);
}

static bool come_back(struct srdma_notifier *notifier, struct srdma_conn *conn)
{
	struct srdma_client *client = conn->owner;
	struct srdma_worker *worker = client->worker;

	(void)notifier;
	srdma_turn_return(&worker->turn);
	worker->served = client->waits_for;
	client->waits_for->waits = client->waits = false;
	srdma_client_watch(client, EPOLL_CTL_ADD);
	return srdma_turn_is_mine(&worker->turn);
}

static int add_to_epoll(struct srdma_worker *worker, int fd, void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

	return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void worker_delete(struct srdma_worker *worker)
{
	srdma_notifier_release(&worker->notifier);
	if (worker->epoll_fd >= 0)
		close(worker->epoll_fd);
	srdma_wake_close(worker->wake_fd);
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
	worker->due = SRDMA_NEVER;
	worker->sweeps_seen = atomic_load(&server->sweeps);
	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->wake_fd = srdma_wake_new();
	ret = srdma_notifier_init(&worker->notifier, server->device, worker->wake_fd);
	if (ret == 0 && (worker->epoll_fd < 0 || worker->wake_fd < 0 || add_to_epoll(worker, worker->wake_fd, worker) != 0 ||
			 add_to_epoll(worker, worker->notifier.channel->fd, &worker->notifier) != 0))
		error = errno;
	/* A worker for one client has no others to serve. */
	if (ret == 0 && server->options.workers >= 0) {
		worker->notifier.leaves = leave;
		worker->notifier.came_back = come_back;
		worker->notifier.serves = serves;
	}
	if (ret == 0 && error == 0)
		error = srdma_turn_start(&worker->turn, worker_main, worker, WORKER_STACK);
	if (error != 0)
		ret = srdma_fail(-EAGAIN, "cannot start a worker: %s", strerror(error));
	if (ret != 0) {
		worker_delete(worker);
		return ret;
	}
	*out = worker;
	return 0;
}

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
	/* With one worker for each client, a worker without a client is used again. */
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
	srdma_wake_send(worker->wake_fd);
}

void srdma_worker_give(struct srdma_worker *worker, struct srdma_client *client)
{
	srdma_arrivals_add(&worker->arrivals, client);
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

		atomic_store(&worker->over, true);
		srdma_worker_wake(worker);
		srdma_turn_join(&worker->turn);
		worker_delete(worker);
	}
	free(server->workers);
	server->workers = NULL;
	server->worker_count = 0;
}
