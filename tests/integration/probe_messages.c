/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: sizes, time-outs, non-blocking use, credits under load, and what a disconnect must not lose. */
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes ----------------------------------------------------------------------------------------------------- */

static int send_back(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	return srdma_conn_send(conn, data, length, -1);
}

static void check_echo(struct srdma_conn *conn, char *out, char *in, size_t length, unsigned seed, size_t size)
{
	size_t n = 0;

	fill(out, length, seed);
	EXPECT(srdma_conn_send(conn, out, length, -1), 0);
	/* The message stays when the buffer is too small for it. */
	if (length > 0) {
		EXPECT(srdma_conn_recv(conn, in, length - 1, &n, -1), -EMSGSIZE);
		EXPECT(n, length);
	}
	EXPECT(srdma_conn_recv(conn, in, size, &n, -1), 0);
	EXPECT(n, length);
	CHECK(is_filled(in, n, seed));
}

void mode_sizes(struct rig *rig, char **args)
{
	uint32_t size = (uint32_t)atoi(args[0]), depth = (uint32_t)atoi(args[1]);
	unsigned count = (unsigned)atoi(args[2]);
	char *out = malloc(size + 1), *in = malloc(size);
	struct srdma_conn_info info;
	struct srdma_conn *conn;

	CHECK(out && in);
	rig->server_options.on_message = send_back;
	/* The lower of both ends counts. */
	rig->server_conn.message_size = size;
	rig->client_options.message_size = size * 2 > 1 << 20 ? 1 << 20 : size * 2;
	rig->server_conn.depth = depth + 1;
	rig->client_options.depth = depth;
	rig_serve(rig);
	conn = rig_connect(rig);
	srdma_conn_get_info(conn, &info);
	EXPECT(info.message_size, size);
	EXPECT(info.depth, depth);
	memset(out, 0, size + 1);
	EXPECT(srdma_conn_send(conn, out, size + 1, -1), -EMSGSIZE);
	for (unsigned i = 0; i < count; i++) {
		check_echo(conn, out, in, 0, i, size);
		check_echo(conn, out, in, 1 + i % size, i, size);
		check_echo(conn, out, in, size, i, size);
	}
	srdma_conn_get_info(conn, &info);
	EXPECT(info.messages_sent, 3 * count);
	EXPECT(info.messages_received, 3 * count);
	EXPECT(info.bytes_sent, info.bytes_received);
	rig_leave(&conn);
	rig_stop(rig, 0);
	free(out);
	free(in);
}

/* ---- without blocking ------------------------------------------------------------------------------------------ */

/* Both ends in one thread: only possible when no call blocks. */
void mode_nonblocking(struct rig *rig, char **args)
{
	struct srdma_conn *ends[2];
	unsigned sent[2] = {0}, received[2] = {0};
	const unsigned count = 300;
	char data[4096];
	size_t n;

	rig->client_options.depth = 4;
	rig_pair(rig, &ends[0], &ends[1]);
	EXPECT(srdma_conn_recv(ends[0], data, sizeof data, &n, 0), -EAGAIN);
	EXPECT(srdma_conn_wait(ends[0], 0), -EAGAIN);
	srdma_conn_wake(ends[0]);
	EXPECT(srdma_conn_wait(ends[0], 15000 * rig->scale), -EINTR);
	while (received[0] < count || received[1] < count) {
		bool moved = false;

		for (unsigned end = 0; end < 2; end++) {
			struct srdma_conn *conn = ends[end];
			size_t length = sent[end] * 13 % sizeof data;
			int ret = -EAGAIN;

			fill(data, length, sent[end] + end);
			if (sent[end] < count)
				ret = srdma_conn_send(conn, data, length, 0);
			CHECK(ret == 0 || ret == -EAGAIN);
			sent[end] += ret == 0;
			moved |= ret == 0;
			ret = srdma_conn_recv(conn, data, sizeof data, &n, 0);
			CHECK(ret == 0 || ret == -EAGAIN);
			if (ret == 0) {
				EXPECT(n, received[end] * 13 % sizeof data);
				CHECK(is_filled(data, n, received[end] + !end));
				received[end]++;
				moved = true;
			}
		}
		if (!moved)
			rig_poll(rig, ends[received[0] == count]);
	}
	/* A call that returned -EAGAIN arms the descriptor: it is readable once the call is worth repeating. */
	for (unsigned i = 0; i < 20; i++) {
		EXPECT(srdma_conn_recv(ends[1], data, sizeof data, &n, 0), -EAGAIN);
		EXPECT(srdma_conn_send(ends[0], &i, sizeof i, -1), 0);
		do
			rig_poll(rig, ends[1]);
		while (srdma_conn_recv(ends[1], data, sizeof data, &n, 0) == -EAGAIN);
		CHECK(n == sizeof i && memcmp(data, &i, n) == 0);
	}
	/* The end of the channel makes it readable too. */
	EXPECT(srdma_conn_recv(ends[0], data, sizeof data, &n, 0), -EAGAIN);
	srdma_conn_free(&ends[1]);
	rig_poll(rig, ends[0]);
	EXPECT(srdma_conn_recv(ends[0], data, sizeof data, &n, 15000 * rig->scale), SRDMA_ELOST);
	srdma_conn_free(&ends[0]);
}

