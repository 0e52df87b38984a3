/* SPDX-License-Identifier: Apache-2.0 */
/* status, kick, drain and reload: each asks a running server over its control socket. */
#include "agent_command.h"
#include "cli.h"
#include "control_client.h"
#include "server_status.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS 200
/* Long revocation lists, many identities. */
#define RELOAD_TIMEOUT_S 60

static const char exit_codes[] =
	"Exit codes: 0 done, 1 the server refused (see the message), 2 usage, 3 no server at the control socket, or no answer.\n";

struct control_options {
	char *reason;
	int64_t timeout_ms;
	bool wait, quiet, agent;
};

static const struct option kick_options[] = {
	{"--reason", NULL, NULL, OPTION_TEXT, FOR_CONTROL, OPTION_AT(struct control_options, reason), 0, 0, "TEXT",
	 "reason to send to the client"},
};
static const struct option drain_options[] = {
	{"--timeout-ms", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, OPTION_AT(struct control_options, timeout_ms), 0, 86400000, "N",
	 "time until the server stops, even with clients connected"},
	{"--wait", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, OPTION_AT(struct control_options, wait), 0, 0, NULL,
	 "wait until the server has stopped"},
};
static const struct option status_options[] = {
	{"--agent", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, OPTION_AT(struct control_options, agent), 0, 0, NULL, "ask this host's agent instead of a server"},
};
static const struct option reload_options[] = {
	{"--agent", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, OPTION_AT(struct control_options, agent), 0, 0, NULL, "ask this host's agent instead of a server"},
	{"--quiet", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, OPTION_AT(struct control_options, quiet), 0, 0, NULL,
	 "do not repeat what the server has logged: why it refused, and which settings wait for its next start"},
};

static int show_status(const char *path, const struct command_line *line)
{
	json_t *status = NULL;
	int code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &status);

	if (code == CLI_EXIT_OK && line->settings->json)
		cli_json_print(json_incref(status));
	else if (code == CLI_EXIT_OK && json_is_true(json_object_get(status, "agent")))
		agent_status_show(status);
	else if (code == CLI_EXIT_OK)
		server_status_show(status);
	json_decref(status);
	return code;
}

int cmd_status(int argc, char **argv)
{
	struct control_options options = {0};
	struct command_line line = {
		.name = "status",
		.synopsis = "[OPTION...]",
		.about = "Prints a running server's counts and a table of its clients, or an agent's with tables of its peers and programs.",
		.details = exit_codes,
		.options = status_options,
		.option_count = sizeof status_options / sizeof *status_options,
		.values = &options,
	};

	return control_command(&line, argc, argv, &options.agent, show_status);
}

static int kick(const char *path, const struct command_line *line)
{
	const struct control_options *options = line->values;
	const char *id = line->operands[0];
	char *end;
	long long number;
	json_t *answer = NULL;
	int code;

	if (!id)
		return cli_usage("kick", "give the ID of a client; 'securdma status' shows them");
	errno = 0;
	number = strtoll(id, &end, 10);
	if (errno != 0 || end == id || *end || number <= 0)
		return cli_usage("kick", "'%s' is not a client's id; 'securdma status' shows them", id);
	code = control_ask(path, json_pack("{s:s, s:I, s:s*}", "request", "kick", "id", (json_int_t)number, "reason", options->reason),
			   false, &answer);
	json_decref(answer);
	return code;
}

int cmd_kick(int argc, char **argv)
{
	struct control_options options = {0};
	const char *id = NULL;
	struct command_line line = {
		.name = "kick",
		.synopsis = "[OPTION...] ID",
		.details = exit_codes,
		.about = "Disconnects one client of a running server in order; 'securdma status' shows the IDs.",
		.options = kick_options,
		.option_count = sizeof kick_options / sizeof *kick_options,
		.values = &options,
		.operands = &id,
		.max_operands = 1,
	};

	return control_command(&line, argc, argv, NULL, kick);
}

