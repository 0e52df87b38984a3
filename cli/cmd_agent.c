/* SPDX-License-Identifier: Apache-2.0 */
/* securdma agent: vouches for the queue pairs of this host's programs. */
#include "agent.h"
#include "agent_command.h"
#include "cli.h"
#include "command_line.h"
#include "control_reload.h"
#include "local.h"
#include "metrics.h"
#include "owner.h"
#include "sandbox.h"
#include "serve.h"
#include "service_manager.h"
#include "signals.h"
#include "unix_socket.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char about[] =
	"Vouches for the queue pairs of programs that run under 'securdma wrap': it draws their starting PSNs, and exchanges them over\n"
	"TLS with the agents of other hosts, which show certificates with the addresses of their hosts. One agent runs on a host, or\n"
	"for a user.";
static const char details[] =
	"Signals:\n"
	"  SIGINT, SIGTERM  close all sessions, and exit; queue pairs that are connected go on\n"
	"  SIGHUP           read the configuration, certificates, CAs, revocation lists and the map file again\n"
	"  SIGUSR1          print the counts, and tables of the peers and the programs\n\n"
	"Exit codes: 0 stopped in order, 1 cannot use the port or a socket, 2 usage, settings or certificates.\n\n"
	"Examples:\n"
	"  securdma cert peer --name node1.example --name 10.0.0.1 --out host\n"
	"  securdma agent --cert host.crt --key host.key --ca ca.crt\n"
	"  securdma status --agent\n";

struct command {
	struct settings settings;
	int argc; /* for a reload, which reads the flags again */
	char **argv;
	struct agent *agent;
	struct srdma_listener *listener; /* until the agent has it */
	struct unix_socket socket;
	struct control_server *control;
	struct metrics *metrics; /* NULL: none */
	int signals;
	bool reload_failed;
	char state[256]; /* as the service manager was told */
};

static int read_settings(struct command *command, struct settings *settings, bool again, bool *go_on)
{
	struct command_line line = {
		.name = "agent",
		.command = FOR_AGENT,
		.synopsis = "--cert FILE --key FILE --ca FILE [OPTION...]",
		.about = about,
		.details = details,
		.settings = settings,
	};
	int code;

	*go_on = false;
	settings_init(settings);
	settings->log_level = SRDMA_LOG_INFO;
	if (again) {
		code = command_line_read_again(&line, command->argc, command->argv);
		*go_on = code == CLI_EXIT_OK;
	} else {
		*go_on = command_line_parse(&line, command->argc, command->argv, &code);
	}
	return code;
}

/* ---- reload and requests ----------------------------------------------------------------------------------------- */

/* `later`: NULL, or what control_name_what_stays adds to. */
static bool read_again(void *arg, json_t *later)
{
	struct command *command = arg;
	struct settings fresh = {0}, old;
	struct agent_rules rules = {0};
	bool go_on;

	read_settings(command, &fresh, true, &go_on);
	command->reload_failed = !go_on || agent_rules_load(&fresh, &rules) != CLI_EXIT_OK || agent_reload(command->agent, &rules) != 0;
	agent_rules_free(&rules);
	if (command->reload_failed) {
		cli_log_event(SRDMA_LOG_ERROR, "agent.reload_failed", "not reloaded: the agent keeps all old values");
	} else {
		settings_compare(&command->settings, &fresh, FOR_AGENT, control_name_what_stays, later);
		old = command->settings;
		command->settings = fresh;
		fresh = old;
		cli_log_event(SRDMA_LOG_INFO, "agent.reloaded", "reloaded: certificates, CAs, revocation lists, map file and policy; listed peers: %zu",
			      command->settings.agent_peers.count);
	}
	settings_free(&fresh);
	return !command->reload_failed;
}

static json_t *answer(const json_t *request, void *arg)
{
	const char *what = json_string_value(json_object_get(request, "request"));
	struct command *command = arg;
	json_t *status;

	if (what && strcmp(what, "reload") == 0)
		return control_answer_reload(read_again, command);
	if (!what || strcmp(what, "status") != 0)
		return json_pack("{s:b, s:s}", "ok", 0, "error", "an agent has no such request; its requests are status and reload");
	status = agent_status(command->agent);
	if (status)
		json_object_set_new(status, "ok", json_true());
	return status;
}

static void print_status(const struct command *command)
{
	json_t *status = agent_status(command->agent);

	if (!status || command->settings.json || command->settings.log_format == CLI_LOG_JSON) {
		cli_json_print(status);
		return;
	}
	agent_status_show(status);
	json_decref(status);
}

