/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_pipe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes in one direction before others get their turn. */
#define SHARE (256 << 10)

static int fail(char reason[TUNNEL_REASON], const char *what, int error)
{
	snprintf(reason, TUNNEL_REASON, "%s: %s", what, strerror(error));
	return -error;
}

static int fail_stream(char reason[TUNNEL_REASON], ssize_t error)
{
	snprintf(reason, TUNNEL_REASON, "%s", srdma_error_text());
	return (int)error;
}

/* From the socket into the stream's buffer. */
static int receive(struct tunnel_pipe *pipe, char reason[TUNNEL_REASON])
{
	size_t moved = 0;

	while (!pipe->socket_ended) {
		void *place;
		ssize_t room, n;

		if (moved >= SHARE) {
			pipe->busy = true;
			return 0;
		}
		room = srdma_stream_reserve(pipe->stream, &place, 0);
		if (room == -EAGAIN) {
			pipe->stream_events |= POLLOUT;
			return 0;
		}
		if (room < 0)
			return fail_stream(reason, room);
		n = recv(pipe->fd, place, (size_t)room, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			pipe->events |= POLLIN;
			return 0;
		}
		if (n < 0)
			return fail(reason, "the TCP connection failed", errno);
		pipe->socket_ended = n == 0;
		n = n == 0 ? srdma_stream_shutdown(pipe->stream) : srdma_stream_commit(pipe->stream, (size_t)n) < 0 ? -EIO : n;
		if (n < 0)
			return fail_stream(reason, n);
		pipe->to_stream += (size_t)n;
		moved += (size_t)n;
	}
	return 0;
}

/* From the stream's ring into the socket. */
static int pass_on(struct tunnel_pipe *pipe, char reason[TUNNEL_REASON])
{
	size_t moved = 0;

	while (!pipe->stream_ended) {
		const void *data;
		ssize_t there, n;

		if (moved >= SHARE) {
			pipe->busy = true;
			return 0;
		}
		there = srdma_stream_peek(pipe->stream, &data, 0);
		if (there == -EAGAIN) {
			pipe->stream_events |= POLLIN;
			return 0;
		}
		if (there < 0)
			return fail_stream(reason, there);
		if (there == 0) {
			pipe->stream_ended = true;
			return shutdown(pipe->fd, SHUT_WR) == 0 || errno == ENOTCONN ? 0 : fail(reason, "the TCP connection failed", errno);
		}
		n = send(pipe->fd, data, (size_t)there, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			pipe->events |= POLLOUT;
			return 0;
		}
		if (n < 0)
			return fail(reason, "the TCP connection failed", errno);
		srdma_stream_consume(pipe->stream, (size_t)n);
		pipe->to_socket += (size_t)n;
		moved += (size_t)n;
	}
	return 0;
}

int tunnel_pipe_turn(struct tunnel_pipe *pipe, char reason[TUNNEL_REASON])
{
	int ret;

	pipe->events = pipe->stream_events = 0;
	pipe->busy = false;
	ret = receive(pipe, reason);
	return ret == 0 ? pass_on(pipe, reason) : ret;
}

bool tunnel_pipe_is_done(const struct tunnel_pipe *pipe)
{
	return pipe->socket_ended && pipe->stream_ended;
}

void tunnel_pipe_prepare(int fd)
{
	const struct linger at_once = {.l_onoff = 1};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void tunnel_pipe_close(struct tunnel_pipe *pipe, bool broken)
{
	const struct linger in_order = {.l_onoff = 0};

	if (pipe->fd < 0)
		return;
	if (!broken)
		setsockopt(pipe->fd, SOL_SOCKET, SO_LINGER, &in_order, sizeof in_order);
	close(pipe->fd);
	pipe->fd = -1;
}
