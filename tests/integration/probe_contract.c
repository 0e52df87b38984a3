/* SPDX-License-Identifier: Apache-2.0 */
/* What securdma.h says of return values, time-outs and error texts, function by function. */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* An error of another kind before each call: its text must not be taken for that of the call. */
#define STALE "no client 4711 is connected"

static void make_stale(struct rig *rig)
{
	EXPECT(srdma_server_kick(rig->server, 4711, NULL), -ENOENT);
	CHECK(strcmp(srdma_error_text(), STALE) == 0);
}

/* A call that must fail with `error` and a text of its own that says `text`. */
#define EXPECT_TEXT(rig, call, error, text)                                                                            \
	do {                                                                                                           \
		make_stale(rig);                                                                                       \
		EXPECT(call, error);                                                                                   \
		CHECK(strstr(srdma_error_text(), text) != NULL);                                                       \
		CHECK(strstr(srdma_error_text(), STALE) == NULL);                                                      \
	} while (0)

/* ---- messages and waiting -------------------------------------------------------------------------------------- */

/* A client whose peer, a server without handlers for it, takes no message. */
static int take_nothing(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	return -EAGAIN;
}

void mode_error_texts(struct rig *rig, char **args)
{
	struct srdma_conn *conn;
	char data[64];
	size_t n;
	int ret;

	rig->server_options.on_message = take_nothing;
	rig->client_options.timeout_ms = 90;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT_TEXT(rig, srdma_conn_recv(conn, data, sizeof data, &n, 0), -EAGAIN, "wait for a message from the peer");
	EXPECT_TEXT(rig, srdma_conn_recv(conn, data, sizeof data, &n, 30), -ETIMEDOUT, "timed out after 30 ms waiting for a message from the peer");
	EXPECT_TEXT(rig, srdma_conn_recv(conn, data, sizeof data, &n, -1), -ETIMEDOUT, "timed out after 90 ms");
	EXPECT_TEXT(rig, srdma_conn_recv(conn, data, sizeof data, &n, -100), -ETIMEDOUT, "timed out after 90 ms");
	EXPECT_TEXT(rig, srdma_conn_wait(conn, 0), -EAGAIN, "wait for a message, a completion or the end of the connection");
	EXPECT_TEXT(rig, srdma_conn_wait(conn, 30), -ETIMEDOUT, "timed out after 30 ms waiting for a message, a completion");
	srdma_conn_wake(conn);
	EXPECT_TEXT(rig, srdma_conn_wait(conn, -1), -EINTR, "another thread ended the wait");
	while ((ret = srdma_conn_send(conn, "x", 1, 200)) == 0)
		;
	EXPECT(ret, -ETIMEDOUT);
	EXPECT_TEXT(rig, srdma_conn_send(conn, "x", 1, 0), -EAGAIN, "wait for the peer to take earlier messages");
	EXPECT_TEXT(rig, srdma_conn_send(conn, "x", 1, 30), -ETIMEDOUT, "timed out after 30 ms waiting for the peer to take earlier messages");
	EXPECT_TEXT(rig, srdma_conn_send(conn, "x", 1, -1), -ETIMEDOUT, "timed out after 90 ms");
	/* None of these has harmed the connection. */
	EXPECT(srdma_conn_wait(conn, 0), -EAGAIN);
	srdma_conn_free(&conn);
	EXPECT(srdma_server_stop(&rig->server) >= 0, 1);
}

/* ---- writes, reads, completions -------------------------------------------------------------------------------- */

