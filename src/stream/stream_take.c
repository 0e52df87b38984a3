/* SPDX-License-Identifier: Apache-2.0 */
/* What has come: the peer's messages, completions of this end's writes, and bytes in the ring. Nothing that the peer says is believed. */
#include "stream.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The bytes up to `total` are in the ring, or will be before they count. */
static int check_total(const struct srdma_stream *stream, uint64_t total)
{
	const struct srdma_stream_in *in = &stream->in;

	if (total < in->arrived || (in->ended && total > in->total))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's stream stands at byte %llu, after %llu%s", (unsigned long long)total,
				  (unsigned long long)in->arrived, in->ended ? ", and it had ended" : "");
	if (total - in->read > in->size)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer writes more than the ring of %zu bytes has room for", in->size);
	return 0;
}

static int take_open(struct srdma_stream *stream, const struct srdma_stream_frame *frame)
{
	const struct srdma_conn *conn = stream->conn;

	if (stream->out.peer_ring > 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer made a second stream of the connection");
	if (frame->by_acceptor == srdma_tls_is_server(conn->tls))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer has sent this end's own first message back, so it has made no stream of its end");
	if (frame->ring_size < SRDMA_STREAM_REGION_MIN || frame->ring_size > conn->peer.region_size ||
	    !(conn->peer.region_access & IBV_ACCESS_REMOTE_WRITE))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer announces a ring of %llu bytes, and offers a region of %llu bytes%s",
				  (unsigned long long)frame->ring_size, (unsigned long long)conn->peer.region_size,
				  conn->peer.region_access & IBV_ACCESS_REMOTE_WRITE ? "" : " that may not be written to");
	stream->out.peer_ring = frame->ring_size;
	stream->wants.turn = true;
	return 0;
}

static int take_data(struct srdma_stream *stream, const struct srdma_stream_frame *frame)
{
	struct srdma_stream_in *in = &stream->in;
	size_t at, first;

	/* The bytes between, if any, were written before this message was sent, so they have come before it. */
	if (stream->conn->sealed || frame->total - in->arrived < frame->length)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's %zu byte%s of a stream do not follow those before", frame->length, SRDMA_S(frame->length));
	at = (frame->total - frame->length) % in->size;
	first = in->size - at;
	first = first < frame->length ? first : frame->length;
	memcpy(in->ring + at, frame->data, first);
	memcpy(in->ring, (const char *)frame->data + first, frame->length - first);
	return 0;
}

static void take_abort(struct srdma_stream *stream, const struct srdma_stream_frame *frame)
{
	if (stream->aborted || stream->peer_aborted)
		return;
	memcpy(stream->reason, frame->data, frame->length);
	stream->reason[frame->length] = '\0';
	srdma_make_printable(stream->reason, frame->length);
	stream->peer_aborted = true;
	stream->wants.turn = true;
}

/* Takes a frame other than OPEN. */
static int take_position(struct srdma_stream *stream, const struct srdma_stream_frame *frame)
{
	struct srdma_stream_in *in = &stream->in;
	bool counts = !stream->conn->sealed && frame->type != SRDMA_STREAM_ABORT;
	int ret = 0;

	if (stream->out.peer_ring == 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer uses a stream that it has not made");
	if (frame->read < stream->out.peer_read || frame->read > stream->out.posted)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer reports %llu bytes of the stream as read, after %llu, and %llu were sent",
				  (unsigned long long)frame->read, (unsigned long long)stream->out.peer_read,
				  (unsigned long long)stream->out.posted);
	if (counts || frame->type == SRDMA_STREAM_FIN)
		ret = check_total(stream, frame->total);
	if (ret == 0 && frame->type == SRDMA_STREAM_FIN && in->ended)
		ret = srdma_fail(SRDMA_EPROTOCOL, "the peer ends its stream twice");
	if (ret == 0 && frame->type == SRDMA_STREAM_DATA)
		ret = take_data(stream, frame);
	if (ret != 0)
		return ret;
	stream->out.peer_read = frame->read;
	if (counts)
		in->arrived = frame->total;
	if (frame->type == SRDMA_STREAM_FIN) {
		in->ended = true;
		in->total = frame->total;
	} else if (frame->type == SRDMA_STREAM_ABORT) {
		take_abort(stream, frame);
	}
	return 0;
}

static int take_message(struct srdma_stream *stream, const void *data, uint32_t length)
{
	struct srdma_stream_frame frame;
	int ret = srdma_stream_frame_decode(data, length, &frame);

	if (ret != 0)
		return ret;
	return frame.type == SRDMA_STREAM_OPEN ? take_open(stream, &frame) : take_position(stream, &frame);
}

static int take_messages(struct srdma_stream *stream)
{
	struct srdma_conn *conn = stream->conn;
	const void *data;
	uint32_t length;
	int ret = 0;

	while (ret == 0 && srdma_rate_is_open(&conn->rate) && srdma_conn_peek(conn, &data, &length) == 1) {
		ret = take_message(stream, data, length);
		if (ret != 0)
			return ret;
		srdma_rate_take(&conn->rate, length);
		ret = srdma_queues_consume(&conn->queues);
		/* A connection that is over takes no more messages; those that had come still count. */
		if (conn->status != 0 || conn->closing.finished)
			ret = 0;
	}
	return ret;
}

/* While sealed, this end itself puts the peer's bytes into the ring, and counts them. */
static int take_sealed_bytes(struct srdma_stream *stream)
{
	uint64_t arrived = stream->conn->sealed_rdma.peer_wrote - stream->in.before;
	int ret = stream->conn->sealed && arrived != stream->in.arrived ? check_total(stream, arrived) : 0;

	if (ret == 0 && stream->conn->sealed)
		stream->in.arrived = arrived;
	return ret;
}

static void take_completions(struct srdma_stream *stream)
{
	struct srdma_stream_out *out = &stream->out;
	uint64_t cookie;

	while (srdma_queues_take_done(&stream->conn->queues, &cookie)) {
		out->in_flight--;
		out->completed = out->in_flight == 0 ? out->posted : cookie;
	}
}

void srdma_stream_take(struct srdma_stream *stream)
{
	struct srdma_conn *conn = stream->conn;
	int ret = take_messages(stream);

	if (ret == 0)
		ret = take_sealed_bytes(stream);
	take_completions(stream);
	/* After the end of the connection what came before it still counts, and a failure does not. */
	if (ret != 0 && conn->status == 0 && !conn->closing.finished)
		srdma_conn_end(conn, ret);
}
