/* SPDX-License-Identifier: Apache-2.0 */
#include "wake.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int srdma_wake_new(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void srdma_wake_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

void srdma_wake_send(int fd)
{
	uint64_t one = 1;
	/* A full counter is no error, since a wake-up is then pending anyway. */
	ssize_t n = write(fd, &one, sizeof one);

	(void)n;
}

bool srdma_wake_take(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof count) == sizeof count;
}
