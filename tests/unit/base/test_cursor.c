/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "cursor.h"

static const uint8_t bytes[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

TEST(numbers_are_read_big_endian)
{
	struct srdma_reader r;

	srdma_reader_init(&r, bytes, sizeof bytes);
	assert_int_equal(srdma_get_u8(&r), 0x01);
	assert_int_equal(srdma_get_u16(&r), 0x0203);
	assert_int_equal(srdma_get_u32(&r), 0x04050607);
	assert_false(srdma_reader_complete(&r));
	assert_true(srdma_get_u64(&r) == 0x08090a0b0c0d0e0f);
	assert_true(srdma_reader_complete(&r));
}

TEST(numbers_are_written_big_endian)
{
	struct srdma_writer w;
	uint8_t out[sizeof bytes];

	srdma_writer_init(&w, out, sizeof out);
	srdma_put_u8(&w, 0x01);
	srdma_put_u16(&w, 0x0203);
	srdma_put_u32(&w, 0x04050607);
	srdma_put_u64(&w, 0x08090a0b0c0d0e0f);
	assert_false(w.overrun);
	assert_int_equal(srdma_writer_length(&w), sizeof out);
	assert_memory_equal(out, bytes, sizeof bytes);
}

TEST(number_that_is_cut_short_reads_as_zero)
{
	for (unsigned size = 1; size <= 8; size *= 2) {
		struct srdma_reader r;

		srdma_reader_init(&r, bytes, size - 1);
		assert_true((size == 1   ? srdma_get_u8(&r)
			     : size == 2 ? srdma_get_u16(&r)
			     : size == 4 ? srdma_get_u32(&r)
					 : srdma_get_u64(&r)) == 0);
		assert_true(r.overrun);
	}
}

TEST(reader_stays_at_the_end_after_an_overrun)
{
	struct srdma_reader r;

	srdma_reader_init(&r, bytes, 3);
	srdma_get_u32(&r);
	/* The three bytes must not be taken for a later field. */
	assert_int_equal(srdma_get_u8(&r), 0);
	assert_int_equal(srdma_get_u16(&r), 0);
	assert_int_equal(r.left, 0);
	assert_false(srdma_reader_complete(&r));
}

TEST(bytes_beyond_the_end_are_zeroed)
{
	struct srdma_reader r;
	uint8_t out[6] = {0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa}, expected[6] = {0, 0, 0, 0, 0, 0xaa};

	srdma_reader_init(&r, bytes, 4);
	srdma_get_bytes(&r, out, 5);
	assert_true(r.overrun);
	assert_memory_equal(out, expected, sizeof out);
}

TEST(bytes_are_copied_up_to_the_last_one)
{
	struct srdma_reader r;
	uint8_t out[sizeof bytes];

	srdma_reader_init(&r, bytes, sizeof bytes);
	srdma_get_bytes(&r, out, sizeof bytes);
	assert_true(srdma_reader_complete(&r));
	assert_memory_equal(out, bytes, sizeof bytes);
}

TEST(absurd_length_is_an_overrun)
{
	struct srdma_writer w;
	uint8_t out[4] = {0};

	srdma_writer_init(&w, out, sizeof out);
	srdma_put_u8(&w, 1);
	srdma_put_bytes(&w, bytes, SIZE_MAX);
	assert_true(w.overrun);
	assert_int_equal(srdma_writer_length(&w), 1);
}

TEST(nothing_can_be_read_from_nothing)
{
	struct srdma_reader r;
	uint8_t out = 0xaa;

	srdma_reader_init(&r, NULL, 0);
	assert_true(srdma_reader_complete(&r));
	srdma_get_bytes(&r, &out, 0);
	assert_true(srdma_reader_complete(&r));
	assert_int_equal(out, 0xaa);
}

TEST(what_does_not_fit_is_left_out_and_remembered)
{
	struct srdma_writer w;
	uint8_t out[8], expected[8] = {0x12, 0x34, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa};

	memset(out, 0xaa, sizeof out);
	srdma_writer_init(&w, out, 4);
	srdma_put_u16(&w, 0x1234);
	srdma_put_u32(&w, 0x55555555);
	assert_true(w.overrun);
	/* It would fit, but the frame is broken already: a gap must not close silently. */
	srdma_put_u8(&w, 0x66);
	assert_true(w.overrun);
	assert_int_equal(srdma_writer_length(&w), 2);
	assert_memory_equal(out, expected, sizeof out);
}

TEST(writer_can_be_filled_to_the_last_byte)
{
	struct srdma_writer w;
	uint8_t out[5] = {0, 0, 0, 0, 0xaa};

	srdma_writer_init(&w, out, 4);
	srdma_put_u32(&w, 0xffffffff);
	assert_false(w.overrun);
	srdma_put_bytes(&w, NULL, 0);
	assert_false(w.overrun);
	srdma_put_u8(&w, 1);
	assert_true(w.overrun);
	assert_int_equal(out[4], 0xaa);
}

RUN_TESTS(NULL, NULL)
