/* SPDX-License-Identifier: Apache-2.0 */
/* What a program reads. */
#include "stream.h"

#include "log.h"

#include <errno.h>
#include <string.h>

/* Bytes in the ring that may be read. After an abort there are none. */
static size_t readable(const struct srdma_stream *stream)
{
	if (stream->aborted || stream->peer_aborted || !stream->conn)
		return 0;
	return (size_t)(stream->in.arrived - stream->in.read);
}

static bool is_at_end(const struct srdma_stream *stream)
{
	return stream->in.ended && stream->in.read == stream->in.total && !stream->aborted && !stream->peer_aborted;
}

bool srdma_stream_can_read(const struct srdma_stream *stream)
{
	return readable(stream) > 0 || is_at_end(stream) || srdma_stream_is_over(stream);
}

ssize_t srdma_stream_peek(struct srdma_stream *stream, const void **data, int timeout_ms)
{
	struct srdma_stream_in *in = &stream->in;
	size_t at, together;

	if (!srdma_stream_can_read(stream)) {
		struct srdma_patience patience = srdma_conn_patience(stream->conn, timeout_ms);
		int ret = srdma_stream_await(stream, srdma_stream_can_read, "bytes of the stream", &patience);

		stream->wants.read = ret == -EAGAIN;
		if (ret != 0)
			return ret;
	}
	in->found = 0;
	if (readable(stream) == 0)
		return is_at_end(stream) ? 0 : srdma_stream_check(stream);
	at = in->read % in->size;
	together = in->size - at;
	in->found = together < readable(stream) ? together : readable(stream);
	*data = in->ring + at;
	return (ssize_t)in->found;
}

int srdma_stream_consume(struct srdma_stream *stream, size_t length)
{
	if (length > stream->in.found)
		return srdma_fail(-EINVAL, "cannot take %zu byte%s of a stream; srdma_stream_peek found %zu", length, SRDMA_S(length), stream->in.found);
	stream->in.found -= length;
	stream->in.read += length;
	srdma_stream_pump(stream);
	return 0;
}

ssize_t srdma_stream_read(struct srdma_stream *stream, void *buffer, size_t size, int timeout_ms)
{
	size_t done = 0;
	ssize_t n = 0;

	if (size == 0)
		return 0;
	do {
		const void *data = NULL;

		/* Only the first bytes are worth a wait. */
		n = done > 0 && readable(stream) == 0 ? 0 : srdma_stream_peek(stream, &data, timeout_ms);
		if (n <= 0 || !data)
			break;
		n = (size_t)n < size - done ? n : (ssize_t)(size - done);
		memcpy((char *)buffer + done, data, (size_t)n);
		done += (size_t)n;
		srdma_stream_consume(stream, (size_t)n);
	} while (done < size);
	return done > 0 ? (ssize_t)done : n;
}
