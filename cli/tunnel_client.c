/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_client.h"

#include "cli.h"
#include "tunnel_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* For the end of a connection, in order. */
#define CLOSE_MS 5000
/* Between two tries while the server has no room: the first pause, and the longest, each drawn between its half and the whole. */
#define PAUSE_MS     200
#define PAUSE_MAX_MS 2000

struct tunnel_flow {
	const struct tunnel_route *route;
	enum { CONNECTING, WAITING, OPEN, DRAINING, CLOSING } state;
	struct srdma_connect *connect;
	struct srdma_conn *conn;
	struct tunnel_pipe pipe;
	int64_t deadline; /* CLOSING */
	int64_t retry_at, retry_until; /* WAITING */
	unsigned tries;
	bool failed, busy;
	char reason[TUNNEL_REASON];
};

static int watch(const struct tunnel_flow *flow, int operation, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = (void *)(uintptr_t)flow};

	return epoll_ctl(flow->route->epoll_fd, operation, fd, &event) == 0 ? 0 : -errno;
}

static int begin_connect(struct tunnel_flow *flow)
{
	const struct tunnel_route *route = flow->route;
	int ret = srdma_conn_connect_start(route->host, route->port, route->context, route->device, route->options, &flow->connect);

	return ret == 0 ? watch(flow, EPOLL_CTL_ADD, srdma_connect_fd(flow->connect), EPOLLIN) : ret;
}

int tunnel_flow_new(const struct tunnel_route *route, int fd, struct tunnel_flow **out)
{
	struct tunnel_flow *flow = calloc(1, sizeof *flow);
	int ret = flow ? 0 : -ENOMEM;

	if (ret == 0) {
		flow->route = route;
		flow->pipe.fd = fd;
		tunnel_pipe_prepare(fd);
		flow->retry_until = cli_now_ms() + route->retry_ms;
		ret = begin_connect(flow);
	}
	if (ret == 0)
		ret = watch(flow, EPOLL_CTL_ADD, fd, EPOLLONESHOT);
	if (ret == 0) {
		*out = flow;
		return 0;
	}
	if (flow) {
		tunnel_pipe_close(&flow->pipe, true);
	} else {
		struct tunnel_pipe lost = {.fd = fd};

		tunnel_pipe_close(&lost, true);
	}
	tunnel_flow_free(&flow);
	return ret;
}

bool tunnel_flow_is_busy(const struct tunnel_flow *flow)
{
	return flow->busy;
}

/* The TCP connection is over at once. */
static void fail(struct tunnel_flow *flow, const char *reason)
{
	if (!flow->failed)
		snprintf(flow->reason, sizeof flow->reason, "%s", reason);
	flow->failed = true;
	tunnel_pipe_close(&flow->pipe, true);
}

static void begin_close(struct tunnel_flow *flow)
{
	flow->state = CLOSING;
	flow->deadline = cli_now_ms() + CLOSE_MS;
}

void tunnel_flow_break(struct tunnel_flow *flow, const char *reason)
{
	if (flow->state == CLOSING)
		return;
	fail(flow, reason);
	if (flow->pipe.stream)
		srdma_stream_abort(flow->pipe.stream, flow->reason);
	begin_close(flow);
}

/* The server may have room when other clients have left it. That it is busy is the library's to try again. */
static bool may_get_room(int error)
{
	struct srdma_reject reject;

	if (error != SRDMA_EREJECTED)
		return false;
	srdma_reject_last(&reject);
	return reject.reason == SRDMA_REJECT_FULL || reject.reason == SRDMA_REJECT_RESOURCES || reject.reason == SRDMA_REJECT_BUSY;
}

static int pause_ms(unsigned tries)
{
	int most = tries < 4 ? PAUSE_MS << tries : PAUSE_MAX_MS;
	uint16_t part;

	most = most < PAUSE_MAX_MS ? most : PAUSE_MAX_MS;
	/* Without a random number they all come together; they only wait longer then. */
	if (RAND_bytes((unsigned char *)&part, sizeof part) != 1)
		part = 0;
	return most / 2 + part % (most / 2);
}

static bool begin_wait(struct tunnel_flow *flow)
{
	int64_t now = cli_now_ms();

	if (now >= flow->retry_until)
		return false;
	if (flow->tries == 0)
		cli_log_event(SRDMA_LOG_INFO, "tunnel.waiting", "a connection to '%s' of %s waits up to %lld ms: %s", flow->route->target,
			      flow->route->host, (long long)(flow->retry_until - now), srdma_error_text());
	flow->retry_at = now + pause_ms(flow->tries++);
	flow->state = WAITING;
	return true;
}

