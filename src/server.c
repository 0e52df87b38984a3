/* SPDX-License-Identifier: Apache-2.0 */
/* Start, the listener thread, stop. */
#include "server.h"

#include "clock.h"
#include "events.h"
#include "identity.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "server_limits.h"
#include "sized.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define GREETERS_MAX 4
/* After accept fails for want of descriptors or memory, trying again at once would only burn time. */
#define ACCEPT_PAUSE_MS 100
#define DEVICE_CHECK_MS 2000
#define LISTENERS_MAX 64U

void srdma_server_options_init_sized(struct srdma_server_options *options, size_t size)
{
	static const struct srdma_server_options defaults = {
		.port = SRDMA_DEFAULT_PORT,
		.workers = SRDMA_WORKERS_PER_CLIENT,
		.drain_timeout_ms = 5000,
	};

	srdma_sized_init(options, size, &defaults, sizeof defaults);
}

void srdma_server_conn_options_init_sized(struct srdma_conn_options *options, size_t size)
{
	struct srdma_conn_options defaults;

	srdma_conn_options_init(&defaults);
	defaults.region_size = 65536;
	srdma_sized_init(options, size, &defaults, sizeof defaults);
}

void srdma_server_nudge(struct srdma_server *server)
{
	uint64_t one = 1;

	if (write(server->room_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot signal the listener: %s", strerror(errno));
}

/* ---- options --------------------------------------------------------------------------------------------------- */

/* Options that are complete, with what they point to, but for strings and lists, which stay the program's. */
struct settings {
	struct srdma_server_options options;
	struct srdma_server_limits limits;
	struct srdma_conn_settings conn;
};

static int take_options(const struct srdma_server_options *given, struct settings *out)
{
	struct srdma_conn_options conn;
	int ret = SRDMA_SIZED_TAKE(srdma_server_options, arg, given, &out->options);

	srdma_server_limits_init(&out->limits);
	srdma_server_conn_options_init(&conn);
	if (ret == 0 && out->options.limits)
		ret = srdma_limits_complete(out->options.limits, &out->limits);
	if (ret == 0)
		ret = srdma_conn_settings_take(out->options.conn ? out->options.conn : &conn, &out->conn);
	out->options.limits = &out->limits;
	out->options.conn = &out->conn.options;
	return ret;
}

static int check_options(const struct srdma_server_options *o)
{
	int ret = srdma_conn_options_check(o->conn);

	if (ret != 0)
		return ret;
	if (o->drain_timeout_ms <= 0)
		return srdma_fail(-EINVAL, "drain_timeout_ms must be above 0");
	if (o->conn->raw)
		return srdma_fail(-EINVAL, "a server has no raw connections; use srdma_listener_listen and srdma_conn_accept");
	if (o->listen_fd_count > LISTENERS_MAX)
		return srdma_fail(-EINVAL, "%u listening sockets; a server takes %u at most", o->listen_fd_count, LISTENERS_MAX);
	return 0;
}

/* The lists are the operator's, and a mistake in one is to be told now, and not to the first client. */
static int check_networks(const char *setting, const char *list)
{
	struct srdma_networks networks = {0};
	int ret = srdma_networks_parse(list, &networks);

	srdma_networks_clear(&networks);
	if (ret != 0)
		srdma_error_prefix("%s: ", setting);
	return ret;
}

int srdma_server_check(const struct srdma_server_options *given, struct srdma_device *device, srdma_check_fn *fn, void *arg)
{
	struct srdma_bench bench = {.fn = fn, .arg = arg};
	struct settings settings;
	const struct srdma_server_options *options = &settings.options;
	struct srdma_server_limits limits;
	struct srdma_identity *identities = NULL;
	struct srdma_verdict verdict = {0};
	int ret = take_options(given, &settings);

	limits = settings.limits;
	if (ret == 0)
		ret = check_options(options);
	if (ret == 0)
		ret = check_networks("proxy-networks", options->proxy_networks);
	if (ret == 0)
		ret = check_networks("gid-networks", options->conn->gid_networks);
	if (ret == 0)
		ret = srdma_limits_check_numbers(&limits);
	if (ret == 0)
		ret = srdma_identities_copy(limits.identities, limits.identity_count, &identities);
	if (ret != 0) {
		srdma_verdict_take(&verdict, SRDMA_CHECK_FAIL, ret, NULL, "%s", srdma_error_text());
		srdma_bench_report(&bench, "settings", &verdict);
		return srdma_bench_end(&bench);
	}
	limits.identities = identities;
	ret = srdma_limits_check(&limits, options, device, &bench);
	srdma_identities_free(&identities, limits.identity_count);
	return ret;
}

/* ---- the listener thread --------------------------------------------------------------------------------------- */

static void welcome(struct srdma_server *server, const struct srdma_newcomer *newcomer, unsigned turn)
{
	struct srdma_client *client = calloc(1, sizeof *client);
	const struct sockaddr *peer = (const struct sockaddr *)&newcomer->peer;

	if (!client) {
		srdma_log(SRDMA_LOG_ERROR, "out of memory: a client was turned away");
		close(newcomer->socket);
		return;
	}
	client->server = server;
	client->slot.client = client;
	client->newcomer = *newcomer;
	client->arrived = srdma_clock_us();
	srdma_net_format(peer, client->address, sizeof client->address);
	client->newcomer.behind_proxy =
		srdma_net_gid_of(peer, &client->peer) && srdma_networks_contain(&server->proxies, &client->peer);
	pthread_mutex_lock(&server->mutex);
	server->pending++;
	pthread_mutex_unlock(&server->mutex);
	srdma_greeter_give(&server->greeters[turn % server->greeter_count], client);
}

static void raise_event(struct srdma_server *server)
{
	uint64_t one = 1;

	if (write(server->event_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot signal the program: %s", strerror(errno));
}

static void fail_device(struct srdma_server *server, const char *why)
{
	if (atomic_exchange(&server->device_failed, true))
		return;
	srdma_event_device_gone(server->device, why);
	raise_event(server);
}

struct failed_queue {
	const struct ibv_async_event *event;
	bool found;
};

static void fail_queue_of(void *entry, void *arg)
{
	struct srdma_client *client = entry;
	struct failed_queue *failed = arg;
	const struct ibv_async_event *event = failed->event;
	struct srdma_conn *conn = client->conn;

	if (!conn || failed->found)
		return;
	failed->found = event->event_type == IBV_EVENT_CQ_ERR
				? event->element.cq == conn->send_cq || event->element.cq == conn->recv_cq
				: event->element.qp->qp_context == conn; /* its queue pair may be replaced meanwhile */
	if (failed->found)
		srdma_conn_fail_later(conn, event->event_type);
}

/* The client whose queue it is comes to its end; no other is touched. */
static void fail_queue(struct srdma_server *server, const struct ibv_async_event *event)
{
	struct failed_queue failed = {.event = event};

	srdma_slots_each(&server->slots, fail_queue_of, &failed);
	/* In set-up, or on its way out: its completions and its TLS channel tell the rest. */
	if (!failed.found)
		srdma_log(SRDMA_LOG_DEBUG, "%s: %s, which concerns no connected client", srdma_device_name(server->device),
			  ibv_event_type_str(event->event_type));
}

static void take_device_event(struct srdma_server *server)
{
	struct ibv_async_event event;

	if (ibv_get_async_event(srdma_device_context(server->device), &event) != 0)
		return;
	switch (event.event_type) {
	case IBV_EVENT_DEVICE_FATAL: fail_device(server, "fatal device error"); break;
	case IBV_EVENT_CQ_ERR:
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_PATH_MIG_ERR: fail_queue(server, &event); break;
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED: break; /* nothing is wrong */
	default: srdma_event_device(server->device, &event); break;
	}
	/* A queue pair can't be destroyed before its events are acknowledged. */
	ibv_ack_async_event(&event);
}

/* A device that is taken away does not always say so: rdma_rxe raises no DEVICE_FATAL. */
static void check_device(struct srdma_server *server)
{
	struct ibv_port_attr attr;
	int error = ibv_query_port(srdma_device_context(server->device), srdma_device_port(server->device), &attr);

	if (error == ENODEV || error == EIO)
		fail_device(server, strerror(error));
}

/* The rate at which set-ups may begin: so many a second, as many at once. */
struct allowance {
	double tokens;
	uint64_t at;
};

/* How long until the next may begin, in milliseconds; 0: now. */
static int allowance_left(struct allowance *allowance, unsigned rate)
{
	uint64_t now = srdma_clock_us();

	if (rate == 0)
		return 0;
	allowance->tokens += (double)(now - allowance->at) * rate / 1e6;
	allowance->at = now;
	if (allowance->tokens > rate)
		allowance->tokens = rate;
	return allowance->tokens >= 1 ? 0 : 1 + (int)((1 - allowance->tokens) * 1000 / rate);
}

static unsigned setup_rate(struct srdma_server *server)
{
	unsigned rate;

	pthread_mutex_lock(&server->mutex);
	rate = server->limits.max_setups_per_second;
	pthread_mutex_unlock(&server->mutex);
	return rate;
}

/* Whether there is a place to set one more up in. When not, those who hold one in silence are pressed. */
static bool has_room(struct srdma_server *server)
{
	bool room;

	pthread_mutex_lock(&server->mutex);
	room = server->pending < srdma_limits_most_pending(&server->limits);
	pthread_mutex_unlock(&server->mutex);
	if (atomic_exchange(&server->pressed, !room) == room && !room)
		for (unsigned i = 0; i < server->greeter_count; i++)
			srdma_greeter_wake(&server->greeters[i]);
	return room;
}

/* In a drain: how long until the deadline, when it comes before `timeout_ms`. */
static int drain_wait(struct srdma_server *server, int timeout_ms)
{
	int left;

	if (!atomic_load(&server->draining) || atomic_load(&server->drained))
		return timeout_ms;
	left = srdma_deadline_left_ms(atomic_load(&server->drain_deadline));
	return left < timeout_ms ? left : timeout_ms;
}

static void check_drain(struct srdma_server *server)
{
	unsigned left;

	if (!atomic_load(&server->draining) || atomic_load(&server->drained))
		return;
	left = srdma_slots_used(&server->slots);
	if (left > 0 && srdma_deadline_left_ms(atomic_load(&server->drain_deadline)) > 0)
		return;
	atomic_store(&server->drained, true);
	srdma_log(SRDMA_LOG_INFO, "drained; %u clients are still connected", left);
	raise_event(server);
}

static void take_client(struct srdma_server *server, struct srdma_listener *listener, unsigned turn)
{
	struct srdma_newcomer newcomer = {0};

	newcomer.socket = srdma_listener_accept_from(listener, 0, &newcomer.peer);
	if (newcomer.socket >= 0) {
		welcome(server, &newcomer, turn);
	} else if (newcomer.socket != -EAGAIN) {
		srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
		poll(NULL, 0, ACCEPT_PAUSE_MS);
	}
}

/* Whether one more may come in. */
static bool is_open(struct srdma_server *server, const struct allowance *allowance, unsigned rate)
{
	return (rate == 0 || allowance->tokens >= 1) && has_room(server);
}

static void *listener_main(void *arg)
{
	struct srdma_server *server = arg;
	struct pollfd fds[3 + LISTENERS_MAX] = {
		{.fd = server->stop_fd, .events = POLLIN},
		{.fd = server->room_fd, .events = POLLIN},
		{.fd = srdma_device_context(server->device)->async_fd, .events = POLLIN},
	};
	struct pollfd *const doors = fds + 3;
	const unsigned door_count = server->listener_count;
	struct allowance allowance = {.tokens = setup_rate(server), .at = srdma_clock_us()};
	uint64_t checked = srdma_clock_us(), count;

	for (unsigned turn = 0;;) {
		unsigned rate = setup_rate(server);
		int pause = allowance_left(&allowance, rate);
		bool open = is_open(server, &allowance, rate);

		for (unsigned i = 0; i < door_count; i++)
			doors[i] = (struct pollfd){.fd = open ? srdma_listener_fd(server->listeners[i]) : -1, .events = POLLIN};
		if (poll(fds, 3 + door_count, drain_wait(server, pause > 0 ? pause : DEVICE_CHECK_MS)) < 0)
			continue;
		if (fds[2].revents || srdma_clock_us() - checked >= DEVICE_CHECK_MS * 1000) {
			check_device(server);
			checked = srdma_clock_us();
		}
		if (fds[0].revents)
			break;
		if (fds[1].revents && read(server->room_fd, &count, sizeof count) < 0)
			srdma_log(SRDMA_LOG_ERROR, "cannot read an eventfd: %s", strerror(errno));
		check_drain(server);
		if (fds[2].revents & POLLIN)
			take_device_event(server);
		if (fds[2].revents & (POLLERR | POLLHUP | POLLNVAL)) {
			fail_device(server, "its event channel is closed");
			fds[2].fd = -1;
		}
		/* One of each, so that no socket's clients wait behind another's. */
		for (unsigned i = 0; i < door_count; i++) {
			if (!doors[i].revents || !is_open(server, &allowance, rate))
				continue;
			take_client(server, server->listeners[i], turn++);
			allowance.tokens -= rate > 0;
		}
	}
	return NULL;
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static void set_options(struct srdma_server *server, const struct srdma_server_options *options)
{
	server->conn.options = *options->conn;
	server->conn.qp = *options->conn->qp;
	server->conn.options.qp = &server->conn.qp;
	server->conn.options.gid_networks = NULL;
	server->options = *options;
	server->options.address = server->options.port = server->options.proxy_networks = NULL;
	server->options.listen_fds = NULL;
	server->options.limits = NULL;
	server->options.conn = &server->conn.options;
	if (!options->on_connect && !options->on_message && !options->on_disconnect)
		srdma_echo_use(&server->options);
}

/* A bad list is the operator's mistake, to be told now and not to the first client. */
static int take_networks(struct srdma_server *server, const struct srdma_server_options *options)
{
	int ret = srdma_networks_parse(options->proxy_networks, &server->proxies);

	if (ret != 0) {
		srdma_error_prefix("proxy-networks: ");
		return ret;
	}
	ret = check_networks("gid-networks", options->conn->gid_networks);
	if (ret != 0 || !options->conn->gid_networks)
		return ret;
	server->conn.options.gid_networks = strdup(options->conn->gid_networks);
	return server->conn.options.gid_networks ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

static int make_descriptors(struct srdma_server *server)
{
	int async_fd = srdma_device_context(server->device)->async_fd;
	int flags = fcntl(async_fd, F_GETFL);

	server->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	server->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	server->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->stop_fd < 0 || server->room_fd < 0 || server->event_fd < 0 || flags < 0 ||
	    fcntl(async_fd, F_SETFL, flags | O_NONBLOCK) != 0)
		return srdma_fail(-errno, "cannot make the server's descriptors: %s", strerror(errno));
	return 0;
}

static int make_listeners(struct srdma_server *server, const struct srdma_server_options *options)
{
	unsigned wanted = options->listen_fd_count > 0 ? options->listen_fd_count : 1;
	int ret = 0;

	server->listeners = calloc(wanted, sizeof *server->listeners);
	if (!server->listeners)
		return srdma_fail(-ENOMEM, "out of memory");
	while (ret == 0 && server->listener_count < wanted) {
		struct srdma_listener **next = &server->listeners[server->listener_count];

		ret = options->listen_fd_count > 0 ? srdma_listener_from_fd(options->listen_fds[server->listener_count], next)
						   : srdma_listener_listen(options->address, options->port, next);
		server->listener_count += ret == 0;
	}
	return ret;
}

/* Frees what set-up made; no thread runs any more. */
static void free_server(struct srdma_server *server)
{
	while (server->listener_count > 0)
		srdma_listener_free(&server->listeners[--server->listener_count]);
	free(server->listeners);
	for (size_t i = 0; i < 3; i++) {
		int fd = i == 0 ? server->stop_fd : i == 1 ? server->room_fd : server->event_fd;

		if (fd >= 0)
			close(fd);
	}
	srdma_slots_destroy(&server->slots);
	pthread_mutex_destroy(&server->mutex);
	pthread_cond_destroy(&server->ended);
	srdma_limits_free(&server->limits);
	srdma_tls_context_unref(&server->context);
	srdma_device_unref(&server->device);
	free((char *)(uintptr_t)server->conn.options.gid_networks);
	srdma_networks_clear(&server->proxies);
	free(server);
}

static int start_greeters(struct srdma_server *server)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = processors > GREETERS_MAX ? GREETERS_MAX : processors > 1 ? (unsigned)processors : 1;
	int ret = 0;

	server->greeters = calloc(wanted, sizeof *server->greeters);
	if (!server->greeters)
		return srdma_fail(-ENOMEM, "out of memory");
	while (ret == 0 && server->greeter_count < wanted) {
		ret = srdma_greeter_start(&server->greeters[server->greeter_count], server);
		server->greeter_count += ret == 0;
	}
	return ret;
}

static void stop_greeters(struct srdma_server *server)
{
	for (unsigned i = 0; i < server->greeter_count; i++)
		srdma_greeter_wake(&server->greeters[i]);
	while (server->greeter_count > 0)
		srdma_greeter_stop(&server->greeters[--server->greeter_count]);
	free(server->greeters);
	server->greeters = NULL;
}

/* What fails is stopped by the caller. Signals belong to the program's own threads. */
static int start_threads(struct srdma_server *server)
{
	sigset_t all, old;
	int ret, error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = srdma_workers_start(server);
	if (ret == 0)
		ret = start_greeters(server);
	if (ret == 0) {
		error = pthread_create(&server->listener_thread, NULL, listener_main, server);
		if (error != 0)
			ret = srdma_fail(-error, "cannot start the listener thread: %s", strerror(error));
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

int srdma_server_start(const struct srdma_server_options *given, struct srdma_tls_context *context,
		       struct srdma_device *device, struct srdma_server **out)
{
	struct settings settings;
	const struct srdma_server_options *options = &settings.options;
	struct srdma_server *server;
	pthread_condattr_t monotonic;
	int ret = take_options(given, &settings);

	if (ret == 0)
		ret = check_options(options);
	if (ret != 0)
		return ret;
	if (!srdma_tls_context_is_server(context))
		return srdma_fail(-EINVAL, "a server needs a TLS context of srdma_tls_server_new");
	server = calloc(1, sizeof *server);
	if (!server)
		return srdma_fail(-ENOMEM, "out of memory");
	set_options(server, options);
	srdma_slots_init(&server->slots, options->limits->max_clients);
	pthread_mutex_init(&server->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&server->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	server->context = srdma_tls_context_ref(context);
	server->device = srdma_device_ref(device);
	server->stop_fd = server->room_fd = server->event_fd = -1;
	ret = srdma_limits_take(options->limits, options, device, true, &server->limits);
	if (ret == 0)
		ret = take_networks(server, options);
	if (ret == 0)
		ret = make_descriptors(server);
	if (ret == 0)
		ret = make_listeners(server, options);
	if (ret == 0)
		ret = start_threads(server);
	if (ret != 0) {
		char text[512];

		snprintf(text, sizeof text, "%s", srdma_error_text());
		atomic_store(&server->stopping, true);
		stop_greeters(server);
		srdma_workers_stop(server);
		free_server(server);
		return srdma_fail(ret, "%s", text);
	}
	*out = server;
	return 0;
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

void srdma_server_get_status_sized(struct srdma_server *server, struct srdma_server_status *status, size_t size)
{
	struct srdma_server_status own;

	pthread_mutex_lock(&server->mutex);
	own = server->counts;
	own.pending = server->pending;
	pthread_mutex_unlock(&server->mutex);
	own.clients = srdma_slots_used(&server->slots);
	pthread_mutex_lock(&server->slots.mutex);
	own.max_clients = server->slots.max;
	pthread_mutex_unlock(&server->slots.mutex);
	own.device_failed = atomic_load(&server->device_failed);
	own.draining = atomic_load(&server->draining);
	own.drained = atomic_load(&server->drained);
	srdma_sized_fill(status, size, &own, sizeof own);
}

uint16_t srdma_server_port(const struct srdma_server *server)
{
	return srdma_listener_port(server->listeners[0]);
}

int srdma_server_address(const struct srdma_server *server, unsigned index, char *text, size_t size)
{
	/* Whoever wants all of them comes here: no error to be told. */
	if (index >= server->listener_count)
		return -ENOENT;
	snprintf(text, size, "%s", srdma_listener_name(server->listeners[index]));
	return 0;
}

int srdma_server_set_tls(struct srdma_server *server, struct srdma_tls_context *context)
{
	struct srdma_tls_context *old;

	if (!srdma_tls_context_is_server(context))
		return srdma_fail(-EINVAL, "a server needs a TLS context of srdma_tls_server_new");
	srdma_tls_context_ref(context);
	pthread_mutex_lock(&server->mutex);
	old = server->context;
	server->context = context;
	pthread_mutex_unlock(&server->mutex);
	srdma_tls_context_unref(&old);
	return 0;
}

struct visitor {
	srdma_visit_fn *visit;
	void *arg;
	struct srdma_conn_info *info; /* in the form of the program's structure */
	size_t size;
};

static void visit_client(void *entry, void *arg)
{
	struct srdma_client *client = entry;
	struct visitor *visitor = arg;

	if (!client->conn)
		return;
	srdma_conn_read_counters(client->conn, &client->info);
	client->info.connected_at = client->connected_at;
	client->info.worker = client->worker->number;
	srdma_sized_fill(visitor->info, visitor->size, &client->info, sizeof client->info);
	visitor->visit(visitor->info, visitor->arg);
}

int srdma_server_each_sized(struct srdma_server *server, srdma_visit_fn *visit, void *arg, size_t size)
{
	size_t room = size > sizeof(struct srdma_conn_info) ? size : sizeof(struct srdma_conn_info);
	struct visitor visitor = {visit, arg, calloc(1, room), size};

	if (!visitor.info)
		return srdma_fail(-ENOMEM, "out of memory");
	srdma_slots_each(&server->slots, visit_client, &visitor);
	free(visitor.info);
	return 0;
}

int srdma_server_event_fd(const struct srdma_server *server)
{
	return server->event_fd;
}

/* ---- kick, limits, drain --------------------------------------------------------------------------------------- */

/* The slot table is locked, so neither the client nor its worker goes meanwhile. `limit`: as in the client, or NULL. */
static void kick(struct srdma_client *client, const char *limit, const char *reason)
{
	/* The first reason stays: the worker may be reading it. */
	if (!atomic_load(&client->kicked)) {
		client->kick_limit = limit;
		snprintf(client->kick_reason, sizeof client->kick_reason, "%s", reason);
		atomic_store_explicit(&client->kicked, true, memory_order_release);
	}
	srdma_worker_wake(client->worker);
}

int srdma_server_kick(struct srdma_server *server, uint64_t client_id, const char *reason)
{
	bool found = false;

	pthread_mutex_lock(&server->slots.mutex);
	for (unsigned i = 0; i < server->slots.used && !found; i++) {
		struct srdma_client *client = server->slots.taken[i]->client;

		/* One without a connection is still in set-up, and not to be seen by srdma_server_each either. */
		found = client->slot.id == client_id && client->conn;
		if (found)
			kick(client, NULL, reason && reason[0] ? reason : "disconnected by the operator");
	}
	pthread_mutex_unlock(&server->slots.mutex);
	return found ? 0 : srdma_fail(-ENOENT, "no client %llu is connected", (unsigned long long)client_id);
}

void srdma_server_recheck(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	struct srdma_policy policy;

	pthread_mutex_lock(&server->mutex);
	srdma_policy_find(&server->limits, &client->conn->names, &policy);
	pthread_mutex_unlock(&server->mutex);
	if (policy.refused)
		kick(client, policy.refused, srdma_policy_text(&policy));
}

static void recheck_connected(void *entry, void *arg)
{
	struct srdma_client *client = entry;

	(void)arg;
	/* One in set-up is checked when it is connected. */
	if (client->conn)
		srdma_server_recheck(client);
}

int srdma_server_set_limits(struct srdma_server *server, const struct srdma_server_limits *limits)
{
	struct srdma_server_limits given, fresh, old;
	int ret = srdma_limits_complete(limits, &given);

	if (ret == 0)
		ret = srdma_limits_take(&given, &server->options, server->device, false, &fresh);
	if (ret != 0)
		return ret;
	pthread_mutex_lock(&server->slots.mutex);
	server->slots.max = fresh.max_clients;
	pthread_mutex_lock(&server->mutex);
	old = server->limits;
	server->limits = fresh;
	pthread_mutex_unlock(&server->mutex);
	pthread_mutex_unlock(&server->slots.mutex);
	srdma_limits_free(&old);
	srdma_slots_each(&server->slots, recheck_connected, NULL);
	/* There may be room now for who waits to be accepted. */
	srdma_server_nudge(server);
	return 0;
}

int srdma_server_drain(struct srdma_server *server, int timeout_ms)
{
	if (timeout_ms < 0)
		return srdma_fail(-EINVAL, "the time-out of a drain must not be negative");
	atomic_store(&server->drain_deadline, srdma_deadline(timeout_ms));
	/* Who has a place stays; who has none yet is told by its greeter. */
	srdma_slots_close(&server->slots);
	atomic_store(&server->draining, true);
	srdma_server_nudge(server);
	return 0;
}

/* ---- stop ------------------------------------------------------------------------------------------------------ */

static void cancel_client(void *entry, void *arg)
{
	struct srdma_client *client = entry;

	(void)arg;
	if (client->conn)
		srdma_conn_cancel(client->conn);
}

/* Waits until all clients have gone; false when `until` came first. */
static bool wait_for_clients(struct srdma_server *server, uint64_t until)
{
	struct timespec at = {.tv_sec = (time_t)(until / 1000000), .tv_nsec = (long)(until % 1000000) * 1000};
	bool none;

	pthread_mutex_lock(&server->mutex);
	while (server->clients > 0 && pthread_cond_timedwait(&server->ended, &server->mutex, &at) != ETIMEDOUT)
		;
	none = server->clients == 0;
	pthread_mutex_unlock(&server->mutex);
	return none;
}

int srdma_server_stop(struct srdma_server **out)
{
	struct srdma_server *server = *out;
	uint64_t one = 1, until;
	int unclean;

	*out = NULL;
	if (!server)
		return 0;
	until = srdma_deadline(server->options.drain_timeout_ms);
	/* Half of the time: a client whose set-up ends last needs some to disconnect in order. */
	atomic_store(&server->setups_until, srdma_deadline(server->options.drain_timeout_ms / 2));
	atomic_store(&server->stopping, true);
	srdma_slots_close(&server->slots);
	if (write(server->stop_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot signal the listener: %s", strerror(errno));
	pthread_join(server->listener_thread, NULL);
	srdma_workers_wake(server);
	stop_greeters(server);
	/* A handler that waits for its client learns of the stop only when the drain is over. */
	if (!wait_for_clients(server, until)) {
		atomic_store(&server->cancelled, true);
		do {
			srdma_slots_each(&server->slots, cancel_client, NULL);
			srdma_workers_wake(server);
		} while (!wait_for_clients(server, srdma_deadline(100)));
	}
	srdma_workers_stop(server);
	unclean = (int)server->unclean;
	free_server(server);
	srdma_log_flush();
	return unclean;
}
