/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
	enum srdma_log_level level;
	bool timestamps;
} sink = {.level = SRDMA_LOG_WARN};

int cli_exit_code(int error)
{
	switch (error) {
	case 0: return CLI_EXIT_OK;
	case SRDMA_ETLS:
	case SRDMA_ECERT:
	case SRDMA_EPROTOCOL: return CLI_EXIT_TLS;
	case SRDMA_EREJECTED: return CLI_EXIT_REJECTED;
	case SRDMA_EVERBS:
	case -ENODEV:
	case -EADDRNOTAVAIL:
	case -ENOSYS: return CLI_EXIT_DEVICE;
	case SRDMA_ELOST:
	case SRDMA_ECLOSED: return CLI_EXIT_LOST;
	case SRDMA_ECONFIG:
	case -EINVAL: return CLI_EXIT_USAGE;
	case -ETIMEDOUT:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EHOSTUNREACH:
	case -EHOSTDOWN:
	case -ENETUNREACH:
	case -ENETDOWN: return CLI_EXIT_CONNECT;
	default: return CLI_EXIT_FAILED;
	}
}

int cli_fail(int error, const char *format, ...)
{
	const char *text = srdma_error_text();
	va_list args;

	fflush(stdout);
	fprintf(stderr, "securdma: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", text[0] ? text : srdma_strerror(error));
	return cli_exit_code(error);
}

int cli_usage(const char *command, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "securdma%s%s: ", command ? " " : "", command ? command : "");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nTry 'securdma %s%s--help'.\n", command ? command : "", command ? " " : "");
	return CLI_EXIT_USAGE;
}

void cli_json_print(json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

	if (text)
		printf("%s\n", text);
	else
		fprintf(stderr, "securdma: can't print the result as JSON: out of memory, or a text is not UTF-8\n");
	fflush(stdout);
	free(text);
	json_decref(object);
}

char *cli_escape(const void *data, size_t length, char *text, size_t size)
{
	static const char names[] = "n\nt\tr\r\\\\";
	const unsigned char *bytes = data;
	size_t used = 0;

	for (size_t i = 0; i < length && used + 5 <= size; i++) {
		char name = '\0';

		for (size_t j = 0; names[j]; j += 2)
			if ((unsigned char)names[j + 1] == bytes[i])
				name = names[j];
		if (name)
			used += (size_t)snprintf(text + used, size - used, "\\%c", name);
		else if (bytes[i] < 0x20 || bytes[i] > 0x7e)
			used += (size_t)snprintf(text + used, size - used, "\\x%02x", bytes[i]);
		else
			text[used++] = (char)bytes[i];
	}
	text[used] = '\0';
	return text;
}

static void print_line(enum srdma_log_level level, const char *line, void *arg)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	struct timespec now;
	char stamp[40] = "";
	struct tm utc;

	(void)arg;
	if (sink.timestamps) {
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &utc);
		strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
		snprintf(stamp + strlen(stamp), sizeof stamp - strlen(stamp), ".%03ldZ ", now.tv_nsec / 1000000);
	}
	/* One call, so that lines of several threads do not mix. */
	fprintf(stderr, "%ssecurdma: %s: %s\n", stamp, names[level], line);
}

void cli_log_start(enum srdma_log_level level, bool timestamps)
{
	sink.level = level;
	sink.timestamps = timestamps;
	srdma_log_set(level, print_line, NULL);
}

void cli_log(enum srdma_log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (level > sink.level)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	print_line(level, line, NULL);
}
