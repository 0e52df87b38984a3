/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	cli_error("%s: %s", what, text[0] ? text : srdma_strerror(error));
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
		fprintf(stderr, "securdma: cannot print the result as JSON: out of memory, or a text is not UTF-8\n");
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
