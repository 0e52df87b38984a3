/* SPDX-License-Identifier: Apache-2.0 */
/* Clients being set up. A greeter's thread takes each as far as it can go and turns to the next, so that no client holds up
 * another; too many at once are told so, or, when they have not said who they are, make room for others. */
#include "clock.h"
#include "events.h"
#include "identity.h"
#include "log.h"
#include "metrics.h"
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define FULL_RETRY_MS 1000
#define BUSY_RETRY_MS 250
/* When others wait for its place: how long a client has at least to say something, and to prove who it is. */
#define SILENT_GRACE_US 100000
#define GRACE_US 2000000
/* A network with more than a quarter of those in set-up who have not proved who they are has only so many times as long for it as others
 * take just now. */
#define SHARES 4
#define PATIENCE 4
/* Of each greeter, in a tick. */
#define EVICTIONS 16
#define PRESSED_TICK_MS 20
#define TICK_MS 100
#define EVENTS 64

/* ---- the door -------------------------------------------------------------------------------------------------- */

struct census {
	struct srdma_client *client;
	const struct srdma_policy *policy;
	unsigned same_name, same_address;
};

static int count_alike(struct srdma_slots *slots, void *arg)
{
	struct census *census = arg;
	const struct srdma_client *self = census->client;
	const struct srdma_policy *policy = census->policy;

	if (policy->max_same_name == 0 && policy->max_same_address == 0)
		return 0;
	for (unsigned i = 0; i < slots->used; i++) {
		const struct srdma_client *other = slots->taken[i]->client;

		census->same_name += strcmp(self->info.peer_name, other->info.peer_name) == 0;
		census->same_address += memcmp(&self->peer, &other->peer, sizeof self->peer) == 0;
	}
	if (policy->max_same_name != 0 && census->same_name >= policy->max_same_name)
		return -EUSERS;
	return policy->max_same_address != 0 && census->same_address >= policy->max_same_address ? -EDQUOT : 0;
}

static int take_slot(struct srdma_client *client, const struct srdma_policy *policy, struct srdma_reject *reject)
{
	struct srdma_server *server = client->server;
	struct census census = {.client = client, .policy = policy};

	switch (srdma_slots_take(&server->slots, &client->slot, count_alike, &census)) {
	case 0: return 0;
	case -EBUSY:
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS,
					"the server is full: %u clients are connected, which is the maximum (max-clients)",
					srdma_slots_used(&server->slots));
	case -EUSERS:
		client->limit = "identity";
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS, "%u clients %s are connected, which is the maximum",
					policy->max_same_name,
					client->info.peer_name[0] ? "with this certificate's name" : "without a certificate");
	case -EDQUOT:
		client->limit = "address";
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS,
					"%u clients from this address are connected, which is the maximum",
					policy->max_same_address);
	case -ENOMEM: return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, FULL_RETRY_MS, "the server is out of memory");
	default:
		return srdma_reject_set(reject, SRDMA_REJECT_DRAINING, 0, "the server is %s",
					atomic_load(&server->stopping) ? "shutting down" : "draining: it takes no new clients");
	}
}

/* False: with this one there are too many; *most may be at once. */
static bool be_earnest(struct srdma_client *client, unsigned *most)
{
	struct srdma_server *server = client->server;
	bool room;

	pthread_mutex_lock(&server->mutex);
	*most = server->limits.max_pending;
	server->earnest += !client->earnest && !client->turned_away;
	room = server->earnest <= server->limits.max_pending && !client->turned_away;
	client->earnest = !client->turned_away;
	pthread_mutex_unlock(&server->mutex);
	return room;
}

static void turn_away(struct srdma_client *client)
{
	struct srdma_server *server = client->server;

	pthread_mutex_lock(&server->mutex);
	server->earnest -= client->earnest;
	client->earnest = false;
	client->turned_away = true;
	pthread_mutex_unlock(&server->mutex);
}

static void find_policy(struct srdma_server *server, const struct srdma_peer_names *names, struct srdma_policy *policy)
{
	pthread_mutex_lock(&server->mutex);
	srdma_policy_find(&server->limits, names, policy);
	pthread_mutex_unlock(&server->mutex);
}

/* It has proved who it is, and its HELLO is still to come. Who will be refused takes no place from others meanwhile. */
static void be_known(struct srdma_client *client)
{
	const struct srdma_accept *accept = client->accept;
	struct srdma_policy policy;
	unsigned most;

	find_policy(client->server, srdma_accept_peer_names(accept), &policy);
	if (policy.refused)
		turn_away(client);
	else
		be_earnest(client, &most);
}

