/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a stream: options, construction, the end; what a program may ask. */
#include "stream.h"

#include "log.h"
#include "sized.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGION_SIZE (1u << 20)
#define BUFFER_SIZE (1u << 20)
#define BUFFER_MIN 4096u
#define BUFFER_MAX (1u << 30)
/* The longest piece that goes in a message: one that is longer costs more to copy than a write costs. */
#define INLINE_MAX 8192u

SRDMA_DEFAULTS(srdma_stream_options, .buffer_size = BUFFER_SIZE)

void srdma_stream_conn_options_init_sized(struct srdma_conn_options *options, size_t size)
{
	struct srdma_conn_options defaults;

	srdma_conn_options_init(&defaults);
	defaults.region_size = REGION_SIZE;
	defaults.region_access = IBV_ACCESS_REMOTE_WRITE;
	defaults.depth = 32;
	srdma_sized_init(options, size, &defaults, sizeof defaults);
}

/* The connection is about to be freed. */
static void let_go(struct srdma_stream *stream)
{
	stream->conn = NULL;
	stream->in.ring = NULL;
}

static int check_conn(const struct srdma_conn *conn)
{
	if (conn->options.raw)
		return srdma_fail(-EOPNOTSUPP, "a raw connection carries no stream; use its queue pair");
	if (conn->had_stream)
		return srdma_fail(-EBUSY, "the connection has, or had, a stream; a connection has one in its life");
	if (conn->region.size < SRDMA_STREAM_REGION_MIN)
		return srdma_fail(-ENXIO, "a stream needs a region of %d bytes or more (region-size), and this end offers one of %zu",
				  SRDMA_STREAM_REGION_MIN, conn->region.size);
	if (!(conn->region.rights & IBV_ACCESS_REMOTE_WRITE))
		return srdma_fail(-ENXIO, "a stream needs a region that the peer may write to (region-access)");
	return 0;
}

static int make(struct srdma_stream *stream, struct srdma_conn *conn, size_t buffer_size)
{
	size_t most = conn->queues.message_size - SRDMA_STREAM_HEADER;
	int ret;

	stream->scratch = calloc(1, conn->queues.message_size);
	if (!stream->scratch)
		return srdma_fail(-ENOMEM, "out of memory for a stream");
	ret = srdma_buffer_new(conn, NULL, buffer_size, &stream->out.buffer);
	if (ret != 0)
		return ret;
	stream->out.data = srdma_buffer_data(stream->out.buffer);
	stream->out.size = buffer_size;
	stream->in.ring = conn->region.address;
	stream->in.size = conn->region.size;
	stream->in.before = conn->sealed_rdma.peer_wrote;
	/* A message waits for earlier sealed writes, and a sealed write that is short goes in a record of its own anyway. */
	stream->inline_max = conn->sealed ? 0 : most < INLINE_MAX ? most : INLINE_MAX;
	return 0;
}

int srdma_stream_new(struct srdma_conn *conn, const struct srdma_stream_options *given, struct srdma_stream **out)
{
	struct srdma_stream_options options;
	struct srdma_stream *stream;
	int ret = SRDMA_SIZED_TAKE(srdma_stream_options, buffer_size, given, &options);

	if (ret == 0 && (options.buffer_size < BUFFER_MIN || options.buffer_size > BUFFER_MAX))
		ret = srdma_fail(-EINVAL, "buffer_size %zu is out of range; give %u to %u", options.buffer_size, BUFFER_MIN, BUFFER_MAX);
	if (ret == 0)
		ret = check_conn(conn);
	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret != 0)
		return ret;
	stream = calloc(1, sizeof *stream);
	ret = stream ? make(stream, conn, options.buffer_size) : srdma_fail(-ENOMEM, "out of memory for a stream");
	if (ret != 0) {
		srdma_stream_free(&stream);
		return ret;
	}
	stream->conn = conn;
	conn->stream = stream;
	conn->stream_let_go = let_go;
	conn->had_stream = true;
	srdma_stream_pump(stream);
	*out = stream;
	return 0;
}

void srdma_stream_free(struct srdma_stream **out)
{
	struct srdma_stream *stream = *out;
	struct srdma_conn *conn = stream ? stream->conn : NULL;

	*out = NULL;
	if (!stream)
		return;
	if (conn)
		conn->stream = NULL;
	/* Nothing may use the buffer any more, and the peer would not know how far the stream got. */
	if (conn && conn->status == 0 && stream->out.in_flight > 0)
		srdma_conn_end(conn, srdma_fail(-ECONNABORTED, "the program deleted a stream before everything that it had written was sent"));
	srdma_buffer_free(&stream->out.buffer);
	if (stream->scratch && stream->conn)
		OPENSSL_cleanse(stream->scratch, stream->conn->queues.message_size);
	free(stream->scratch);
	free(stream);
}

