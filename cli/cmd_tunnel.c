/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "tunnel_client.h"
#include "tunnel_pipe.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
/* A connection has work to do by the clock, too. */
#define TICK_MS 200
#define STOP_MS 5000

static const char about[] =
	"Listens for TCP connections and carries each through a securdma server to a target that the server's configuration names\n"
	"(section [tunnel-targets]), for programs that cannot be changed. Each TCP connection has a securdma connection of its own.";
static const char details[] =
	"Signals: SIGINT and SIGTERM end all connections, and the command.\n\n"
	"Exit codes: 0 ended by a signal, 1 cannot listen, 2 usage, settings or credentials, 6 no RDMA device.\n\n"
	"Examples:\n"
	"  securdma tunnel --config client.conf 127.0.0.1:5433 db.example:4433 postgres\n"
	"  psql -h 127.0.0.1 -p 5433\n";

struct tunnels {
	int64_t max_connections;
	struct settings settings;
	struct tunnel_route route;
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	uint8_t private_data[SRDMA_PRIVATE_DATA_MAX];
	struct srdma_listener *listener;
	struct tunnel_flow **flows;
	size_t count;
	bool listening; /* the listener is watched */
	int signals;
};

#define AT(field) OPTION_AT(struct tunnels, field)
static const struct option tunnel_options[] = {
	{"--max-connections", NULL, NULL, OPTION_NUMBER, FOR_TUNNEL, AT(max_connections), 1, CONNECTIONS_MAX, "N",
	 "TCP connections at once; more wait to be accepted"},
};
#define TUNNEL_OPTION_COUNT (sizeof tunnel_options / sizeof tunnel_options[0])

/* Whom an event is for, if it is not a flow's. */
static char of_listener, of_signals;

static int watch(const struct tunnels *tunnels, int operation, int fd, void *whom)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = whom};

	return epoll_ctl(tunnels->route.epoll_fd, operation, fd, &event);
}

/* While there is no room for more, they wait in the kernel. */
static void watch_listener(struct tunnels *tunnels)
{
	bool wanted = tunnels->listener && tunnels->count < (size_t)tunnels->max_connections;

	if (wanted != tunnels->listening && tunnels->listener)
		watch(tunnels, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, srdma_listener_fd(tunnels->listener), &of_listener);
	tunnels->listening = wanted;
}

static void accept_all(struct tunnels *tunnels)
{
	while (tunnels->count < (size_t)tunnels->max_connections) {
		int fd = srdma_listener_accept(tunnels->listener, 0), ret;

		if (fd < 0)
			return;
		ret = tunnel_flow_new(&tunnels->route, fd, &tunnels->flows[tunnels->count]);
		if (ret == 0)
			tunnels->count++;
		else
			cli_log_event(SRDMA_LOG_WARN, "tunnel.failed", "cannot carry a connection: %s", srdma_error_text());
	}
}

/* A flow has ended. The server may have room for one that waits, and the one that came first tries at once. */
static void remove_flow(struct tunnels *tunnels, size_t index)
{
	tunnel_flow_free(&tunnels->flows[index]);
	tunnels->count--;
	memmove(tunnels->flows + index, tunnels->flows + index + 1, (tunnels->count - index) * sizeof(struct tunnel_flow *));
	for (size_t i = 0; i < tunnels->count; i++) {
		if (tunnel_flow_waits(tunnels->flows[i])) {
			tunnel_flow_hurry(tunnels->flows[i]);
			return;
		}
	}
}

/* Takes all flows further. Returns whether any has more to do at once. */
static bool step_all(struct tunnels *tunnels)
{
	bool busy = false;

	for (size_t i = 0; i < tunnels->count;) {
		if (tunnel_flow_step(tunnels->flows[i])) {
			busy = busy || tunnel_flow_is_busy(tunnels->flows[i]);
			i++;
		} else {
			remove_flow(tunnels, i);
		}
	}
	return busy;
}