/* ---- time-outs ------------------------------------------------------------------------------------------------- */

/* A peer that takes nothing: credits run out, calls end by their time-outs, and the connection is as good as before. */
void mode_timeouts(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server;
	char data[64];
	uint64_t begin;
	unsigned sent = 0;
	size_t n;
	int ret;

	rig->client_options.depth = 3;
	rig->client_options.timeout_ms = 150;
	rig_pair(rig, &client, &server);
	begin = clock_ms();
	EXPECT(srdma_conn_recv(client, data, sizeof data, &n, 200), -ETIMEDOUT);
	CHECK(clock_ms() - begin >= 190);
	begin = clock_ms();
	EXPECT(srdma_conn_recv(client, data, sizeof data, &n, -1), -ETIMEDOUT);
	CHECK(clock_ms() - begin >= 140);
	EXPECT(srdma_conn_wait(client, 50), -ETIMEDOUT);
	while ((ret = srdma_conn_send(client, &sent, sizeof sent, 200)) == 0)
		sent++;
	EXPECT(ret, -ETIMEDOUT);
	EXPECT(sent, 3);
	EXPECT(srdma_conn_send(client, &sent, sizeof sent, 0), -EAGAIN);
	for (unsigned i = 0; i < sent; i++) {
		EXPECT(srdma_conn_recv(server, data, sizeof data, &n, -1), 0);
		EXPECT(memcmp(data, &i, sizeof i), 0);
	}
	EXPECT(srdma_conn_send(client, &sent, sizeof sent, 15000 * rig->scale), 0);
	/* Nobody answers a disconnect: it ends at its time-out, and the connection with it. */
	EXPECT(srdma_conn_disconnect(client, "bye", 200), -ETIMEDOUT);
	CHECK(srdma_conn_send(client, data, 1, 100) < 0);
	srdma_conn_free(&client);
	srdma_conn_free(&server);
	fact(rig, "sent", sent);
}

/* ---- flood ----------------------------------------------------------------------------------------------------- */

struct flooder {
	struct srdma_conn *conn;
	unsigned count, own_seed, peer_seed;
	bool disconnects;
	struct rig *rig;
};

/* Sends and receives as fast as it goes, and checks order and content. */
static void *flood(void *arg)
{
	struct flooder *f = arg;
	unsigned sent = 0, received = 0;
	char data[4096];
	size_t n;

	while (sent < f->count || received < f->count) {
		size_t length = sent * 37 % sizeof data;
		int ret = -EAGAIN;

		if (sent < f->count) {
			fill(data, length, sent + f->own_seed);
			ret = srdma_conn_send(f->conn, data, length, 0);
			CHECK(ret == 0 || ret == -EAGAIN);
			sent += ret == 0;
		}
		while (received < f->count && srdma_conn_recv(f->conn, data, sizeof data, &n, 0) == 0) {
			EXPECT(n, received * 37 % sizeof data);
			CHECK(is_filled(data, n, received + f->peer_seed));
			received++;
			ret = 0;
		}
		if (ret == -EAGAIN && (sent < f->count || received < f->count)) {
			struct pollfd fd = {.fd = srdma_conn_fd(f->conn), .events = POLLIN};

			EXPECT(poll(&fd, 1, 30000 * f->rig->scale), 1);
		}
	}
	if (f->disconnects)
		EXPECT(srdma_conn_disconnect(f->conn, NULL, 30000 * f->rig->scale), 0);
	else
		EXPECT(srdma_conn_recv(f->conn, data, sizeof data, &n, 30000 * f->rig->scale), SRDMA_ECLOSED);
	return NULL;
}

