/* SPDX-License-Identifier: Apache-2.0 */
/* status, kick and drain: each asks a running server over its control socket. */
#include "cli.h"
#include "command_line.h"
#include "control_client.h"
#include "server_status.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS 200

static const char exit_codes[] =
	"Exit codes: 0 done, 1 the server refused (no such client), 2 usage, 3 no server at the control socket.\n";

struct control_options {
	char *reason;
	int64_t timeout_ms;
	bool wait;
};

static const struct option kick_options[] = {
	{"--reason", NULL, NULL, OPTION_TEXT, FOR_CONTROL, offsetof(struct control_options, reason), 0, 0, "TEXT",
	 "reason that the client is told"},
};
static const struct option drain_options[] = {
	{"--timeout-ms", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, offsetof(struct control_options, timeout_ms), 0, 86400000, "N",
	 "time until the server stops, even with clients connected"},
	{"--wait", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, offsetof(struct control_options, wait), 0, 0, NULL,
	 "return when the server has gone"},
};

/* Reads the command line; *path is where the server is. Returns true to go on. */
static bool begin(struct command_line *line, int argc, char **argv, char **path, int *code)
{
	if (settings_init(line->settings) < 0) {
		*code = cli_fail(-ENOMEM, "%s", line->name);
		return false;
	}
	line->command = FOR_CONTROL;
	line->details = exit_codes;
	if (!command_line_parse(line, argc, argv, code))
		return false;
	*path = control_path(line->settings);
	if (!*path)
		*code = cli_usage(line->name, "--control PATH is needed: the one that the server was given");
	return *path != NULL;
}

int cmd_status(int argc, char **argv)
{
	struct settings settings = {0};
	struct command_line line = {
		.name = "status",
		.synopsis = "--control PATH [OPTION...]",
		.about = "Prints a running server's counts and a table of its clients.",
		.settings = &settings,
	};
	json_t *status = NULL;
	char *path = NULL;
	int code;

	if (begin(&line, argc, argv, &path, &code)) {
		code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &status);
		if (code == CLI_EXIT_OK && settings.json)
			cli_json_print(json_incref(status));
		else if (code == CLI_EXIT_OK)
			server_status_show(status);
	}
	json_decref(status);
	free(path);
	settings_free(&settings);
	return code;
}

static int kick(const char *path, const char *id, const char *reason)
{
	char *end;
	long long number;
	json_t *answer = NULL;
	int code;

	errno = 0;
	number = strtoll(id, &end, 10);
	if (errno != 0 || end == id || *end || number <= 0)
		return cli_usage("kick", "'%s' is not a client's id; 'securdma status' shows them", id);
	code = control_ask(path, json_pack("{s:s, s:I, s:s*}", "request", "kick", "id", (json_int_t)number, "reason", reason),
			   false, &answer);
	json_decref(answer);
	return code;
}

int cmd_kick(int argc, char **argv)
{
	struct control_options options = {0};
	struct settings settings = {0};
	const char *id = NULL;
	struct command_line line = {
		.name = "kick",
		.synopsis = "--control PATH [OPTION...] ID",
		.about = "Disconnects one client of a running server in order; ID is what 'securdma status' shows.",
		.options = kick_options,
		.option_count = sizeof kick_options / sizeof *kick_options,
		.values = &options,
		.settings = &settings,
		.operands = &id,
		.max_operands = 1,
	};
	char *path = NULL;
	int code;

	if (begin(&line, argc, argv, &path, &code))
		code = id ? kick(path, id, options.reason) : cli_usage("kick", "give the ID of a client; 'securdma status' shows them");
	free(path);
	free(options.reason);
	settings_free(&settings);
	return code;
}

/* The socket goes with the server, which has its own time-out for the clients that are left at the deadline. */
static int wait_for_end(const char *path)
{
	json_t *status = NULL;
	int code;

	while ((code = control_ask(path, json_pack("{s:s}", "request", "status"), true, &status)) == CLI_EXIT_OK) {
		json_decref(status);
		poll(NULL, 0, POLL_MS);
	}
	return code == CLI_EXIT_CONNECT ? CLI_EXIT_OK : code;
}

int cmd_drain(int argc, char **argv)
{
	struct control_options options = {.timeout_ms = 60000};
	struct settings settings = {0};
	struct command_line line = {
		.name = "drain",
		.synopsis = "--control PATH [OPTION...]",
		.about = "Makes a running server take no new clients, and end when the last one has left or the time is over.",
		.options = drain_options,
		.option_count = sizeof drain_options / sizeof *drain_options,
		.values = &options,
		.settings = &settings,
	};
	json_t *answer = NULL;
	char *path = NULL;
	int code;

	if (begin(&line, argc, argv, &path, &code)) {
		code = control_ask(path, json_pack("{s:s, s:I}", "request", "drain", "timeout_ms", (json_int_t)options.timeout_ms),
				   false, &answer);
		if (code == CLI_EXIT_OK && options.wait)
			code = wait_for_end(path);
	}
	json_decref(answer);
	free(path);
	settings_free(&settings);
	return code;
}
