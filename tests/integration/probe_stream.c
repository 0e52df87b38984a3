/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of bytes: what is written at one end is read at the other, whatever the sizes and the calls; and how a stream ends. */
#include "probe.h"

#include "securdma_stream.h"

#include <endian.h>
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
	bool renewed = false;

	prepare(rig, args[0]);
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
	leave(&conns[0], &conns[1]);
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

	prepare(rig, args[0]);
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
	prepare(rig, "1048576");
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
	leave(&conns[0], &conns[1]);
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
	prepare(rig, args[0]);
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

/* ---- how a stream ends ----------------------------------------------------------------------------------------- */

static void make_streams(struct rig *rig, struct srdma_conn *conns[2], struct srdma_stream *streams[2])
{
	prepare(rig, "65536");
	rig_pair(rig, &conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		EXPECT(srdma_stream_new(conns[i], NULL, &streams[i]), 0);
	/* Each end takes what the other has said. */
	for (unsigned i = 0; i < 4; i++)
		CHECK(srdma_stream_wait(streams[i % 2], POLLIN, i < 2 ? 0 : 20) < 0);
}

void mode_bytes_abort(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2];
	struct srdma_stream *streams[2];
	char data[16];
	void *place;

	make_streams(rig, conns, streams);
	EXPECT(srdma_stream_write(streams[0], "unread", 6, -1), 6);
	EXPECT(srdma_stream_wait(streams[1], POLLIN, -1), POLLIN);
	EXPECT(srdma_stream_abort(streams[0], "no more of\nthis"), 0);
	EXPECT(srdma_stream_abort(streams[0], "again"), 0);
	EXPECT(srdma_stream_write(streams[0], "x", 1, 0), -ECONNABORTED);
	EXPECT(srdma_stream_reserve(streams[0], &place, 0), -ECONNABORTED);
	EXPECT(srdma_stream_read(streams[0], data, 1, 0), -ECONNABORTED);
	EXPECT(srdma_stream_flush(streams[0], -1), 0);
	EXPECT(srdma_stream_wait(streams[1], 0, -1), 0);
	EXPECT(srdma_stream_read(streams[1], data, sizeof data, -1), -ECONNRESET);
	fact_text(rig, "reason", srdma_error_text());
	EXPECT(srdma_stream_write(streams[1], "x", 1, -1), -ECONNRESET);
	EXPECT(srdma_stream_flush(streams[1], -1), -ECONNRESET);
	EXPECT(srdma_stream_shutdown(streams[1]), -ECONNRESET);
	/* The connection is up, and ends in order. */
	leave(&conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&streams[i]);
}

/* A stream that was cut short does not look whole, and what came before the cut can be read. */
void mode_bytes_cut(struct rig *rig, char **args)
{
	bool in_order = strcmp(args[0], "order") == 0;
	struct srdma_conn *conns[2];
	struct srdma_stream *streams[2];
	char data[16];

	make_streams(rig, conns, streams);
	EXPECT(srdma_stream_write(streams[0], "before", 6, -1), 6);
	EXPECT(srdma_stream_wait(streams[1], POLLIN, -1), POLLIN);
	if (in_order) {
		struct srdma_conn *both[] = {conns[0], conns[1]};

		EXPECT(srdma_conn_disconnect_all(both, 2, NULL, -1), 0);
	} else {
		srdma_conn_free(&conns[0]);
		EXPECT(srdma_stream_wait(streams[1], 0, -1), 0);
	}
	EXPECT(srdma_stream_read(streams[1], data, sizeof data, -1), 6);
	CHECK(memcmp(data, "before", 6) == 0);
	EXPECT(srdma_stream_read(streams[1], data, sizeof data, -1), in_order ? SRDMA_ECLOSED : SRDMA_ELOST);
	EXPECT(srdma_stream_write(streams[1], "x", 1, -1), in_order ? SRDMA_ECLOSED : SRDMA_ELOST);
	EXPECT(srdma_stream_read(streams[0], data, sizeof data, -1), SRDMA_ECLOSED);
	for (unsigned i = 0; i < 2; i++) {
		srdma_stream_free(&streams[i]);
		srdma_conn_free(&conns[i]);
	}
}