void mode_completions(struct rig *rig, char **args)
{
	struct srdma_buffer *buffer;
	struct srdma_conn *conn;
	uint64_t cookies[8], begin = clock_ms();
	char data[64] = "written", got[64] = "";

	rig->client_options.rdma_depth = 2;
	rig_serve(rig);
	conn = rig_connect(rig);
	/* Nothing is under way: there is nothing to wait for. */
	EXPECT(srdma_conn_complete(conn, cookies, 8, -1), 0);
	EXPECT(srdma_conn_complete(conn, cookies, 8, 0), 0);
	EXPECT(srdma_conn_complete(conn, cookies, 8, 60000), 0);
	CHECK(clock_ms() - begin < 30000);
	EXPECT_TEXT(rig, srdma_conn_complete(conn, cookies, 0, -1), -EINVAL, "array of 0");
	/* A call that waits cannot be told not to; it has done nothing then. */
	EXPECT_TEXT(rig, srdma_conn_write(conn, data, sizeof data, 0, 0), -EINVAL, "use srdma_conn_post_write");
	EXPECT_TEXT(rig, srdma_conn_read(conn, got, sizeof got, 0, 0), -EINVAL, "use srdma_conn_post_read");
	EXPECT(srdma_conn_read(conn, got, sizeof got, 0, -1), 0);
	CHECK(got[0] == '\0');
	EXPECT(srdma_conn_write(conn, data, sizeof data, 0, 30000 * rig->scale), 0);
	EXPECT(srdma_conn_read(conn, got, sizeof got, 0, -5), 0);
	CHECK(memcmp(data, got, sizeof got) == 0);
	EXPECT(srdma_buffer_new(conn, NULL, sizeof data, &buffer), 0);
	EXPECT(srdma_conn_post_read(conn, buffer, 0, sizeof data, 0, 1), 0);
	EXPECT(srdma_conn_post_read(conn, buffer, 0, sizeof data, 0, 2), 0);
	EXPECT_TEXT(rig, srdma_conn_post_read(conn, buffer, 0, sizeof data, 0, 3), -EAGAIN, "wait for earlier writes and reads to complete");
	EXPECT_TEXT(rig, srdma_conn_post_read(conn, buffer, 1, sizeof data, 0, 3), -ERANGE, "cannot read 64 bytes at offset 1 of a buffer of 64 bytes");
	for (int done = 0; done < 2;) {
		int ret = srdma_conn_complete(conn, cookies + done, 8 - done, -1);

		CHECK(ret > 0);
		done += ret;
	}
	CHECK(cookies[0] == 1 && cookies[1] == 2);
	EXPECT(srdma_conn_complete(conn, cookies, 8, -1), 0);
	srdma_buffer_free(&buffer);
	rig_leave(&conn);
	rig_stop(rig, 0);
}

/* What a raw connection has none of. */
void mode_raw_refusals(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server;
	struct srdma_buffer *buffer;
	uint64_t cookie;
	char data[8];
	size_t n;

	rig_serve(rig); /* for make_stale */
	rig->client_options.raw = rig->server_conn.raw = true;
	rig_pair(rig, &client, &server);
	EXPECT(srdma_buffer_new(client, NULL, 64, &buffer), 0);
	EXPECT_TEXT(rig, srdma_conn_send(client, data, 1, 0), -EOPNOTSUPP, "raw");
	EXPECT_TEXT(rig, srdma_conn_recv(client, data, 1, &n, 0), -EOPNOTSUPP, "raw");
	EXPECT_TEXT(rig, srdma_conn_write(client, data, 1, 0, -1), -EOPNOTSUPP, "raw");
	EXPECT_TEXT(rig, srdma_conn_post_read(client, buffer, 0, 1, 0, 0), -EOPNOTSUPP, "raw");
	EXPECT_TEXT(rig, srdma_conn_complete(client, &cookie, 1, 0), -EOPNOTSUPP, "raw");
	EXPECT_TEXT(rig, srdma_conn_renew(client), -EOPNOTSUPP, "epochs");
	EXPECT_TEXT(rig, srdma_conn_wait(client, 0), -EAGAIN, "wait for the end of the connection");
	EXPECT_TEXT(rig, srdma_conn_wait(client, 30), -ETIMEDOUT, "timed out after 30 ms waiting for the end of the connection");
	srdma_buffer_free(&buffer);
	srdma_conn_free(&server);
	EXPECT_TEXT(rig, srdma_conn_wait(client, 15000 * rig->scale), SRDMA_ELOST, "went away");
	srdma_conn_free(&client);
	rig_stop(rig, 0);
}

/* ---- disconnect ------------------------------------------------------------------------------------------------ */

