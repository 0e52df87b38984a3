/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that must not wait: each in a state in which it would have to. */
#include "probe.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 1024, REGION = 65536 };

/* What a case works with. `server` is the other end; all is in one thread. */
struct scene {
	struct rig *rig;
	struct srdma_conn *client, *server;
	struct srdma_buffer *buffer;
	struct srdma_listener *listener;
	struct srdma_connect *connect;
	struct srdma_accept *accept;
	struct srdma_link *link;
	bool released, done;
};

static char data[4096];
static size_t length;

/* ---- a connection ---------------------------------------------------------------------------------------------- */

static void begin_pair(struct scene *s)
{
	rig_pair(s->rig, &s->client, &s->server);
}

static int fd_of_conn(const struct scene *s)
{
	return srdma_conn_fd(s->client);
}

static int send_one(struct scene *s, int timeout_ms)
{
	return srdma_conn_send(s->client, data, SIZE, timeout_ms);
}

static int receive_one(struct scene *s, int timeout_ms)
{
	return srdma_conn_recv(s->client, data, sizeof data, &length, timeout_ms);
}

static int control_send_one(struct scene *s, int timeout_ms)
{
	return srdma_conn_control_send(s->client, data, SRDMA_CONTROL_MESSAGE_MAX, timeout_ms);
}

static int control_receive_one(struct scene *s, int timeout_ms)
{
	return srdma_conn_control_recv(s->client, data, sizeof data, &length, timeout_ms);
}

static int wait_one(struct scene *s, int timeout_ms)
{
	return srdma_conn_wait(s->client, timeout_ms);
}

static void begin_sender(struct scene *s)
{
	begin_pair(s);
	for (unsigned i = 0; i < s->rig->client_options.depth; i++)
		EXPECT(send_one(s, 15000 * s->rig->scale), 0);
}

static void begin_control_sender(struct scene *s)
{
	begin_pair(s);
	for (unsigned i = 0; i < SRDMA_CONTROL_DEPTH; i++)
		EXPECT(control_send_one(s, 15000 * s->rig->scale), 0);
}

static void begin_buffer(struct scene *s)
{
	begin_pair(s);
	EXPECT(srdma_buffer_new(s->client, NULL, REGION, &s->buffer), 0);
}

/* Operations that have completed are in flight until they are collected. */
static int post_one(struct scene *s, int timeout_ms)
{
	uint64_t cookies[16];

	(void)timeout_ms;
	if (s->released)
		CHECK(srdma_conn_complete(s->client, cookies, 16, 0) != 0);
	return srdma_conn_post_write(s->client, s->buffer, 0, REGION, 0, 1);
}

static void begin_posted(struct scene *s)
{
	begin_buffer(s);
	EXPECT(post_one(s, 0), 0);
}

static void begin_full(struct scene *s)
{
	begin_buffer(s);
	while (post_one(s, 0) == 0)
		;
}

static int complete_one(struct scene *s, int timeout_ms)
{
	uint64_t cookie;
	int ret = srdma_conn_complete(s->client, &cookie, 1, timeout_ms);

	return ret == 1 ? 0 : ret == 0 ? INT_MIN : ret;
}

/* The peer does everything that it can do: it receives, answers once, and works for the client's writes. */
static void serve(struct scene *s)
{
	int ret;

	if (!s->released) {
		EXPECT(srdma_conn_send(s->server, data, SIZE, 0), 0);
		EXPECT(srdma_conn_control_send(s->server, data, 1, 0), 0);
	}
	while ((ret = srdma_conn_recv(s->server, data, sizeof data, &length, 0)) == 0 ||
	       (ret == -EAGAIN && (ret = srdma_conn_control_recv(s->server, data, sizeof data, &length, 0)) == 0))
		;
	EXPECT(ret, -EAGAIN);
}

static int fd_of_server(const struct scene *s)
{
	return srdma_conn_fd(s->server);
}

static void begin_limited(struct scene *s)
{
	s->rig->client_options.max_bytes_per_second = 20000;
	begin_pair(s);
	for (int i = 0; i < 3; i++)
		EXPECT(srdma_conn_send(s->server, data, 4000, 0), 0);
	EXPECT(srdma_conn_recv(s->client, data, SIZE, &length, 15000 * s->rig->scale), -EMSGSIZE);
}

/* 4000 bytes are 200 ms. */
static int receive_at_once(struct scene *s, int timeout_ms)
{
	static char long_data[4000];
	int ret = srdma_conn_recv(s->client, long_data, sizeof long_data, &length, timeout_ms);

	/* The first ones are let in. */
	while (ret == 0 && !s->done)
		s->done = (ret = srdma_conn_recv(s->client, long_data, sizeof long_data, &length, timeout_ms)) != 0;
	return ret;
}

