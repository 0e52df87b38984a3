/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "control_client.h"
#include "control_reload.h"
#include "sandbox.h"
#include "serve.h"
#include "server_status.h"
#include "service_manager.h"
#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Between two looks for a device that is not there yet. */
#define LOOK_MS 500
/* For what comes after the waiting that the service manager knows of. */
#define MARGIN_MS 30000

static const char about[] =
	"Listens on a TLS port and gives each authenticated client its own queue pair, with an echo service for messages and\n"
	"a memory region that the client can write to and read from.";
static const char details[] =
	"Signals:\n"
	"  SIGINT, SIGTERM  disconnect all clients within --drain-timeout-ms, and exit; a second signal exits at once\n"
	"  SIGHUP           read the configuration, certificates, CAs and revocation lists again; clients stay connected,\n"
	"                   unless their name is denied now\n"
	"  SIGUSR1          print the counts and a table of the clients\n\n"
	"Exit codes: 0 stopped in order, 1 cannot use the port, 2 usage, settings or certificates, 6 no RDMA device, or it\n"
	"failed while serving, 8 stopped, but some clients did not disconnect in order.\n\n"
	"Examples:\n"
	"  securdma serve --cert server.crt --key server.key --client-ca ca.crt\n"
	"  securdma serve --config /etc/securdma/securdma.conf --max-clients 100 --json\n";

/* The defaults of this command, then the file, then the flags. Returns an exit code; *go_on is false when the command is over. */
static int read_settings(struct serve *serve, struct settings *settings, bool again, bool *go_on)
{
	struct command_line line = {
		.name = "serve",
		.command = FOR_SERVE,
		.synopsis = "--cert FILE --key FILE --client-ca FILE [OPTION...]",
		.about = about,
		.details = details,
		.settings = settings,
	};
	int code;

	*go_on = false;
	settings_init(settings);
	srdma_server_conn_options_init(&settings->conn);
	settings->log_level = SRDMA_LOG_INFO;
	if (again) {
		code = command_line_read_again(&line, serve->argc, serve->argv);
		*go_on = code == CLI_EXIT_OK;
	} else {
		*go_on = command_line_parse(&line, serve->argc, serve->argv, &code);
	}
	return code;
}

static void exit_now(int number)
{
	_exit(128 + number);
}