/* What its balancer says of the client, once it has; the log, the limits and who makes room go by it. */
static void note_address(struct srdma_client *client, const struct sockaddr *proxied)
{
	if (!proxied || client->proxy[0])
		return;
	memcpy(client->proxy, client->address, sizeof client->proxy);
	srdma_net_format(proxied, client->address, sizeof client->address);
	srdma_net_gid_of(proxied, &client->peer);
}

static int admit(struct srdma_conn *conn, struct srdma_reject *reject, void *arg)
{
	struct srdma_client *client = arg;
	struct srdma_server *server = client->server;
	struct srdma_policy policy;
	unsigned most;
	int ret;

	/* It may have come as far as here in the same step. */
	note_address(client, srdma_accept_proxied(client->accept));
	find_policy(server, &conn->names, &policy);
	if (policy.refused) {
		turn_away(client);
		client->limit = policy.refused;
		return srdma_reject_set(reject, SRDMA_REJECT_REFUSED, 0, "%s", srdma_policy_text(&policy));
	}
	if (!be_earnest(client, &most)) {
		turn_away(client);
		return srdma_reject_set(reject, SRDMA_REJECT_BUSY, BUSY_RETRY_MS,
					"%u connections are being set up, which is the maximum (max-pending)", most);
	}
	memcpy(client->info.peer_name, conn->names.identity, sizeof client->info.peer_name);
	ret = take_slot(client, &policy, reject);
	if (ret != 0)
		return ret;
	ret = srdma_worker_choose(server, &client->worker);
	if (ret != 0) {
		srdma_log(SRDMA_LOG_ERROR, "cannot start a thread for a client: %s", srdma_error_text());
		return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, FULL_RETRY_MS, "the server has no thread to spare");
	}
	conn->client_id = client->slot.id;
	conn->notifier = &client->worker->notifier;
	conn->owner = client;
	srdma_policy_apply(&policy, &conn->options);
	return 0;
}

/* ---- the end of a set-up --------------------------------------------------------------------------------------- */

/* `rejection`: what the client was told. `timing`: of one that is accepted. */
static void count_end(struct srdma_client *client, int result, enum srdma_reject_reason rejection,
		      const struct srdma_conn_timing *timing)
{
	struct srdma_server *server = client->server;

	turn_away(client);
	pthread_mutex_lock(&server->mutex);
	server->pending--;
	if (!client->check)
		srdma_metrics_count_setup(server, result, rejection, timing);
	if (client->check) {
		/* No client, and no failure. */
	} else if (result == 0) {
		server->counts.accepted++;
		server->clients++;
	} else if (rejection != SRDMA_REJECT_NONE) {
		server->counts.rejected++;
	} else {
		server->counts.failed++;
	}
	pthread_mutex_unlock(&server->mutex);
	srdma_server_nudge(server);
}

static void leave_list(struct srdma_greeter *greeter, struct srdma_client *client)
{
	if (client->previous)
		client->previous->next = client->next;
	else
		greeter->first = client->next;
	if (client->next)
		client->next->previous = client->previous;
	else
		greeter->last = client->previous;
}

/* The error is the thread's last one. */
static void fail(struct srdma_client *client, int error)
{
	enum srdma_reject_reason rejection = client->accept ? srdma_accept_rejection(client->accept) : SRDMA_REJECT_NONE;

	client->check = client->accept && srdma_accept_was_check(client->accept, error);
	if (client->check)
		srdma_log(SRDMA_LOG_DEBUG, "%s: a balancer's health check", client->address);
	else
		srdma_event_not_connected(client, error);
	srdma_accept_delete(&client->accept);
	srdma_slots_release(&client->server->slots, &client->slot);
	if (client->worker)
		srdma_worker_leave(client->worker);
	count_end(client, error, rejection, NULL);
	free(client);
}

static void succeed(struct srdma_client *client, struct srdma_conn *conn)
{
	struct srdma_server *server = client->server;

	srdma_accept_delete(&client->accept);
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

static void watch(struct srdma_greeter *greeter, struct srdma_client *client, int operation)
{
	short events = srdma_accept_events(client->accept);
	struct epoll_event event = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u),
				    .data.ptr = client};

	if (operation == EPOLL_CTL_MOD && events == client->events)
		return;
	client->events = events;
	if (epoll_ctl(greeter->epoll_fd, operation, srdma_accept_fd(client->accept), &event) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot watch a socket: %s", strerror(errno));
}

/* How long those take who prove who they are. A client that is not authenticated has no part in it. */
static void note_handshake(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	uint64_t took = srdma_clock_us() - client->arrived, average = atomic_load(&server->handshake_us);

	client->proved = true;
	/* Greeters may overwrite each other's: it is an average. */
	atomic_store(&server->handshake_us, average == 0 ? took : average - average / 8 + took / 8);
}