static void serve_nothing(struct scene *s)
{
	(void)s;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static int disconnect(struct scene *s, int timeout_ms)
{
	return srdma_conn_disconnect(s->client, "over", timeout_ms);
}

static int disconnect_all(struct scene *s, int timeout_ms)
{
	return srdma_conn_disconnect_all(&s->client, 1, "over", timeout_ms);
}

static void begin_disconnect(struct scene *s)
{
	begin_pair(s);
	EXPECT(srdma_conn_disconnect_step(s->client), -EINVAL);
	EXPECT(srdma_conn_disconnect_start(s->client, "over", 0), -EINVAL);
	EXPECT(srdma_conn_disconnect_start(s->client, "over", 60000), 0);
}

static int disconnect_step(struct scene *s, int timeout_ms)
{
	(void)timeout_ms;
	return srdma_conn_disconnect_step(s->client);
}

static void leave_too(struct scene *s)
{
	int ret = srdma_conn_disconnect(s->server, NULL, 0);

	CHECK(ret == 0 || ret == -EAGAIN);
}

/* ---- coming up ------------------------------------------------------------------------------------------------- */

static void begin_listening(struct scene *s)
{
	EXPECT(srdma_listener_listen(NULL, "0", &s->listener), 0);
	snprintf(s->rig->port, sizeof s->rig->port, "%u", srdma_listener_port(s->listener));
}

static void begin_to_connect(struct scene *s)
{
	EXPECT(srdma_conn_connect_start(s->rig->host, s->rig->port, s->rig->client_tls, s->rig->device, &s->rig->client_options, &s->connect), 0);
}

static void begin_connecting(struct scene *s)
{
	begin_listening(s);
	begin_to_connect(s);
}

static void begin_accepting(struct scene *s)
{
	int socket;

	begin_connecting(s);
	EXPECT(srdma_connect_step(s->connect, &s->client), -EAGAIN);
	socket = srdma_listener_accept(s->listener, 15000 * s->rig->scale);
	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept_start(socket, s->rig->server_tls, s->rig->device, &s->rig->server_conn, NULL, NULL, &s->accept), 0);
}

static int listener_accept(struct scene *s, int timeout_ms)
{
	int socket = srdma_listener_accept(s->listener, timeout_ms);

	if (socket >= 0)
		close(socket);
	return socket >= 0 ? 0 : socket;
}

static int connect_step(struct scene *s, int timeout_ms)
{
	(void)timeout_ms;
	return srdma_connect_step(s->connect, &s->client);
}

static int accept_step(struct scene *s, int timeout_ms)
{
	(void)timeout_ms;
	return srdma_accept_step(s->accept, &s->server);
}

static int fd_of_listener(const struct scene *s)
{
	return srdma_listener_fd(s->listener);
}

static int fd_of_connect(const struct scene *s)
{
	return s->connect ? srdma_connect_fd(s->connect) : -1;
}

static int fd_of_accept(const struct scene *s)
{
	return s->accept ? srdma_accept_fd(s->accept) : -1;
}

static void let_connect(struct scene *s)
{
	if (!s->connect)
		begin_to_connect(s);
	if (!s->client)
		srdma_connect_step(s->connect, &s->client);
}

static void let_accept(struct scene *s)
{
	if (!s->accept) {
		int socket = srdma_listener_accept(s->listener, 15000 * s->rig->scale);

		CHECK(socket >= 0);
		EXPECT(srdma_conn_accept_start(socket, s->rig->server_tls, s->rig->device, &s->rig->server_conn, NULL, NULL, &s->accept), 0);
	}
	if (!s->server)
		srdma_accept_step(s->accept, &s->server);
}

/* ---- a link ---------------------------------------------------------------------------------------------------- */

static void begin_link_down(struct scene *s)
{
	const struct srdma_endpoint endpoint = {sizeof endpoint, s->rig->host, s->rig->port};
	struct srdma_link_options options;

	begin_listening(s);
	srdma_link_options_init(&options);
	options.conn = &s->rig->client_options;
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	EXPECT(srdma_link_connect_start(&options, s->rig->client_tls, s->rig->device, &s->link), 0);
}

static int fd_of_link(const struct scene *s)
{
	return srdma_link_fd(s->link);
}

/* Of what the other end waits for. */
static int fd_of_accepted(const struct scene *s)
{
	return s->server ? fd_of_server(s) : fd_of_accept(s);
}

