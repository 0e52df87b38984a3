/* SPDX-License-Identifier: Apache-2.0 */
/* Clients being set up. A set-up thread takes each as far as it can go and turns to the next, so that no client holds up
 * another; when others wait, clients that have not authenticated make room for them. */
#include "clock.h"
#include "events.h"
#include "log.h"
#include "metrics.h"
#include "net.h"
#include "server.h"
#include "thread.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* The time that a client has at least to send something, and to authenticate, while others wait for its place. */
#define SILENT_GRACE_US 100000
#define GRACE_US 2000000
/* A network with more than a quarter of the unauthenticated clients in set-up has less time: this many times what others take now. */
#define SHARES 4
#define PATIENCE 4
/* Evictions by one thread in a tick. */
#define EVICTIONS 16
#define PRESSED_TICK_MS 20
#define TICK_MS 100
#define EVENTS 64

/* ---- the end of a set-up --------------------------------------------------------------------------------------- */

/* `rejection`: the reason sent to the client. `timing`: of an accepted client. */
static void count_end(struct srdma_client *client, int result, enum srdma_reject_reason rejection, const struct srdma_conn_timing *timing)
{
	struct srdma_server *server = client->server;

	srdma_admission_turn_away(client);
	pthread_mutex_lock(&server->mutex);
	server->pending--;
	server->clients += result == 0;
	/* A balancer's health check counts neither as a client nor as a failure. */
	if (!client->check)
		srdma_metrics_count_setup(server, result, rejection, timing);
	pthread_mutex_unlock(&server->mutex);
	srdma_server_nudge(server);
}

/* The error's text is the thread's last one. */
static void fail(struct srdma_client *client, int error)
{
	enum srdma_reject_reason rejection = client->accept ? srdma_accept_rejection(client->accept) : SRDMA_REJECT_NONE;

	client->check = client->accept && srdma_accept_was_check(client->accept, error);
	if (client->check)
		srdma_log(SRDMA_LOG_DEBUG, "%s: a balancer's health check", client->address);
	else
		srdma_event_not_connected(client, error);
	srdma_accept_free(&client->accept);
	srdma_slots_release(&client->server->slots, &client->slot);
	if (client->worker)
		srdma_worker_leave(client->worker);
	count_end(client, error, rejection, NULL);
	free(client);
}

static void succeed(struct srdma_client *client, struct srdma_conn *conn)
{
	struct srdma_server *server = client->server;

	srdma_accept_free(&client->accept);
	pthread_mutex_lock(&server->slots.mutex);
	srdma_conn_get_info(conn, &client->info);
	client->connected_at = time(NULL);
	client->conn = conn;
	srdma_server_recheck(client); /* the limits may have been replaced since it was admitted */
	pthread_mutex_unlock(&server->slots.mutex);
	srdma_event_connected(client);
	count_end(client, 0, SRDMA_REJECT_NONE, &conn->timing);
	srdma_worker_give(client->worker, client);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void watch(struct srdma_setup_thread *thread, struct srdma_client *client, int operation)
{
	short events = srdma_accept_events(client->accept);
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u), .data.ptr = client};

	if (operation == EPOLL_CTL_MOD && events == client->events)
		return;
	client->events = events;
	if (epoll_ctl(thread->epoll_fd, operation, srdma_accept_fd(client->accept), &event) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot watch a socket: %s", strerror(errno));
}

/* Measures how long clients take to authenticate, by those that do. */
static void note_handshake(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	uint64_t took = srdma_clock_us() - client->arrived, average = atomic_load(&server->handshake_us);

	client->proved = true;
	/* A lost update of another thread does no harm to an average. */
	atomic_store(&server->handshake_us, average == 0 ? took : average - average / 8 + took / 8);
}

/* The call may free the client. */
static void step(struct srdma_setup_thread *thread, struct srdma_client *client)
{
	struct srdma_conn *conn = NULL;
	int fd = srdma_accept_fd(client->accept);
	int ret = srdma_accept_step(client->accept, &conn);

	srdma_admission_note_address(client, srdma_accept_proxied(client->accept));
	if (!client->proved && srdma_accept_is_authenticated(client->accept))
		note_handshake(client);
	if (ret == -EAGAIN) {
		/* A rejected client has its place only to read why, and must not keep others from being set up. */
		if (srdma_accept_rejection(client->accept) != SRDMA_REJECT_NONE)
			srdma_admission_turn_away(client);
		else if (srdma_accept_is_authenticated(client->accept))
			srdma_admission_note_identity(client);
		watch(thread, client, EPOLL_CTL_MOD);
		return;
	}
	srdma_clients_remove(&thread->clients, client);
	if (ret != 0) {
		fail(client, ret);
		return;
	}
	epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	succeed(client, conn);
}

