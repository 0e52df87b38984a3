/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_server.h"

#include "cli.h"
#include "tunnel_config.h"
#include "tunnel_counts.h"
#include "tunnel_pipe.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TICK_MS 200
#define STOP    UINT64_MAX
#define FIELDS  6

/* One client with its tunnel. Its worker uses it; the thread of the server only wakes the worker. */
struct tunnel {
	struct tunnel_server *server;
	struct srdma_conn *conn;
	struct tunnel_pipe pipe;
	struct tunnel_offer target;
	unsigned tried; /* addresses */
	bool connected, failed;
	int idle_timeout_ms;
	atomic_int_fast64_t deadline; /* 0: none */
	uint32_t slot;
	uint64_t watched; /* in the thread's epoll: the slot and its generation */
	uint64_t client_id;
	struct tunnel_count *count; /* of its target; NULL: it has none yet */
	char name[SRDMA_NAME_SIZE];
	char reason[TUNNEL_REASON]; /* "" while it works */
};

struct slot {
	struct tunnel *tunnel; /* NULL: free */
	uint32_t generation;
};

struct tunnel_server {
	pthread_t thread;
	int epoll_fd, stop_fd;
	pthread_mutex_t mutex; /* guards the rest */
	struct tunnel_config *config;
	struct tunnel_counts counts;
	struct slot *slots;
	uint32_t slot_count, used;
	uint16_t *ports; /* that the sandbox allows; they never change. NULL: all */
	size_t port_count;
};

/* ---- log ------------------------------------------------------------------------------------------------------- */

static void log_tunnel(const struct tunnel *tunnel, enum srdma_log_level level, const char *event, const char *text)
{
	const struct srdma_log_field fields[FIELDS] = {
		{.name = "client_id", .number = (int64_t)tunnel->client_id}, {.name = "name", .text = tunnel->name},
		{.name = "target", .text = tunnel->target.name},             {.name = "bytes_to_target", .number = (int64_t)tunnel->pipe.to_socket},
		{.name = "bytes_from_target", .number = (int64_t)tunnel->pipe.to_stream}, {.name = "reason", .text = tunnel->reason},
	};
	const struct srdma_log_field *pointers[FIELDS];
	const struct srdma_log_record record = {.level = level, .event = event, .fields = pointers, .field_count = FIELDS, .text = text};

	for (size_t i = 0; i < FIELDS; i++)
		pointers[i] = &fields[i];
	cli_log_record(&record);
}

static void log_opened(const struct tunnel *tunnel)
{
	char text[512];

	snprintf(text, sizeof text, "client %llu (%s): tunnel to '%s' opened", (unsigned long long)tunnel->client_id, tunnel->name, tunnel->target.name);
	log_tunnel(tunnel, SRDMA_LOG_INFO, "tunnel.opened", text);
}

static void log_closed(const struct tunnel *tunnel)
{
	char text[768];

	snprintf(text, sizeof text, "client %llu (%s): tunnel to '%s' closed, %llu bytes to the target, %llu bytes from it%s%s",
		 (unsigned long long)tunnel->client_id, tunnel->name, tunnel->target.name, (unsigned long long)tunnel->pipe.to_socket,
		 (unsigned long long)tunnel->pipe.to_stream, tunnel->reason[0] ? ": " : "", tunnel->reason);
	log_tunnel(tunnel, tunnel->failed ? SRDMA_LOG_WARN : SRDMA_LOG_INFO, "tunnel.closed", text);
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void wake_one(struct tunnel_server *server, uint64_t watched)
{
	uint32_t index = (uint32_t)(watched >> 32);

	pthread_mutex_lock(&server->mutex);
	/* A tunnel in the table has a client that is not gone. */
	if (index < server->slot_count && server->slots[index].tunnel && server->slots[index].generation == (uint32_t)watched)
		srdma_conn_wake(server->slots[index].tunnel->conn);
	pthread_mutex_unlock(&server->mutex);
}

static void wake_late(struct tunnel_server *server)
{
	int64_t now = cli_now_ms();

	pthread_mutex_lock(&server->mutex);
	for (uint32_t i = 0; i < server->slot_count; i++) {
		struct tunnel *tunnel = server->slots[i].tunnel;
		int64_t deadline = tunnel ? atomic_load(&tunnel->deadline) : 0;

		if (deadline != 0 && deadline <= now)
			srdma_conn_wake(tunnel->conn);
	}
	pthread_mutex_unlock(&server->mutex);
}

static void *watch(void *arg)
{
	struct tunnel_server *server = arg;
	struct epoll_event events[64];
	int64_t next = 0;

	for (;;) {
		int n = epoll_wait(server->epoll_fd, events, 64, TICK_MS);

		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 == STOP)
				return NULL;
			wake_one(server, events[i].data.u64);
		}
		if (cli_now_ms() >= next) {
			next = cli_now_ms() + TICK_MS;
			wake_late(server);
		}
	}
}