/* ---- arguments, time-outs -------------------------------------------------------------------------------------- */

static void refuse_new(struct rig *rig, size_t region, unsigned access, bool raw, int expected)
{
	struct srdma_conn *conns[2];
	struct srdma_stream *stream;

	rig->client_options.raw = rig->server_conn.raw = raw;
	rig->client_options.region_size = region;
	rig->client_options.region_access = access;
	rig_pair(rig, &conns[0], &conns[1]);
	EXPECT(srdma_stream_new(conns[0], NULL, &stream), expected);
	leave(&conns[0], &conns[1]);
	rig->client_options.raw = rig->server_conn.raw = false;
}

void mode_bytes_arguments(struct rig *rig, char **args)
{
	struct srdma_stream_options options;
	struct srdma_conn *conns[2];
	struct srdma_stream *streams[2], *none;
	const void *from;
	char data[16];
	size_t full = 0;
	void *place;
	ssize_t n;

	refuse_new(rig, 0, IBV_ACCESS_REMOTE_WRITE, false, -ENXIO);
	refuse_new(rig, SRDMA_STREAM_REGION_MIN - 1, IBV_ACCESS_REMOTE_WRITE, false, -ENXIO);
	refuse_new(rig, 65536, IBV_ACCESS_REMOTE_READ, false, -ENXIO);
	if (rig->client_options.seal == SRDMA_SEAL_OFF)
		refuse_new(rig, 0, 0, true, -EOPNOTSUPP);
	prepare(rig, "65536");
	rig_pair(rig, &conns[0], &conns[1]);
	options = (struct srdma_stream_options){0};
	EXPECT(srdma_stream_new(conns[0], &options, &none), -EINVAL);
	srdma_stream_options_init(&options);
	options.buffer_size = 4095;
	EXPECT(srdma_stream_new(conns[0], &options, &none), -EINVAL);
	options.buffer_size = 4096;
	EXPECT(srdma_stream_new(conns[0], &options, &streams[0]), 0);
	/* The peer has made none yet. */
	EXPECT(srdma_stream_write(streams[0], "x", 1, 0), -EAGAIN);
	EXPECT(srdma_stream_reserve(streams[0], &place, 10), -ETIMEDOUT);
	EXPECT(srdma_stream_new(conns[1], NULL, &streams[1]), 0);
	EXPECT(srdma_stream_wait(streams[0], POLLOUT, -1), POLLOUT);
	EXPECT(srdma_stream_wait(streams[0], POLLIN | POLLOUT, 0), POLLOUT);
	EXPECT(srdma_stream_wait(streams[0], POLLERR, 0), -EINVAL);
	EXPECT(srdma_stream_read(streams[0], data, 1, 0), -EAGAIN);
	EXPECT(srdma_stream_read(streams[0], data, 1, 10), -ETIMEDOUT);
	EXPECT(srdma_stream_read(streams[0], data, 0, -1), 0);
	EXPECT(srdma_stream_write(streams[0], data, 0, -1), 0);
	EXPECT(srdma_stream_commit(streams[0], 1), -EINVAL);
	EXPECT(srdma_stream_consume(streams[0], 1), -EINVAL);
	CHECK((n = srdma_stream_reserve(streams[0], &place, -1)) > 0);
	EXPECT(srdma_stream_commit(streams[0], (size_t)n + 1), -EINVAL);
	EXPECT(srdma_stream_commit(streams[0], 0), 0);
	/* Back-pressure: as much as the ring and the buffer have, and then no more. */
	while ((n = srdma_stream_write(streams[0], data, sizeof data, 50)) > 0)
		full += (size_t)n;
	EXPECT(n, -ETIMEDOUT);
	/* Sealed bytes go only while the peer's program is in a call. */
	CHECK(full <= 65536 + 4096 && full >= (rig->client_options.seal == SRDMA_SEAL_OFF ? 65536 : 4096));
	srdma_conn_wake(conns[0]);
	EXPECT(srdma_stream_wait(streams[0], POLLOUT, -1), -EINTR);
	CHECK(srdma_stream_peek(streams[1], &from, -1) > 0);
	EXPECT(srdma_stream_consume(streams[1], 65537), -EINVAL);
	/* What is read makes room. */
	while (srdma_stream_wait(streams[0], POLLOUT, 1) != POLLOUT)
		while ((n = srdma_stream_peek(streams[1], &from, 1)) > 0)
			EXPECT(srdma_stream_consume(streams[1], (size_t)n), 0);
	leave(&conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&streams[i]);
}

