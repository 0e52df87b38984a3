/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of bytes: what is written at one end is read at the other, whatever the sizes and the calls. */
#include "probe_stream.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of a direction, by their place. */
static unsigned char byte_at(uint64_t at, unsigned direction)
{
	return (unsigned char)((at * 0x9e3779b97f4a7c15u + direction * 0x1234567u) >> 56);
}

static void write_bytes(void *data, size_t length, uint64_t at, unsigned direction)
{
	for (size_t i = 0; i < length; i++)
		((unsigned char *)data)[i] = byte_at(at + i, direction);
}

static void check_bytes(const void *data, size_t length, uint64_t at, unsigned direction)
{
	for (size_t i = 0; i < length; i++)
		if (((const unsigned char *)data)[i] != byte_at(at + i, direction)) {
			fprintf(stderr, "byte %llu of direction %u is wrong\n", (unsigned long long)(at + i), direction);
			exit(1);
		}
}

/* One end of a connection, whose program writes and reads `total` bytes. */
struct end {
	struct srdma_stream *stream;
	unsigned direction; /* of what it writes; the other one it reads */
	unsigned random;
	uint64_t total, written, read;
	bool shut, flushed, ended;
	bool echo; /* the peer sends back what it reads */
	char *data;
};

#define DATA_SIZE (5u << 20)

static unsigned draw(struct end *end, unsigned below)
{
	end->random = end->random * 1664525 + 1013904223;
	return (end->random >> 8) % below;
}

/* Short pieces, and some that are longer than the ring. */
static size_t draw_size(struct end *end)
{
	static const unsigned bounds[] = {4, 100, 5000, 70000, 300000, DATA_SIZE};

	return 1 + draw(end, bounds[draw(end, 6)]);
}

static ssize_t write_some(struct end *end)
{
	size_t size = draw_size(end), left = (size_t)(end->total - end->written);
	ssize_t n;
	void *place;

	size = size < left ? size : left;
	if (draw(end, 2)) {
		write_bytes(end->data, size, end->written, end->direction);
		return srdma_stream_write(end->stream, end->data, size, 0);
	}
	n = srdma_stream_reserve(end->stream, &place, 0);
	if (n < 0)
		return n;
	n = (size_t)n < size ? n : (ssize_t)size;
	write_bytes(place, (size_t)n, end->written, end->direction);
	EXPECT(srdma_stream_commit(end->stream, (size_t)n), 0);
	return n;
}

static ssize_t read_some(struct end *end)
{
	size_t size = draw_size(end);
	const void *place;
	ssize_t n;

	if (draw(end, 2)) {
		n = srdma_stream_read(end->stream, end->data, size, 0);
		if (n > 0)
			check_bytes(end->data, (size_t)n, end->read, end->echo ? end->direction : !end->direction);
		return n;
	}
	n = srdma_stream_peek(end->stream, &place, 0);
	if (n <= 0)
		return n;
	n = (size_t)n < size ? n : (ssize_t)size;
	check_bytes(place, (size_t)n, end->read, end->echo ? end->direction : !end->direction);
	EXPECT(srdma_stream_consume(end->stream, (size_t)n), 0);
	return n;
}

/* Whether it got on. */
static bool turn(struct end *end)
{
	ssize_t n = end->written < end->total ? write_some(end) : 0;
	bool busy = n > 0;

	CHECK(n >= 0 || n == -EAGAIN);
	end->written += n > 0 ? (uint64_t)n : 0;
	if (end->written == end->total && !end->shut) {
		EXPECT(srdma_stream_shutdown(end->stream), 0);
		EXPECT(srdma_stream_write(end->stream, "x", 1, 0), -EPIPE);
		end->shut = true;
	}
	if (end->shut && !end->flushed) {
		n = srdma_stream_flush(end->stream, 0);
		CHECK(n == 0 || n == -EAGAIN);
		end->flushed = n == 0;
	}
	n = end->ended ? -EAGAIN : read_some(end);
	CHECK(n >= 0 || n == -EAGAIN);
	end->ended = end->ended || n == 0;
	end->read += n > 0 ? (uint64_t)n : 0;
	return busy || n >= 0;
}

