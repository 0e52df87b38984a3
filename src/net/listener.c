/* SPDX-License-Identifier: Apache-2.0 */
#include "listener.h"

#include "clock.h"
#include "log.h"
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The default time-out of an accept; no connection exists yet that could supply one. */
#define ACCEPT_MS 30000

struct srdma_listener {
	int fd;
	uint16_t port;
	char name[80];
};

static bool is_option(int fd, int level, int option, int value)
{
	int is = 0;
	socklen_t length = sizeof is;

	return getsockopt(fd, level, option, &is, &length) == 0 && is == value;
}

/* Asks the kernel, since another program may have bound the socket to another address than the settings name. */
static int take_name(struct srdma_listener *listener)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof address;
	bool ipv6;

	if (getsockname(listener->fd, (struct sockaddr *)&address, &length) != 0)
		return srdma_fail(-errno, "cannot read the address of a listening socket: %s", strerror(errno));
	ipv6 = address.ss_family == AF_INET6;
	listener->port = ntohs(ipv6 ? ((struct sockaddr_in6 *)&address)->sin6_port : ((struct sockaddr_in *)&address)->sin_port);
	if (ipv6 && IN6_IS_ADDR_UNSPECIFIED(&((struct sockaddr_in6 *)&address)->sin6_addr) &&
	    is_option(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0))
		snprintf(listener->name, sizeof listener->name, "*:%u", listener->port);
	else
		srdma_net_format((struct sockaddr *)&address, listener->name, sizeof listener->name);
	return 0;
}

/* Takes over the descriptor, even when it fails. */
static int listener_new(int fd, struct srdma_listener **out)
{
	struct srdma_listener *listener = calloc(1, sizeof *listener);
	int ret;

	if (listener) {
		listener->fd = fd;
		ret = take_name(listener);
	} else {
		ret = srdma_fail(-ENOMEM, "out of memory");
	}
	if (ret != 0) {
		close(fd);
		free(listener);
		return ret;
	}
	*out = listener;
	return 0;
}

int srdma_listener_listen(const char *address, const char *port, struct srdma_listener **out)
{
	int fd, ret = srdma_net_listen(address, port ? port : SRDMA_DEFAULT_PORT, &fd);

	return ret == 0 ? listener_new(fd, out) : ret;
}

int srdma_listener_from_fd(int fd, struct srdma_listener **out)
{
	int flags = fcntl(fd, F_GETFL), own, ret;

	if (flags < 0 || !is_option(fd, SOL_SOCKET, SO_ACCEPTCONN, 1) || !is_option(fd, SOL_SOCKET, SO_PROTOCOL, IPPROTO_TCP))
		return srdma_fail(-EINVAL, "descriptor %d is not a listening TCP socket", fd);
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
		return listener_new(own, out);
	ret = srdma_fail(-errno, "cannot take descriptor %d over: %s", fd, strerror(errno));
	if (own >= 0)
		close(own);
	return ret;
}

void srdma_listener_free(struct srdma_listener **out)
{
	struct srdma_listener *listener = *out;

	*out = NULL;
	if (!listener)
		return;
	close(listener->fd);
	free(listener);
}

int srdma_listener_fd(const struct srdma_listener *listener)
{
	return listener->fd;
}

uint16_t srdma_listener_port(const struct srdma_listener *listener)
{
	return listener->port;
}

const char *srdma_listener_name(const struct srdma_listener *listener)
{
	return listener->name;
}

int srdma_listener_accept_from(struct srdma_listener *listener, int timeout_ms, struct sockaddr_storage *peer)
{
	uint64_t deadline = srdma_deadline(timeout_ms);

	for (;;) {
		socklen_t length = sizeof *peer;
		int fd = accept4(listener->fd, (struct sockaddr *)peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			return fd;
		if (errno == EAGAIN) {
			if (timeout_ms == 0)
				return srdma_again("a client to connect");
			if (srdma_net_wait(listener->fd, POLLIN, deadline) == -ETIMEDOUT)
				return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for a client to connect", timeout_ms);
		} else if (errno != EINTR && errno != ECONNABORTED) {
			return srdma_fail(-errno, "cannot accept a TCP connection: %s", strerror(errno));
		}
	}
}

int srdma_listener_accept(struct srdma_listener *listener, int timeout_ms)
{
	struct sockaddr_storage peer;

	return srdma_listener_accept_from(listener, timeout_ms < 0 ? ACCEPT_MS : timeout_ms, &peer);
}
