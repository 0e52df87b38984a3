/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of bytes: what is written at one end is read at the other, whatever the sizes and the calls; and how a stream ends. */
#include "probe.h"

#include "securdma_stream.h"

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
	char *data;
};

#define DATA_SIZE (3u << 20)

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
			check_bytes(end->data, (size_t)n, end->read, !end->direction);
		return n;
	}
	n = srdma_stream_peek(end->stream, &place, 0);
	if (n <= 0)
		return n;
	n = (size_t)n < size ? n : (ssize_t)size;
	check_bytes(place, (size_t)n, end->read, !end->direction);
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

static void prepare(struct rig *rig, const char *region)
{
	size_t size = (size_t)atoi(region);

	rig->server_conn.region_size = rig->client_options.region_size = size;
	rig->server_conn.region_access = rig->client_options.region_access = IBV_ACCESS_REMOTE_WRITE;
	rig->server_conn.depth = rig->client_options.depth = 8;
}

static void leave(struct srdma_conn **client, struct srdma_conn **accepted)
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

	prepare(rig, args[0]);
	rig_pair(rig, &conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		make_end(&ends[i], conns[i], i, (uint64_t)atoll(args[1]), i ? 10000 : 0);
	while (!is_done(&ends[0]) || !is_done(&ends[1])) {
		struct pollfd fds[] = {{.fd = srdma_stream_fd(ends[0].stream), .events = POLLIN},
				       {.fd = srdma_stream_fd(ends[1].stream), .events = POLLIN}};
		bool busy = turn(&ends[0]) | turn(&ends[1]);

		if (!busy && !(is_done(&ends[0]) && is_done(&ends[1])))
			CHECK(poll(fds, 2, 10000 * rig->scale) > 0);
	}
	for (unsigned i = 0; i < 2; i++)
		check_end(rig, &ends[i]);
	srdma_conn_get_info(conns[0], &info);
	fact(rig, "epoch", info.epoch);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&ends[i].stream);
	leave(&conns[0], &conns[1]);
}

/* ---- calls that wait ------------------------------------------------------------------------------------------- */

static void *read_all(void *arg)
{
	struct end *end = arg;
	ssize_t n;

	while ((n = srdma_stream_read(end->stream, end->data, draw_size(end), -1)) > 0) {
		check_bytes(end->data, (size_t)n, end->read, !end->direction);
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

	prepare(rig, args[0]);
	rig_pair(rig, &client, &accepted);
	make_end(&ends[0], client, 0, (uint64_t)atoll(args[1]), 0);
	make_end(&ends[1], accepted, 1, 0, 0);
	CHECK(pthread_create(&thread, NULL, read_all, &ends[1]) == 0);
	while (ends[0].written < ends[0].total) {
		size_t size = draw_size(&ends[0]), left = (size_t)(ends[0].total - ends[0].written);

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
