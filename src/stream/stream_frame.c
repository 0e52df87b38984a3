/* SPDX-License-Identifier: Apache-2.0 */
#include "stream_frame.h"

#include "cursor.h"
#include "log.h"

/* "SRST" */
#define MAGIC 0x53525354u

size_t srdma_stream_frame_encode(uint8_t out[SRDMA_STREAM_HEADER], const struct srdma_stream_frame *frame)
{
	struct srdma_writer w;

	srdma_writer_init(&w, out, SRDMA_STREAM_HEADER);
	srdma_put_u8(&w, (uint8_t)frame->type);
	srdma_put_u8(&w, SRDMA_STREAM_VERSION);
	srdma_put_u16(&w, frame->type == SRDMA_STREAM_OPEN && frame->by_acceptor);
	srdma_put_u32(&w, MAGIC);
	if (frame->type == SRDMA_STREAM_OPEN) {
		srdma_put_u64(&w, frame->ring_size);
	} else {
		srdma_put_u64(&w, frame->total);
		srdma_put_u64(&w, frame->read);
	}
	return srdma_writer_length(&w);
}

static int malformed(const char *what, size_t length)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer's message of %zu byte%s %s; make a stream of both ends before either sends a message", length,
			  SRDMA_S(length), what);
}

int srdma_stream_frame_decode(const void *message, size_t length, struct srdma_stream_frame *out)
{
	struct srdma_stream_frame frame = {0};
	struct srdma_reader r;
	uint8_t version;
	uint16_t role;
	uint32_t magic;

	srdma_reader_init(&r, message, length);
	frame.type = srdma_get_u8(&r);
	version = srdma_get_u8(&r);
	role = srdma_get_u16(&r);
	magic = srdma_get_u32(&r);
	if (r.overrun || magic != MAGIC)
		return malformed("is not one of a stream", length);
	if (version != SRDMA_STREAM_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's stream has version %u, and this end knows version %u", version, SRDMA_STREAM_VERSION);
	if (frame.type == SRDMA_STREAM_OPEN) {
		frame.ring_size = srdma_get_u64(&r);
		frame.by_acceptor = role == 1;
	} else {
		frame.total = srdma_get_u64(&r);
		frame.read = srdma_get_u64(&r);
	}
	frame.data = r.at;
	frame.length = r.left;
	if (r.overrun || role > (frame.type == SRDMA_STREAM_OPEN) || frame.type < SRDMA_STREAM_OPEN || frame.type > SRDMA_STREAM_ABORT)
		return malformed("has a malformed header", length);
	if (frame.type == SRDMA_STREAM_ABORT ? frame.length > SRDMA_STREAM_REASON_MAX : (frame.type == SRDMA_STREAM_DATA) != (frame.length > 0))
		return malformed("has bytes where none belong, or none where some do", length);
	*out = frame;
	return 0;
}