/* Returns true when the agent is to stop. */
static bool take_signal(struct command *command)
{
	int number = signals_take(command->signals);

	if (number == SIGHUP)
		read_again(command, NULL);
	else if (number == SIGUSR1)
		print_status(command);
	return number == SIGINT || number == SIGTERM;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

/* The folder of a socket that nobody has chosen; one that another program made is as good. */
static void make_folder(const char *path)
{
	char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;

	if (slash && slash != folder) {
		*slash = '\0';
		mkdir(folder, 0755);
	}
	free(folder);
}

/* A user's agent is for that user's programs; the host's is for all, and the kernel says whose each is. */
static mode_t socket_mode(void)
{
	return geteuid() == 0 || getenv("RUNTIME_DIRECTORY") ? 0666 : 0600;
}

static int open_sockets(struct command *command)
{
	const struct agent_settings *agent = &command->settings.agent;
	char *path = agent_socket_path(&command->settings), *control = agent_control_path(&command->settings);
	int code;

	if (!path || !control) {
		free(path);
		free(control);
		return cli_failed(CLI_EXIT_FAILED, "out of memory");
	}
	if (!agent->socket)
		make_folder(path);
	code = unix_socket_listen("agent socket", "agent", path, SOCK_SEQPACKET, socket_mode(), &command->socket);
	if (code == CLI_EXIT_OK)
		code = control_server_open(control, "agent", answer, command, &command->control);
	if (code == CLI_EXIT_OK && srdma_listener_listen(agent->listen, agent->port ? agent->port : AGENT_DEFAULT_PORT, &command->listener) < 0)
		code = cli_failed(CLI_EXIT_FAILED, "cannot start: %s", srdma_error_text());
	if (code == CLI_EXIT_OK && agent->metrics)
		code = metrics_listen("agent", agent->metrics, &command->metrics);
	free(path);
	free(control);
	return code;
}

/* The functions for `securdma serve` take its settings; an agent's are in their place. */
static int drop_privileges(const struct settings *settings)
{
	struct settings view = *settings;

	view.user = settings->agent.user;
	view.group = settings->agent.group;
	view.server_tls.client_ca_file = settings->client_tls.ca_file;
	view.server_tls.client_crl_file = settings->client_tls.crl_file;
	return privileges_drop(&view);
}

static int enter_sandbox(const struct settings *settings)
{
	int ret = settings->agent.no_sandbox ? 0 : sandbox_enter_agent();

	if (ret == 0)
		return CLI_EXIT_OK;
	if (ret == -ENOTSUP)
		return cli_failed(CLI_EXIT_FAILED, "this securdma was built without libseccomp and cannot filter its system calls: build it with libseccomp, or "
						   "disable the filter with --no-sandbox");
	return cli_failed(CLI_EXIT_FAILED, "cannot install the system-call filter: %s; where the kernel or container does not support it, use --no-sandbox",
			  strerror(-ret));
}

static bool print_metrics(void *arg, FILE *file)
{
	agent_metrics_print(arg, file);
	return true;
}

static const char *problem(void *arg)
{
	(void)arg;
	return NULL;
}

static int start_agent(struct command *command, struct agent_rules *rules)
{
	const struct agent_settings *settings = &command->settings.agent;
	char port[8];
	struct agent_options options = {.listener = command->listener, .owner_fd = owner_open()};
	struct metrics_source source = {.print = print_metrics, .problem = problem};
	int ret;

	/* A duplicate: the agent closes its own, and the file goes with the other one. */
	options.local_fd = dup(command->socket.fd);
	if (options.local_fd < 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot duplicate a socket: %s", strerror(errno));
	snprintf(port, sizeof port, "%u", srdma_listener_port(command->listener));
	options.peer_port = settings->peer_port ? settings->peer_port : port;
	command->listener = NULL;
	ret = agent_new(&options, rules, &command->agent);
	if (ret != 0)
		return cli_failed(CLI_EXIT_FAILED, "cannot start: %s", srdma_error_text());
	source.arg = command->agent;
	return command->metrics ? metrics_serve(command->metrics, &source) : CLI_EXIT_OK;
}

static void say_listening(const struct command *command)
{
	const char *name = agent_name(command->agent);
	unsigned port = command->metrics ? metrics_port(command->metrics) : 0;
	char text[512], metrics[40] = "";

	if (command->metrics)
		snprintf(metrics, sizeof metrics, " metrics-port %u", port);
	snprintf(text, sizeof text, "listening on %s socket %s name %s mode %s%s", agent_address(command->agent), command->socket.path, name,
		 command->settings.agent.mode == LOCAL_OBSERVE ? "observe" : "enforce", metrics);
	if (cli_log_is_journal(STDOUT_FILENO) && cli_log_is_journal(STDERR_FILENO)) {
		cli_log_event(SRDMA_LOG_INFO, "agent.listening", "%s", text);
	} else if (command->settings.json || command->settings.log_format == CLI_LOG_JSON) {
		const char *address = agent_address(command->agent);

		cli_json_print(json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:i}", "event", "listening", "address", address, "port",
					 atoi(strrchr(address, ':') + 1), "socket", command->socket.path, "name", name, "metrics_port", (int)port, "pid", (int)getpid()));
	} else {
		printf("%s\n", text);
		fflush(stdout);
	}
}

