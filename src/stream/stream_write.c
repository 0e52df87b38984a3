/* SPDX-License-Identifier: Apache-2.0 */
/* What a program writes. */
#include "stream.h"

#include "log.h"

#include <errno.h>
#include <string.h>

/* A shorter write is copied: to register its memory, and to wait for the peer, costs more. On uroce the copy is the faster way up to
 * about this size. */
#define DIRECT_MIN (4u << 20)

/* Free bytes of the buffer. */
static size_t room(const struct srdma_stream_out *out)
{
	return out->size - (size_t)(out->written - out->completed);
}

/* 0 while this end may write. */
static int check_writing(const struct srdma_stream *stream)
{
	const struct srdma_stream_out *out = &stream->out;
	int ret = srdma_stream_check(stream);

	if (ret == 0 && out->error)
		ret = srdma_fail(out->error, "%s", out->error_text);
	return ret;
}

static bool cannot_write(const struct srdma_stream *stream)
{
	return srdma_stream_is_over(stream) || stream->conn->closing.peer_requested || stream->out.error;
}

bool srdma_stream_can_write(const struct srdma_stream *stream)
{
	/* Until the peer has made its stream, nothing of the program's is taken: there may never be one. */
	return (stream->out.peer_ring > 0 && room(&stream->out) > 0) || stream->out.shut || cannot_write(stream);
}

static int check_open(const struct srdma_stream *stream)
{
	int ret = check_writing(stream);

	return ret == 0 && stream->out.shut ? srdma_fail(-EPIPE, "the program has shut the stream down for writing") : ret;
}

#define AWAITS_ROOM "the peer to read the stream"

/* Waits until there is room in the buffer. */
static int await_room(struct srdma_stream *stream, struct srdma_patience *patience)
{
	int ret = check_open(stream);

	if (ret == 0 && !srdma_stream_can_write(stream)) {
		ret = srdma_stream_await(stream, srdma_stream_can_write, stream->out.peer_ring ? AWAITS_ROOM : "the peer to make its stream", patience);
		stream->wants.write = ret == -EAGAIN;
		if (ret == 0)
			ret = check_open(stream);
	}
	return ret;
}

/* ---- without a copy -------------------------------------------------------------------------------------------- */

ssize_t srdma_stream_reserve(struct srdma_stream *stream, void **data, int timeout_ms)
{
	struct srdma_stream_out *out = &stream->out;
	size_t at = out->written % out->size, together = out->size - at;
	int ret = check_open(stream);

	if (ret == 0) {
		struct srdma_patience patience = srdma_conn_patience(stream->conn, timeout_ms);

		ret = await_room(stream, &patience);
	}
	if (ret != 0)
		return ret;
	out->reserved = together < room(out) ? together : room(out);
	*data = out->data + at;
	return (ssize_t)out->reserved;
}

int srdma_stream_commit(struct srdma_stream *stream, size_t length)
{
	int ret = check_open(stream);

	if (ret != 0)
		return ret;
	if (length > stream->out.reserved)
		return srdma_fail(-EINVAL, "cannot write %zu byte%s that srdma_stream_reserve did not lend; it lent %zu", length, SRDMA_S(length),
				  stream->out.reserved);
	stream->out.reserved = 0;
	stream->out.written += length;
	srdma_stream_pump(stream);
	return 0;
}

/* ---- from the program's memory --------------------------------------------------------------------------------- */

static bool can_post_directly(const struct srdma_stream *stream)
{
	const struct srdma_stream_out *out = &stream->out;

	return cannot_write(stream) || (out->peer_ring > 0 && out->posted == out->written && srdma_stream_may_post(stream));
}

static bool is_complete(const struct srdma_stream *stream)
{
	return stream->out.in_flight == 0 || !stream->conn || stream->conn->status != 0;
}

/* Posts the program's memory piece by piece. */
static int post_all(struct srdma_stream *stream, struct srdma_buffer *buffer, size_t length, size_t *done, struct srdma_patience *patience)
{
	int ret = 0;

	while (ret == 0 && *done < length) {
		size_t n;

		ret = srdma_stream_await(stream, can_post_directly, AWAITS_ROOM, patience);
		if (ret == 0)
			ret = check_open(stream);
		n = ret == 0 ? srdma_stream_post(stream, buffer, *done, length - *done) : 0;
		stream->out.written += n;
		*done += n;
	}
	return ret;
}