/* ---- a peer that breaks the rules ------------------------------------------------------------------------------ */

struct frame {
	uint8_t type, version;
	uint16_t zero;
	uint32_t magic;
	uint64_t total, read;
	char data[40];
};

static void send_frame(struct srdma_conn *conn, unsigned type, uint64_t total, uint64_t read, size_t length)
{
	struct frame frame = {.type = (uint8_t)type, .version = 1, .magic = htobe32(0x53525354), .total = htobe64(total), .read = htobe64(read)};

	EXPECT(srdma_conn_send(conn, &frame, length, -1), 0);
}

/* What each breach is; the type, the total, what was read, and the length of the message that comes after OPEN. */
static const struct {
	const char *name;
	unsigned type;
	uint64_t total, read;
	size_t length;
	bool sealed; /* is one while sealed, too */
} breaches[] = {
	{"opens twice", 1, 65536, 0, 16, true},
	{"beyond the ring", 2, 65537, 0, 24, false},
	{"far beyond the ring", 2, UINT64_MAX, 0, 24, false},
	{"read what was not sent", 2, 0, 1, 24, true},
	{"data that do not follow", 3, 1, 0, 26, true},
	{"data beyond the ring", 3, 65540, 0, 28, true},
	{"no data", 3, 0, 0, 24, true},
	{"data in another frame", 2, 1, 0, 25, true},
	{"an end beyond the ring", 4, 65537, 0, 24, true},
	{"an unknown type", 6, 0, 0, 24, true},
	{"too short", 2, 0, 0, 23, true},
	{"empty", 2, 0, 0, 0, true},
};

void mode_bytes_hostile(struct rig *rig, char **args)
{
	bool sealed = rig->client_options.seal != SRDMA_SEAL_OFF;
	long long count = 0;

	prepare(rig, "65536");
	for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++) {
		struct srdma_conn *conns[2];
		struct srdma_stream *stream;
		char data[16];
		ssize_t n;

		if (sealed && !breaches[i].sealed)
			continue;
		rig_pair(rig, &conns[0], &conns[1]);
		EXPECT(srdma_stream_new(conns[0], NULL, &stream), 0);
		send_frame(conns[1], 1, 65536, 0, 16);
		send_frame(conns[1], breaches[i].type, breaches[i].total, breaches[i].read, breaches[i].length);
		n = srdma_stream_read(stream, data, sizeof data, -1);
		if (n != SRDMA_EPROTOCOL)
			fprintf(stderr, "'%s' was not refused\n", breaches[i].name);
		EXPECT(n, SRDMA_EPROTOCOL);
		EXPECT(srdma_stream_write(stream, data, 1, -1), SRDMA_EPROTOCOL);
		srdma_stream_free(&stream);
		srdma_conn_free(&conns[0]);
		srdma_conn_free(&conns[1]);
		count++;
	}
	fact(rig, "breaches", count);
}

