/* SPDX-License-Identifier: Apache-2.0 */
/* Control records of sealed writes and reads: the decoder returns what was encoded, and takes nothing else. */
#include "test.h"

#include "sealed_record.h"
#include "securdma.h"

static const struct srdma_sealed_header write_chunk = {
	.type = SRDMA_SEALED_WRITE, .length = 0x20000, .offset = 0x123456789aull, .address = 0x40040, .rkey = 0xdeadbeef};
static const struct srdma_sealed_header answer = {.type = SRDMA_SEALED_ANSWER, .length = 5, .offset = 7, .address = 64, .rkey = 1};
static const struct srdma_sealed_header read_some = {.type = SRDMA_SEALED_READ, .offset = 99, .address = 1 << 20, .region = 0xfedc};
static const struct srdma_sealed_header ack = {.type = SRDMA_SEALED_ACK, .length = 3};

static uint32_t put(uint8_t *out, const struct srdma_sealed_header *headers, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		srdma_sealed_encode(out + i * SRDMA_SEALED_HEADER, &headers[i]);
	return count * SRDMA_SEALED_HEADER;
}

TEST(header_has_the_bytes_of_the_protocol)
{
	static const uint8_t expected[SRDMA_SEALED_HEADER] = {
		1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0, 0, 0, 0, 0, 4, 0, 0x40, 0xde, 0xad, 0xbe, 0xef};
	uint8_t bytes[SRDMA_SEALED_HEADER];

	srdma_sealed_encode(bytes, &write_chunk);
	assert_memory_equal(bytes, expected, sizeof expected);
}

TEST(several_chunks_or_reads_come_out_as_they_went_in)
{
	struct srdma_sealed_header in[SRDMA_SEALED_BATCH], out[SRDMA_SEALED_BATCH];
	uint8_t bytes[sizeof in];

	for (uint32_t n = 1; n <= SRDMA_SEALED_BATCH; n++) {
		for (uint32_t i = 0; i < n; i++)
			in[i] = i % 2 ? answer : write_chunk;
		assert_int_equal(srdma_sealed_decode(bytes, put(bytes, in, n), out), n);
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(out[i].type, in[i].type);
			assert_int_equal(out[i].length, in[i].length);
			assert_int_equal(out[i].offset, in[i].offset);
			assert_int_equal(out[i].address, in[i].address);
			assert_int_equal(out[i].rkey, in[i].rkey);
			assert_int_equal(out[i].region, in[i].region);
			assert_false(out[i].within);
			in[i] = read_some;
		}
		assert_int_equal(srdma_sealed_decode(bytes, put(bytes, in, n), out), n);
		assert_int_equal(out[n - 1].address, read_some.address);
	}
}

TEST(chunk_within_is_as_long_as_it_says)
{
	struct srdma_sealed_header h = {.type = SRDMA_SEALED_WRITE, .within = true, .length = 100}, out[SRDMA_SEALED_BATCH];
	uint8_t bytes[SRDMA_SEALED_HEADER + 101] = {0};

	put(bytes, &h, 1);
	assert_int_equal(srdma_sealed_decode(bytes, SRDMA_SEALED_HEADER + 100, out), 1);
	assert_true(out[0].within);
	assert_int_equal(srdma_sealed_decode(bytes, SRDMA_SEALED_HEADER + 99, out), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_sealed_decode(bytes, SRDMA_SEALED_HEADER + 101, out), SRDMA_EPROTOCOL);
	h.length = 0;
	put(bytes, &h, 1);
	assert_int_equal(srdma_sealed_decode(bytes, SRDMA_SEALED_HEADER, out), 1);
}

static void expect_refused(const struct srdma_sealed_header *headers, uint32_t count)
{
	struct srdma_sealed_header out[SRDMA_SEALED_BATCH];
	uint8_t bytes[(SRDMA_SEALED_BATCH + 1) * SRDMA_SEALED_HEADER];

	assert_int_equal(srdma_sealed_decode(bytes, put(bytes, headers, count), out), SRDMA_EPROTOCOL);
}

TEST(mixture_is_refused)
{
	const struct srdma_sealed_header within = {.type = SRDMA_SEALED_WRITE, .within = true};

	expect_refused((struct srdma_sealed_header[]){write_chunk, read_some}, 2);
	expect_refused((struct srdma_sealed_header[]){read_some, answer}, 2);
	expect_refused((struct srdma_sealed_header[]){ack, ack}, 2);
	expect_refused((struct srdma_sealed_header[]){write_chunk, ack}, 2);
	expect_refused((struct srdma_sealed_header[]){write_chunk, within}, 2);
	expect_refused((struct srdma_sealed_header[]){within, write_chunk}, 2);
	expect_refused((struct srdma_sealed_header[]){{.type = SRDMA_SEALED_READ, .within = true}}, 1);
	expect_refused((struct srdma_sealed_header[]){{.type = SRDMA_SEALED_ACK, .within = true}}, 1);
}

TEST(unknown_type_and_reserved_bits_are_refused)
{
	struct srdma_sealed_header out[SRDMA_SEALED_BATCH];
	uint8_t bytes[SRDMA_SEALED_HEADER];

	for (unsigned type = 0; type < 256; type++) {
		struct srdma_sealed_header h = {.type = (uint8_t)type};

		put(bytes, &h, 1);
		assert_int_equal(srdma_sealed_decode(bytes, sizeof bytes, out), type >= 1 && type <= 4 ? 1 : SRDMA_EPROTOCOL);
	}
	for (unsigned bit = 0; bit < 23; bit++) { /* of `within`, all but the lowest, and of the reserved ones */
		unsigned at = bit < 7 ? 1 : 2 + (bit - 7) / 8, shift = bit < 7 ? bit + 1 : (bit - 7) % 8;

		put(bytes, bit < 7 ? &write_chunk : bit % 2 ? &answer : &ack, 1); /* a write and a read have the region there */
		bytes[at] |= (uint8_t)(1u << shift);
		assert_int_equal(srdma_sealed_decode(bytes, sizeof bytes, out), SRDMA_EPROTOCOL);
	}
}

TEST(wrong_length_is_refused)
{
	struct srdma_sealed_header nine[SRDMA_SEALED_BATCH + 1], out[SRDMA_SEALED_BATCH];
	uint8_t bytes[sizeof nine];

	for (uint32_t i = 0; i <= SRDMA_SEALED_BATCH; i++)
		nine[i] = write_chunk;
	expect_refused(nine, SRDMA_SEALED_BATCH + 1);
	put(bytes, nine, 2);
	for (uint32_t length = 0; length <= 2 * SRDMA_SEALED_HEADER; length++)
		assert_int_equal(srdma_sealed_decode(bytes, length, out),
				 length > 0 && length % SRDMA_SEALED_HEADER == 0 ? (int)(length / SRDMA_SEALED_HEADER)
									       : SRDMA_EPROTOCOL);
}

RUN_TESTS(NULL, NULL)