static int link_step(struct scene *s, int timeout_ms)
{
	(void)timeout_ms;
	return srdma_link_step(s->link);
}

static void begin_link(struct scene *s)
{
	begin_link_down(s);
	EXPECT(srdma_link_step(s->link), -EAGAIN);
	let_accept(s);
	while (srdma_link_step(s->link) == -EAGAIN || !s->server) {
		struct pollfd fds[] = {{.fd = fd_of_link(s), .events = POLLIN}, {.fd = fd_of_accept(s), .events = POLLIN}};

		CHECK(poll(fds, 2, 15000 * s->rig->scale) > 0);
		let_accept(s);
	}
	EXPECT(srdma_link_step(s->link), 0);
}

static int link_send(struct scene *s, int timeout_ms)
{
	return srdma_link_send(s->link, data, SIZE, timeout_ms, NULL);
}

static int link_receive(struct scene *s, int timeout_ms)
{
	return srdma_link_recv(s->link, data, sizeof data, &length, timeout_ms);
}

static int link_wait(struct scene *s, int timeout_ms)
{
	return srdma_link_wait(s->link, timeout_ms);
}

static void begin_link_sender(struct scene *s)
{
	begin_link(s);
	for (unsigned i = 0; i < s->rig->client_options.depth; i++)
		EXPECT(link_send(s, 15000 * s->rig->scale), 0);
}

static int link_disconnect(struct scene *s, int timeout_ms)
{
	return srdma_link_disconnect(s->link, "over", timeout_ms);
}

static void begin_link_leaving(struct scene *s)
{
	begin_link(s);
	EXPECT(srdma_link_disconnect_step(s->link), -EINVAL);
	EXPECT(srdma_link_disconnect_start(s->link, "over", 0), -EINVAL);
	EXPECT(srdma_link_disconnect_start(s->link, "over", 60000), 0);
}

