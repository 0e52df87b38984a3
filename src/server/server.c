/* SPDX-License-Identifier: Apache-2.0 */
/* Start and stop. */
#include "server.h"

#include "clock.h"
#include "identities.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "seal_pool.h"
#include "server_limits.h"
#include "sized.h"
#include "thread.h"
#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETUP_THREADS_MAX 4

SRDMA_DEFAULTS(srdma_server_options, .port = SRDMA_DEFAULT_PORT, .workers = SRDMA_WORKERS_PER_CLIENT, .drain_timeout_ms = 5000)

void srdma_server_conn_options_init_sized(struct srdma_conn_options *options, size_t size)
{
	struct srdma_conn_options defaults;

	srdma_conn_options_init(&defaults);
	defaults.region_size = 65536;
	srdma_sized_init(options, size, &defaults, sizeof defaults);
}

/* Complete options and the structures that they point to. Strings and lists stay the program's. */
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
	if (o->conn->control_messages && !o->on_control)
		return srdma_fail(-EINVAL, "control_messages is set, and on_control is not: nobody would take the messages");
	if (o->workers < SRDMA_WORKERS_PER_CLIENT)
		return srdma_fail(-EINVAL, "workers %d is out of range; give a number, SRDMA_WORKERS_AUTO or SRDMA_WORKERS_PER_CLIENT", o->workers);
	if (o->listen_fd_count > 0 && !o->listen_fds)
		return srdma_fail(-EINVAL, "listen_fd_count is %u, and there are no listen_fds", o->listen_fd_count);
	if (o->listen_fd_count > SRDMA_LISTENERS_MAX)
		return srdma_fail(-EINVAL, "%u listening sockets; a server takes %u at most", o->listen_fd_count, SRDMA_LISTENERS_MAX);
	return 0;
}

/* Checks the list at the start, so that the operator, and not the first client, gets the error. */
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

static void set_options(struct srdma_server *server, const struct srdma_server_options *options)
{
	srdma_conn_settings_copy(options->conn, &server->conn);
	server->conn.options.gid_networks = NULL;
	server->options = *options;
	server->options.address = server->options.port = server->options.proxy_networks = NULL;
	server->options.listen_fds = NULL;
	server->options.limits = NULL;
	server->options.conn = &server->conn.options;
	if (!options->on_connect && !options->on_message && !options->on_disconnect)
		srdma_echo_use(&server->options);
}

/* A bad list is an error at the start, so that the operator, and not the first client, gets it. */
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

	server->stop_fd = srdma_wake_new();
	server->room_fd = srdma_wake_new();
	server->event_fd = srdma_wake_new();
	if (server->stop_fd < 0 || server->room_fd < 0 || server->event_fd < 0 || flags < 0 ||
	    fcntl(async_fd, F_SETFL, flags | O_NONBLOCK) != 0)
		return srdma_fail(-errno, "cannot make the server's descriptors: %s", strerror(errno));
	return 0;
}

static int make_listeners(struct srdma_server *server, const struct srdma_server_options *options)
{
	unsigned wanted = options->listen_fd_count > 0 ? options->listen_fd_count : 1;
	int ret = 0;

	server->listeners = calloc(wanted, sizeof(struct srdma_listener *));
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
	srdma_wake_close(server->stop_fd);
	srdma_wake_close(server->room_fd);
	srdma_wake_close(server->event_fd);
	srdma_seal_pool_delete(&server->seal_pool);
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

static int start_setup_threads(struct srdma_server *server)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = processors > SETUP_THREADS_MAX ? SETUP_THREADS_MAX : processors > 1 ? (unsigned)processors : 1;
	int ret = 0;

	server->setup_threads = calloc(wanted, sizeof *server->setup_threads);
	if (!server->setup_threads)
		return srdma_fail(-ENOMEM, "out of memory");
	while (ret == 0 && server->setup_thread_count < wanted) {
		ret = srdma_setup_thread_start(&server->setup_threads[server->setup_thread_count], server);
		server->setup_thread_count += ret == 0;
	}
	return ret;
}

static void stop_setup_threads(struct srdma_server *server)
{
	for (unsigned i = 0; i < server->setup_thread_count; i++)
		srdma_setup_thread_wake(&server->setup_threads[i]);
	while (server->setup_thread_count > 0)
		srdma_setup_thread_stop(&server->setup_threads[--server->setup_thread_count]);
	free(server->setup_threads);
	server->setup_threads = NULL;
}

/* After a failure the caller stops the threads that run. */
static int start_threads(struct srdma_server *server)
{
	int ret = srdma_workers_start(server), error;

	if (ret == 0)
		ret = start_setup_threads(server);
	if (ret != 0)
		return ret;
	error = srdma_thread_start(srdma_acceptor_main, server, 0, &server->listener_thread);
	return error == 0 ? 0 : srdma_fail(-error, "cannot start the listener thread: %s", strerror(error));
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
	ret = srdma_tls_context_check(context, true);
	if (ret == 0 && !device)
		ret = srdma_fail(-EINVAL, "a server needs a device");
	if (ret != 0)
		return ret;
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
	if (ret == 0 && options->conn->seal == SRDMA_SEAL_REQUIRED && options->conn->seal_threads > 0)
		ret = srdma_seal_pool_new(options->conn->seal_threads, &server->seal_pool);
	if (ret == 0)
		ret = start_threads(server);
	if (ret != 0) {
		char text[512];

		srdma_error_keep(text, sizeof text);
		atomic_store(&server->stopping, true);
		stop_setup_threads(server);
		srdma_workers_stop(server);
		free_server(server);
		return srdma_fail(ret, "%s", text);
	}
	*out = server;
	return 0;
}

static void cancel_client(void *entry, void *arg)
{
	struct srdma_client *client = entry;

	(void)arg;
	if (client->conn)
		srdma_conn_cancel(client->conn);
}

/* Waits until all clients have gone. False: `until` came first. */
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
	uint64_t until;
	int unclean;

	*out = NULL;
	if (!server)
		return 0;
	until = srdma_deadline(server->options.drain_timeout_ms);
	/* Set-ups get half of the time, since a client whose set-up ends last needs some time to disconnect in order. */
	atomic_store(&server->setups_until, srdma_deadline(server->options.drain_timeout_ms / 2));
	atomic_store(&server->stopping, true);
	srdma_slots_close(&server->slots);
	srdma_wake_send(server->stop_fd);
	pthread_join(server->listener_thread, NULL);
	srdma_workers_wake(server);
	stop_setup_threads(server);
	/* A handler may go on waiting for its client until the drain is over. */
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