/* Something has happened at one of the two. */
static void poll_either(struct srdma_conn *client, struct srdma_conn *server, struct rig *rig)
{
	struct pollfd fds[] = {{.fd = srdma_conn_fd(client), .events = POLLIN}, {.fd = srdma_conn_fd(server), .events = POLLIN}};

	CHECK(poll(fds, 2, 15000 * rig->scale) > 0);
}

/* Both ends in one thread, so no call may wait; nothing that was sent before is lost. */
void mode_disconnect_nonblocking(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server;
	unsigned received = 0;
	int ret;
	char data[64];
	size_t n;

	rig_serve(rig); /* for make_stale */
	rig_pair(rig, &client, &server);
	for (unsigned i = 0; i < 5; i++)
		EXPECT(srdma_conn_send(client, &i, sizeof i, -1), 0);
	EXPECT_TEXT(rig, srdma_conn_disconnect(client, "that is all", 0), -EAGAIN, "wait for ");
	/* It is under way, and not over. */
	EXPECT(srdma_conn_recv(client, data, sizeof data, &n, 0), -EAGAIN);
	while ((ret = srdma_conn_recv(server, data, sizeof data, &n, 0)) != SRDMA_ECLOSED) {
		int step = srdma_conn_disconnect(client, "that is all", 0);

		CHECK(ret == 0 || ret == -EAGAIN);
		if (ret == 0) {
			CHECK(n == sizeof received && memcmp(data, &received, n) == 0);
			received++;
			continue;
		}
		EXPECT(step, -EAGAIN);
		/* What the client waits for may come after its step. */
		poll_either(client, server, rig);
	}
	EXPECT(received, 5);
	CHECK(strstr(srdma_error_text(), "that is all") != NULL);
	while ((ret = srdma_conn_disconnect(client, NULL, 0)) == -EAGAIN)
		rig_poll(rig, client);
	EXPECT(ret, 0);
	/* Once more is no harm at either end. */
	EXPECT(srdma_conn_disconnect(client, NULL, 0), 0);
	EXPECT(srdma_conn_disconnect(client, NULL, -1), 0);
	while ((ret = srdma_conn_disconnect(server, NULL, 0)) == -EAGAIN)
		rig_poll(rig, server);
	EXPECT(ret, 0);
	EXPECT_TEXT(rig, srdma_conn_send(client, data, 1, -1), SRDMA_ECLOSED, "disconnected");
	srdma_conn_free(&client);
	srdma_conn_free(&server);
	/* Without an answer it ends at its time-out, with the connection. */
	rig_pair(rig, &client, &server);
	EXPECT(srdma_conn_disconnect(client, NULL, 0), -EAGAIN);
	EXPECT_TEXT(rig, srdma_conn_disconnect(client, NULL, 50), -ETIMEDOUT, "timed out after 50 ms waiting for the peer to answer the disconnect");
	EXPECT_TEXT(rig, srdma_conn_disconnect(client, NULL, 0), -ETIMEDOUT, "timed out after 50 ms");
	srdma_conn_free(&client);
	srdma_conn_free(&server);
	rig_stop(rig, 0);
}

/* ---- listening ------------------------------------------------------------------------------------------------- */

static void *connect_later(void *arg)
{
	struct rig *rig = arg;
	struct srdma_conn *conn;

	pause_ms(200);
	/* Nobody answers but TCP. */
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn) < 0, 1);
	return NULL;
}

void mode_accept_timeouts(struct rig *rig, char **args)
{
	struct srdma_listener *listener;
	pthread_t thread;
	int fd;

	rig_serve(rig); /* for make_stale */
	EXPECT(srdma_listener_listen(NULL, "0", &listener), 0);
	EXPECT_TEXT(rig, srdma_listener_accept(listener, 0), -EAGAIN, "wait for a client to connect");
	EXPECT_TEXT(rig, srdma_listener_accept(listener, 30), -ETIMEDOUT, "timed out after 30 ms waiting for a client to connect");
	snprintf(rig->port, sizeof rig->port, "%u", srdma_listener_port(listener));
	rig->client_options.setup_timeout_ms = 20000;
	CHECK(pthread_create(&thread, NULL, connect_later, rig) == 0);
	fd = srdma_listener_accept(listener, -1);
	CHECK(fd >= 0);
	close(fd);
	CHECK(pthread_join(thread, NULL) == 0);
	srdma_listener_free(&listener);
	rig_stop(rig, 0);
}

