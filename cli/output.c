/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int cli_exit_code(int error)
{
	switch (error) {
	case 0: return CLI_EXIT_OK;
	case SRDMA_ETLS:
	case SRDMA_ECERT:
	case SRDMA_EPROTOCOL:
	case SRDMA_ESEAL: return CLI_EXIT_TLS;
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
	char what[256];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return cli_failed(cli_exit_code(error), "%s: %s", what, text[0] ? text : srdma_strerror(error));
}

int cli_usage(const char *command, const char *format, ...)
{
	char what[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return cli_failed(CLI_EXIT_USAGE, "%s%s%s\nTry 'securdma %s%s--help'.", command ? command : "", command ? ": " : "", what,
			  command ? command : "", command ? " " : "");
}

int64_t cli_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void cli_json_print(json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

	if (text)
		printf("%s\n", text);
	else
		cli_error("cannot print the result as JSON: out of memory, or a text is not UTF-8");
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

/* Files and pipes get it in any case; main has set the locale. */
static bool takes_utf8(int fd)
{
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0 || !isatty(fd);
}

/* The next character, and where it ends. The text is UTF-8: the library made it so. */
static unsigned next_character(const char **text)
{
	const unsigned char *at = (const unsigned char *)*text;
	unsigned code = *at < 0x80 ? *at : *at < 0xe0 ? *at & 0x1f : *at < 0xf0 ? *at & 0xf : *at & 7;

	for (at++; (*at & 0xc0) == 0x80; at++)
		code = code << 6 | (*at & 0x3f);
	*text = (const char *)at;
	return code;
}

char *cli_show(int fd, const char *text, char *out, size_t size)
{
	size_t used = 0;

	if (takes_utf8(fd)) {
		snprintf(out, size, "%s", text);
		return out;
	}
	while (*text && used + 11 <= size) {
		unsigned code = next_character(&text);

		if (code < 0x80)
			out[used++] = (char)code;
		else
			used += (size_t)snprintf(out + used, size - used, "\\u{%x}", code);
	}
	out[used] = '\0';
	return out;
}

unsigned cli_columns(const char *text)
{
	char shown[10 * SRDMA_NAME_SIZE + 1];
	unsigned columns = 0;

	for (const char *at = cli_show(STDOUT_FILENO, text, shown, sizeof shown); *at; columns++)
		next_character(&at);
	return columns;
}

void cli_print_column(const char *text, unsigned columns)
{
	char shown[10 * SRDMA_NAME_SIZE + 1];
	unsigned used = cli_columns(text);

	printf("%s%*s", cli_show(STDOUT_FILENO, text, shown, sizeof shown), used < columns ? (int)(columns - used) : 0, "");
}