static int link_disconnect_step(struct scene *s, int timeout_ms)
{
	(void)timeout_ms;
	return srdma_link_disconnect_step(s->link);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static const struct row {
	const char *name;
	void (*begin)(struct scene *scene);
	int (*call)(struct scene *scene, int timeout_ms);
	int (*fd)(const struct scene *scene);
	void (*release)(struct scene *scene); /* the other end does its part; again and again */
	int (*other_fd)(const struct scene *scene); /* of the other end */
	bool default_timeout; /* a negative timeout_ms can be tried, which changes nothing */
	bool sealed; /* only then the peer has to do something */
} rows[] = {
	{"send", begin_sender, send_one, fd_of_conn, serve, fd_of_server, true, false},
	{"recv", begin_pair, receive_one, fd_of_conn, serve, fd_of_server, true, false},
	{"recv beyond the rate", begin_limited, receive_at_once, fd_of_conn, serve_nothing, fd_of_server, false, false},
	{"control_send", begin_control_sender, control_send_one, fd_of_conn, serve, fd_of_server, true, false},
	{"control_recv", begin_pair, control_receive_one, fd_of_conn, serve, fd_of_server, true, false},
	{"wait", begin_pair, wait_one, fd_of_conn, serve, fd_of_server, true, false},
	{"post_write", begin_full, post_one, fd_of_conn, serve, fd_of_server, false, true},
	{"complete", begin_posted, complete_one, fd_of_conn, serve, fd_of_server, true, true},
	{"disconnect", begin_pair, disconnect, fd_of_conn, leave_too, fd_of_server, false, false},
	{"disconnect_all", begin_pair, disconnect_all, fd_of_conn, leave_too, fd_of_server, false, false},
	{"disconnect_step", begin_disconnect, disconnect_step, fd_of_conn, leave_too, fd_of_server, false, false},
	{"listener_accept", begin_listening, listener_accept, fd_of_listener, let_connect, fd_of_connect, false, false},
	{"connect_step", begin_connecting, connect_step, fd_of_connect, let_accept, fd_of_accept, false, false},
	{"accept_step", begin_accepting, accept_step, fd_of_accept, let_connect, fd_of_connect, false, false},
	{"link_step", begin_link_down, link_step, fd_of_link, let_accept, fd_of_accept, false, false},
	{"link_send at first", begin_link_down, link_send, fd_of_link, let_accept, fd_of_accept, false, false},
	{"link_send", begin_link_sender, link_send, fd_of_link, serve, fd_of_accepted, true, false},
	{"link_recv", begin_link, link_receive, fd_of_link, serve, fd_of_accepted, true, false},
	{"link_wait", begin_link, link_wait, fd_of_link, serve, fd_of_accepted, true, false},
	{"link_disconnect", begin_link, link_disconnect, fd_of_link, leave_too, fd_of_accepted, false, false},
	{"link_disconnect_step", begin_link_leaving, link_disconnect_step, fd_of_link, leave_too, fd_of_accepted, false, false},
};

/* Repeats the call each time that its descriptor is readable, and lets the other end work each time that its own is. */
static int repeat(struct scene *s, const struct row *row)
{
	for (;;) {
		struct pollfd fds[] = {{.fd = row->fd(s), .events = POLLIN}, {.fd = row->other_fd(s), .events = POLLIN}};
		int ret;

		CHECK(poll(fds, 2, 15000 * s->rig->scale) > 0);
		if (fds[0].revents && (ret = row->call(s, 0)) != -EAGAIN)
			return ret;
		if (fds[1].revents)
			row->release(s);
	}
}

static void end_scene(struct scene *s)
{
	srdma_link_free(&s->link);
	srdma_buffer_free(&s->buffer);
	srdma_conn_free(&s->client);
	srdma_conn_free(&s->server);
	srdma_connect_free(&s->connect);
	srdma_accept_free(&s->accept);
	srdma_listener_free(&s->listener);
}

static void try_row(struct rig *rig, const struct row *row)
{
	static const int negative[] = {SRDMA_DEFAULT_TIMEOUT, -2, INT_MIN};
	const struct srdma_conn_options before = rig->client_options;
	struct scene s = {.rig = rig};
	uint64_t start;
	int ret;

	row->begin(&s);
	start = clock_ms();
	ret = row->call(&s, 0);
	if (ret != -EAGAIN || clock_ms() - start > 2000u * (unsigned)rig->scale)
		fprintf(stderr, "%s: %d after %d ms\n", row->name, ret, (int)(clock_ms() - start));
	EXPECT(ret, -EAGAIN);
	CHECK(strstr(srdma_error_text(), "would have to wait for ") != NULL);
	CHECK(clock_ms() - start <= 2000u * (unsigned)rig->scale);
	for (size_t i = 0; row->default_timeout && i < 3; i++) {
		EXPECT(row->call(&s, negative[i]), -ETIMEDOUT);
		CHECK(strstr(srdma_error_text(), "timed out after 20 ms") != NULL);
		EXPECT(row->call(&s, 0), -EAGAIN);
	}
	row->release(&s);
	s.released = true;
	ret = repeat(&s, row);
	if (ret != 0)
		fprintf(stderr, "%s: at last %d\n", row->name, ret);
	EXPECT(ret, 0);
	end_scene(&s);
	rig->client_options = before;
}

void mode_zero(struct rig *rig, char **args)
{
	(void)args;
	rig->client_options.timeout_ms = 20;
	rig->client_options.epoch_psns = rig->server_conn.epoch_psns = 0;
	rig->client_options.control_messages = rig->server_conn.control_messages = true;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!rows[i].sealed || rig->client_options.seal == SRDMA_SEAL_REQUIRED)
			try_row(rig, &rows[i]);
	fact(rig, "rows", sizeof rows / sizeof *rows);
}

/* ---- a wait after a call that did not wait -------------------------------------------------------------------- */

static int64_t cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* A call that did not wait leaves a time on the descriptor. One that waits past it sleeps, and a raw pair can leave in steps. */
void mode_sleep_after_zero(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2];
	int64_t began;
	size_t got;
	char bytes[8];

	(void)args;
	rig->client_options.epoch_ms = rig->server_conn.epoch_ms = 60000;
	rig_pair(rig, &conns[0], &conns[1]);
	EXPECT(srdma_conn_recv(conns[0], bytes, sizeof bytes, &got, 0), -EAGAIN);
	began = cpu_us();
	EXPECT(srdma_conn_wait(conns[0], 1000), -ETIMEDOUT);
	CHECK(cpu_us() - began < 500000);
	EXPECT(srdma_conn_disconnect_all(conns, 2, NULL, -1), 0);
	srdma_conn_free(&conns[0]);
	srdma_conn_free(&conns[1]);
	rig->client_options.raw = rig->server_conn.raw = true;
	rig->client_options.region_size = rig->server_conn.region_size = 0;
	rig_pair(rig, &conns[0], &conns[1]);
	EXPECT(srdma_conn_disconnect_all(conns, 2, NULL, -1), 0);
	srdma_conn_free(&conns[0]);
	srdma_conn_free(&conns[1]);
}
