/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* 0 and more, or a negative errno: -ENOPROTOOPT, the kernel does not know the option. */
static int of_peer(int socket)
{
	int fd = -1;
	socklen_t size = sizeof fd;

	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0)
		return fd;
	/* Kernels before 6.16 say so of a process that is gone. */
	return errno == EINVAL ? -ESRCH : -errno;
}

int process_open(int socket, pid_t pid)
{
	int fd = of_peer(socket);

	if (fd != -ENOPROTOOPT)
		return fd;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : fd;
}

bool process_has_ended(int fd)
{
	struct pollfd at = {.fd = fd, .events = POLLIN};

	return fd >= 0 && poll(&at, 1, 0) > 0;
}