static void stop(struct tunnels *tunnels)
{
	tunnels->listening = tunnels->listening && watch(tunnels, EPOLL_CTL_DEL, srdma_listener_fd(tunnels->listener), NULL) != 0;
	srdma_listener_free(&tunnels->listener);
	for (size_t i = 0; i < tunnels->count; i++)
		tunnel_flow_break(tunnels->flows[i], "the tunnel was stopped");
}

static bool find(const struct tunnels *tunnels, const void *whom)
{
	for (size_t i = 0; i < tunnels->count; i++)
		if (tunnels->flows[i] == whom)
			return true;
	return false;
}

/* Takes one flow further, unless it ended with an earlier event. */
static bool step_one(struct tunnels *tunnels, struct tunnel_flow *flow)
{
	if (!find(tunnels, flow) || tunnel_flow_step(flow))
		return find(tunnels, flow) && tunnel_flow_is_busy(flow);
	for (size_t i = 0; i < tunnels->count; i++) {
		if (tunnels->flows[i] == flow) {
			remove_flow(tunnels, i);
			break;
		}
	}
	return false;
}

static void run(struct tunnels *tunnels)
{
	struct epoll_event events[64];
	struct signalfd_siginfo signal;
	int64_t next = 0, end = 0;
	bool busy = false;

	while (end == 0 || (tunnels->count > 0 && cli_now_ms() < end)) {
		int n;

		watch_listener(tunnels);
		n = epoll_wait(tunnels->route.epoll_fd, events, 64, busy ? 0 : tunnels->count > 0 ? TICK_MS : -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &of_signals && read(tunnels->signals, &signal, sizeof signal) == sizeof signal) {
				if (end != 0)
					return;
				end = cli_now_ms() + STOP_MS;
				stop(tunnels);
				busy = true;
			} else if (events[i].data.ptr == &of_listener) {
				accept_all(tunnels);
			} else if (events[i].data.ptr != &of_signals) {
				busy = step_one(tunnels, events[i].data.ptr) || busy;
			}
		}
		if (busy || cli_now_ms() >= next) {
			busy = step_all(tunnels);
			next = cli_now_ms() + TICK_MS;
		}
	}
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static int prepare(struct tunnels *tunnels, const char *target)
{
	struct settings *settings = &tunnels->settings;
	size_t length = strlen(target);
	int ret;

	if (!settings->client_tls.ca_file && !settings->client_tls.pin)
		return cli_usage("tunnel", "give --ca or --pin, to verify the server with");
	if (length == 0 || length > TUNNEL_NAME_MAX)
		return cli_usage("tunnel", "the name of a target has 1 to %d characters", TUNNEL_NAME_MAX);
	ret = credentials_client(settings, &tunnels->route.context);
	if (ret < 0) {
		cli_fail(ret, "client credentials");
		return CLI_EXIT_USAGE;
	}
	ret = srdma_device_open(&settings->device, &tunnels->route.device);
	if (ret < 0) {
		cli_fail(ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	settings_conn_options(settings, &tunnels->options, &tunnels->qp);
	memcpy(tunnels->private_data, TUNNEL_WORD, sizeof TUNNEL_WORD);
	memcpy(tunnels->private_data + sizeof TUNNEL_WORD, target, length);
	tunnels->options.private_data = tunnels->private_data;
	tunnels->options.private_data_size = sizeof TUNNEL_WORD + length;
	tunnels->route.options = &tunnels->options;
	tunnels->route.retry_ms = (int)settings->conn.busy_retry_ms;
	tunnels->route.target = target;
	return CLI_EXIT_OK;
}

/* settings->host and settings->port are then the server's. */
static int listen_on(struct tunnels *tunnels, const char *where, const char *server)
{
	struct settings *settings = &tunnels->settings;
	char *port = strdup(settings->port);
	int ret;

	if (!port)
		return cli_fail(-ENOMEM, "tunnel");
	if (settings_set_target(settings, where) < 0 || !strrchr(where, ':')) {
		free(port);
		return cli_usage("tunnel", "'%s' is not ADDRESS:PORT or [ADDRESS]:PORT", where);
	}
	ret = srdma_listener_listen(settings->host, settings->port, &tunnels->listener);
	free(settings->port);
	settings->port = port;
	if (ret < 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot listen on %s: %s", where, srdma_error_text());
	if (settings_set_target(settings, server) < 0)
		return cli_usage("tunnel", "'%s' is not HOST, HOST:PORT or [ADDRESS]:PORT", server);
	tunnels->route.host = settings->host;
	tunnels->route.port = settings->port;
	return CLI_EXIT_OK;
}

static int open_loop(struct tunnels *tunnels)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	tunnels->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	tunnels->route.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	tunnels->flows = calloc((size_t)tunnels->max_connections, sizeof(struct tunnel_flow *));
	if (!tunnels->flows || tunnels->signals < 0 || tunnels->route.epoll_fd < 0 ||
	    watch(tunnels, EPOLL_CTL_ADD, tunnels->signals, &of_signals) != 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot wait for events: %s", strerror(errno));
	return CLI_EXIT_OK;
}

static void announce(const struct tunnels *tunnels, const char *where)
{
	int port = srdma_listener_port(tunnels->listener);

	if (tunnels->settings.json)
		cli_json_print(json_pack("{s:s, s:i, s:s, s:s, s:s, s:i}", "event", "listening", "port", port, "server", tunnels->route.host,
					 "server_port", tunnels->route.port, "target", tunnels->route.target, "pid", (int)getpid()));
	else
		printf("listening on %s (port %d): connections go to '%s' of %s:%s\n", where, port, tunnels->route.target, tunnels->route.host,
		       tunnels->route.port);
	fflush(stdout);
}

static int tunnel(struct tunnels *tunnels, const char *const *operands)
{
	const char *target = operands[2] ? operands[2] : TUNNEL_DEFAULT;
	int code;

	if (!operands[0] || !operands[1])
		return cli_usage("tunnel", "give ADDRESS:PORT to listen on, and the server");
	code = open_loop(tunnels);
	if (code == CLI_EXIT_OK)
		code = prepare(tunnels, target);
	if (code == CLI_EXIT_OK)
		code = listen_on(tunnels, operands[0], operands[1]);
	if (code != CLI_EXIT_OK)
		return code;
	announce(tunnels, operands[0]);
	run(tunnels);
	return CLI_EXIT_OK;
}

static void release(struct tunnels *tunnels)
{
	for (size_t i = 0; i < tunnels->count; i++)
		tunnel_flow_free(&tunnels->flows[i]);
	free(tunnels->flows);
	srdma_listener_free(&tunnels->listener);
	if (tunnels->route.epoll_fd >= 0)
		close(tunnels->route.epoll_fd);
	if (tunnels->signals >= 0)
		close(tunnels->signals);
	srdma_device_unref(&tunnels->route.device);
	srdma_tls_context_unref(&tunnels->route.context);
}

int cmd_tunnel(int argc, char **argv)
{
	struct tunnels tunnels = {.max_connections = 64, .signals = -1, .route.epoll_fd = -1};
	const char *operands[3] = {NULL};
	struct command_line line = {
		.name = "tunnel",
		.command = FOR_TUNNEL,
		.synopsis = "[OPTION...] ADDRESS:PORT SERVER[:PORT] [TARGET]",
		.about = about,
		.details = details,
		.options = tunnel_options,
		.option_count = TUNNEL_OPTION_COUNT,
		.values = &tunnels,
		.settings = &tunnels.settings,
		.operands = operands,
		.max_operands = 3,
	};
	int code;

	settings_init(&tunnels.settings);
	srdma_stream_conn_options_init(&tunnels.settings.conn);
	if (command_line_parse(&line, argc, argv, &code)) {
		code = tunnel(&tunnels, operands);
		release(&tunnels);
	}
	options_free(tunnel_options, TUNNEL_OPTION_COUNT, &tunnels);
	settings_free(&tunnels.settings);
	return code;
}
