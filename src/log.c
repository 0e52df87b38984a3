/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct {
	enum srdma_log_level level;
	srdma_log_fn *fn;
	void *arg;
} sink = {.level = SRDMA_LOG_WARN};

static _Thread_local char last_error[768];

const char *srdma_version(void)
{
	return SRDMA_VERSION;
}

const char *srdma_strerror(int error)
{
	switch (error) {
	case 0: return "success";
	case SRDMA_ERANDOM: return "random generator failed";
	case SRDMA_ETLS: return "TLS failed";
	case SRDMA_ECERT: return "certificate not accepted";
	case SRDMA_EPROTOCOL: return "protocol violation";
	case SRDMA_EREJECTED: return "rejected by the server";
	case SRDMA_EVERBS: return "verbs operation failed";
	case SRDMA_ELOST: return "peer lost";
	case SRDMA_ECLOSED: return "disconnected";
	case SRDMA_ECONFIG: return "configuration error";
	default: break;
	}
	const char *text = strerrordesc_np(-error);
	return text ? text : "unknown error";
}

const char *srdma_error_text(void)
{
	return last_error;
}

void srdma_log_set(enum srdma_log_level level, srdma_log_fn *fn, void *arg)
{
	sink.level = level;
	sink.fn = fn;
	sink.arg = arg;
}

static void emit(enum srdma_log_level level, const char *line)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	if (sink.fn)
		sink.fn(level, line, sink.arg);
	else
		fprintf(stderr, "securdma: %s: %s\n", names[level], line);
}

void srdma_log(enum srdma_log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (level > sink.level)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	emit(level, line);
}

void srdma_make_printable(char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
			text[i] = '?';
}

static int record(int error, const char *text)
{
	snprintf(last_error, sizeof last_error, "%s", text);
	srdma_make_printable(last_error, strlen(last_error));
	srdma_log(SRDMA_LOG_DEBUG, "%s (%s)", last_error, srdma_strerror(error));
	return error;
}

int srdma_fail(int error, const char *format, ...)
{
	char text[sizeof last_error];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return record(error, text);
}

int srdma_fail_openssl(int error, const char *format, ...)
{
	char text[sizeof last_error];
	unsigned long code, first = 0;
	va_list args;
	int used;

	va_start(args, format);
	used = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	/* The oldest entry is the cause; the later ones are the layers that passed it on. */
	while ((code = ERR_get_error()) != 0)
		if (first == 0)
			first = code;
	if (first != 0 && used > 0 && (size_t)used < sizeof text) {
		const char *reason = ERR_reason_error_string(first);

		snprintf(text + used, sizeof text - (size_t)used, ": %s", reason ? reason : "unknown OpenSSL error");
	}
	return record(error, text);
}

void srdma_error_prefix(const char *format, ...)
{
	char prefix[256], text[sizeof prefix + sizeof last_error];
	va_list args;

	va_start(args, format);
	vsnprintf(prefix, sizeof prefix, format, args);
	va_end(args);
	snprintf(text, sizeof text, "%s%s", prefix, last_error);
	memcpy(last_error, text, sizeof last_error - 1);
}