static bool is_done(const struct end *end)
{
	return end->flushed && end->ended;
}

static void make_end(struct end *end, struct srdma_conn *conn, unsigned direction, uint64_t total, size_t buffer)
{
	struct srdma_stream_options options;

	srdma_stream_options_init(&options);
	if (buffer)
		options.buffer_size = buffer;
	*end = (struct end){.direction = direction, .random = direction + 1, .total = total, .data = malloc(DATA_SIZE)};
	CHECK(end->data);
	EXPECT(srdma_stream_new(conn, &options, &end->stream), 0);
	EXPECT(srdma_stream_new(conn, &options, &end->stream), -EBUSY);
	EXPECT(srdma_stream_fd(end->stream), srdma_conn_fd(conn));
}

static void check_end(struct rig *rig, struct end *end)
{
	struct srdma_stream_info info;

	EXPECT(end->read, end->total);
	srdma_stream_get_info(end->stream, &info);
	EXPECT(info.written, end->total);
	EXPECT(info.read, end->total);
	CHECK(info.shut_down && info.peer_shut_down && !info.aborted);
	free(end->data);
}

void stream_prepare(struct rig *rig, const char *region)
{
	size_t size = (size_t)atoi(region);

	rig->server_conn.region_size = rig->client_options.region_size = size;
	rig->server_conn.region_access = rig->client_options.region_access = IBV_ACCESS_REMOTE_WRITE;
	rig->server_conn.depth = rig->client_options.depth = 8;
}

void stream_leave(struct srdma_conn **client, struct srdma_conn **accepted)
{
	struct srdma_conn *both[] = {*client, *accepted};

	EXPECT(srdma_conn_disconnect_all(both, 2, NULL, -1), 0);
	srdma_conn_free(client);
	srdma_conn_free(accepted);
}

/* Both ends in one thread, which never waits but in poll(2). */
void mode_bytes_both(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2];
	struct srdma_conn_info info;
	struct end ends[2];
	bool renewed = false;

	stream_prepare(rig, args[0]);
	rig_pair(rig, &conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		make_end(&ends[i], conns[i], i, (uint64_t)atoll(args[1]), i ? 10000 : 0);
	while (!is_done(&ends[0]) || !is_done(&ends[1])) {
		struct pollfd fds[] = {{.fd = srdma_stream_fd(ends[0].stream), .events = POLLIN},
				       {.fd = srdma_stream_fd(ends[1].stream), .events = POLLIN}};
		bool busy = turn(&ends[0]) | turn(&ends[1]);

		if (!renewed && ends[0].read > ends[0].total / 3)
			EXPECT(srdma_conn_renew(conns[0]), 0);
		renewed = ends[0].read > ends[0].total / 3;
		if (!busy && !(is_done(&ends[0]) && is_done(&ends[1])))
			CHECK(poll(fds, 2, 10000 * rig->scale) > 0);
	}
	for (unsigned i = 0; i < 2; i++)
		check_end(rig, &ends[i]);
	/* The renewal may end after the bytes. */
	for (srdma_conn_get_info(conns[0], &info); info.epoch == 0; srdma_conn_get_info(conns[0], &info))
		for (unsigned i = 0; i < 2; i++)
			EXPECT(srdma_stream_wait(ends[i].stream, 0, 1), -ETIMEDOUT);
	fact(rig, "epoch", info.epoch);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&ends[i].stream);
	stream_leave(&conns[0], &conns[1]);
}

/* ---- calls that wait ------------------------------------------------------------------------------------------- */

