/* SPDX-License-Identifier: Apache-2.0 */
/* Connects in an event loop. The descriptor leaves the set before the object is freed. */
#include <errno.h>
#include <securdma.h>
#include <sys/epoll.h>

/* To be called whenever the descriptor is readable. 0: there is a connection. */
int on_readable(int epoll_fd, struct srdma_connect **connect, struct srdma_conn **conn)
{
	int ret = srdma_connect_step(*connect, conn);

	if (ret == -EAGAIN)
		return ret;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, srdma_connect_fd(*connect), NULL);
	srdma_connect_free(connect);
	return ret;
}