/* ---- links ----------------------------------------------------------------------------------------------------- */

void mode_link_nonblocking(struct rig *rig, char **args)
{
	const struct srdma_endpoint endpoint = {sizeof endpoint, rig->host, rig->port};
	struct srdma_link_options options;
	struct srdma_link *link;
	char data[64];
	size_t n;
	int ret;

	rig_serve(rig);
	srdma_link_options_init(&options);
	options.conn = &rig->client_options;
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), 0);
	EXPECT_TEXT(rig, srdma_link_recv(link, data, sizeof data, &n, 0), -EAGAIN, "wait for a message from the peer");
	EXPECT_TEXT(rig, srdma_link_recv(link, data, sizeof data, &n, 30), -ETIMEDOUT, "timed out after 30 ms");
	EXPECT_TEXT(rig, srdma_link_wait(link, 0), -EAGAIN, "wait for a message, a completion");
	srdma_link_wake(link);
	EXPECT_TEXT(rig, srdma_link_wait(link, 15000 * rig->scale), -EINTR, "another thread ended the wait");
	EXPECT(srdma_link_send(link, "x", 1, 0, NULL), 0);
	EXPECT(srdma_link_recv(link, data, sizeof data, &n, 15000 * rig->scale), 0);
	while ((ret = srdma_link_disconnect(link, "done", 0)) == -EAGAIN)
		rig_poll(rig, srdma_link_conn(link));
	EXPECT(ret, 0);
	EXPECT(srdma_link_disconnect(link, "done", 0), 0);
	srdma_link_free(&link);
	rig_stop(rig, 0);
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */

void mode_arguments(struct rig *rig, char **args)
{
	struct srdma_device_options device;
	struct srdma_listener *listener = NULL;
	struct srdma_conn_options options = rig->client_options;
	struct srdma_device *opened = NULL;
	struct srdma_conn *conn = NULL;

	rig_serve(rig);
	srdma_device_options_init(&device);
	device.gid_index = -2;
	EXPECT_TEXT(rig, srdma_device_open(&device, &opened), -EINVAL, "GID index -2");
	device.gid_index = 100000;
	EXPECT_TEXT(rig, srdma_device_open(&device, &opened), -EINVAL, "GID index 100000");
	device.gid_index = -1;
	device.port = 200;
	EXPECT_TEXT(rig, srdma_device_open(&device, &opened), -EINVAL, "no port 200");
	device.port = 0;
	device.name = "no-such-device";
	EXPECT_TEXT(rig, srdma_device_open(&device, &opened), -ENODEV, "no-such-device");
	EXPECT_TEXT(rig, srdma_listener_listen(NULL, "65536", &listener), -EINVAL, "'65536' is not a port; give a number from 0 to 65535");
	EXPECT_TEXT(rig, srdma_listener_listen("192.0.2.1", "0", &listener), -EADDRNOTAVAIL, "no network interface of this machine");
	EXPECT_TEXT(rig, srdma_listener_from_fd(-1, &listener), -EINVAL, "is not a listening TCP socket");
	EXPECT_TEXT(rig, srdma_conn_connect(rig->host, "0", rig->client_tls, rig->device, &options, &conn), -EINVAL, "'0' is not a port");
	EXPECT_TEXT(rig, srdma_conn_connect("", "1", rig->client_tls, rig->device, &options, &conn), -EINVAL, "host name is empty");
	options.timeout_ms = 0;
	EXPECT_TEXT(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &options, &conn), -EINVAL, "must be above 0");
	options = rig->client_options;
	options.setup_timeout_ms = -1;
	EXPECT_TEXT(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &options, &conn), -EINVAL, "must be above 0");
	options = rig->client_options;
	options.private_data_size = 1;
	EXPECT_TEXT(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &options, &conn), -EINVAL, "private");
	rig->server_limits.max_clients = 0;
	EXPECT_TEXT(rig, srdma_server_set_limits(rig->server, &rig->server_limits), -EINVAL, "max-clients");
	EXPECT_TEXT(rig, srdma_server_drain(rig->server, -1), -EINVAL, "must not be negative");
	EXPECT_TEXT(rig, srdma_server_set_tls(rig->server, rig->client_tls), -EINVAL, "srdma_tls_server_new");
	CHECK(!opened && !listener && !conn);
	rig_stop(rig, 0);
}