struct srdma_conn *srdma_stream_conn(const struct srdma_stream *stream)
{
	return stream->conn;
}

int srdma_stream_fd(const struct srdma_stream *stream)
{
	return stream->conn ? srdma_conn_fd(stream->conn) : -1;
}

int srdma_stream_check(const struct srdma_stream *stream)
{
	if (stream->aborted)
		return srdma_fail(-ECONNABORTED, "this end aborted the stream%s%s", stream->reason[0] ? ": " : "", stream->reason);
	if (stream->peer_aborted)
		return srdma_fail(-ECONNRESET, "the peer aborted the stream%s%s", stream->reason[0] ? ": " : "", stream->reason);
	if (!stream->conn)
		return srdma_fail(SRDMA_ECLOSED, "the connection of the stream was freed");
	return srdma_conn_check(stream->conn);
}

bool srdma_stream_is_over(const struct srdma_stream *stream)
{
	const struct srdma_conn *conn = stream->conn;

	return stream->aborted || stream->peer_aborted || !conn || conn->status != 0 || conn->closing.requested || srdma_conn_has_parted(conn);
}

int srdma_stream_abort(struct srdma_stream *stream, const char *reason)
{
	int ret;

	if (stream->aborted || stream->peer_aborted)
		return 0;
	ret = srdma_stream_check(stream);
	if (ret != 0)
		return ret;
	snprintf(stream->reason, sizeof stream->reason, "%s", reason ? reason : "");
	stream->aborted = true;
	srdma_stream_pump(stream);
	return 0;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static bool can_either(const struct srdma_stream *stream)
{
	return srdma_stream_can_read(stream) || srdma_stream_can_write(stream);
}

int srdma_stream_wait(struct srdma_stream *stream, short events, int timeout_ms)
{
	bool in = events & POLLIN, out = events & POLLOUT;
	bool (*ready)(const struct srdma_stream *stream) = in && out ? can_either : in ? srdma_stream_can_read : out ? srdma_stream_can_write
														     : srdma_stream_is_over;
	const char *what = in && out ? "bytes of the stream, or room for some" : in ? "bytes of the stream" : out ? "room in the stream"
														   : "the end of the stream";
	struct srdma_patience patience;
	int ret;

	if (events & ~(POLLIN | POLLOUT))
		return srdma_fail(-EINVAL, "cannot wait for events 0x%x; give POLLIN, POLLOUT, both, or 0", events);
	if (!stream->conn)
		return events;
	patience = srdma_conn_patience(stream->conn, timeout_ms);
	stream->takes_wake = true;
	ret = srdma_stream_await(stream, ready, what, &patience);
	stream->takes_wake = false;
	if (stream->conn->woken && ret == 0 && !stream->ready(stream)) {
		stream->conn->woken = false;
		return srdma_fail(-EINTR, "another thread ended the wait (srdma_conn_wake)");
	}
	if (ret == -EAGAIN) {
		stream->wants.read |= in;
		stream->wants.write |= out;
	}
	if (ret != 0)
		return ret;
	return (in && srdma_stream_can_read(stream) ? POLLIN : 0) | (out && srdma_stream_can_write(stream) ? POLLOUT : 0);
}

bool srdma_stream_has_event(const struct srdma_stream *stream)
{
	const struct srdma_stream_wants *wants = &stream->wants;

	return wants->turn || (wants->read && srdma_stream_can_read(stream)) || (wants->write && srdma_stream_can_write(stream)) ||
	       (wants->flush && srdma_stream_is_flushed(stream));
}

void srdma_stream_begin_turn(struct srdma_stream *stream)
{
	stream->wants = (struct srdma_stream_wants){0};
}

void srdma_stream_ask_for_turn(struct srdma_stream *stream)
{
	stream->wants.turn = true;
}

void srdma_stream_get_info_sized(const struct srdma_stream *stream, struct srdma_stream_info *info, size_t size)
{
	const struct srdma_stream_info own = {
		.written = stream->out.written,
		.sent = stream->out.posted,
		.acknowledged = stream->out.peer_read,
		.arrived = stream->in.arrived,
		.read = stream->in.read,
		.buffer_size = stream->out.size,
		.ring_size = stream->in.size,
		.peer_ring_size = stream->out.peer_ring,
		.shut_down = stream->out.shut,
		.peer_shut_down = stream->in.ended,
		.aborted = stream->aborted || stream->peer_aborted,
	};

	srdma_sized_fill(info, size, &own, sizeof own);
}
