/* SPDX-License-Identifier: Apache-2.0 */
/* The work of a stream that needs no waiting, and the wait for everything else. */
#include "stream.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* An end that reads reports it when it has read so much of its ring: with less, the writer would wait for room; with more messages, both
 * ends would have more work. */
#define REPORT_PARTS 4
/* Looks that a call takes before it minds its time. */
#define ROUNDS_MAX 16
/* A chunk is at most such a part of the peer's ring, so that the ends work at the same time. */
#define CHUNK_PARTS 4

static bool can_send(const struct srdma_conn *conn)
{
	/* Unlike a program's message, one of a stream need not wait for sealed writes: it has its place in the stream in it. */
	return conn->status == 0 && !conn->closing.requested && !conn->closing.peer_requested && srdma_queues_can_send(&conn->queues);
}

/* Sends a message with `length` bytes behind its header; the caller has checked can_send. */
static bool send_frame(struct srdma_stream *stream, struct srdma_stream_frame *frame, const void *data, size_t length)
{
	struct srdma_conn *conn = stream->conn;
	size_t header;
	int ret;

	frame->read = stream->in.read;
	frame->ring_size = stream->in.size;
	frame->by_acceptor = srdma_tls_is_server(conn->tls);
	header = srdma_stream_frame_encode(stream->scratch, frame);
	if (length > 0)
		memcpy(stream->scratch + header, data, length);
	ret = srdma_queues_send(&conn->queues, stream->scratch, (uint32_t)(header + length));
	if (ret != 0)
		srdma_conn_end(conn, ret);
	else if (frame->type != SRDMA_STREAM_OPEN)
		stream->in.reported = stream->in.read;
	return ret == 0;
}

static void advance(struct srdma_stream *stream)
{
	struct srdma_stream_frame frame = {.type = SRDMA_STREAM_ADVANCE, .total = stream->conn->sealed ? 0 : stream->out.posted};

	if (send_frame(stream, &frame, NULL, 0))
		stream->out.announced = stream->out.posted;
}

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many bytes may follow those that were posted: they lie together in the peer's ring, and there is room for them. */
static size_t room_at_peer(const struct srdma_stream_out *out)
{
	size_t taken = (size_t)(out->posted - out->peer_read), chunk = out->peer_ring / CHUNK_PARTS;

	if (out->peer_ring == 0)
		return 0;
	return least(least(out->peer_ring - taken, out->peer_ring - out->posted % out->peer_ring), least(chunk, SRDMA_STREAM_CHUNK));
}

static void note_posted(struct srdma_stream_out *out, size_t length)
{
	out->posted += length;
	if (out->in_flight == 0)
		out->completed = out->posted;
}

bool srdma_stream_may_post(const struct srdma_stream *stream)
{
	size_t room = room_at_peer(&stream->out);

	return room > 0 && !stream->out.error && stream->conn->status == 0 && srdma_conn_can_post(stream->conn, room);
}

size_t srdma_stream_post(struct srdma_stream *stream, struct srdma_buffer *buffer, size_t offset, size_t length)
{
	struct srdma_stream_out *out = &stream->out;
	struct srdma_conn *conn = stream->conn;
	size_t n = least(length, room_at_peer(out));
	int ret;

	if (n == 0 || !srdma_stream_may_post(stream))
		return 0;
	ret = srdma_conn_post_write(conn, buffer, offset, n, out->posted % out->peer_ring, out->posted + n);
	if (ret == -EAGAIN)
		return 0;
	if (ret != 0) {
		/* An error that did not end the connection is the peer's region that is gone. */
		out->error = ret;
		srdma_error_keep(out->error_text, sizeof out->error_text);
		return 0;
	}
	out->in_flight++;
	out->posted += n;
	if (!conn->sealed && can_send(conn))
		advance(stream);
	return n;
}

/* Sends the last bytes of the buffer in a message. */
static bool send_inline(struct srdma_stream *stream, size_t at, size_t length)
{
	struct srdma_stream_out *out = &stream->out;
	struct srdma_stream_frame frame = {.type = SRDMA_STREAM_DATA, .total = out->posted + length};

	if (!send_frame(stream, &frame, out->data + at, length))
		return false;
	note_posted(out, length);
	out->announced = out->posted;
	return true;
}

static void send_bytes(struct srdma_stream *stream)
{
	struct srdma_stream_out *out = &stream->out;

	while (out->posted < out->written && stream->conn->status == 0) {
		size_t at = out->posted % out->size, left = (size_t)(out->written - out->posted);
		size_t together = least(left, out->size - at), free;

		if (out->peer_ring == 0)
			break;
		free = out->peer_ring - (size_t)(out->posted - out->peer_read);
		/* A message cannot say that bytes before it have come unless it says so of all. */
		if (together <= stream->inline_max && together == left && left <= free && can_send(stream->conn)) {
			if (!send_inline(stream, at, together))
				break;
		} else if (srdma_stream_post(stream, out->buffer, at, together) == 0) {
			break;
		}
	}
}