static void give_up(struct srdma_setup_thread *thread, struct srdma_client *client, int error, const char *why)
{
	srdma_clients_remove(&thread->clients, client);
	fail(client, srdma_accept_fail(client->accept, error, why));
}

static void take_arrival(struct srdma_setup_thread *thread, struct srdma_client *client)
{
	struct srdma_server *server = thread->server;
	struct srdma_tls_context *context;
	int ret;

	pthread_mutex_lock(&server->mutex);
	context = srdma_tls_context_ref(server->context);
	pthread_mutex_unlock(&server->mutex);
	ret = srdma_accept_new(&client->newcomer, context, server->device, server->options.conn, srdma_admission_decide, client, &client->accept);
	srdma_tls_context_unref(&context);

	client->newcomer.socket = -1;
	if (ret != 0) {
		fail(client, ret);
		return;
	}
	srdma_clients_append(&thread->clients, client);
	watch(thread, client, EPOLL_CTL_ADD);
	step(thread, client);
}

static void take_arrivals(struct srdma_setup_thread *thread)
{
	struct srdma_client *client, *next;

	/* Comes before the look at the arrivals, or a client that arrives between the two would be missed. */
	srdma_wake_take(thread->wake_fd);
	for (client = srdma_arrivals_take(&thread->arrivals); client; client = next) {
		next = client->next;
		take_arrival(thread, client);
	}
}

/* ---- deadlines and pressure ------------------------------------------------------------------------------------ */

static void check_deadlines(struct srdma_setup_thread *thread)
{
	struct srdma_client *next;

	for (struct srdma_client *client = thread->clients.first; client; client = next) {
		next = client->next;
		if (srdma_deadline_left_ms(srdma_accept_deadline(client->accept)) == 0)
			step(thread, client);
	}
}

static uint64_t shortened_grace(const struct srdma_server *server)
{
	uint64_t grace = PATIENCE * atomic_load(&server->handshake_us);

	return grace < SILENT_GRACE_US ? SILENT_GRACE_US : grace > GRACE_US ? GRACE_US : grace;
}

static bool is_unknown(const struct srdma_client *client)
{
	return !srdma_accept_is_authenticated(client->accept) || client->turned_away;
}

/* A network is a /64 for IPv6, since a single host has as many addresses. */
static union ibv_gid network_of(const struct srdma_client *client)
{
	union ibv_gid network = client->peer;

	if (!srdma_net_gid_is_v4(&network))
		memset(network.raw + 8, 0, 8);
	return network;
}

static int by_network(const void *a, const void *b)
{
	const union ibv_gid x = network_of(*(struct srdma_client *const *)a), y = network_of(*(struct srdma_client *const *)b);

	return memcmp(&x, &y, sizeof x);
}

/* Sets, in each unauthenticated client, the number of such clients in its network. Returns their number in all; 0 also if memory is
 * short. It sorts them, because counting anew for each client would cost too much when a flood comes from several addresses. */
static unsigned count_unknown(const struct srdma_setup_thread *thread)
{
	struct srdma_client **list, *c;
	unsigned count = 0, end;

	for (c = thread->clients.first; c; c = c->next)
		count += is_unknown(c);
	list = count > 0 ? malloc(count * sizeof(struct srdma_client *)) : NULL;
	if (!list)
		return 0;
	count = 0;
	for (c = thread->clients.first; c; c = c->next)
		if (is_unknown(c))
			list[count++] = c;
	qsort(list, count, sizeof(struct srdma_client *), by_network);
	for (unsigned begin = 0; begin < count; begin = end) {
		for (end = begin + 1; end < count && by_network(&list[begin], &list[end]) == 0; end++)
			;
		for (unsigned i = begin; i < end; i++)
			list[i]->alike = end - begin;
	}
	free(list);
	return count;
}

/* Whether the client has used up its time. `all`: the number of unauthenticated clients. */
static bool may_go(const struct srdma_client *client, uint64_t now, uint64_t shortened, unsigned all)
{
	uint64_t age = now - client->arrived;

	/* Its REJECT is on the way, and the client sends nothing before it has read that, so closing does not reset the connection. */
	if (srdma_accept_rejection(client->accept) != SRDMA_REJECT_NONE)
		return true;
	if (!is_unknown(client) || age < SILENT_GRACE_US)
		return false;
	if (!srdma_accept_has_spoken(client->accept))
		return true;
	return age >= shortened && (age >= GRACE_US || client->alike * SHARES > all);
}

static void forget_one(const struct srdma_setup_thread *thread, const struct srdma_client *gone)
{
	const union ibv_gid network = network_of(gone);

	for (struct srdma_client *c = thread->clients.first; c; c = c->next) {
		const union ibv_gid other = network_of(c);

		c->alike -= c != gone && is_unknown(c) && memcmp(&network, &other, sizeof network) == 0;
	}
}

