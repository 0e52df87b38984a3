/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "command_line.h"
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOLD_FILE_DEADLINE_MS 60000

static const char about[] = "Connects to a securdma server. It then runs the commands of -e or the verification of --pattern, "
			    "or reads commands\n"
			    "from standard input ('help' lists them).";
static const char details[] =
	"Commands: send TEXT, write OFFSET TEXT, read OFFSET LENGTH, stat, help, quit.\n\n"
	"Exit codes: 0 all done, 1 an operation or a verification failed, 2 usage, settings or credentials,\n"
	"3 no connection or a timeout, 4 TLS, certificates or the exchange, 5 rejected by the server,\n"
	"6 RDMA device, 7 connection lost.\n\n"
	"Examples:\n"
	"  securdma connect --ca ca.crt --cert client.crt --key client.key server.example\n"
	"  securdma connect --config client.conf -e 'send hello; write 0 abc; read 0 3'\n"
	"  securdma connect --config client.conf --pattern aaa --count 1000 --json 10.0.0.1:4433\n"
	"  securdma connect --config client.conf --reconnect-ms 60000 a.example,b.example\n";

#define ENDPOINTS_MAX 16

struct connect {
	struct option_list scripts;
	char *pattern;
	int64_t count, size, hold_ms;
	char *hold_file;
	bool show_psn;

	struct settings settings;
	struct srdma_endpoint endpoints[ENDPOINTS_MAX]; /* texts are owned */
	size_t endpoint_count;
	struct srdma_device *device;
	struct srdma_tls_context *context;
	struct session session;
	/* What failed first, for --json: later calls of the library overwrite it. */
	int error;
	char error_text[768];
	struct srdma_reject reject;
};

#define AT(field) OPTION_AT(struct connect, field)
static const struct option connect_options[] = {
	{"-e", NULL, NULL, OPTION_LIST, FOR_CONNECT, AT(scripts), 0, 0, "COMMANDS",
	 "run commands, separated by ';'; may be repeated"},
	{"--pattern", NULL, NULL, OPTION_TEXT, FOR_CONNECT, AT(pattern), 0, 0, "TEXT",
	 "send messages made of TEXT, check the echoes, fill the region and read it back"},
	{"--count", NULL, NULL, OPTION_NUMBER, FOR_CONNECT, AT(count), 0, INT64_MAX, "N", "messages that --pattern sends"},
	{"--size", NULL, NULL, OPTION_SIZE, FOR_CONNECT, AT(size), 1, 1 << 20, "BYTES", "length of each message"},
	{"--hold-ms", NULL, NULL, OPTION_NUMBER, FOR_CONNECT, AT(hold_ms), 0, 3600000, "N",
	 "time to stay connected after the work"},
	{"--hold-file", NULL, NULL, OPTION_TEXT, FOR_CONNECT, AT(hold_file), 0, 0, "FILE",
	 "stay connected until FILE exists, at most 60 s"},
	{"--show-psn", NULL, NULL, OPTION_SWITCH, FOR_CONNECT, AT(show_psn), 0, 0, NULL,
	 "print the starting PSNs (a secret while the connection lives)"},
};
#define CONNECT_OPTION_COUNT (sizeof connect_options / sizeof connect_options[0])

static void keep_error(struct connect *connect, int error, const char *text)
{
	connect->error = error;
	snprintf(connect->error_text, sizeof connect->error_text, "%s", text);
	if (error == SRDMA_EREJECTED)
		srdma_reject_last(&connect->reject);
}

static int fail(struct connect *connect, int error, const char *what)
{
	keep_error(connect, error, srdma_error_text());
	cli_fail(error, "%s", what);
	if (error == SRDMA_EREJECTED && connect->reject.retry_after_ms > 0)
		cli_error("the server suggests trying again in %u ms",
			connect->reject.retry_after_ms);
	return cli_exit_code(error);
}