/* ---- notices --------------------------------------------------------------------------------------------------- */

static bool owes_report(const struct srdma_stream *stream)
{
	const struct srdma_stream_in *in = &stream->in;

	return in->read - in->reported >= in->size / REPORT_PARTS || (in->ended && in->read == in->total && in->reported < in->read);
}

static bool owes_fin(const struct srdma_stream *stream)
{
	return stream->out.shut && !stream->out.fin_sent && stream->out.posted == stream->out.written && !stream->aborted;
}

static bool owes_abort(const struct srdma_stream *stream)
{
	return stream->aborted && !stream->abort_sent;
}

/* Whether a message is due. */
static bool owes_message(const struct srdma_stream *stream)
{
	const struct srdma_stream_out *out = &stream->out;

	if (!out->opened)
		return true;
	if (out->peer_ring == 0 || stream->peer_aborted)
		return false;
	return owes_abort(stream) || owes_fin(stream) || owes_report(stream) || (!stream->conn->sealed && out->announced < out->posted);
}

static void send_notices(struct srdma_stream *stream)
{
	struct srdma_stream_out *out = &stream->out;
	struct srdma_stream_frame frame = {.total = out->posted};
	size_t reason = strlen(stream->reason), room = stream->conn->queues.message_size - SRDMA_STREAM_HEADER;

	while (owes_message(stream) && can_send(stream->conn)) {
		if (!out->opened) {
			frame.type = SRDMA_STREAM_OPEN;
			out->opened = send_frame(stream, &frame, NULL, 0);
		} else if (owes_abort(stream)) {
			frame.type = SRDMA_STREAM_ABORT;
			stream->abort_sent = send_frame(stream, &frame, stream->reason, least(reason, room));
		} else if (owes_fin(stream)) {
			frame.type = SRDMA_STREAM_FIN;
			out->fin_sent = send_frame(stream, &frame, NULL, 0);
			out->announced = out->posted;
		} else {
			advance(stream);
		}
	}
}

/* ---- the pump -------------------------------------------------------------------------------------------------- */

void srdma_stream_pump(struct srdma_stream *stream)
{
	struct srdma_conn *conn = stream->conn;

	if (!conn)
		return;
	srdma_stream_take(stream);
	if (conn->status != 0)
		return;
	if (!stream->aborted && !stream->peer_aborted)
		send_bytes(stream);
	send_notices(stream);
}

/* Whether bytes wait that could go now. */
static bool can_send_bytes(const struct srdma_stream *stream)
{
	const struct srdma_stream_out *out = &stream->out;

	return out->posted < out->written && !stream->aborted && !stream->peer_aborted && srdma_stream_may_post(stream);
}

bool srdma_stream_has_work(const struct srdma_stream *stream)
{
	const struct srdma_conn *conn = stream->conn;

	if (!conn)
		return false;
	if (srdma_queues_has_message(&conn->queues) && srdma_rate_is_open(&conn->rate))
		return true;
	if (conn->queues.done_ring.count > 0 || (conn->sealed && conn->sealed_rdma.peer_wrote - stream->in.before != stream->in.arrived))
		return true;
	return conn->status == 0 && ((owes_message(stream) && can_send(conn)) || can_send_bytes(stream));
}

static bool has_news(const struct srdma_conn *conn)
{
	return conn->stream->ready(conn->stream) || srdma_stream_has_work(conn->stream) || (conn->woken && conn->stream->takes_wake);
}

/* A peer that goes on sending what this call does not wait for must not hold it up. */
static int check_patience(struct srdma_stream *stream, unsigned rounds, const char *what, struct srdma_patience *patience)
{
	if (patience->ms == 0) {
		if (rounds < ROUNDS_MAX)
			return 0;
		/* No descriptor announces what is left. */
		srdma_conn_nudge(stream->conn);
		return srdma_again(what);
	}
	if (patience->deadline == 0)
		patience->deadline = srdma_deadline(patience->ms);
	if (rounds % ROUNDS_MAX == 0 && srdma_deadline_left_ms(patience->deadline) == 0)
		return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for %s", patience->ms, what);
	return 0;
}

int srdma_stream_await(struct srdma_stream *stream, bool (*ready)(const struct srdma_stream *stream), const char *what,
		       struct srdma_patience *patience)
{
	int ret = 0;

	srdma_stream_pump(stream);
	stream->ready = ready;
	for (unsigned rounds = 1; ret == 0 && !ready(stream) && !(stream->conn->woken && stream->takes_wake); rounds++) {
		ret = srdma_conn_wait_until(stream->conn, has_news, what, patience);
		srdma_stream_pump(stream);
		if (ret == 0 && !ready(stream))
			ret = check_patience(stream, rounds, what, patience);
	}
	return ready(stream) ? 0 : ret;
}
