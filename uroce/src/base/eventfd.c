/* SPDX-License-Identifier: Apache-2.0 */
#include "eventfd.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "log.h"

int eventfd_open(int flags)
{
	int fd = eventfd(0, EFD_CLOEXEC | flags);
	if (fd < 0)
		log_write(LOG_ERROR, "cannot make an eventfd: %s; raise the limit of open files (ulimit -n)", strerror(errno));
	return fd; /* errno is kept */
}

void eventfd_count(int fd, const char *what)
{
	static const uint64_t one = 1;
	/* Not write(), a cancellation point: the caller has a lock. */
	if (syscall(SYS_write, fd, &one, sizeof one) != sizeof one)
		log_write(LOG_ERROR, "the program has closed the descriptor of %s, or replaced it: %s", what, strerror(errno));
}

void eventfd_uncount(int fd)
{
	uint64_t count;
	struct iovec to = {.iov_base = &count, .iov_len = sizeof count};
	/* preadv2, of which not every C library knows. The position, in two halves, is none. */
	long got = syscall(SYS_preadv2, fd, &to, 1, -1L, -1L, RWF_NOWAIT);
	/* Nothing: a thread has read it, or the kernel can't (before 5.8). */
	(void)got;
}

int eventfd_wait(int fd)
{
	uint64_t count;
	return read(fd, &count, sizeof count) == sizeof count ? 0 : -1;
}
