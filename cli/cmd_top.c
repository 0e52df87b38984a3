/* SPDX-License-Identifier: Apache-2.0 */
/* The clients of a running server and their rates, again and again. */
#include "cli.h"
#include "control_client.h"
#include "top_table.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_SHOWN 1024
/* Of a terminal that does not tell its size. */
#define WIDTH_UNKNOWN 80
#define HEIGHT_UNKNOWN 24

struct top_options {
	int64_t rounds, interval_ms;
	bool once;
};

static const struct option options_table[] = {
	{"-n", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, OPTION_AT(struct top_options, rounds), 0, 1000000000, "N",
	 "end after N screens; 0: never"},
	{"--once", NULL, NULL, OPTION_SWITCH, FOR_CONTROL, OPTION_AT(struct top_options, once), 0, 0, NULL, "the same as -n 1"},
	{"--interval-ms", NULL, NULL, OPTION_NUMBER, FOR_CONTROL, OPTION_AT(struct top_options, interval_ms), 100, 3600000, "N",
	 "time between two screens"},
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

static volatile sig_atomic_t size_changed;
static sigset_t signals_let_in;

static void note_size(int number)
{
	(void)number;
	size_changed = 1;
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

/* The status lists clients in no order, so their earlier counters are looked up by id. */
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

/* A client that has connected since then counts from zero. */
static void rates_of(const json_t *client, const json_t *before, double seconds, struct top_row *row)
{
	static const char *const counters[] = {"messages_received", "messages_sent", "bytes_received", "bytes_sent"};

	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
		row->rates[i] = (number(client, counters[i]) - number(before, counters[i])) / seconds;
}

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value && value[0] ? value : "(anonymous)";
}

/* Where the tables are printed. On a terminal, which has a size, each table replaces the one before; elsewhere they follow each other. */
struct screen {
	struct top_table table;
	bool repaint;
	int lines_left; /* of a terminal; -1: any number */
};

static void begin_screen(struct screen *screen, bool repaint, bool anew)
{
	struct winsize size = {0};
	bool terminal = isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;

	*screen = (struct screen){.repaint = repaint && terminal, .lines_left = -1};
	top_table_fit(&screen->table, !terminal ? 0 : size.ws_col > 0 ? size.ws_col : WIDTH_UNKNOWN);
	if (screen->repaint) {
		screen->lines_left = size.ws_row > 0 ? size.ws_row : HEIGHT_UNKNOWN;
		/* The screen is not wiped each time, because that would flicker. */
		printf("%s\033[H", anew ? "\033[2J" : "");
	}
}

/* After each line, but not after the last one of a terminal, where it would scroll. */
static void end_line(struct screen *screen)
{
	if (!screen->repaint)
		printf("\n");
	else
		printf("\033[K%s", --screen->lines_left > 0 ? "\r\n" : "");
}

static bool has_room(const struct screen *screen)
{
	return !screen->repaint || screen->lines_left > 0;
}

static void show_text(struct screen *screen, const char *line)
{
	if (!has_room(screen))
		return;
	top_table_print_text(&screen->table, line, stdout);
	end_line(screen);
}

/* NULL: the header. */
static void show_row(struct screen *screen, const struct top_row *row)
{
	if (!has_room(screen))
		return;
	if (row)
		top_table_print_row(&screen->table, row, stdout);
	else
		top_table_print_header(&screen->table, stdout);
	end_line(screen);
}

static void show_workers(struct screen *screen, const json_t *clients)
{
	unsigned load[WORKERS_SHOWN] = {0};
	char line[1024] = "clients on worker:";
	size_t used = strlen(line);

	for (size_t i = 0; i < json_array_size(clients); i++) {
		json_int_t worker = json_integer_value(json_object_get(json_array_get(clients, i), "worker"));

		if (worker >= 0 && worker < WORKERS_SHOWN)
			load[worker]++;
	}
	for (int i = 0; i < WORKERS_SHOWN && used < sizeof line; i++)
		if (load[i] > 0)
			used += (size_t)snprintf(line + used, sizeof line - used, " %d:%u", i, load[i]);
	show_text(screen, line);
}

static void show_head(struct screen *screen, const json_t *status)
{
	char line[256];

	snprintf(line, sizeof line, "clients %.0f/%.0f, pending %.0f, accepted %.0f, lost %.0f%s", number(status, "connected"),
		 number(status, "max_clients"), number(status, "pending"), number(status, "accepted"), number(status, "lost"),
		 json_is_true(json_object_get(status, "draining")) ? ", draining" : "");
	show_text(screen, line);
	show_workers(screen, json_object_get(status, "clients"));
	show_row(screen, NULL);
}

struct line {
	struct top_row row;
	char id[32], worker[32], name[128];
	double order;
};

static int by_order_falling(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return (x->order < y->order) - (x->order > y->order);
}

/* The busiest first: people look for them, and there may not be room for all. */
static struct line *make_lines(const json_t *clients, const json_t *earlier, double seconds, struct top_row *total)
{
	size_t count = json_array_size(clients);
	struct line *lines = calloc(count + 1, sizeof *lines);
	json_t *map = by_id(earlier);

	for (size_t i = 0; lines && i < count; i++) {
		const json_t *client = json_array_get(clients, i);
		struct line *line = &lines[i];

		snprintf(line->id, sizeof line->id, "%.0f", number(client, "client_id"));
		snprintf(line->worker, sizeof line->worker, "%.0f", number(client, "worker"));
		rates_of(client, json_object_get(map, line->id), seconds, &line->row);
		cli_show(STDOUT_FILENO, text(client, "name"), line->name, sizeof line->name);
		line->row.texts[TOP_ADDRESS] = text(client, "address");
		for (size_t j = 0; j < sizeof total->rates / sizeof *total->rates; j++) {
			total->rates[j] += line->row.rates[j];
			line->order += line->row.rates[j];
		}
	}
	json_decref(map);
	if (!lines)
		return NULL;
	qsort(lines, count, sizeof *lines, by_order_falling);
	for (size_t i = 0; i < count; i++) {
		lines[i].row.texts[TOP_CLIENT] = lines[i].id;
		lines[i].row.texts[TOP_NAME] = lines[i].name;
		lines[i].row.texts[TOP_WORKER] = lines[i].worker;
	}
	return lines;
}

static void show(struct screen *screen, const json_t *status, const json_t *earlier, double seconds)
{
	struct top_row total = {.texts = {"total", "", "", ""}};
	const json_t *clients = json_object_get(status, "clients");
	struct line *lines = make_lines(clients, earlier, seconds, &total);
	size_t count = lines ? json_array_size(clients) : 0, shown = count;
	char more[64];

	show_head(screen, status);
	/* One line for the sum, and one for the clients that do not fit. */
	if (screen->repaint && (int64_t)count + 1 > screen->lines_left)
		shown = screen->lines_left > 2 ? (size_t)screen->lines_left - 2 : 0;
	for (size_t i = 0; i < shown; i++)
		show_row(screen, &lines[i].row);
	if (shown < count && screen->lines_left > 1) {
		snprintf(more, sizeof more, "... %zu more client%s, less busy", count - shown, CLI_S(count - shown));
		show_text(screen, more);
	}
	show_row(screen, &total);
	if (screen->repaint)
		printf("\033[J");
	fflush(stdout);
	free(lines);
}

enum wake { WAKE_TIME, WAKE_RESIZED, WAKE_END };

/* Waits until `until`, unless the user ends the program or the terminal changes its size. */
static enum wake wait_for_user(bool terminal, double until)
{
	struct pollfd input = {.fd = terminal ? STDIN_FILENO : -1, .events = POLLIN};
	double left;
	char key;

	while (!interrupted && (left = until - now()) > 0) {
		struct timespec time = {.tv_sec = (time_t)left, .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)};

		if (size_changed) {
			size_changed = 0;
			return WAKE_RESIZED;
		}
		/* Signals are delivered only here, so that none is missed between the check and the wait. */
		if (ppoll(&input, 1, &time, &signals_let_in) > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q'))
			return WAKE_END;
	}
	return interrupted ? WAKE_END : WAKE_TIME;
}

/* Two answers of the server, and the time between them. */
struct pair {
	json_t *earlier, *status;
	double seconds;
};

static void paint(const struct pair *pair, bool repaint, bool anew)
{
	struct screen screen;

	if (!pair->status)
		return;
	begin_screen(&screen, repaint, anew);
	show(&screen, pair->status, pair->earlier, pair->seconds);
}

static int loop(const char *path, const struct top_options *options, bool terminal)
{
	int64_t rounds = options->once ? 1 : options->rounds;
	struct pair pair = {0};
	json_t *last = NULL;
	double then = now();
	int code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &last);

	for (int64_t round = 0; code == CLI_EXIT_OK && (rounds == 0 || round < rounds); round++) {
		double until = now() + (double)options->interval_ms / 1000.0;
		enum wake wake;

		while ((wake = wait_for_user(terminal, until)) == WAKE_RESIZED)
			paint(&pair, rounds != 1, true);
		if (wake == WAKE_END)
			break;
		json_decref(pair.earlier);
		pair.earlier = last;
		pair.status = last = NULL;
		code = control_ask(path, json_pack("{s:s}", "request", "status"), false, &last);
		if (code != CLI_EXIT_OK)
			break;
		pair.status = last;
		pair.seconds = now() - then;
		then += pair.seconds;
		paint(&pair, rounds != 1, round == 0);
	}
	if (isatty(STDOUT_FILENO) && rounds != 1 && pair.status)
		printf("\n");
	json_decref(pair.earlier);
	json_decref(last);
	return code;
}

static int watch(const char *path, const struct command_line *line)
{
	struct sigaction action = {.sa_handler = interrupt}, size = {.sa_handler = note_size};
	struct termios before, raw;
	bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
	sigset_t held;
	int code;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGWINCH, &size, NULL);
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGWINCH);
	sigprocmask(SIG_BLOCK, &held, &signals_let_in);
	if (terminal) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	code = loop(path, line->values, terminal);
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return code;
}

int cmd_top(int argc, char **argv)
{
	struct top_options options = {.interval_ms = 1000};
	struct command_line line = {
		.name = "top",
		.synopsis = "[OPTION...]",
		.about = "Shows the clients of a running server and their messages and bytes per second, the busiest first, until q or\n"
			 "SIGINT. A narrow terminal shows fewer columns, and rates as 1.5k, 2.5M. For JSON see 'securdma status --json'.",
		.details = "Exit codes: 0 ended, 2 usage, 3 no server at the control socket.\n",
		.options = options_table,
		.option_count = sizeof options_table / sizeof *options_table,
		.values = &options,
	};

	return control_command(&line, argc, argv, NULL, watch);
}