/* ---- several at once ------------------------------------------------------------------------------------------- */

enum { RANKS = 4 };

struct rank {
	struct srdma_conn *conns[3]; /* to the next rank, none, and from the one before */
	struct rig *rig;
	int result;
};

static void *leave(void *arg)
{
	struct rank *rank = arg;

	rank->result = srdma_conn_disconnect_all(rank->conns, 3, "over", 15000 * rank->rig->scale);
	return NULL;
}

/* The ranks of a ring all leave at the same time. None waits for another that waits as well. */
void mode_ring(struct rig *rig, char **args)
{
	struct srdma_conn *none = NULL, *alone, *silent;
	struct rank ranks[RANKS] = {0};
	pthread_t threads[RANKS];

	(void)args;
	rig_pair(rig, &alone, &silent);
	EXPECT(srdma_conn_disconnect_all(NULL, 0, NULL, -1), 0);
	EXPECT(srdma_conn_disconnect_all(&none, 1, NULL, -1), 0);
	EXPECT(srdma_conn_disconnect_all(&alone, 1, NULL, 0), -EAGAIN);
	EXPECT(srdma_conn_disconnect_all(&alone, 1, NULL, 50), -ETIMEDOUT);
	srdma_conn_free(&alone);
	EXPECT(srdma_conn_disconnect_all(&silent, 1, NULL, -1), SRDMA_ELOST);
	srdma_conn_free(&silent);
	for (unsigned i = 0; i < RANKS; i++)
		rig_pair(rig, &ranks[i].conns[0], &ranks[(i + 1) % RANKS].conns[2]);
	for (unsigned i = 0; i < RANKS; i++) {
		ranks[i].rig = rig;
		CHECK(pthread_create(&threads[i], NULL, leave, &ranks[i]) == 0);
	}
	for (unsigned i = 0; i < RANKS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (unsigned i = 0; i < RANKS; i++) {
		EXPECT(ranks[i].result, 0);
		for (unsigned j = 0; j < 3; j++)
			srdma_conn_free(&ranks[i].conns[j]);
	}
}

/* ---- nothing waits --------------------------------------------------------------------------------------------- */

static int turn_away(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg)
{
	(void)request;
	answer->reject->retry_after_ms = *(const uint32_t *)arg;
	return -1;
}

/* One that is NULL, or over, has no descriptor. */
static void poll_all(struct rig *rig, const struct srdma_connect *connect, const struct srdma_accept *accept, const struct srdma_listener *listener)
{
	struct pollfd fds[] = {{.fd = connect ? srdma_connect_fd(connect) : -1, .events = POLLIN},
			       {.fd = accept ? srdma_accept_fd(accept) : -1, .events = accept ? srdma_accept_events(accept) : 0},
			       {.fd = listener ? srdma_listener_fd(listener) : -1, .events = POLLIN}};

	/* The descriptor of the connecting end tells of its times, too. */
	CHECK(poll(fds, 3, 15000 * rig->scale) > 0);
}

static void poll_one(struct rig *rig, int fd, short events)
{
	struct pollfd one = {.fd = fd, .events = events};

	EXPECT(poll(&one, 1, 15000 * rig->scale), 1);
}

/* The threads of this process. */
static int threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int count = 0;

	CHECK(tasks != NULL);
	for (struct dirent *entry; (entry = readdir(tasks));)
		count += entry->d_name[0] != '.';
	closedir(tasks);
	return count;
}

