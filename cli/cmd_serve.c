/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "control_client.h"
#include "control_server.h"
#include "credentials.h"
#include "metrics.h"
#include "privileges.h"
#include "reload.h"
#include "sandbox.h"
#include "server_status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static const char about[] =
	"Listens for clients on a TLS port and gives each that is authenticated a queue pair of its own, with an echo\n"
	"service for messages and a region that the client can write to and read from.";
static const char details[] =
	"Signals:\n"
	"  SIGINT, SIGTERM  tell all clients, let them finish within --drain-timeout-ms, exit; a second one exits at "
	"once\n"
	"  SIGHUP           read the configuration, certificates, CAs and revocation lists again; clients stay connected,\n"
	"                   unless their name is denied now\n"
	"  SIGUSR1          print the counts and a table of the clients\n\n"
	"Exit codes: 0 stopped in order, 1 stopped, but some clients did not end in order, or the port can't be used,\n"
	"2 usage, settings or certificates, 6 no RDMA device, or it failed while serving.\n\n"
	"Examples:\n"
	"  securdma serve --cert server.crt --key server.key --client-ca ca.crt\n"
	"  securdma serve --config /etc/securdma.conf --max-clients 100 --json\n";

struct serve {
	struct settings settings;
	struct srdma_device *device;
	struct srdma_tls_context *context;
	struct srdma_server *server;
	struct metrics *metrics; /* NULL: none */
	struct control_server *control;
	int signals;
	int argc; /* to be read again */
	char **argv;
};

/* The defaults of this command, then the file, then the flags. Returns an exit code; *go_on is false when the command is over. */
static int read_settings(struct serve *serve, struct settings *settings, bool again, bool *go_on)
{
	struct srdma_server_options defaults;
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
	if (settings_init(settings) < 0)
		return cli_fail(-ENOMEM, "serve");
	srdma_server_options_init(&defaults);
	settings->region_size = (int64_t)defaults.conn.region_size;
	settings->log_level = SRDMA_LOG_INFO;
	if (again) {
		code = command_line_read_again(&line, serve->argc, serve->argv);
		*go_on = code == CLI_EXIT_OK;
	} else {
		*go_on = command_line_parse(&line, serve->argc, serve->argv, &code);
	}
	return code;
}

/* Blocks the signals in this thread, and so in those that the library starts after. */
static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
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

static void say_listening(const struct serve *serve)
{
	const struct settings *settings = &serve->settings;
	const char *address = settings->listen_address ? settings->listen_address : "*";
	const char *device = srdma_device_name(serve->device);
	unsigned port = srdma_server_port(serve->server), device_port = srdma_device_port(serve->device);
	bool bracket = strchr(address, ':') != NULL;

	if (settings->json) {
		json_t *object = json_pack("{s:s, s:s, s:i, s:s, s:i, s:I, s:i}", "event", "listening", "address", address,
					   "port", (int)port, "device", device, "device_port", (int)device_port,
					   "max_clients", (json_int_t)settings->max_clients, "pid", (int)getpid());

		if (object && serve->metrics)
			json_object_set_new(object, "metrics_port", json_integer(metrics_port(serve->metrics)));
		cli_json_print(object);
		return;
	}
	printf("listening on %s%s%s:%u device %s/%u max-clients %lld", bracket ? "[" : "", address, bracket ? "]" : "", port,
	       device, device_port, (long long)settings->max_clients);
	if (serve->metrics)
		printf(" metrics-port %u", metrics_port(serve->metrics));
	printf("\n");
	fflush(stdout);
}

static int stop(struct serve *serve, bool device_failed)
{
	struct srdma_server_status status;
	int unfinished;

	sd_notify(0, "STOPPING=1\nSTATUS=stopping");
	control_server_close(&serve->control);
	let_signals_kill();
	metrics_stop(&serve->metrics);
	srdma_server_status(serve->server, &status);
	unfinished = srdma_server_stop(&serve->server);
	if (serve->settings.json)
		cli_json_print(json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:b}", "event", "stopped", "clients",
					 (int)status.clients, "unfinished", unfinished, "accepted",
					 (json_int_t)status.accepted, "rejected", (json_int_t)status.rejected, "failed",
					 (json_int_t)status.failed, "lost", (json_int_t)status.lost, "device_failed",
					 (int)device_failed));
	else
		printf("stopped: %u clients told, %d of them did not end in order\n", status.clients, unfinished);
	if (device_failed) {
		cli_error("the RDMA device failed or was removed; see 'securdma doctor'");
		return CLI_EXIT_DEVICE;
	}
	return unfinished == 0 ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

/* What is missing is known before the library is asked, so say it in the words of the command line. */
static int check_credentials(const struct settings *settings)
{
	if (!settings->cert_file || !settings->key_file)
		return cli_usage("serve", "give --cert and --key; 'securdma cert' makes them");
	if (!settings->client_ca_file && !settings->insecure_anonymous_clients)
		return cli_usage("serve",
				 "give --client-ca, to verify clients with (or --insecure-anonymous-clients, to serve "
				 "anyone who can reach the port)");
	return CLI_EXIT_OK;
}

static void read_again(struct serve *serve)
{
	struct settings fresh = {0};
	bool go_on;

	read_settings(serve, &fresh, true, &go_on);
	if (go_on && check_credentials(&fresh) == CLI_EXIT_OK)
		reload(serve->server, &serve->settings, &fresh);
	else
		cli_log_event(SRDMA_LOG_ERROR, "server.reload_failed",
			      "not reloaded: the configuration is not valid; the server goes on with what it has");
	settings_free(&fresh);
}

