/* SPDX-License-Identifier: Apache-2.0 */
/* The clients of a running server and their rates, again and again. */
#include "cli.h"
#include "command_line.h"
#include "control_client.h"
#include "server_status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_SHOWN 1024

struct top_options {
	int64_t rounds, interval_ms;
	bool once;
};

static const struct option options_table[] = {
	{"-n", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, offsetof(struct top_options, rounds), 0, 1000000000, "N",
	 "end after N screens; 0: never"},
	{"--once", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, offsetof(struct top_options, once), 0, 0, NULL, "the same as -n 1"},
	{"--interval-ms", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, offsetof(struct top_options, interval_ms), 100, 3600000, "N",
	 "between two screens"},
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double number(const json_t *object, const char *name)
{
	return (double)json_integer_value(json_object_get(object, name));
}

/* Ids grow with the order of coming, but the table is in none; so the earlier counters are looked up by id. */
static json_t *by_id(const json_t *status)
{
	const json_t *clients = json_object_get(status, "clients");
	json_t *map = json_object();
	char key[32];

	for (size_t i = 0; i < json_array_size(clients); i++) {
		json_t *client = json_array_get(clients, i);

		snprintf(key, sizeof key, "%.0f", number(client, "client_id"));
		json_object_set(map, key, client);
	}
	return map;
}

struct rates {
	double in, out, bytes_in, bytes_out;
};

/* Of a client that came since: from nothing. */
static struct rates rates_of(const json_t *client, const json_t *before, double seconds)
{
	return (struct rates){
		.in = (number(client, "messages_received") - number(before, "messages_received")) / seconds,
		.out = (number(client, "messages_sent") - number(before, "messages_sent")) / seconds,
		.bytes_in = (number(client, "bytes_received") - number(before, "bytes_received")) / seconds,
		.bytes_out = (number(client, "bytes_sent") - number(before, "bytes_sent")) / seconds,
	};
}

static void print_row(const char *id, const char *name, unsigned name_columns, const char *address, const char *worker,
		      const struct rates *rates)
{
	printf("%8s  ", id);
	cli_print_column(name, name_columns);
	printf(" %-24s %6s %10.0f %10.0f %12.0f %12.0f\n", address, worker, rates->in, rates->out, rates->bytes_in, rates->bytes_out);
}

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value && value[0] ? value : "(anonymous)";
}

static void show_workers(const json_t *clients)
{
	unsigned load[WORKERS_SHOWN] = {0};

	for (size_t i = 0; i < json_array_size(clients); i++) {
		json_int_t worker = json_integer_value(json_object_get(json_array_get(clients, i), "worker"));

		if (worker >= 0 && worker < WORKERS_SHOWN)
			load[worker]++;
	}
	printf("clients on worker:");
	for (int i = 0; i < WORKERS_SHOWN; i++)
		if (load[i] > 0)
			printf(" %d:%u", i, load[i]);
	printf("\n");
}

static void show(const json_t *status, const json_t *earlier, double seconds)
{
	const json_t *clients = json_object_get(status, "clients");
	unsigned name_columns = server_status_name_columns(clients);
	json_t *map = by_id(earlier);
	struct rates total = {0};

	printf("clients %.0f/%.0f, pending %.0f, accepted %.0f, lost %.0f%s\n", number(status, "connected"),
	       number(status, "max_clients"), number(status, "pending"), number(status, "accepted"), number(status, "lost"),
	       json_is_true(json_object_get(status, "draining")) ? ", draining" : "");
	show_workers(clients);
	printf("%8s  %-*s %-24s %6s %10s %10s %12s %12s\n", "client", (int)name_columns, "name", "address", "worker", "in/s", "out/s",
	       "bytes in/s", "bytes out/s");
	for (size_t i = 0; i < json_array_size(clients); i++) {
		const json_t *client = json_array_get(clients, i);
		struct rates rates;
		char id[32], worker[32];

		snprintf(id, sizeof id, "%.0f", number(client, "client_id"));
		snprintf(worker, sizeof worker, "%.0f", number(client, "worker"));
		rates = rates_of(client, json_object_get(map, id), seconds);
		print_row(id, text(client, "name"), name_columns, text(client, "address"), worker, &rates);
		total.in += rates.in;
		total.out += rates.out;
		total.bytes_in += rates.bytes_in;
		total.bytes_out += rates.bytes_out;
	}
	print_row("total", "", name_columns, "", "", &total);
	fflush(stdout);
	json_decref(map);
}

/* Returns true when the user wants to end. */
static bool wait_for_user(bool terminal, int timeout_ms)
{
	struct pollfd input = {.fd = terminal ? STDIN_FILENO : -1, .events = POLLIN};
	double until = now() + timeout_ms / 1000.0;
	char key;

	while (!interrupted && now() < until)
		if (poll(&input, 1, (int)((until - now()) * 1000) + 1) > 0 &&
		    (read(STDIN_FILENO, &key, 1) != 1 || key == 'q'))
			return true;
	return interrupted;
}

static int loop(const char *path, const struct top_options *options, bool terminal)
{
	int64_t rounds = options->once ? 1 : options->rounds;
	json_t *earlier = NULL, *status = NULL;
	double then = now();
	int code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &earlier);

	for (int64_t round = 0; code == CLI_EXIT_OK && (rounds == 0 || round < rounds); round++) {
		double at;

		if (wait_for_user(terminal, (int)options->interval_ms))
			break;
		code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &status);
		at = now();
		if (code != CLI_EXIT_OK)
			break;
		if (isatty(STDOUT_FILENO) && rounds != 1)
			printf("\033[H\033[2J");
		show(status, earlier, at - then);
		json_decref(earlier);
		earlier = status;
		then = at;
	}
	json_decref(earlier);
	return code;
}

static int watch(const char *path, const struct top_options *options)
{
	struct sigaction action = {.sa_handler = interrupt};
	struct termios before, raw;
	bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
	int code;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (terminal) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	code = loop(path, options, terminal);
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return code;
}

int cmd_top(int argc, char **argv)
{
	struct top_options options = {.interval_ms = 1000};
	struct settings settings = {0};
	struct command_line line = {
		.name = "top",
		.command = FOR_CONTROL,
		.synopsis = "--control PATH [OPTION...]",
		.about = "Shows the clients of a running server and their messages and bytes a second, until q or SIGINT.\n"
			 "For JSON see 'securdma status --json'.",
		.details = "Exit codes: 0 ended, 2 usage, 3 no server at the control socket.\n",
		.options = options_table,
		.option_count = sizeof options_table / sizeof *options_table,
		.values = &options,
		.settings = &settings,
	};
	char *path = NULL;
	int code;

	if (settings_init(&settings) < 0)
		return cli_fail(-ENOMEM, "top");
	if (command_line_parse(&line, argc, argv, &code)) {
		path = control_path(&settings);
		code = path ? watch(path, &options)
			    : cli_usage("top", "--control PATH is needed: the one that the server was given");
	}
	free(path);
	settings_free(&settings);
	return code;
}