/* Both ends of a connection come up in one thread. The results of both. */
static void come_up(struct rig *rig, struct srdma_listener *listener, srdma_admit_fn *admit, uint32_t *argument, int results[2],
		    struct srdma_conn *conns[2])
{
	struct srdma_connect *connect;
	struct srdma_accept *accept = NULL;

	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &connect), 0);
	results[0] = results[1] = -EAGAIN;
	while (results[0] == -EAGAIN || results[1] == -EAGAIN) {
		if (!accept) {
			int socket = srdma_listener_accept(listener, 0);

			CHECK(socket >= 0 || socket == -EAGAIN);
			if (socket >= 0)
				EXPECT(srdma_conn_accept_start(socket, rig->server_tls, rig->device, &rig->server_conn, admit, argument, &accept), 0);
		}
		if (accept && results[1] == -EAGAIN)
			results[1] = srdma_accept_step(accept, &conns[1]);
		if (results[0] == -EAGAIN)
			results[0] = srdma_connect_step(connect, &conns[0]);
		if (results[0] == -EAGAIN || results[1] == -EAGAIN)
			poll_all(rig, results[0] == -EAGAIN ? connect : NULL, accept && results[1] == -EAGAIN ? accept : NULL, accept ? NULL : listener);
	}
	if (results[0] == 0)
		EXPECT(srdma_connect_step(connect, &conns[0]), -EINVAL);
	srdma_connect_free(&connect);
	srdma_accept_free(&accept);
	CHECK(!connect && !accept);
}

/* Connecting and accepting in one thread, in which no call waits: up, turned away, refused by the host, and given up half-way. */
void mode_starts(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2] = {0};
	struct srdma_listener *listener;
	struct srdma_connect *connect;
	struct srdma_accept *accept;
	struct srdma_reject reject;
	uint32_t retry = 4711;
	int results[2], socket, before;
	char answer[8];
	size_t length;

	(void)args;
	EXPECT(srdma_listener_listen(NULL, "0", &listener), 0);
	snprintf(rig->port, sizeof rig->port, "%u", srdma_listener_port(listener));
	before = threads();
	come_up(rig, listener, NULL, NULL, results, conns);
	EXPECT(results[0], 0);
	EXPECT(results[1], 0);
	EXPECT(threads(), before);
	EXPECT(srdma_conn_send(conns[0], "hello", 5, -1), 0);
	EXPECT(srdma_conn_recv(conns[1], answer, sizeof answer, &length, 15000 * rig->scale), 0);
	EXPECT(length, 5);
	srdma_conn_free(&conns[0]);
	srdma_conn_free(&conns[1]);

	come_up(rig, listener, turn_away, &retry, results, conns);
	EXPECT(results[0], SRDMA_EREJECTED);
	srdma_reject_last(&reject);
	CHECK(reject.reason == SRDMA_REJECT_REFUSED && reject.retry_after_ms == retry);
	EXPECT(results[1], SRDMA_EREJECTED);

	/* Given up: one that has not begun, and one that waits for the other end. */
	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &connect), 0);
	poll_all(rig, connect, NULL, NULL);
	srdma_connect_free(&connect);
	EXPECT(srdma_listener_accept(listener, 0), -EAGAIN);
	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &connect), 0);
	EXPECT(srdma_connect_step(connect, &conns[0]), -EAGAIN);
	socket = srdma_listener_accept(listener, 15000 * rig->scale);
	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept_start(socket, rig->server_tls, rig->device, &rig->server_conn, NULL, NULL, &accept), 0);
	srdma_connect_free(&connect);
	while ((results[1] = srdma_accept_step(accept, &conns[1])) == -EAGAIN)
		poll_one(rig, srdma_accept_fd(accept), srdma_accept_events(accept));
	EXPECT(results[1], SRDMA_ELOST);
	srdma_accept_free(&accept);
	srdma_listener_free(&listener);

	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &connect), 0);
	while ((results[0] = srdma_connect_step(connect, &conns[0])) == -EAGAIN)
		poll_all(rig, connect, NULL, NULL);
	EXPECT(results[0], -ECONNREFUSED);
	CHECK(strstr(srdma_error_text(), "cannot connect to") != NULL);
	EXPECT(srdma_connect_step(connect, &conns[0]), -ECONNREFUSED);
	EXPECT(threads(), before);
	srdma_connect_free(&connect);
	rig->client_options.depth = 0;
	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &connect), -EINVAL);
}
