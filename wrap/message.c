/* SPDX-License-Identifier: Apache-2.0 */
#include "message.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 50, PER_SECOND = 5 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next three */
static int left = BURST;
static time_t filled_at;
static unsigned left_out;

/* Whether one more may be written; *skipped: how many were not since the last one. */
static bool may_write(unsigned *skipped)
{
	struct timespec now;
	bool may;

	clock_gettime(CLOCK_MONOTONIC, &now);
	*skipped = 0;
	/* A child may have inherited it from a thread that it does not have. */
	if (pthread_mutex_trylock(&lock) != 0)
		return true;
	if (now.tv_sec != filled_at && left < PER_SECOND)
		left = PER_SECOND;
	filled_at = now.tv_sec;
	may = left > 0;
	*skipped = may ? left_out : 0;
	left_out = may ? 0 : left_out + 1;
	left -= may;
	pthread_mutex_unlock(&lock);
	return may;
}

static void put(const char *text, int length, size_t room)
{
	size_t size = length < 0 ? 0 : (size_t)length < room ? (size_t)length : room - 1;
	ssize_t written = write(STDERR_FILENO, text, size);

	(void)written; /* there is nowhere to say so */
}

void message(const char *format, ...)
{
	char text[1024], line[1100];
	int saved = errno;
	unsigned skipped;
	va_list list;

	if (may_write(&skipped)) {
		va_start(list, format);
		vsnprintf(text, sizeof text, format, list);
		va_end(list);
		if (skipped > 0)
			put(line, snprintf(line, sizeof line, "securdma wrap: %u more messages were left out\n", skipped), sizeof line);
		put(line, snprintf(line, sizeof line, "securdma wrap: %s\n", text), sizeof line);
	}
	errno = saved;
}
