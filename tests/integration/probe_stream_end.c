/* SPDX-License-Identifier: Apache-2.0 */
/* How streams of bytes end, what their calls refuse, and peers that break the rules. */
#include "probe_stream.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* ---- how a stream ends ----------------------------------------------------------------------------------------- */

static void make_streams(struct rig *rig, struct srdma_conn *conns[2], struct srdma_stream *streams[2])
{
	stream_prepare(rig, "65536");
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
	stream_leave(&conns[0], &conns[1]);
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
	stream_leave(&conns[0], &conns[1]);
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
	stream_prepare(rig, "65536");
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
	stream_leave(&conns[0], &conns[1]);
	for (unsigned i = 0; i < 2; i++)
		srdma_stream_free(&streams[i]);
}

/* ---- a peer that breaks the rules ------------------------------------------------------------------------------ */

struct frame {
	uint8_t type, version;
	uint16_t role; /* 1: OPEN of the end that accepted */
	uint32_t magic;
	uint64_t total, read;
	char data[40];
};

static void send_frame(struct srdma_conn *conn, unsigned type, uint64_t total, uint64_t read, size_t length)
{
	struct frame frame = {.type = (uint8_t)type, .version = 1, .role = htobe16(type == 1), .magic = htobe32(0x53525354), .total = htobe64(total), .read = htobe64(read)};

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

	stream_prepare(rig, "65536");
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
	const struct frame own = {.type = 1, .version = 1, .magic = htobe32(0x53525354), .total = htobe64(65536)};

	for (unsigned i = 0; i < 5; i++) {
		struct srdma_conn *conns[2];
		struct srdma_stream *stream;

		stream_prepare(rig, "65536");
		rig_pair(rig, &conns[0], &conns[1]);
		EXPECT(srdma_stream_new(conns[0], NULL, &stream), 0);
		switch (i) {
		case 0: EXPECT(srdma_conn_send(conns[1], "hello, who are you?", 20, -1), 0); break;
		case 1: send_frame(conns[1], 2, 0, 0, 24); break;
		case 2: send_frame(conns[1], 1, 65537, 0, 16); break;
		case 3: send_frame(conns[1], 1, SRDMA_STREAM_REGION_MIN - 1, 0, 16); break;
		case 4: EXPECT(srdma_conn_send(conns[1], &own, 16, -1), 0); break;
		}
		EXPECT(srdma_stream_write(stream, "x", 1, -1), SRDMA_EPROTOCOL);
		if (i == 0 || i == 4)
			fact_text(rig, i == 0 ? "text" : "echo", srdma_error_text());
		EXPECT(srdma_stream_flush(stream, -1), SRDMA_EPROTOCOL);
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
	stream_prepare(rig, "65536");
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

	stream_prepare(rig, "65536");
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