static int set_up(struct connect *connect)
{
	struct settings *settings = &connect->settings;
	struct session *session = &connect->session;
	struct srdma_link_options options;
	struct srdma_conn_options conn;
	struct srdma_qp_options qp;
	int ret;

	if (!settings->client_tls.ca_file && !settings->client_tls.pin)
		return cli_usage("connect", "give --ca or --pin, to verify the server with");
	ret = credentials_client(settings, &connect->context);
	if (ret < 0) {
		fail(connect, ret, "client credentials");
		return CLI_EXIT_USAGE;
	}
	ret = srdma_device_open(&settings->device, &connect->device);
	if (ret < 0) {
		fail(connect, ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	srdma_link_options_init(&options);
	settings_conn_options(settings, &conn, &qp);
	options.conn = &conn;
	options.endpoints = connect->endpoints;
	options.endpoint_count = connect->endpoint_count;
	options.reconnect_ms = (int)settings->reconnect_ms;
	ret = srdma_link_connect(&options, connect->context, connect->device, &session->link);
	if (ret < 0)
		return fail(connect, ret, "connect");
	session->settings = settings;
	session->show_psn = connect->show_psn;
	session_watch_signals(session);
	return session_begin(session);
}

static int hold(struct connect *connect)
{
	struct session *session = &connect->session;
	int ret = 0;

	if (connect->hold_ms > 0)
		ret = session_idle(session, (int)connect->hold_ms);
	for (int waited = 0; ret == 0 && connect->hold_file && access(connect->hold_file, F_OK) != 0; waited += 50) {
		if (waited >= HOLD_FILE_DEADLINE_MS)
			return session_complain(session, "%s did not appear within %d s", connect->hold_file,
						HOLD_FILE_DEADLINE_MS / 1000);
		ret = session_idle(session, 50);
	}
	/* Ctrl-C while held is the wish to leave, and no failure. */
	return ret == 0 || ret == -EINTR ? CLI_EXIT_OK : session_fail(session, ret, "connection");
}

static int work(struct connect *connect)
{
	struct session *session = &connect->session;
	bool quit = false;
	int code = CLI_EXIT_OK;

	if (connect->settings.json)
		session->results = json_array();
	else
		session_print(session);
	for (size_t i = 0; i < connect->scripts.count && code == CLI_EXIT_OK && !quit; i++)
		code = shell_text(session, connect->scripts.items[i], &quit);
	if (code == CLI_EXIT_OK && connect->pattern)
		code = pattern_run(session, connect->pattern, (uint64_t)connect->count, (size_t)connect->size);
	if (code == CLI_EXIT_OK && connect->pattern && !connect->settings.json) {
		printf("%llu message%s verified, %llu byte%s written, %llu byte%s read back and verified\n",
		       (unsigned long long)session->messages_verified, CLI_S(session->messages_verified),
		       (unsigned long long)session->bytes_written, CLI_S(session->bytes_written),
		       (unsigned long long)session->bytes_read_back, CLI_S(session->bytes_read_back));
		fflush(stdout);
	}
	if (code == CLI_EXIT_OK && connect->scripts.count == 0 && !connect->pattern && !connect->hold_ms && !connect->hold_file)
		code = isatty(STDIN_FILENO) && !connect->settings.json ? shell_interactive(session) : shell_script(session, stdin);
	if (code == CLI_EXIT_OK)
		code = hold(connect);
	if (code != CLI_EXIT_OK)
		keep_error(connect, session->failure, session->failure_text);
	return code;
}

/* Ends the connection in order, also after a failed command, unless it is over already. */
static int finish(struct connect *connect, int code)
{
	struct session *session = &connect->session;
	int ret;

	/* A peer that has asked to disconnect waits for its answer. */
	if (!session->conn || (session->error && session->error != SRDMA_ECLOSED))
		return code;
	srdma_conn_get_info(session->conn, &session->info);
	srdma_conn_get_timing(session->conn, &session->timing);
	ret = srdma_link_disconnect(session->link, session_interrupted() ? "interrupted" : NULL, SRDMA_DEFAULT_TIMEOUT);
	if (ret == 0 || code != CLI_EXIT_OK)
		return code;
	return fail(connect, ret, "disconnect");
}

static void report(struct connect *connect, int code)
{
	struct session *session = &connect->session;
	json_t *object = session->conn ? session_json(session) : json_object();

	if (!object) {
		cli_json_print(NULL);
		return;
	}
	if (session->conn) {
		json_object_set_new(object, "reconnects", json_integer((json_int_t)session->reconnects));
		json_object_set_new(object, "messages_verified", json_integer((json_int_t)session->messages_verified));
		json_object_set_new(object, "bytes_written", json_integer((json_int_t)session->bytes_written));
		json_object_set_new(object, "bytes_read_back", json_integer((json_int_t)session->bytes_read_back));
	}
	if (session->results && json_array_size(session->results) > 0)
		json_object_set(object, "results", session->results);
	json_object_set_new(object, "ok", json_boolean(code == CLI_EXIT_OK));
	if (code != CLI_EXIT_OK) {
		const char *error = connect->error           ? srdma_strerror(connect->error)
				    : code == CLI_EXIT_USAGE ? "usage"
							     : "failed";

		json_object_set_new(object, "error", json_string(error));
		json_object_set_new(object, "text", json_string(connect->error_text));
		json_object_set_new(object, "exit", json_integer(code));
	}
	if (connect->error == SRDMA_EREJECTED) {
		char text[4 * sizeof connect->reject.text];

		cli_escape(connect->reject.text, strlen(connect->reject.text), text, sizeof text);
		json_object_set_new(object, "reject",
				    json_pack("{s:i, s:I, s:s}", "reason", (int)connect->reject.reason,
					      "retry_after_ms", (json_int_t)connect->reject.retry_after_ms, "text",
					      text));
	}
	cli_json_print(object);
}

/* "HOST[:PORT],...": those without a port have the settings' one. */
static int take_targets(struct connect *connect, const char *targets)
{
	struct settings *settings = &connect->settings;
	char *copy = strdup(targets), *port = strdup(settings->port), *rest = copy, *target;
	int code = CLI_EXIT_OK;

	if (!copy || !port) {
		free(copy);
		free(port);
		return cli_fail(-ENOMEM, "connect");
	}
	while (code == CLI_EXIT_OK && (target = strsep(&rest, ",")) != NULL) {
		struct srdma_endpoint *endpoint = &connect->endpoints[connect->endpoint_count];

		if (connect->endpoint_count == ENDPOINTS_MAX) {
			code = cli_usage("connect", "give at most %d servers", ENDPOINTS_MAX);
		} else if (settings_set_target(settings, target) < 0) {
			code = cli_usage("connect", "'%s' is not HOST, HOST:PORT or [ADDRESS]:PORT", target);
		} else {
			connect->endpoint_count++;
			srdma_endpoint_init(endpoint);
			endpoint->host = settings->host;
			endpoint->port = settings->port;
			settings->host = NULL;
			settings->port = strdup(port);
			if (!settings->port)
				code = cli_fail(-ENOMEM, "connect");
		}
	}
	free(copy);
	free(port);
	return code;
}

static int run(struct connect *connect, const char *target)
{
	int code;

	if (!target && !connect->settings.host)
		return cli_usage("connect", "give HOST, or set host in section [client] of the configuration file");
	code = take_targets(connect, target ? target : connect->settings.host);
	if (code == CLI_EXIT_OK)
		code = set_up(connect);
	if (code == CLI_EXIT_OK)
		code = work(connect);
	code = finish(connect, code);
	if (connect->settings.json)
		report(connect, code);
	session_ignore_signals();
	srdma_link_free(&connect->session.link);
	for (size_t i = 0; i < connect->endpoint_count; i++) {
		free((char *)connect->endpoints[i].host);
		free((char *)connect->endpoints[i].port);
	}
	free(connect->session.reply);
	json_decref(connect->session.results);
	srdma_device_unref(&connect->device);
	srdma_tls_context_unref(&connect->context);
	return code;
}

int cmd_connect(int argc, char **argv)
{
	struct connect connect = {.count = 100, .size = 64};
	const char *target = NULL;
	struct command_line line = {
		.name = "connect",
		.command = FOR_CONNECT,
		.synopsis = "[OPTION...] [HOST[:PORT][,HOST[:PORT]...]]",
		.about = about,
		.details = details,
		.options = connect_options,
		.option_count = CONNECT_OPTION_COUNT,
		.values = &connect,
		.settings = &connect.settings,
		.operands = &target,
		.max_operands = 1,
	};
	int code;

	settings_init(&connect.settings);
	if (command_line_parse(&line, argc, argv, &code))
		code = run(&connect, target);
	options_free(connect_options, CONNECT_OPTION_COUNT, &connect);
	settings_free(&connect.settings);
	return code;
}