static int enter(struct tunnel_server *server, struct tunnel *tunnel)
{
	uint32_t index = 0;

	pthread_mutex_lock(&server->mutex);
	while (server->used == server->slot_count ? false : server->slots[index].tunnel != NULL)
		index++;
	if (server->used == server->slot_count) {
		uint32_t count = server->slot_count ? server->slot_count * 2 : 16;
		struct slot *slots = realloc(server->slots, count * sizeof *slots);

		if (!slots) {
			pthread_mutex_unlock(&server->mutex);
			return -ENOMEM;
		}
		memset(slots + server->slot_count, 0, (count - server->slot_count) * sizeof *slots);
		index = server->slot_count;
		server->slots = slots;
		server->slot_count = count;
	}
	server->slots[index].tunnel = tunnel;
	server->slots[index].generation++;
	server->used++;
	tunnel->slot = index;
	tunnel->watched = (uint64_t)index << 32 | server->slots[index].generation;
	pthread_mutex_unlock(&server->mutex);
	return 0;
}

static void leave(struct tunnel *tunnel)
{
	struct tunnel_server *server = tunnel->server;

	pthread_mutex_lock(&server->mutex);
	server->slots[tunnel->slot].tunnel = NULL;
	server->used--;
	pthread_mutex_unlock(&server->mutex);
}

/* ---- a client's tunnel ----------------------------------------------------------------------------------------- */

static int arm(struct tunnel *tunnel, int operation, short events)
{
	struct epoll_event event = {.events = EPOLLONESHOT | (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u),
				    .data.u64 = tunnel->watched};

	return epoll_ctl(tunnel->server->epoll_fd, operation, tunnel->pipe.fd, &event) == 0 ? 0 : -errno;
}

/* Begins to connect to the next address. 0; or a negative errno: there is none left. */
static int dial(struct tunnel *tunnel)
{
	int error = EHOSTUNREACH;

	tunnel_pipe_close(&tunnel->pipe, false);
	while (tunnel->tried < tunnel->target.count) {
		const struct tunnel_address *to = &tunnel->target.addresses[tunnel->tried++];

		tunnel->pipe.fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (tunnel->pipe.fd < 0)
			return -errno;
		tunnel_pipe_prepare(tunnel->pipe.fd);
		if (connect(tunnel->pipe.fd, (const struct sockaddr *)&to->address, to->length) == 0 || errno == EINPROGRESS)
			return arm(tunnel, EPOLL_CTL_ADD, POLLOUT);
		error = errno;
		tunnel_pipe_close(&tunnel->pipe, false);
	}
	return -error;
}

static bool is_late(const struct tunnel *tunnel)
{
	int64_t deadline = atomic_load(&tunnel->deadline);

	return deadline != 0 && cli_now_ms() >= deadline;
}

static int fail(struct tunnel *tunnel, int error, const char *reason)
{
	tunnel->failed = true;
	if (!tunnel->connected)
		atomic_fetch_add(&tunnel->count->failed, 1);
	if (reason != tunnel->reason)
		snprintf(tunnel->reason, sizeof tunnel->reason, "%s", reason);
	tunnel_pipe_close(&tunnel->pipe, true);
	/* The peer, too, must not take it for the end of the data. */
	srdma_stream_abort(tunnel->pipe.stream, tunnel->reason);
	return error;
}

