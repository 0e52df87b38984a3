/* SPDX-License-Identifier: Apache-2.0 */
/* The log on standard error: lines of text for people, or a JSON object on each line for programs. */
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
	enum srdma_log_level level;
	enum cli_log_format format;
	bool timestamps;
} sink = {.level = SRDMA_LOG_WARN};

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

static void print_text(const struct srdma_log_record *record)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char stamp[40] = "", shown[10 * 1024];

	if (sink.timestamps)
		format_now(stamp, sizeof stamp);
	/* One call, so that lines of several threads do not mix. */
	fprintf(stderr, "%s%ssecurdma: %s: %s\n", stamp, stamp[0] ? " " : "", names[record->level],
		cli_show(STDERR_FILENO, record->text, shown, sizeof shown));
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
	static const char *const names[] = {"error", "warning", "info", "debug"};
	json_t *object = json_object();
	char stamp[40], *line;

	format_now(stamp, sizeof stamp);
	json_object_set_new(object, "time", json_string(stamp));
	json_object_set_new(object, "level", json_string(names[record->level]));
	json_object_set_new(object, "event", json_string(record->event));
	if (record->security)
		json_object_set_new(object, "security", json_true());
	json_object_set_new(object, "message", json_text(record->text));
	for (size_t i = 0; i < record->field_count; i++) {
		const struct srdma_log_field *field = &record->fields[i];

		json_object_set_new(object, field->name, field->text ? json_text(field->text) : json_integer(field->number));
	}
	line = object ? json_dumps(object, JSON_COMPACT) : NULL;
	if (line)
		fprintf(stderr, "%s\n", line);
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

void cli_log_start(enum srdma_log_level level, enum cli_log_format format, bool timestamps)
{
	sink.level = level;
	sink.format = format;
	sink.timestamps = timestamps;
	srdma_log_set_records(level, print_record, NULL);
}

__attribute__((format(printf, 3, 0))) static void vlog(enum srdma_log_level level, const char *event, const char *format,
						     va_list args)
{
	char line[1024];
	struct srdma_log_record record = {.level = level, .event = event, .text = line};

	if (level > sink.level)
		return;
	vsnprintf(line, sizeof line, format, args);
	print_record(&record, NULL);
}

void cli_log(enum srdma_log_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vlog(level, SRDMA_LOG_PLAIN, format, args);
	va_end(args);
}

void cli_log_event(enum srdma_log_level level, const char *event, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vlog(level, event, format, args);
	va_end(args);
}

void cli_error(const char *format, ...)
{
	char line[2048];
	struct srdma_log_record record = {.level = SRDMA_LOG_ERROR, .event = "command.failed", .text = line};
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	fflush(stdout);
	if (sink.format == CLI_LOG_JSON)
		print_json(&record);
	else
		fprintf(stderr, "securdma: %s\n", line);
}