/* Returns when the device uses the memory no more. *done: how many bytes are the peer's. */
static int write_directly(struct srdma_stream *stream, const void *data, size_t length, size_t *done, struct srdma_patience *patience)
{
	struct srdma_conn *conn = stream->conn;
	struct srdma_buffer *buffer;
	int ret = srdma_buffer_lend(conn, data, length, &buffer), complete;

	if (ret != 0)
		return ret;
	ret = post_all(stream, buffer, length, done, patience);
	complete = srdma_stream_await(stream, is_complete, "the peer to acknowledge what was written", patience);
	if (complete != 0 && conn->status == 0)
		srdma_conn_end(conn, complete);
	srdma_buffer_free(&buffer);
	return complete != 0 ? complete : ret;
}

static size_t copy(struct srdma_stream *stream, const char *data, size_t length)
{
	struct srdma_stream_out *out = &stream->out;
	size_t n = length < room(out) ? length : room(out), at = out->written % out->size, first = out->size - at;

	first = first < n ? first : n;
	memcpy(out->data + at, data, first);
	memcpy(out->data, data + first, n - first);
	out->reserved = 0;
	out->written += n;
	srdma_stream_pump(stream);
	return n;
}

static int write_some(struct srdma_stream *stream, const char *data, size_t length, size_t *done, struct srdma_patience *patience)
{
	int ret;

	if (length - *done >= DIRECT_MIN && patience->ms >= stream->conn->options.timeout_ms) {
		size_t direct = 0;

		ret = write_directly(stream, data + *done, length - *done, &direct, patience);
		*done += direct;
		return ret;
	}
	ret = await_room(stream, patience);
	if (ret == 0)
		*done += copy(stream, data + *done, length - *done);
	return ret;
}

ssize_t srdma_stream_write(struct srdma_stream *stream, const void *data, size_t length, int timeout_ms)
{
	struct srdma_patience patience;
	size_t done = 0;
	int ret = check_open(stream);

	if (ret != 0)
		return ret;
	patience = srdma_conn_patience(stream->conn, timeout_ms);
	while (ret == 0 && done < length)
		ret = write_some(stream, data, length, &done, &patience);
	/* The next call returns an error that stays. */
	return done > 0 || length == 0 ? (ssize_t)done : ret;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

int srdma_stream_shutdown(struct srdma_stream *stream)
{
	int ret = srdma_stream_check(stream);

	if (ret != 0)
		return ret;
	stream->out.shut = true;
	srdma_stream_pump(stream);
	return 0;
}

static bool has_sent_all(const struct srdma_stream *stream)
{
	const struct srdma_stream_out *out = &stream->out;

	if (stream->aborted)
		return stream->abort_sent;
	return out->completed == out->written && (stream->conn->sealed || out->announced == out->written) && out->fin_sent == out->shut;
}

bool srdma_stream_is_flushed(const struct srdma_stream *stream)
{
	return (stream->conn && has_sent_all(stream)) || (srdma_stream_is_over(stream) && !stream->aborted) || !stream->conn ||
	       stream->conn->status != 0 || stream->out.error;
}

int srdma_stream_flush(struct srdma_stream *stream, int timeout_ms)
{
	int ret;

	if (stream->conn && !srdma_stream_is_flushed(stream)) {
		struct srdma_patience patience = srdma_conn_patience(stream->conn, timeout_ms);

		ret = srdma_stream_await(stream, srdma_stream_is_flushed, "the peer to take what was written", &patience);
		stream->wants.flush = ret == -EAGAIN;
		if (ret != 0)
			return ret;
	}
	if (stream->conn && stream->aborted && stream->abort_sent)
		return 0;
	/* With an error that came before the peer had made its stream, nothing was sent and all is wrong. */
	if (stream->conn && has_sent_all(stream) && !stream->peer_aborted && (stream->out.peer_ring > 0 || stream->conn->status == 0))
		return 0;
	return check_writing(stream);
}
