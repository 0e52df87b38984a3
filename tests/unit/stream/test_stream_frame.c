/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of a stream: what is written can be read, and nothing else can. */
#include "test.h"

#include "securdma.h"
#include "stream_frame.h"

static uint8_t message[SRDMA_STREAM_HEADER + SRDMA_STREAM_REASON_MAX + 1];

static size_t make(enum srdma_stream_frame_type type, size_t length)
{
	const struct srdma_stream_frame frame = {.type = type, .ring_size = 0x1122334455667788, .total = 0x8877665544332211, .read = 5};
	size_t header = srdma_stream_frame_encode(message, &frame);

	memset(message + header, 'x', length);
	return header + length;
}

static int decode(size_t length, struct srdma_stream_frame *frame)
{
	/* A block of that size, so that a sanitizer sees what is read beyond it. */
	uint8_t *copy = malloc(length ? length : 1);
	int ret;

	assert_non_null(copy);
	memcpy(copy, message, length);
	ret = srdma_stream_frame_decode(copy, length, frame);
	free(copy);
	return ret;
}

TEST(each_frame_is_read_as_it_was_written)
{
	struct srdma_stream_frame frame;

	assert_int_equal(decode(make(SRDMA_STREAM_OPEN, 0), &frame), 0);
	assert_int_equal(frame.type, SRDMA_STREAM_OPEN);
	assert_int_equal(frame.ring_size, 0x1122334455667788);
	assert_int_equal(decode(make(SRDMA_STREAM_DATA, 1), &frame), 0);
	assert_int_equal(frame.total, 0x8877665544332211);
	assert_int_equal(frame.read, 5);
	assert_int_equal(frame.length, 1);
	assert_int_equal(decode(make(SRDMA_STREAM_ADVANCE, 0), &frame), 0);
	assert_int_equal(decode(make(SRDMA_STREAM_FIN, 0), &frame), 0);
	assert_int_equal(decode(make(SRDMA_STREAM_ABORT, 0), &frame), 0);
	assert_int_equal(decode(make(SRDMA_STREAM_ABORT, SRDMA_STREAM_REASON_MAX), &frame), 0);
}

TEST(layout_is_that_of_the_protocol)
{
	static const uint8_t open[] = {1, 1, 0, 0, 'S', 'R', 'S', 'T', 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
	static const uint8_t fin[] = {4, 1, 0, 0, 'S', 'R', 'S', 'T', 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0, 5};

	assert_int_equal(make(SRDMA_STREAM_OPEN, 0), sizeof open);
	assert_memory_equal(message, open, sizeof open);
	assert_int_equal(make(SRDMA_STREAM_FIN, 0), sizeof fin);
	assert_memory_equal(message, fin, sizeof fin);
}

TEST(malformed_frames_are_refused)
{
	struct srdma_stream_frame frame;
	size_t length;

	for (length = 0; length < SRDMA_STREAM_HEADER; length++) {
		make(SRDMA_STREAM_ADVANCE, 0);
		assert_int_equal(decode(length, &frame), SRDMA_EPROTOCOL);
	}
	assert_int_equal(decode(make(SRDMA_STREAM_OPEN, 1), &frame), SRDMA_EPROTOCOL);
	assert_int_equal(decode(make(SRDMA_STREAM_OPEN, 0) - 1, &frame), SRDMA_EPROTOCOL);
	assert_int_equal(decode(make(SRDMA_STREAM_DATA, 0), &frame), SRDMA_EPROTOCOL);
	assert_int_equal(decode(make(SRDMA_STREAM_ADVANCE, 1), &frame), SRDMA_EPROTOCOL);
	assert_int_equal(decode(make(SRDMA_STREAM_FIN, 1), &frame), SRDMA_EPROTOCOL);
	assert_int_equal(decode(make(SRDMA_STREAM_ABORT, SRDMA_STREAM_REASON_MAX + 1), &frame), SRDMA_EPROTOCOL);
	for (size_t i = 0; i < 8; i++) {
		make(SRDMA_STREAM_ADVANCE, 0);
		message[i] ^= 0x80;
		assert_int_equal(decode(SRDMA_STREAM_HEADER, &frame), SRDMA_EPROTOCOL);
	}
	make(SRDMA_STREAM_ADVANCE, 0);
	message[0] = 0;
	assert_int_equal(decode(SRDMA_STREAM_HEADER, &frame), SRDMA_EPROTOCOL);
	message[0] = 6;
	assert_int_equal(decode(SRDMA_STREAM_HEADER, &frame), SRDMA_EPROTOCOL);
}

RUN_TESTS(NULL, NULL)
