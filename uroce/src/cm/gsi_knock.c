/* SPDX-License-Identifier: Apache-2.0 */
/* Whether any process of another host has the port of RoCE: its kernel tells (ICMP) of one that nobody has, and the kernel here tells it to
 * a socket that is connected there. That needs a datagram; one without bytes is no packet to anyone. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gsi_parts.h"
#include "udp.h"
#include "udp_socket.h"

int gsi_knock(const struct gsi *gsi, const struct gsi_path *path)
{
	union udp_sockaddr address;
	socklen_t length = udp_sockaddr_of(&path->peer, udp_gid_ifindex(gsi->device->udp, path->sgid_index), &address);
	int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, &address.any, length) == 0 && send(fd, "", 0, MSG_NOSIGNAL) == 0)
		return fd;
	int error = -errno;
	close(fd);
	return error;
}

bool gsi_is_refused(int fd)
{
	int error = 0;
	socklen_t length = sizeof error;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == ECONNREFUSED;
}

void gsi_end_knock(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