/* Evicts the oldest client that has used up its time, from the network with the most clients that are unauthenticated or turned
 * away. False: there is none. The caller has counted them (count_unknown). */
static bool evict_one(struct srdma_setup_thread *thread, unsigned all)
{
	uint64_t now = srdma_clock_us(), shortened = shortened_grace(thread->server);
	struct srdma_client *victim = NULL;

	for (struct srdma_client *c = thread->clients.first; c; c = c->next)
		if ((!victim || c->alike > victim->alike) && may_go(c, now, shortened, all))
			victim = c;
	if (!victim)
		return false;
	forget_one(thread, victim);
	give_up(thread, victim, -EBUSY,
		victim->turned_away ? "evicted because others wait: the server was refusing it"
				    : "evicted because others wait: it had not authenticated");
	return true;
}

/* Evicts clients, because others wait to be set up. */
static void make_room(struct srdma_setup_thread *thread)
{
	unsigned all = count_unknown(thread);

	for (unsigned i = 0; i < EVICTIONS && all > 0 && evict_one(thread, all); i++)
		all--;
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void take_events(struct srdma_setup_thread *thread, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(thread->epoll_fd, events, EVENTS, timeout_ms);

	for (int i = 0; i < n; i++)
		if (events[i].data.ptr)
			step(thread, events[i].data.ptr);
	/* Arrivals come last, so that an event of a client that has gone does not step a new client at the same address. */
	for (int i = 0; i < n; i++)
		if (!events[i].data.ptr)
			take_arrivals(thread);
}

/* Whether a client that is silent, or slow to authenticate, has used up its time. */
static bool is_late(const struct srdma_client *client, uint64_t now)
{
	uint64_t grace = srdma_accept_has_spoken(client->accept) ? GRACE_US : SILENT_GRACE_US;

	return is_unknown(client) && now - client->arrived >= grace;
}

/* For a stop of the server. A client that has begun its set-up may finish it until `until`, so that it is told why it must go: by
 * REJECT or, after WELCOME, by its worker's DISCONNECT. */
static void finish_setups(struct srdma_setup_thread *thread, uint64_t until)
{
	take_arrivals(thread);
	while (thread->clients.first) {
		uint64_t now = srdma_clock_us();
		struct srdma_client *next;

		for (struct srdma_client *client = thread->clients.first; client; client = next) {
			next = client->next;
			if (now >= until || is_late(client, now))
				give_up(thread, client, -ECANCELED, "gave up: the server is shutting down");
		}
		check_deadlines(thread);
		if (thread->clients.first)
			take_events(thread, PRESSED_TICK_MS);
	}
}

static void *setup_thread_main(void *arg)
{
	struct srdma_setup_thread *thread = arg;
	struct srdma_server *server = thread->server;
	uint64_t checked = srdma_clock_us();

	while (!atomic_load(&server->stopping)) {
		bool pressed = atomic_load(&server->pressed);

		take_events(thread, pressed ? PRESSED_TICK_MS : thread->clients.first ? TICK_MS : -1);
		if (pressed)
			make_room(thread);
		if (srdma_clock_us() - checked >= PRESSED_TICK_MS * 1000) {
			check_deadlines(thread);
			checked = srdma_clock_us();
		}
	}
	finish_setups(thread, atomic_load(&server->setups_until));
	return NULL;
}

int srdma_setup_thread_start(struct srdma_setup_thread *thread, struct srdma_server *server)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	int error;

	*thread = (struct srdma_setup_thread){.server = server, .epoll_fd = -1, .wake_fd = -1};
	thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	thread->wake_fd = srdma_wake_new();
	if (thread->epoll_fd < 0 || thread->wake_fd < 0 || epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, thread->wake_fd, &event) != 0) {
		error = errno;
	} else {
		error = srdma_thread_start(setup_thread_main, thread, 0, &thread->thread);
		if (error == 0)
			return 0;
	}
	if (thread->epoll_fd >= 0)
		close(thread->epoll_fd);
	srdma_wake_close(thread->wake_fd);
	return srdma_fail(-error, "cannot start a thread that sets clients up: %s", strerror(error));
}

void srdma_setup_thread_wake(struct srdma_setup_thread *thread)
{
	srdma_wake_send(thread->wake_fd);
}

void srdma_setup_thread_give(struct srdma_setup_thread *thread, struct srdma_client *client)
{
	srdma_arrivals_add(&thread->arrivals, client);
	srdma_setup_thread_wake(thread);
}

void srdma_setup_thread_stop(struct srdma_setup_thread *thread)
{
	srdma_setup_thread_wake(thread);
	pthread_join(thread->thread, NULL);
	close(thread->epoll_fd);
	close(thread->wake_fd);
}