static void tell_state(struct command *command)
{
	struct agent_totals totals;
	char state[sizeof command->state];

	agent_get_totals(command->agent, &totals);
	snprintf(state, sizeof state, "listening on %.80s: %llu program%s, %llu queue pair%s, %llu session%s%s", agent_address(command->agent),
		 (unsigned long long)totals.programs, CLI_S(totals.programs), (unsigned long long)totals.queue_pairs, CLI_S(totals.queue_pairs),
		 (unsigned long long)totals.sessions, CLI_S(totals.sessions), command->reload_failed ? "; the last reload failed, see the log" : "");
	if (strcmp(state, command->state) == 0)
		return;
	service_manager_tell("%sSTATUS=%s", command->state[0] ? "" : "READY=1\n", state);
	memcpy(command->state, state, sizeof state);
}

/* Two descriptors for each program, and one for each session. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max < 262144 ? limit.rlim_max : 262144;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		cli_log(SRDMA_LOG_WARN, "cannot raise the limit of file descriptors: %s", strerror(errno));
}

static int start(struct command *command)
{
	struct agent_rules rules = {0};
	int code = agent_rules_load(&command->settings, &rules);

	if (code == CLI_EXIT_OK)
		code = open_sockets(command);
	/* The key is read, and the sockets are made. */
	if (code == CLI_EXIT_OK)
		code = drop_privileges(&command->settings);
	if (code == CLI_EXIT_OK) {
		command->signals = signals_open();
		if (command->signals < 0)
			code = cli_failed(CLI_EXIT_FAILED, "cannot receive signals: %s", strerror(errno));
	}
	raise_descriptors();
	if (code == CLI_EXIT_OK)
		code = enter_sandbox(&command->settings);
	if (code == CLI_EXIT_OK)
		code = start_agent(command, &rules);
	agent_rules_free(&rules);
	return code;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* The service manager is told of changes once a second at most. */
#define TELL_MS 1000

static int run(struct command *command)
{
	struct pollfd fds[2 + CONTROL_FDS] = {
		{.fd = command->signals, .events = POLLIN},
		{.fd = agent_fd(command->agent), .events = POLLIN},
	};
	int64_t tell_at = 0;

	for (;;) {
		int interval = service_manager_interval(TELL_MS), timeout = agent_timeout_ms(command->agent);

		if (cli_now_ms() >= tell_at) {
			tell_state(command);
			service_manager_live();
			tell_at = cli_now_ms() + interval;
		}
		control_server_fill(command->control, fds + 2);
		if (poll(fds, 2 + CONTROL_FDS, control_server_timeout(command->control, timeout < interval ? timeout : interval)) < 0) {
			if (errno == EINTR)
				continue;
			return cli_failed(CLI_EXIT_FAILED, "cannot wait for events: %s", strerror(errno));
		}
		if ((fds[0].revents & POLLIN) && take_signal(command))
			return CLI_EXIT_OK;
		agent_step(command->agent);
		control_server_serve(command->control, fds + 2);
	}
}

static void say_stopped(const struct command *command)
{
	struct agent_totals totals;

	agent_get_totals(command->agent, &totals);
	cli_log_event(SRDMA_LOG_INFO, "agent.stopped", "stopped: %llu program%s and %llu queue pair%s go on without the agent",
		      (unsigned long long)totals.programs, CLI_S(totals.programs), (unsigned long long)totals.queue_pairs, CLI_S(totals.queue_pairs));
}

int cmd_agent(int argc, char **argv)
{
	struct command command = {.signals = -1, .argc = argc, .argv = argv, .socket.fd = -1};
	bool go_on;
	int code = read_settings(&command, &command.settings, false, &go_on);

	if (go_on)
		code = privileges_freeze();
	if (go_on && code == CLI_EXIT_OK)
		code = start(&command);
	if (go_on && code == CLI_EXIT_OK) {
		say_listening(&command);
		code = run(&command);
		service_manager_tell("STOPPING=1\nSTATUS=stopping");
		say_stopped(&command);
	}
	control_server_close(&command.control);
	metrics_stop(&command.metrics);
	agent_free(&command.agent);
	srdma_listener_free(&command.listener);
	unix_socket_close(&command.socket);
	if (command.signals >= 0)
		close(command.signals);
	settings_free(&command.settings);
	return code;
}