/* Whether the program that has connected is still there. */
static bool has_program(const struct tunnel_flow *flow)
{
	struct pollfd fd = {.fd = flow->pipe.fd};

	return poll(&fd, 1, 0) <= 0 || !(fd.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* False: it is over. */
static bool wait_for_room(struct tunnel_flow *flow)
{
	if (!has_program(flow))
		return false;
	if (cli_now_ms() < flow->retry_at)
		return true;
	flow->state = CONNECTING;
	flow->busy = begin_connect(flow) == 0;
	if (!flow->busy)
		fail(flow, srdma_error_text());
	return flow->busy;
}

bool tunnel_flow_waits(const struct tunnel_flow *flow)
{
	return flow->state == WAITING;
}

void tunnel_flow_hurry(struct tunnel_flow *flow)
{
	flow->retry_at = 0;
}

static bool finish_connect(struct tunnel_flow *flow)
{
	int ret = srdma_connect_step(flow->connect, &flow->conn);

	if (ret == -EAGAIN)
		return true;
	/* The descriptor goes with it. */
	watch(flow, EPOLL_CTL_DEL, srdma_connect_fd(flow->connect), 0);
	srdma_connect_free(&flow->connect);
	if (may_get_room(ret) && begin_wait(flow))
		return true;
	if (ret == 0)
		ret = srdma_stream_new(flow->conn, NULL, &flow->pipe.stream);
	if (ret == 0)
		ret = watch(flow, EPOLL_CTL_ADD, srdma_stream_fd(flow->pipe.stream), EPOLLIN);
	if (ret != 0) {
		cli_log_event(SRDMA_LOG_WARN, "tunnel.failed", "cannot carry a connection to '%s' of %s: %s", flow->route->target, flow->route->host,
			      srdma_error_text());
		fail(flow, srdma_error_text());
		return false;
	}
	cli_log_event(SRDMA_LOG_INFO, "tunnel.opened", "a tunnel to '%s' of %s opened", flow->route->target, flow->route->host);
	flow->state = OPEN;
	flow->busy = true;
	return true;
}

static void move(struct tunnel_flow *flow)
{
	struct tunnel_pipe *pipe = &flow->pipe;
	char reason[TUNNEL_REASON];

	if (tunnel_pipe_turn(pipe, reason) != 0) {
		tunnel_flow_break(flow, reason);
		flow->busy = true;
		return;
	}
	if (tunnel_pipe_is_done(pipe)) {
		tunnel_pipe_close(pipe, false);
		flow->state = DRAINING;
		flow->busy = true;
		return;
	}
	if (pipe->events)
		watch(flow, EPOLL_CTL_MOD, pipe->fd, EPOLLONESHOT | (pipe->events & POLLIN ? EPOLLIN : 0u) | (pipe->events & POLLOUT ? EPOLLOUT : 0u));
	/* The descriptor tells of nothing that has come before a call said -EAGAIN. */
	flow->busy = pipe->busy || srdma_stream_wait(pipe->stream, pipe->stream_events, 0) != -EAGAIN;
}

/* The server's program must have all bytes before this end disconnects. */
static void drain(struct tunnel_flow *flow)
{
	struct srdma_stream_info info;
	int ret = srdma_stream_wait(flow->pipe.stream, 0, 0);

	srdma_stream_get_info(flow->pipe.stream, &info);
	if (info.acknowledged == info.written) {
		begin_close(flow);
	} else if (ret != -EAGAIN) {
		fail(flow, srdma_stream_flush(flow->pipe.stream, 0) < 0 ? srdma_error_text() : "the server ended the tunnel");
		begin_close(flow);
	}
	flow->busy = flow->state == CLOSING;
}

/* False: it is over. */
static bool close_conn(struct tunnel_flow *flow)
{
	if (!flow->conn || cli_now_ms() >= flow->deadline)
		return false;
	if (srdma_stream_flush(flow->pipe.stream, 0) == -EAGAIN)
		return true;
	return srdma_conn_disconnect(flow->conn, flow->failed ? flow->reason : NULL, 0) == -EAGAIN;
}

bool tunnel_flow_step(struct tunnel_flow *flow)
{
	flow->busy = false;
	switch (flow->state) {
	case CONNECTING: return finish_connect(flow);
	case WAITING: return wait_for_room(flow);
	case OPEN: move(flow); return true;
	case DRAINING: drain(flow); return true;
	case CLOSING: return close_conn(flow);
	}
	return false;
}

void tunnel_flow_free(struct tunnel_flow **out)
{
	struct tunnel_flow *flow = *out;

	*out = NULL;
	if (!flow)
		return;
	if (flow->conn)
		cli_log_event(flow->failed ? SRDMA_LOG_WARN : SRDMA_LOG_INFO, "tunnel.closed",
			      "a tunnel to '%s' of %s closed, %llu bytes to the server, %llu bytes from it%s%s", flow->route->target, flow->route->host,
			      (unsigned long long)flow->pipe.to_stream, (unsigned long long)flow->pipe.to_socket, flow->failed ? ": " : "", flow->reason);
	tunnel_pipe_close(&flow->pipe, true);
	srdma_connect_free(&flow->connect);
	srdma_stream_free(&flow->pipe.stream);
	srdma_conn_free(&flow->conn);
	free(flow);
}