static void *read_all(void *arg)
{
	struct end *end = arg;
	ssize_t n;

	while ((n = srdma_stream_read(end->stream, end->data, draw_size(end), -1)) > 0) {
		check_bytes(end->data, (size_t)n, end->read, end->echo ? end->direction : !end->direction);
		end->read += (uint64_t)n;
	}
	EXPECT(n, 0);
	EXPECT(srdma_stream_read(end->stream, end->data, 1, 0), 0);
	/* The other half goes on. */
	EXPECT(srdma_stream_write(end->stream, "thanks", 6, -1), 6);
	EXPECT(srdma_stream_shutdown(end->stream), 0);
	EXPECT(srdma_stream_flush(end->stream, -1), 0);
	/* Until the peer disconnects. */
	EXPECT(srdma_stream_wait(end->stream, POLLIN, -1), POLLIN);
	EXPECT(srdma_stream_wait(end->stream, 0, -1), 0);
	EXPECT(srdma_stream_write(end->stream, "x", 1, -1), SRDMA_ECLOSED);
	return NULL;
}

/* One end writes all, the other reads all, and then they part. */
void mode_bytes_waiting(struct rig *rig, char **args)
{
	struct srdma_conn *client, *accepted;
	struct srdma_stream_info info;
	struct end ends[2];
	pthread_t thread;
	char thanks[8];

	stream_prepare(rig, args[0]);
	rig_pair(rig, &client, &accepted);
	make_end(&ends[0], client, 0, (uint64_t)atoll(args[1]), 0);
	make_end(&ends[1], accepted, 1, 0, 0);
	CHECK(pthread_create(&thread, NULL, read_all, &ends[1]) == 0);
	while (ends[0].written < ends[0].total) {
		/* The first one goes without a copy, if it is long enough for that. */
		size_t size = ends[0].written > 0 ? draw_size(&ends[0]) : DATA_SIZE, left = (size_t)(ends[0].total - ends[0].written);

		size = size < left ? size : left;
		write_bytes(ends[0].data, size, ends[0].written, 0);
		EXPECT(srdma_stream_write(ends[0].stream, ends[0].data, size, -1), size);
		/* The memory is the program's again. */
		memset(ends[0].data, 0xee, size);
		ends[0].written += size;
	}
	EXPECT(srdma_stream_shutdown(ends[0].stream), 0);
	EXPECT(srdma_stream_read(ends[0].stream, thanks, 6, -1), 6);
	CHECK(memcmp(thanks, "thanks", 6) == 0);
	EXPECT(srdma_stream_read(ends[0].stream, thanks, 6, -1), 0);
	srdma_stream_get_info(ends[0].stream, &info);
	EXPECT(info.acknowledged, ends[0].total);
	EXPECT(srdma_conn_disconnect(client, NULL, -1), 0);
	CHECK(pthread_join(thread, NULL) == 0);
	EXPECT(ends[1].read, ends[0].total);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);
	EXPECT(srdma_stream_read(ends[0].stream, thanks, 1, -1), 0);
	EXPECT(srdma_stream_write(ends[1].stream, thanks, 1, -1), SRDMA_ECLOSED);
	for (unsigned i = 0; i < 2; i++) {
		free(ends[i].data);
		srdma_stream_free(&ends[i].stream);
	}
}

/* ---- rates ----------------------------------------------------------------------------------------------------- */

static void *consume_all(void *arg)
{
	struct srdma_stream *stream = arg;
	const void *data;
	ssize_t n;

	while ((n = srdma_stream_peek(stream, &data, -1)) > 0)
		EXPECT(srdma_stream_consume(stream, (size_t)n), 0);
	EXPECT(n, 0);
	return NULL;
}

