/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "uroce: "

enum { LEVEL_UNKNOWN = -1, LINE_BYTES = 1024 };

static _Atomic int threshold = LEVEL_UNKNOWN;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

int log_parse_level(const char *text)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};

	for (int i = LOG_ERROR; i <= LOG_DEBUG; i++)
		if (strcmp(text, names[i]) == 0)
			return i;
	return -1;
}

/* One write for the whole line, so that lines of threads and processes do not mix. */
__attribute__((format(printf, 1, 0))) static void emit(const char *format, va_list args)
{
	char line[LINE_BYTES] = PREFIX;
	const size_t start = sizeof PREFIX - 1, room = sizeof line - start;
	int printed = vsnprintf(line + start, room, format, args);

	if (printed < 0)
		return;
	size_t length = start + (size_t)printed;
	if ((size_t)printed >= room) {
		length = sizeof line - 1;
		memcpy(line + length - 3, "...", 3);
	}
	/* Texts have parts that came from the environment: no second line, no terminal sequences. */
	for (size_t i = start; i < length; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[length++] = '\n';
	while (write(STDERR_FILENO, line, length) < 0 && errno == EINTR)
		;
}

__attribute__((format(printf, 1, 2))) static void emit_words(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	emit(format, args);
	va_end(args);
}

/* The level; the first caller takes it from the environment. */
static int level_now(void)
{
	int level = atomic_load_explicit(&threshold, memory_order_relaxed);

	if (level != LEVEL_UNKNOWN)
		return level;
	const char *text = getenv("UROCE_LOG");
	int wanted = !text || *text == '\0' ? LOG_ERROR : log_parse_level(text);
	/* If another thread, or log_set_level, was quicker, its level is in `level`. */
	if (!atomic_compare_exchange_strong(&threshold, &level, wanted < 0 ? LOG_ERROR : wanted))
		return level;
	if (wanted < 0)
		emit_words("UROCE_LOG: \"%.64s\" is not a level; give error, warn, info or debug", text);
	return wanted < 0 ? LOG_ERROR : wanted;
}

void log_write(enum log_level level, const char *format, ...)
{
	int saved = errno;

	if ((int)level <= level_now()) {
		va_list args;

		va_start(args, format);
		emit(format, args);
		va_end(args);
	}
	errno = saved;
}