/* A peer that has no stream: its first message is not one of a stream, or its frame comes before OPEN, or its ring is not what it offers. */
void mode_bytes_foreign(struct rig *rig, char **args)
{
	for (unsigned i = 0; i < 4; i++) {
		struct srdma_conn *conns[2];
		struct srdma_stream *stream;

		prepare(rig, "65536");
		rig_pair(rig, &conns[0], &conns[1]);
		EXPECT(srdma_stream_new(conns[0], NULL, &stream), 0);
		switch (i) {
		case 0: EXPECT(srdma_conn_send(conns[1], "hello, who are you?", 20, -1), 0); break;
		case 1: send_frame(conns[1], 2, 0, 0, 24); break;
		case 2: send_frame(conns[1], 1, 65537, 0, 16); break;
		case 3: send_frame(conns[1], 1, SRDMA_STREAM_REGION_MIN - 1, 0, 16); break;
		}
		EXPECT(srdma_stream_write(stream, "x", 1, -1), SRDMA_EPROTOCOL);
		if (i == 0)
			fact_text(rig, "text", srdma_error_text());
		srdma_conn_free(&conns[0]);
		srdma_stream_free(&stream);
		srdma_conn_free(&conns[1]);
	}
}

/* The sealed peer writes more than there is room for: what this end counts itself shows it. */
void mode_bytes_overrun(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2];
	struct srdma_stream *stream;
	char data[16];
	ssize_t n;

	CHECK(rig->client_options.seal != SRDMA_SEAL_OFF);
	prepare(rig, "65536");
	rig_pair(rig, &conns[0], &conns[1]);
	EXPECT(srdma_stream_new(conns[0], NULL, &stream), 0);
	send_frame(conns[1], 1, 65536, 0, 16);
	for (unsigned i = 0; i < 17; i++) {
		struct srdma_buffer *buffer;
		uint64_t cookie;

		EXPECT(srdma_buffer_new(conns[1], NULL, 4096, &buffer), 0);
		EXPECT(srdma_conn_post_write(conns[1], buffer, 0, 4096, 0, i), 0);
		/* Both ends get on: this one takes the bytes. */
		do {
			n = srdma_stream_wait(stream, 0, 0);
		} while (srdma_conn_complete(conns[1], &cookie, 1, 1) != 1 && n == -EAGAIN);
		srdma_buffer_free(&buffer);
	}
	while ((n = srdma_stream_wait(stream, 0, 0)) == -EAGAIN)
		srdma_conn_wait(conns[1], 1);
	EXPECT(srdma_stream_write(stream, data, 1, 0), SRDMA_EPROTOCOL);
	fact_text(rig, "text", srdma_error_text());
	srdma_stream_free(&stream);
	srdma_conn_free(&conns[0]);
	srdma_conn_free(&conns[1]);
}

static void *flood(void *arg)
{
	struct srdma_conn *conn = arg;
	const struct frame frame = {.type = 2, .version = 1, .magic = htobe32(0x53525354)};

	while (srdma_conn_send(conn, &frame, 24, -1) == 0)
		;
	return NULL;
}

/* The peer sends messages that say nothing, without an end: no call waits longer than it may. */
void mode_bytes_flood(struct rig *rig, char **args)
{
	struct srdma_conn *conns[2];
	struct srdma_stream *stream;
	pthread_t thread;
	uint64_t before;
	char data[16];

	prepare(rig, "65536");
	rig_pair(rig, &conns[0], &conns[1]);
	EXPECT(srdma_stream_new(conns[0], NULL, &stream), 0);
	send_frame(conns[1], 1, 65536, 0, 16);
	CHECK(pthread_create(&thread, NULL, flood, conns[1]) == 0);
	before = clock_ms();
	for (unsigned i = 0; i < 100; i++) {
		EXPECT(srdma_stream_read(stream, data, sizeof data, 0), -EAGAIN);
		EXPECT(srdma_stream_read(stream, data, sizeof data, 1), -ETIMEDOUT);
	}
	CHECK(clock_ms() - before < 10000u * (unsigned)rig->scale);
	srdma_stream_free(&stream);
	srdma_conn_free(&conns[0]);
	CHECK(pthread_join(thread, NULL) == 0);
	srdma_conn_free(&conns[1]);
}