/* Nobody looks at the bytes: how fast they go. */
void mode_bytes_rate(struct rig *rig, char **args)
{
	size_t size = (size_t)atoll(args[1]), total = (size_t)atoll(args[2]), done = 0;
	bool copies = strcmp(args[0], "write") == 0;
	struct srdma_conn *conns[2];
	struct srdma_stream *streams[2];
	char *data = calloc(1, size);
	pthread_t thread;
	uint64_t before;

	CHECK(data);
	stream_prepare(rig, "1048576");
	rig->client_options.depth = rig->server_conn.depth = 32;
	rig_pair(rig, &conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		EXPECT(srdma_stream_new(conns[i], NULL, &streams[i]), 0);
	CHECK(pthread_create(&thread, NULL, consume_all, streams[1]) == 0);
	before = clock_ms();
	while (done < total) {
		void *place;
		ssize_t n = copies ? srdma_stream_write(streams[0], data, size, -1) : srdma_stream_reserve(streams[0], &place, -1);

		CHECK(n > 0);
		n = (size_t)n < size ? n : (ssize_t)size;
		if (!copies)
			EXPECT(srdma_stream_commit(streams[0], (size_t)n), 0);
		done += (size_t)n;
	}
	EXPECT(srdma_stream_shutdown(streams[0]), 0);
	EXPECT(srdma_stream_flush(streams[0], -1), 0);
	CHECK(pthread_join(thread, NULL) == 0);
	fact(rig, "mib_per_second", (long long)(done / 1024 * 1000 / 1024 / (clock_ms() - before + 1)));
	free(data);
	stream_leave(&conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&streams[i]);
}

/* ---- in a server ----------------------------------------------------------------------------------------------- */

/* Sends the client's stream back, a share in a turn. */
static int echo_stream(struct srdma_conn *conn, struct srdma_stream *stream, char *reason, void *client_arg, void *arg)
{
	for (int pieces = 0;; pieces++) {
		const void *from;
		ssize_t there = srdma_stream_peek(stream, &from, 0), room;
		void *to;

		if (pieces == 4)
			return -EAGAIN;
		if (there == 0)
			return srdma_stream_shutdown(stream);
		if (there < 0)
			return there == -EAGAIN ? 0 : (int)there;
		room = srdma_stream_reserve(stream, &to, 0);
		if (room < 0)
			return room == -EAGAIN ? 0 : (int)room;
		there = there < room ? there : room;
		memcpy(to, from, (size_t)there);
		EXPECT(srdma_stream_commit(stream, (size_t)there), 0);
		EXPECT(srdma_stream_consume(stream, (size_t)there), 0);
	}
}

static int make_stream(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct srdma_stream *stream;

	EXPECT(srdma_stream_new(conn, NULL, &stream), 0);
	EXPECT(srdma_stream_fd(stream), -1);
	*client_arg = stream;
	return 0;
}

static void drop_stream(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct srdma_stream *stream = client_arg;

	srdma_stream_free(&stream);
}

#define CLIENTS 4

/* Clients on one worker, whose program blocks in none of its functions. */
void mode_bytes_server(struct rig *rig, char **args)
{
	struct srdma_conn *conns[CLIENTS];
	struct end ends[CLIENTS];
	unsigned done = 0;

	rig->server_options.on_connect = make_stream;
	rig->server_options.on_stream = echo_stream;
	rig->server_options.on_disconnect = drop_stream;
	rig->server_options.workers = 1;
	stream_prepare(rig, args[0]);
	rig_serve(rig);
	for (unsigned i = 0; i < CLIENTS; i++) {
		conns[i] = rig_connect(rig);
		make_end(&ends[i], conns[i], 0, (uint64_t)atoll(args[1]), 0);
		/* What comes back is what it wrote. */
		ends[i].echo = true;
		ends[i].random = i + 1;
	}
	while (done < CLIENTS) {
		struct pollfd fds[CLIENTS];
		bool busy = false;

		done = 0;
		for (unsigned i = 0; i < CLIENTS; i++) {
			busy = (!is_done(&ends[i]) && turn(&ends[i])) || busy;
			done += is_done(&ends[i]);
			fds[i] = (struct pollfd){.fd = is_done(&ends[i]) ? -1 : srdma_stream_fd(ends[i].stream), .events = POLLIN};
		}
		if (!busy && done < CLIENTS)
			CHECK(poll(fds, CLIENTS, 10000 * rig->scale) > 0);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		check_end(rig, &ends[i]);
		srdma_stream_free(&ends[i].stream);
		rig_leave(&conns[i]);
	}
	rig_stop(rig, 0);
}