/* Takes one signal. Returns true when the server is to stop. */
static bool take_signal(struct serve *serve)
{
	struct signalfd_siginfo signal;

	if (read(serve->signals, &signal, sizeof signal) != sizeof signal)
		return false;
	if (signal.ssi_signo == SIGUSR1)
		server_status_print(serve->server, serve->settings.json);
	else if (signal.ssi_signo == SIGHUP)
		read_again(serve);
	else
		return true;
	return false;
}

/* How long the loop may sleep: systemd is told twice in its interval that the loop still runs. */
static int loop_interval(void)
{
	uint64_t us;

	if (sd_watchdog_enabled(0, &us) <= 0 || us >= 2000000)
		return 1000;
	return us >= 2000 ? (int)(us / 2000) : 1;
}

static int run(struct serve *serve)
{
	struct pollfd fds[2 + CONTROL_FDS] = {
		{.fd = serve->signals, .events = POLLIN},
		{.fd = srdma_server_event_fd(serve->server), .events = POLLIN},
	};
	struct srdma_server_status status;
	int interval = loop_interval();

	for (;;) {
		sd_notify(0, "WATCHDOG=1");
		/* The interval is for the case that the event was something that this program does not act on: its
		 * descriptor stays readable, so it is left out of the next wait. */
		fds[1].fd = fds[1].revents ? -1 : srdma_server_event_fd(serve->server);
		control_server_fill(serve->control, fds + 2);
		if (poll(fds, 2 + CONTROL_FDS, control_server_timeout(serve->control, interval)) < 0) {
			if (errno == EINTR)
				continue;
			perror("securdma: poll");
			stop(serve, false);
			return CLI_EXIT_FAILED;
		}
		if ((fds[0].revents & POLLIN) && take_signal(serve))
			return stop(serve, false);
		control_server_serve(serve->control, fds + 2);
		srdma_server_status(serve->server, &status);
		if (status.device_failed || status.drained)
			return stop(serve, status.device_failed);
	}
}

static int open_control(struct serve *serve)
{
	char *path = control_path(&serve->settings);
	int code = CLI_EXIT_OK;

	if (path)
		code = control_server_open(path, server_status_answer, serve->server, &serve->control);
	free(path);
	return code;
}

static int start_server(struct serve *serve)
{
	struct settings *settings = &serve->settings;
	struct srdma_server_options options;
	int ret, code = CLI_EXIT_OK;

	/* Before the server: a port that can't be had is known before a client comes. */
	if (settings->metrics)
		code = metrics_listen(settings->metrics, &serve->metrics);
	if (code != CLI_EXIT_OK)
		return code;
	srdma_server_options_init(&options);
	options.address = settings->listen_address;
	options.port = settings->listen_port;
	/* Of a socket unit; one listens on one port. */
	if (sd_listen_fds(1) > 0)
		options.listen_fd = SD_LISTEN_FDS_START;
	ret = settings_server_options(settings, &options);
	if (ret < 0)
		return cli_fail(ret, "cannot start");
	ret = srdma_server_start(&options, serve->context, serve->device, &serve->server);
	if (ret == -EADDRNOTAVAIL) {
		cli_fail(ret, "cannot start");
		return CLI_EXIT_FAILED;
	}
	if (ret < 0)
		return cli_fail(ret, "cannot start");
	if (serve->metrics)
		code = metrics_serve(serve->metrics, serve->server);
	if (code != CLI_EXIT_OK) {
		metrics_stop(&serve->metrics);
		srdma_server_stop(&serve->server);
	}
	return code;
}

/* Nobody has said a word yet. */
static int enter_sandbox(const struct settings *settings)
{
	int ret = settings->no_sandbox ? 0 : sandbox_enter();

	if (ret == 0)
		return CLI_EXIT_OK;
	cli_error("cannot install the system-call filter: %s; where the kernel or container does not support it, use --no-sandbox",
		  strerror(-ret));
	return CLI_EXIT_FAILED;
}

static int start(struct serve *serve)
{
	const struct settings *settings = &serve->settings;
	int ret, code;

	code = check_credentials(settings);
	if (code != CLI_EXIT_OK)
		return code;
	ret = credentials_server(settings, &serve->context);
	if (ret < 0) {
		cli_fail(ret, "server credentials");
		return CLI_EXIT_USAGE;
	}
	/* The key is read; all else, the device included, is opened by who will use it. */
	code = privileges_drop(settings);
	if (code != CLI_EXIT_OK)
		return code;
	ret = settings_open_device(settings, &serve->device);
	if (ret < 0) {
		cli_fail(ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	serve->signals = open_signals();
	if (serve->signals < 0) {
		perror("securdma: signalfd");
		return CLI_EXIT_FAILED;
	}
	code = enter_sandbox(settings);
	return code == CLI_EXIT_OK ? start_server(serve) : code;
}

int cmd_serve(int argc, char **argv)
{
	struct serve serve = {.signals = -1, .argc = argc, .argv = argv};
	bool go_on;
	int code = read_settings(&serve, &serve.settings, false, &go_on);

	if (go_on)
		code = privileges_freeze();
	if (go_on && code == CLI_EXIT_OK)
		code = start(&serve);
	if (go_on && code == CLI_EXIT_OK) {
		code = open_control(&serve);
		if (code != CLI_EXIT_OK)
			srdma_server_stop(&serve.server);
	}
	if (go_on && code == CLI_EXIT_OK) {
		say_listening(&serve);
		sd_notifyf(0, "READY=1\nSTATUS=listening on port %u", (unsigned)srdma_server_port(serve.server));
		code = run(&serve);
	}
	metrics_stop(&serve.metrics);
	if (serve.signals >= 0)
		close(serve.signals);
	srdma_device_unref(&serve.device);
	srdma_tls_context_unref(&serve.context);
	settings_free(&serve.settings);
	return code;
}