/* The socket goes with the server, which has its own time-out for the clients that are left at the deadline. One that stays
 * (`ends` is false) says when it is drained, and has no clients when those that were left have gone. */
static int wait_for_end(const char *path, bool ends)
{
	for (;;) {
		json_t *status = NULL;
		int code = control_ask(path, json_pack("{s:s}", "request", "status"), true, &status);
		bool over = code == CLI_EXIT_OK ? !ends && json_is_true(json_object_get(status, "drained")) &&
							  json_integer_value(json_object_get(status, "connected")) == 0
						: code == CLI_EXIT_CONNECT && !control_is_served(path);

		json_decref(status);
		if (over)
			return CLI_EXIT_OK;
		if (code != CLI_EXIT_OK && code != CLI_EXIT_CONNECT)
			return code;
		poll(NULL, 0, POLL_MS);
	}
}

static int drain(const char *path, const struct command_line *line)
{
	const struct control_options *options = line->values;
	json_t *answer = NULL;
	bool ends;
	int code = control_ask(path, json_pack("{s:s, s:I}", "request", "drain", "timeout_ms", (json_int_t)options->timeout_ms),
			       false, &answer);

	ends = !json_is_false(json_object_get(answer, "ends"));
	json_decref(answer);
	if (code == CLI_EXIT_OK && options->wait)
		code = wait_for_end(path, ends);
	if (code == CLI_EXIT_OK && !ends)
		cli_log(SRDMA_LOG_WARN,
			"systemd holds the server's port and would start the server again, so the server keeps running and rejects new "
			"clients; to stop it, stop the socket unit and the service (systemctl stop securdma.socket securdma.service); to serve "
			"again, restart the service");
	return code;
}

int cmd_drain(int argc, char **argv)
{
	struct control_options options = {.timeout_ms = 60000};
	struct command_line line = {
		.name = "drain",
		.synopsis = "[OPTION...]",
		.details = exit_codes,
		.about = "Makes a running server reject new clients, and stop when the last one has left or --timeout-ms has passed.\n"
			 "With securdma.socket the server keeps running, and rejects new clients until you stop or restart it.",
		.options = drain_options,
		.option_count = sizeof drain_options / sizeof *drain_options,
		.values = &options,
	};

	return control_command(&line, argc, argv, NULL, drain);
}

static void say_later(const json_t *answer)
{
	const json_t *later = json_object_get(answer, "later");

	for (size_t i = 0; i < json_array_size(later); i++)
		cli_log(SRDMA_LOG_WARN, "the new value of %s takes effect at the next start",
			json_string_value(json_array_get(later, i)));
}

static int reload(const char *path, const struct command_line *line)
{
	const struct control_options *options = line->values;
	json_t *answer = NULL;
	int code = control_ask_within(path, json_pack("{s:s}", "request", "reload"), RELOAD_TIMEOUT_S, options->quiet, &answer);

	/* The server has logged nothing about this. */
	if (code == CLI_EXIT_CONNECT && options->quiet)
		cli_error("control socket %s: no server answered", path);
	else if (code == CLI_EXIT_OK && line->settings->json)
		cli_json_print(json_incref(answer));
	else if (code == CLI_EXIT_OK && !options->quiet)
		say_later(answer);
	json_decref(answer);
	return code;
}

int cmd_reload(int argc, char **argv)
{
	struct control_options options = {0};
	struct command_line line = {
		.name = "reload",
		.synopsis = "[OPTION...]",
		.details = exit_codes,
		.about = "Makes a running server, or an agent, read its configuration file, certificates, key, CAs and revocation lists again, and returns\n"
			 "when they are in force. If one of them is wrong, all old values stay.",
		.options = reload_options,
		.option_count = sizeof reload_options / sizeof *reload_options,
		.values = &options,
	};

	return control_command(&line, argc, argv, &options.agent, reload);
}