void mode_flood(struct rig *rig, char **args)
{
	struct flooder ends[2] = {{.own_seed = 1, .peer_seed = 1000, .disconnects = true},
				  {.own_seed = 1000, .peer_seed = 1}};
	pthread_t threads[2];

	rig->client_options.depth = (uint32_t)atoi(args[0]);
	rig_pair(rig, &ends[0].conn, &ends[1].conn);
	for (size_t i = 0; i < 2; i++) {
		ends[i].rig = rig;
		ends[i].count = (unsigned)atoi(args[1]);
		CHECK(pthread_create(&threads[i], NULL, flood, &ends[i]) == 0);
	}
	for (size_t i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	/* The end that was asked to disconnect waits until that is over before it frees. */
	EXPECT(srdma_conn_disconnect(ends[1].conn, NULL, -1), 0);
	srdma_conn_free(&ends[0].conn);
	srdma_conn_free(&ends[1].conn);
}

/* ---- disconnect ------------------------------------------------------------------------------------------------ */

struct closing {
	struct srdma_conn *conn;
	struct rig *rig;
};

static void *disconnect(void *arg)
{
	struct closing *closing = arg;

	EXPECT(srdma_conn_disconnect(closing->conn, "that is all", 15000 * closing->rig->scale), 0);
	return NULL;
}

/* One end sends `depth` messages each way unread and disconnects: all can still be read at both ends. */
void mode_disconnect(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server, *ends[2];
	struct closing closing = {.rig = rig};
	unsigned depth = (unsigned)atoi(args[1]);
	struct srdma_conn_info info;
	pthread_t thread;
	char data[64];
	size_t n;

	rig->client_options.depth = depth;
	rig_pair(rig, &client, &server);
	ends[0] = strcmp(args[0], "client") == 0 ? client : server;
	ends[1] = ends[0] == client ? server : client;
	for (unsigned i = 0; i < depth; i++)
		for (unsigned end = 0; end < 2; end++) {
			fill(data, sizeof data, i + end * 100);
			EXPECT(srdma_conn_send(ends[end], data, sizeof data, -1), 0);
		}
	closing.conn = ends[0];
	CHECK(pthread_create(&thread, NULL, disconnect, &closing) == 0);
	for (unsigned i = 0; i < depth; i++) {
		EXPECT(srdma_conn_recv(ends[1], data, sizeof data, &n, -1), 0);
		CHECK(n == sizeof data && is_filled(data, n, i));
	}
	EXPECT(srdma_conn_recv(ends[1], data, sizeof data, &n, -1), SRDMA_ECLOSED);
	EXPECT(srdma_conn_send(ends[1], data, 1, -1), SRDMA_ECLOSED);
	EXPECT(srdma_conn_disconnect(ends[1], "ignored", -1), 0);
	CHECK(pthread_join(thread, NULL) == 0);
	srdma_conn_get_info(ends[1], &info);
	fact_text(rig, "close_reason", info.close_reason);
	for (unsigned i = 0; i < depth; i++) {
		EXPECT(srdma_conn_recv(ends[0], data, sizeof data, &n, -1), 0);
		CHECK(n == sizeof data && is_filled(data, n, i + 100));
	}
	EXPECT(srdma_conn_recv(ends[0], data, sizeof data, &n, -1), SRDMA_ECLOSED);
	EXPECT(srdma_conn_send(ends[0], data, 1, -1), SRDMA_ECLOSED);
	srdma_conn_free(&client);
	srdma_conn_free(&server);
}

/* A peer that is deleted without a word is lost, not closed; what it sent before can still be read. */
void mode_lost(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server;
	char data[64];
	size_t n;

	rig_pair(rig, &client, &server);
	EXPECT(srdma_conn_send(server, "last", 4, -1), 0);
	EXPECT(srdma_conn_wait(client, 15000 * rig->scale), 0);
	srdma_conn_free(&server);
	EXPECT(srdma_conn_recv(client, data, sizeof data, &n, -1), 0);
	CHECK(n == 4 && memcmp(data, "last", 4) == 0);
	EXPECT(srdma_conn_recv(client, data, sizeof data, &n, 15000 * rig->scale), SRDMA_ELOST);
	EXPECT(srdma_conn_send(client, data, 1, -1), SRDMA_ELOST);
	EXPECT(srdma_conn_write(client, data, 1, 0, -1), SRDMA_ELOST);
	EXPECT(srdma_conn_disconnect(client, NULL, -1), SRDMA_ELOST);
	srdma_conn_free(&client);
}