/* 0 when the target has answered; 1 when it has not yet. */
static int finish_dial(struct tunnel *tunnel)
{
	struct pollfd fd = {.fd = tunnel->pipe.fd, .events = POLLOUT};
	socklen_t size = sizeof(int);
	int error = 0;
	char text[TUNNEL_REASON];

	if (poll(&fd, 1, 0) == 0) {
		if (is_late(tunnel))
			return fail(tunnel, -ETIMEDOUT, "the target does not answer");
		return arm(tunnel, EPOLL_CTL_MOD, POLLOUT) == 0 ? 1 : fail(tunnel, -EIO, "cannot watch the target's socket");
	}
	if (getsockopt(tunnel->pipe.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	if (error == 0) {
		tunnel->connected = true;
		atomic_fetch_add(&tunnel->count->open, 1);
		atomic_fetch_add(&tunnel->count->total, 1);
		log_opened(tunnel);
		return 0;
	}
	if (dial(tunnel) == 0)
		return 1;
	snprintf(text, sizeof text, "cannot connect to the target: %s", strerror(error));
	return fail(tunnel, -error, text);
}

static void set_deadline(struct tunnel *tunnel)
{
	int ms = tunnel->idle_timeout_ms;

	atomic_store(&tunnel->deadline, ms > 0 ? cli_now_ms() + ms : 0);
}

/* Whatever has happened, goes as far as possible. */
static int turn(struct tunnel *tunnel)
{
	struct tunnel_pipe *pipe = &tunnel->pipe;
	uint64_t to = pipe->to_socket, from = pipe->to_stream;
	int ret = 0;

	/* After the end there is only the client's disconnect to come. */
	if (pipe->fd < 0)
		return 0;
	if (!tunnel->connected)
		ret = finish_dial(tunnel);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = tunnel_pipe_turn(pipe, tunnel->reason);
	atomic_fetch_add(&tunnel->count->to_target, pipe->to_socket - to);
	atomic_fetch_add(&tunnel->count->from_target, pipe->to_stream - from);
	if (ret != 0)
		return fail(tunnel, ret, tunnel->reason);
	if (pipe->to_socket != to || pipe->to_stream != from || atomic_load(&tunnel->deadline) == 0)
		set_deadline(tunnel);
	else if (is_late(tunnel))
		return fail(tunnel, -ETIMEDOUT, "the tunnel was idle for too long");
	if (tunnel_pipe_is_done(pipe)) {
		tunnel_pipe_close(pipe, false);
		atomic_store(&tunnel->deadline, 0);
		return 0;
	}
	if (pipe->events && arm(tunnel, EPOLL_CTL_MOD, pipe->events) != 0)
		return fail(tunnel, -EIO, "cannot watch the target's socket");
	if (pipe->busy)
		srdma_conn_wake(tunnel->conn);
	return 0;
}

static int serve(struct tunnel *tunnel, char *reason)
{
	int ret = turn(tunnel);

	if (ret != 0)
		snprintf(reason, TUNNEL_REASON, "%s", tunnel->reason);
	/* -EAGAIN has a meaning of its own. */
	return ret == -EAGAIN ? -EIO : ret;
}

/* ---- the service ----------------------------------------------------------------------------------------------- */

/* The name that the client asks for; it is text that the client chose. */
static bool read_name(const void *data, size_t size, char name[TUNNEL_NAME_MAX + 1])
{
	if (size > TUNNEL_NAME_MAX || memchr(data, '\0', size))
		return false;
	memcpy(name, data, size);
	name[size] = '\0';
	return true;
}

/* Copies the target if this client may use it. */
static bool find_target(struct tunnel_server *server, const char *peer_name, const char *name, struct tunnel_offer *out, int *connect_ms, int *idle_ms)
{
	const struct tunnel_offer *offer;

	pthread_mutex_lock(&server->mutex);
	offer = tunnel_config_find(server->config, peer_name, name);
	if (offer) {
		*out = *offer;
		*connect_ms = server->config->connect_timeout_ms;
		*idle_ms = server->config->idle_timeout_ms;
	}
	pthread_mutex_unlock(&server->mutex);
	return offer != NULL;
}

/* The name that a client asks for does not become one of the counts, which would grow with each that it makes up. */
static void count_refused(struct tunnel_server *server, const char *name)
{
	struct tunnel_count *count = NULL;

	pthread_mutex_lock(&server->mutex);
	if (tunnel_config_offer(server->config, name))
		count = tunnel_counts_get(&server->counts, name);
	if (count)
		atomic_fetch_add(&count->refused, 1);
	else
		server->counts.unknown++;
	pthread_mutex_unlock(&server->mutex);
}

static int admit(void *state, const struct srdma_admit_request *request, struct srdma_reject *reject)
{
	const uint8_t *data = (const uint8_t *)request->private_data + sizeof TUNNEL_WORD;
	char name[TUNNEL_NAME_MAX + 1];
	struct tunnel_offer target;
	int connect_ms, idle_ms;

	if (!read_name(data, request->private_data_size - sizeof TUNNEL_WORD, name))
		name[0] = '\0';
	if (find_target(state, request->peer_name, name, &target, &connect_ms, &idle_ms))
		return 0;
	count_refused(state, name);
	/* One answer, whether there is no such target or it is not for this client. */
	snprintf(reject->text, sizeof reject->text, "this client may not use such a target (tunnel-targets)");
	return -EACCES;
}

static void tunnel_delete(struct tunnel *tunnel)
{
	if (!tunnel)
		return;
	tunnel_pipe_close(&tunnel->pipe, !tunnel_pipe_is_done(&tunnel->pipe));
	srdma_stream_free(&tunnel->pipe.stream);
	free(tunnel);
}

static int begin(struct tunnel *tunnel, int connect_ms)
{
	int ret = srdma_stream_new(tunnel->conn, NULL, &tunnel->pipe.stream);

	if (ret != 0) {
		cli_log(SRDMA_LOG_WARN, "tunnel: %s", srdma_error_text());
		return ret;
	}
	atomic_store(&tunnel->deadline, cli_now_ms() + connect_ms);
	ret = enter(tunnel->server, tunnel);
	if (ret != 0)
		return ret;
	ret = dial(tunnel);
	if (ret != 0) {
		char text[TUNNEL_REASON];

		snprintf(text, sizeof text, "cannot connect to the target: %s", strerror(-ret));
		fail(tunnel, ret, text);
	}
	return 0;
}

static bool take_count(struct tunnel *tunnel)
{
	pthread_mutex_lock(&tunnel->server->mutex);
	tunnel->count = tunnel_counts_get(&tunnel->server->counts, tunnel->target.name);
	pthread_mutex_unlock(&tunnel->server->mutex);
	return tunnel->count != NULL;
}

static int connect_client(void *state, struct srdma_conn *conn, const void *data, size_t size, void **client)
{
	struct tunnel *tunnel = calloc(1, sizeof *tunnel);
	char name[TUNNEL_NAME_MAX + 1];
	struct srdma_conn_info info;
	int connect_ms, ret;

	if (!tunnel)
		return -ENOMEM;
	srdma_conn_get_info(conn, &info);
	tunnel->server = state;
	tunnel->conn = conn;
	tunnel->pipe.fd = -1;
	tunnel->client_id = info.client_id;
	memcpy(tunnel->name, info.peer_name, sizeof tunnel->name);
	/* The settings may have changed since the client was let in. */
	if (!read_name(data, size, name) || !find_target(state, info.peer_name, name, &tunnel->target, &connect_ms, &tunnel->idle_timeout_ms))
		ret = -EACCES;
	else if (!take_count(tunnel))
		ret = -ENOMEM;
	else
		ret = begin(tunnel, connect_ms);
	if (ret != 0)
		tunnel_delete(tunnel);
	else
		*client = tunnel;
	return ret;
}

static int serve_stream(void *client, struct srdma_stream *stream, char *reason)
{
	(void)stream;
	return serve(client, reason);
}

static int serve_wake(void *client, char *reason)
{
	return serve(client, reason);
}

static void disconnect(void *client)
{
	struct tunnel *tunnel = client;

	leave(tunnel);
	if (tunnel->connected)
		atomic_fetch_sub(&tunnel->count->open, 1);
	if (!tunnel_pipe_is_done(&tunnel->pipe) && !tunnel->failed) {
		tunnel->failed = true;
		snprintf(tunnel->reason, sizeof tunnel->reason, "the client went away");
	}
	log_closed(tunnel);
	tunnel_delete(tunnel);
}

const struct service tunnel_service = {TUNNEL_WORD, admit, connect_client, serve_stream, serve_wake, disconnect};

/* ---- the server ------------------------------------------------------------------------------------------------ */

bool tunnel_server_wanted(const struct settings *settings)
{
	return settings->tunnel_targets.count > 0;
}

int tunnel_server_check(struct settings *settings)
{
	char problem[512];

	if (tunnel_targets_resolve(&settings->tunnel_targets, problem, sizeof problem))
		return CLI_EXIT_OK;
	return cli_failed(CLI_EXIT_USAGE, "[tunnel-targets]: %s", problem);
}

bool tunnel_server_reaches(const struct tunnel_server *server, const struct tunnel_target *target)
{
	return !server->ports || tunnel_target_is_on(target, server->ports, server->port_count);
}

int tunnel_server_set(struct tunnel_server *server, const struct settings *settings)
{
	struct tunnel_config *config = tunnel_config_new(settings), *old;
	bool counted = true;

	if (!config)
		return -ENOMEM;
	pthread_mutex_lock(&server->mutex);
	if (server->ports)
		tunnel_config_keep(config, &settings->tunnel_targets, server->ports, server->port_count, server->config);
	/* So that a target shows before anyone has used it. */
	for (size_t i = 0; i < config->offer_count; i++)
		counted = tunnel_counts_get(&server->counts, config->offers[i].name) && counted;
	old = counted ? server->config : config;
	if (counted)
		server->config = config;
	pthread_mutex_unlock(&server->mutex);
	tunnel_config_free(old);
	return counted ? 0 : -ENOMEM;
}

void tunnel_server_print(void *arg, FILE *file)
{
	struct tunnel_server *server = arg;

	pthread_mutex_lock(&server->mutex);
	tunnel_counts_print(&server->counts, file);
	pthread_mutex_unlock(&server->mutex);
}

json_t *tunnel_server_json(struct tunnel_server *server)
{
	json_t *array;

	pthread_mutex_lock(&server->mutex);
	array = tunnel_counts_json(&server->counts);
	pthread_mutex_unlock(&server->mutex);
	return array;
}

static int note_ports(struct tunnel_server *server, const struct tunnel_targets *targets)
{
	server->ports = calloc(targets->count, sizeof *server->ports);
	if (!server->ports)
		return -ENOMEM;
	for (size_t i = 0; i < targets->count; i++)
		server->ports[server->port_count++] = tunnel_target_port(&targets->items[i]);
	return 0;
}

int tunnel_server_new(const struct settings *settings, bool limited, struct tunnel_server **out)
{
	struct tunnel_server *server = calloc(1, sizeof *server);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = STOP};
	int ret;

	if (!server)
		return cli_failed(CLI_EXIT_FAILED, "out of memory");
	pthread_mutex_init(&server->mutex, NULL);
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server->stop_fd = eventfd(0, EFD_CLOEXEC);
	ret = limited ? note_ports(server, &settings->tunnel_targets) : 0;
	if (ret == 0)
		ret = tunnel_server_set(server, settings);
	if (ret == 0 && (server->epoll_fd < 0 || server->stop_fd < 0 || epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->stop_fd, &event) != 0))
		ret = -errno;
	if (ret == 0)
		ret = -pthread_create(&server->thread, NULL, watch, server);
	if (ret == 0) {
		*out = server;
		return CLI_EXIT_OK;
	}
	cli_error("cannot start the thread of the tunnels: %s", strerror(-ret));
	server->thread = 0;
	tunnel_server_free(&server);
	return CLI_EXIT_FAILED;
}

void tunnel_server_free(struct tunnel_server **out)
{
	struct tunnel_server *server = *out;
	uint64_t one = 1;

	*out = NULL;
	if (!server)
		return;
	if (server->thread && write(server->stop_fd, &one, sizeof one) == sizeof one)
		pthread_join(server->thread, NULL);
	if (server->epoll_fd >= 0)
		close(server->epoll_fd);
	if (server->stop_fd >= 0)
		close(server->stop_fd);
	pthread_mutex_destroy(&server->mutex);
	tunnel_config_free(server->config);
	tunnel_counts_free(&server->counts);
	free(server->ports);
	free(server->slots);
	free(server);
}