/* The client may be gone after it. */
static void step(struct srdma_greeter *greeter, struct srdma_client *client)
{
	struct srdma_conn *conn = NULL;
	int fd = srdma_accept_fd(client->accept);
	int ret = srdma_accept_step(client->accept, &conn);

	note_address(client, srdma_accept_proxied(client->accept));
	if (!client->proved && srdma_accept_is_authenticated(client->accept))
		note_handshake(client);
	if (ret == -EAGAIN) {
		if (srdma_accept_is_authenticated(client->accept))
			be_known(client);
		watch(greeter, client, EPOLL_CTL_MOD);
		return;
	}
	leave_list(greeter, client);
	if (ret != 0) {
		fail(client, ret);
		return;
	}
	epoll_ctl(greeter->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	succeed(client, conn);
}

static void give_up(struct srdma_greeter *greeter, struct srdma_client *client, int error, const char *why)
{
	leave_list(greeter, client);
	fail(client, srdma_accept_fail(client->accept, error, why));
}

static void take_arrival(struct srdma_greeter *greeter, struct srdma_client *client)
{
	struct srdma_server *server = greeter->server;
	struct srdma_tls_context *context;
	int ret;

	pthread_mutex_lock(&server->mutex);
	context = srdma_tls_context_ref(server->context);
	pthread_mutex_unlock(&server->mutex);
	ret = srdma_accept_new(&client->newcomer, context, server->device, server->options.conn, admit, client, &client->accept);
	srdma_tls_context_unref(&context);

	client->newcomer.socket = -1;
	if (ret != 0) {
		fail(client, ret);
		return;
	}
	client->next = NULL;
	client->previous = greeter->last;
	if (greeter->last)
		greeter->last->next = client;
	else
		greeter->first = client;
	greeter->last = client;
	watch(greeter, client, EPOLL_CTL_ADD);
	step(greeter, client);
}

static void take_arrivals(struct srdma_greeter *greeter)
{
	struct srdma_client *arrivals, *oldest = NULL;
	uint64_t count;
	ssize_t n = read(greeter->wake_fd, &count, sizeof count);

	(void)n; /* whoever woke us has put something there before */
	pthread_mutex_lock(&greeter->mutex);
	arrivals = greeter->arrivals;
	greeter->arrivals = NULL;
	pthread_mutex_unlock(&greeter->mutex);
	while (arrivals) {
		struct srdma_client *next = arrivals->next;

		arrivals->next = oldest;
		oldest = arrivals;
		arrivals = next;
	}
	while (oldest) {
		struct srdma_client *next = oldest->next;

		take_arrival(greeter, oldest);
		oldest = next;
	}
}

/* ---- deadlines and pressure ------------------------------------------------------------------------------------ */

static void check_deadlines(struct srdma_greeter *greeter)
{
	struct srdma_client *next;

	for (struct srdma_client *client = greeter->first; client; client = next) {
		next = client->next;
		if (srdma_deadline_left_ms(srdma_accept_deadline(client->accept)) == 0)
			step(greeter, client);
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

/* One host has a whole /64 of IPv6 addresses for itself. */
static bool are_of_one_network(const struct srdma_client *a, const struct srdma_client *b)
{
	bool ipv4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a->peer.raw);

	return memcmp(&a->peer, &b->peer, ipv4 ? sizeof a->peer : 8) == 0;
}

static unsigned count_unknown(const struct srdma_greeter *greeter, const struct srdma_client *like)
{
	unsigned count = 0;

	for (const struct srdma_client *c = greeter->first; c; c = c->next)
		count += is_unknown(c) && (!like || are_of_one_network(c, like));
	return count;
}

/* Others wait to be set up: of the network that has the most that have not proved who they are, or are turned away, the oldest that
 * has had its time goes. False: there is none. */
static bool evict_one(struct srdma_greeter *greeter)
{
	struct srdma_client *victim = NULL;
	uint64_t now = srdma_clock_us(), shortened = shortened_grace(greeter->server);
	unsigned most = 0, all = count_unknown(greeter, NULL);

	for (struct srdma_client *c = greeter->first; c; c = c->next) {
		uint64_t age = now - c->arrived;
		unsigned count;

		if (!is_unknown(c) || age < SILENT_GRACE_US || (victim && are_of_one_network(c, victim)))
			continue;
		if (age < shortened && srdma_accept_has_spoken(c->accept))
			continue;
		count = count_unknown(greeter, c);
		if (count <= most || (age < GRACE_US && srdma_accept_has_spoken(c->accept) && count * SHARES <= all))
			continue;
		most = count;
		victim = c;
	}
	if (victim)
		give_up(greeter, victim, -EBUSY,
			victim->turned_away ? "others wait to be set up, and it is turned away"
					    : "others wait to be set up, and it has not said who it is");
	return victim != NULL;
}

static void make_room(struct srdma_greeter *greeter)
{
	for (unsigned i = 0; i < EVICTIONS && evict_one(greeter); i++)
		;
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void take_events(struct srdma_greeter *greeter, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(greeter->epoll_fd, events, EVENTS, timeout_ms);

	for (int i = 0; i < n; i++)
		if (events[i].data.ptr)
			step(greeter, events[i].data.ptr);
	/* Last: a client that came must not be stepped by an event of one that has gone. */
	for (int i = 0; i < n; i++)
		if (!events[i].data.ptr)
			take_arrivals(greeter);
}

/* Whether a client that is silent, or slow to prove who it is, has had its time. */
static bool is_late(const struct srdma_client *client, uint64_t now)
{
	uint64_t grace = srdma_accept_has_spoken(client->accept) ? GRACE_US : SILENT_GRACE_US;

	return (!srdma_accept_is_authenticated(client->accept) || client->turned_away) && now - client->arrived >= grace;
}

/* The server is stopping. A client that has begun its set-up may finish it, to be told why it must go: by REJECT, or, once it has
 * WELCOME, by its worker's DISCONNECT. `until`: nobody may from then on. */
static void finish_setups(struct srdma_greeter *greeter, uint64_t until)
{
	take_arrivals(greeter);
	while (greeter->first) {
		uint64_t now = srdma_clock_us();
		struct srdma_client *next;

		for (struct srdma_client *client = greeter->first; client; client = next) {
			next = client->next;
			if (now >= until || is_late(client, now))
				give_up(greeter, client, -ECANCELED, "given up: shutting down");
		}
		check_deadlines(greeter);
		if (greeter->first)
			take_events(greeter, PRESSED_TICK_MS);
	}
}

static void *greeter_main(void *arg)
{
	struct srdma_greeter *greeter = arg;
	struct srdma_server *server = greeter->server;
	uint64_t checked = srdma_clock_us();

	while (!atomic_load(&server->stopping)) {
		bool pressed = atomic_load(&server->pressed);

		take_events(greeter, pressed ? PRESSED_TICK_MS : greeter->first ? TICK_MS : -1);
		if (pressed)
			make_room(greeter);
		if (srdma_clock_us() - checked >= PRESSED_TICK_MS * 1000) {
			check_deadlines(greeter);
			checked = srdma_clock_us();
		}
	}
	finish_setups(greeter, atomic_load(&server->setups_until));
	return NULL;
}

int srdma_greeter_start(struct srdma_greeter *greeter, struct srdma_server *server)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	int error;

	*greeter = (struct srdma_greeter){.server = server, .epoll_fd = -1, .wake_fd = -1};
	greeter->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	greeter->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (greeter->epoll_fd < 0 || greeter->wake_fd < 0 ||
	    epoll_ctl(greeter->epoll_fd, EPOLL_CTL_ADD, greeter->wake_fd, &event) != 0) {
		error = errno;
	} else {
		pthread_mutex_init(&greeter->mutex, NULL);
		error = pthread_create(&greeter->thread, NULL, greeter_main, greeter);
		if (error == 0)
			return 0;
		pthread_mutex_destroy(&greeter->mutex);
	}
	if (greeter->epoll_fd >= 0)
		close(greeter->epoll_fd);
	if (greeter->wake_fd >= 0)
		close(greeter->wake_fd);
	return srdma_fail(-error, "cannot start a thread that sets clients up: %s", strerror(error));
}

void srdma_greeter_wake(struct srdma_greeter *greeter)
{
	uint64_t one = 1;

	if (write(greeter->wake_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot wake a thread: %s", strerror(errno));
}

void srdma_greeter_give(struct srdma_greeter *greeter, struct srdma_client *client)
{
	pthread_mutex_lock(&greeter->mutex);
	client->next = greeter->arrivals;
	greeter->arrivals = client;
	pthread_mutex_unlock(&greeter->mutex);
	srdma_greeter_wake(greeter);
}

void srdma_greeter_stop(struct srdma_greeter *greeter)
{
	srdma_greeter_wake(greeter);
	pthread_join(greeter->thread, NULL);
	pthread_mutex_destroy(&greeter->mutex);
	close(greeter->epoll_fd);
	close(greeter->wake_fd);
}