/* From here on SIGINT and SIGTERM end the process, whatever the drain is waiting for. */
static void let_signals_kill(void)
{
	struct sigaction action = {.sa_handler = exit_now};
	sigset_t set;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static int stop(struct serve *serve, bool device_failed)
{
	struct srdma_server_status status;
	int unfinished;

	control_server_close(&serve->control);
	let_signals_kill();
	metrics_stop(&serve->metrics);
	srdma_server_get_status(serve->server, &status);
	service_manager_tell("STOPPING=1\nSTATUS=stopping: disconnecting %u client%s\nEXTEND_TIMEOUT_USEC=%lld", status.clients,
			     CLI_S(status.clients), (long long)(serve->settings.server.drain_timeout_ms + MARGIN_MS) * 1000);
	unfinished = srdma_server_stop(&serve->server);
	announce_stopped(serve, &status, unfinished, device_failed);
	if (device_failed)
		return cli_failed(CLI_EXIT_DEVICE, "the RDMA device failed or was removed; see 'securdma doctor'");
	return unfinished == 0 ? CLI_EXIT_OK : CLI_EXIT_UNFINISHED;
}

/* The command knows of missing settings before it asks the library, and names them as the command line does. */
static int check_credentials(const struct settings *settings)
{
	if (!settings->cert_file || !settings->key_file)
		return cli_usage("serve", "give --cert and --key; 'securdma cert' makes them");
	if (!settings->server_tls.client_ca_file && !settings->server_tls.insecure_anonymous_clients)
		return cli_usage("serve",
				 "give --client-ca, to verify clients with (or --insecure-anonymous-clients, to serve "
				 "anyone who can reach the port)");
	return CLI_EXIT_OK;
}

/* Reads everything again. Returns whether it took effect; the log reports and collects errors. `later`, or NULL, gets
 * the flags of settings that wait for the next start. */
static bool read_again(void *arg, json_t *later)
{
	struct serve *serve = arg;
	struct settings fresh = {0};
	bool go_on, done = false;

	read_settings(serve, &fresh, true, &go_on);
	if (go_on && check_credentials(&fresh) == CLI_EXIT_OK)
		done = reload(serve, &fresh, later);
	else
		cli_log_event(SRDMA_LOG_ERROR, "server.reload_failed",
			      "not reloaded: the configuration is not valid; the server keeps all old values");
	settings_free(&fresh);
	serve->reload_failed = !done;
	return done;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* `arg`: struct serve *. */
static json_t *answer(const json_t *request, void *arg)
{
	const char *what = json_string_value(json_object_get(request, "request"));
	struct serve *serve = arg;
	json_t *answer;

	if (what && strcmp(what, "reload") == 0)
		return control_answer_reload(read_again, serve);
	answer = server_status_answer(request, serve->server);
	if (answer && what && strcmp(what, "status") == 0 && serve->tunnels)
		json_object_set_new(answer, "tunnels", tunnel_server_json(serve->tunnels));
	/* Whether the server ends once it is drained. */
	if (answer && what && strcmp(what, "drain") == 0)
		json_object_set_new(answer, "ends", json_boolean(!serve->sockets));
	return answer;
}

/* Takes one signal. Returns true when the server is to stop. */
static bool take_signal(struct serve *serve)
{
	int number = signals_take(serve->signals);

	if (number == SIGHUP && !serve->server)
		serve->reload_wanted = true;
	else if (number == SIGHUP)
		read_again(serve, NULL);
	else if (number == SIGUSR1 && serve->server)
		server_status_print(serve->server, serve->settings.json || serve->settings.log_format == CLI_LOG_JSON);
	return number == SIGINT || number == SIGTERM;
}

/* ---- serving --------------------------------------------------------------------------------------------------- */

/* When the last client has gone, or the time is over. Where the service manager holds the sockets, an end would not last: it starts
 * the server again for the next newcomer. Such a server stays, and goes on to turn newcomers away. Returns true when it is to end. */
static bool is_drained(struct serve *serve, const struct srdma_server_status *status)
{
	if (!status->drained || !serve->sockets)
		return status->drained;
	if (!serve->cleared)
		server_status_kick_all(serve->server, "the server is draining, and its deadline has passed");
	serve->cleared = true;
	return false;
}

static int run(struct serve *serve)
{
	struct pollfd fds[2 + CONTROL_FDS] = {
		{.fd = serve->signals, .events = POLLIN},
		{.fd = srdma_server_event_fd(serve->server), .events = POLLIN},
	};
	struct srdma_server_status status;
	int interval = service_manager_interval(1000);

	for (;;) {
		srdma_server_get_status(serve->server, &status);
		if (status.device_failed || is_drained(serve, &status))
			return stop(serve, status.device_failed);
		announce_state(serve, &status);
		service_manager_live();
		/* The interval is for the case that the event was something that this program does not act on: its
		 * descriptor stays readable, so it is left out of the next wait. */
		fds[1].fd = fds[1].revents ? -1 : srdma_server_event_fd(serve->server);
		control_server_fill(serve->control, fds + 2);
		if (poll(fds, 2 + CONTROL_FDS, control_server_timeout(serve->control, interval)) < 0) {
			if (errno == EINTR)
				continue;
			cli_error("cannot wait for events: %s", strerror(errno));
			stop(serve, false);
			return CLI_EXIT_FAILED;
		}
		if ((fds[0].revents & POLLIN) && take_signal(serve))
			return stop(serve, false);
		control_server_serve(serve->control, fds + 2);
	}
}

static int open_control(struct serve *serve)
{
	char *path = control_path_of_server(&serve->settings);
	int code = CLI_EXIT_OK;

	if (path)
		code = control_server_open(path, "server", answer, serve, &serve->control);
	free(path);
	return code;
}

static int start_server(struct serve *serve)
{
	struct settings *settings = &serve->settings;
	struct server_options options;
	struct metrics_source source;
	int ret, code = CLI_EXIT_OK;

	/* Before the server: a port that can't be had is known before a client comes. */
	if (settings->metrics)
		code = metrics_listen("serve", settings->metrics, &serve->metrics);
	if (code != CLI_EXIT_OK)
		return code;
	ret = settings_server_options(settings, &options);
	if (ret < 0)
		return cli_fail(ret, "cannot start");
	services_use(&serve->services, &options.server);
	options.server.listen_fds = serve->sockets;
	options.server.listen_fd_count = serve->socket_count;
	ret = srdma_server_start(&options.server, serve->context, serve->device, &serve->server);
	if (ret == -EADDRNOTAVAIL) {
		cli_fail(ret, "cannot start");
		return CLI_EXIT_FAILED;
	}
	if (ret < 0)
		return cli_fail(ret, "cannot start");
	metrics_of_server(serve->server, &source);
	if (serve->metrics && serve->tunnels)
		metrics_add(serve->metrics, tunnel_server_print, serve->tunnels);
	if (serve->metrics)
		code = metrics_serve(serve->metrics, &source);
	if (code != CLI_EXIT_OK) {
		metrics_stop(&serve->metrics);
		srdma_server_stop(&serve->server);
	}
	return code;
}

/* Nobody has said a word yet. */
static int enter_sandbox(const struct settings *settings)
{
	bool limits = !SANDBOX_SANITIZED && !settings->no_sandbox;
	int ret = limits ? sandbox_limit_connects(settings) : 0;

	if (ret == 0 && limits && serve_files_wanted(settings))
		ret = sandbox_limit_files(settings);
	if (ret == 0 && !settings->no_sandbox)
		ret = sandbox_enter(serve_files_wanted(settings));

	if (ret == 0)
		return CLI_EXIT_OK;
	if (ret == -ENOTSUP)
		return cli_failed(
			CLI_EXIT_FAILED,
			"this securdma was built without libseccomp and cannot filter its system calls: build it with libseccomp, or "
			"disable the filter with --no-sandbox");
	return cli_failed(CLI_EXIT_FAILED,
			  "cannot install the system-call filter: %s; where the kernel or container does not support it, use --no-sandbox",
			  strerror(-ret));
}

/* A device that the kernel, or udev with its permissions, brings later. */
static bool may_come(int error)
{
	return error == -ENODEV || error == -EACCES;
}

/* Opens the device; waits for it when the settings say so. *go_on is false, with an exit code, when there is none, or a signal came. */
static int open_device(struct serve *serve, bool *go_on)
{
	const struct settings *settings = &serve->settings;
	int64_t until = cli_now_ms() + settings->device_wait_ms;
	struct pollfd signals = {.fd = serve->signals, .events = POLLIN};
	bool told = false;
	int ret;

	*go_on = false;
	while (may_come(ret = srdma_device_open(&settings->device, &serve->device)) && cli_now_ms() < until) {
		if (!told) {
			cli_log(SRDMA_LOG_WARN, "%s; waiting %lld ms for it", srdma_error_text(), (long long)settings->device_wait_ms);
			service_manager_tell("STATUS=waiting for an RDMA device\nEXTEND_TIMEOUT_USEC=%lld",
					     (long long)(settings->device_wait_ms + MARGIN_MS) * 1000);
		}
		told = true;
		if (poll(&signals, 1, LOOK_MS) > 0 && take_signal(serve))
			return CLI_EXIT_OK;
	}
	if (ret < 0) {
		cli_fail(ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	*go_on = true;
	return CLI_EXIT_OK;
}

/* In the sandbox, since each thread inherits where it may connect to. */
static int offer_services(struct serve *serve)
{
	int code = CLI_EXIT_OK;

	if (tunnel_server_wanted(&serve->settings)) {
		code = tunnel_server_new(&serve->settings, sandbox_limits_connects(), &serve->tunnels);
		if (code == CLI_EXIT_OK)
			services_add(&serve->services, &tunnel_service, serve->tunnels);
	}
	if (code == CLI_EXIT_OK && serve_files_wanted(&serve->settings)) {
		if (serve_files_new(&serve->settings, &serve->files) < 0)
			return cli_failed(CLI_EXIT_FAILED, "out of memory");
		services_add(&serve->services, &serve_files_service, serve->files);
	}
	return code;
}

static int start(struct serve *serve, bool *go_on)
{
	struct settings *settings = &serve->settings;
	int ret, code;

	*go_on = false;
	code = check_credentials(settings);
	if (code == CLI_EXIT_OK)
		code = service_manager_sockets(settings, &serve->sockets, &serve->socket_count);
	if (code != CLI_EXIT_OK)
		return code;
	ret = credentials_server(settings, &serve->context);
	if (ret < 0) {
		cli_fail(ret, "server credentials");
		return CLI_EXIT_USAGE;
	}
	/* The key is read. The user that the process becomes now opens everything else, the device included. */
	code = privileges_drop(settings);
	if (code != CLI_EXIT_OK)
		return code;
	serve->signals = signals_open();
	if (serve->signals < 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot receive signals: %s", strerror(errno));
	code = open_device(serve, go_on);
	if (!*go_on)
		return code;
	code = tunnel_server_check(settings);
	if (code == CLI_EXIT_OK)
		code = serve_files_check(settings);
	if (code == CLI_EXIT_OK)
		code = enter_sandbox(settings);
	if (code == CLI_EXIT_OK)
		code = offer_services(serve);
	if (code == CLI_EXIT_OK)
		code = start_server(serve);
	*go_on = code == CLI_EXIT_OK;
	return code;
}

int cmd_serve(int argc, char **argv)
{
	struct serve serve = {.signals = -1, .argc = argc, .argv = argv};
	bool go_on;
	int code = read_settings(&serve, &serve.settings, false, &go_on);

	if (go_on)
		code = privileges_freeze();
	if (go_on && code == CLI_EXIT_OK)
		code = start(&serve, &go_on);
	if (go_on && code == CLI_EXIT_OK) {
		code = open_control(&serve);
		if (code != CLI_EXIT_OK)
			srdma_server_stop(&serve.server);
	}
	if (go_on && code == CLI_EXIT_OK) {
		announce_listening(&serve);
		if (serve.reload_wanted)
			read_again(&serve, NULL);
		code = run(&serve);
	}
	metrics_stop(&serve.metrics);
	serve_files_free(&serve.files);
	tunnel_server_free(&serve.tunnels);
	if (serve.signals >= 0)
		close(serve.signals);
	srdma_device_unref(&serve.device);
	srdma_tls_context_unref(&serve.context);
	free(serve.sockets);
	settings_free(&serve.settings);
	return code;
}
