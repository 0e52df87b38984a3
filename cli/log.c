/* SPDX-License-Identifier: Apache-2.0 */
/* The log on standard error: lines of text for people, or a JSON object on each line for programs. */
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FAILED "command.failed"

static struct {
	enum srdma_log_level level;
	enum cli_log_format format;
	bool timestamps;
	int journal; /* 1: standard error is the journal's: each line begins with its priority, and the journal has the time;
			-1: not looked yet */
} sink = {.level = SRDMA_LOG_WARN, .journal = -1};

/* Errors that wait until the log's format is known, and errors collected for the answer to a request. Only the main thread uses
 * them. */
static struct {
	bool active;
	struct held_line {
		const char *event; /* a string constant */
		char *text;
	} *lines;
	size_t count;
} held;
static struct {
	bool active;
	char text[2048];
} collected;

static const char *const level_names[] = {"error", "warning", "info", "debug"};

/* RFC 3339, UTC, milliseconds. */
static void format_now(char *text, size_t size)
{
	struct timespec now;
	struct tm utc;
	size_t used;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	used = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + used, size - used, ".%03ldZ", now.tv_nsec / 1000000);
}

bool cli_log_is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat is;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(fd, &is) == 0 && is.st_dev == device &&
	       is.st_ino == inode;
}

/* First asked while there is one thread. */
static bool to_journal(void)
{
	if (sink.journal < 0)
		sink.journal = cli_log_is_journal(fileno(stderr));
	return sink.journal;
}

/* sd-daemon(3): the journal takes the priority off again. */
static const char *priority(enum srdma_log_level level)
{
	static const char *const priorities[] = {"<3>", "<4>", "<6>", "<7>"};

	return to_journal() ? priorities[level] : "";
}

/* Of several lines each has its own priority. One call, so that lines of several threads do not mix. */
static void print_lines(enum srdma_log_level level, const char *before, const char *text)
{
	size_t size = 0;
	char *out = NULL;
	FILE *file = open_memstream(&out, &size);

	if (!file)
		return;
	while (text) {
		const char *end = strchr(text, '\n');

		fprintf(file, "%s%s%.*s\n", priority(level), before, end ? (int)(end - text) : (int)strlen(text), text);
		before = "";
		text = end ? end + 1 : NULL;
	}
	if (fclose(file) == 0)
		fputs(out, stderr);
	free(out);
}

static void print_text(const struct srdma_log_record *record)
{
	char stamp[40] = "", before[80], shown[10 * 1024];

	if (sink.timestamps && !to_journal())
		format_now(stamp, sizeof stamp);
	snprintf(before, sizeof before, "%s%ssecurdma: %s: ", stamp, stamp[0] ? " " : "", level_names[record->level]);
	/* The journal shows the program's name and the priority. */
	print_lines(record->level, to_journal() ? "" : before, cli_show(STDERR_FILENO, record->text, shown, sizeof shown));
}

/* A file's name may be anything; JSON is UTF-8. */
static json_t *json_text(const char *text)
{
	json_t *string = json_string(text);
	char escaped[4096];

	return string ? string : json_string(cli_escape(text, strlen(text), escaped, sizeof escaped));
}

static void print_json(const struct srdma_log_record *record)
{
	json_t *object = json_object();
	char stamp[40], *line;

	format_now(stamp, sizeof stamp);
	json_object_set_new(object, "time", json_string(stamp));
	json_object_set_new(object, "level", json_string(level_names[record->level]));
	json_object_set_new(object, "event", json_string(record->event));
	if (record->security)
		json_object_set_new(object, "security", json_true());
	json_object_set_new(object, "message", json_text(record->text));
	for (size_t i = 0; i < record->field_count; i++) {
		const struct srdma_log_field *field = record->fields[i];

		json_object_set_new(object, field->name, field->text ? json_text(field->text) : json_integer(field->number));
	}
	line = object ? json_dumps(object, JSON_COMPACT) : NULL;
	if (line)
		print_lines(record->level, "", line);
	free(line);
	json_decref(object);
}

static void print_record(const struct srdma_log_record *record, void *arg)
{
	(void)arg;
	if (sink.format == CLI_LOG_JSON)
		print_json(record);
	else
		print_text(record);
}

/* In text, a command's error has no prefix: the user who typed the command knows that it is one. */
static void print_error(const char *event, const char *text)
{
	const struct srdma_log_record record = {.level = SRDMA_LOG_ERROR, .event = event, .text = text};

	fflush(stdout);
	if (sink.format == CLI_LOG_JSON)
		print_json(&record);
	else
		print_lines(SRDMA_LOG_ERROR, to_journal() ? "" : "securdma: ", text);
}

static void hold(const char *event, const char *text)
{
	struct held_line *grown = realloc(held.lines, (held.count + 1) * sizeof *held.lines);
	char *copy = grown ? strdup(text) : NULL;

	if (grown)
		held.lines = grown;
	if (copy)
		held.lines[held.count++] = (struct held_line){event, copy};
}

static void release_held(void)
{
	held.active = false;
	for (size_t i = 0; i < held.count; i++) {
		print_error(held.lines[i].event, held.lines[i].text);
		free(held.lines[i].text);
	}
	free(held.lines);
	held.lines = NULL;
	held.count = 0;
}

/* Without what follows in further lines: how to get help. */
static void collect(const char *text)
{
	size_t used = strlen(collected.text);

	if (collected.active)
		snprintf(collected.text + used, sizeof collected.text - used, "%s%.*s", used ? "; " : "", (int)strcspn(text, "\n"), text);
}

void cli_log_hold(void)
{
	held.active = true;
}

void cli_log_collect(void)
{
	collected.active = true;
	collected.text[0] = '\0';
}

const char *cli_log_collected(void)
{
	collected.active = false;
	return collected.text;
}

__attribute__((format(printf, 2, 0))) static void say_error(const char *event, const char *format, va_list args)
{
	char line[2048];

	vsnprintf(line, sizeof line, format, args);
	collect(line);
	if (held.active)
		hold(event, line);
	else
		print_error(event, line);
}

int cli_failed(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_error(FAILED, format, args);
	va_end(args);
	return code;
}

void cli_error_event(const char *event, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_error(event, format, args);
	va_end(args);
}

void cli_log_start(enum srdma_log_level level, enum cli_log_format format, bool timestamps)
{
	sink.level = level;
	sink.format = format;
	sink.timestamps = timestamps;
	to_journal();
	srdma_log_set(level, print_record, NULL);
	release_held();
}

void cli_log_event(enum srdma_log_level level, const char *event, const char *format, ...)
{
	char line[1024];
	const struct srdma_log_record record = {.level = level, .event = event, .text = line};
	va_list args;

	if (level > sink.level)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (level == SRDMA_LOG_ERROR)
		collect(line);
	print_record(&record, NULL);
}

void cli_log_record(const struct srdma_log_record *record)
{
	if (record->level <= sink.level)
		print_record(record, NULL);
}
