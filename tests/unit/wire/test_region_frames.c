/* SPDX-License-Identifier: Apache-2.0 */
/* The frames about regions with names: what is written can be read, and nothing else can. */
#include "test.h"

#include "region_frames.h"

static uint8_t frame[SRDMA_FRAME_MAX];

static int decode(const uint8_t *body, size_t length, struct srdma_region_key *keys, size_t *count)
{
	/* A block of that size, so that a sanitizer sees what is read beyond it. */
	uint8_t *copy = malloc(length ? length : 1);
	int ret;

	assert_non_null(copy);
	memcpy(copy, body, length);
	*count = 4711;
	ret = srdma_region_keys_decode(copy, length, keys, count);
	free(copy);
	return ret;
}

TEST(layout_of_the_keys_is_that_of_the_protocol)
{
	static const struct srdma_region_key keys[] = {{1, 0x11223344}, {0x0203, 0x55667788}};
	static const uint8_t wanted[] = {0, 12, 1, 19, 0, 1, 0x11, 0x22, 0x33, 0x44, 2, 3, 0x55, 0x66, 0x77, 0x88};

	assert_int_equal(srdma_region_keys_encode(frame, keys, 2), sizeof wanted);
	assert_memory_equal(frame, wanted, sizeof wanted);
}

TEST(any_possible_number_of_keys_is_read_as_it_was_written)
{
	struct srdma_region_key keys[SRDMA_REGIONS_MAX], read[SRDMA_REGIONS_MAX];
	size_t count;

	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++)
		keys[i] = (struct srdma_region_key){(uint16_t)(65535 - SRDMA_REGIONS_MAX + 1 + i), (uint32_t)rand()};
	for (size_t n = 1; n <= SRDMA_REGIONS_MAX; n++) {
		assert_int_equal(srdma_region_keys_encode(frame, keys, n), SRDMA_FRAME_HEADER + 6 * n);
		assert_int_equal(decode(frame + SRDMA_FRAME_HEADER, 6 * n, read, &count), 0);
		assert_int_equal(count, n);
		for (size_t i = 0; i < n; i++)
			assert_true(read[i].id == keys[i].id && read[i].rkey == keys[i].rkey);
	}
}

TEST(keys_of_other_lengths_or_in_other_order_are_refused)
{
	static const uint16_t wrong[][3] = {{0, 1, 2}, {1, 1, 2}, {1, 3, 2}, {2, 1, 3}, {3, 2, 2}, {1, 0, 2}, {1, 2, 0}, {65535, 65535, 65535}};
	struct srdma_region_key keys[SRDMA_REGIONS_MAX + 1];
	size_t count;

	for (size_t i = 0; i <= SRDMA_REGIONS_MAX; i++)
		keys[i] = (struct srdma_region_key){(uint16_t)(i + 1), 7};
	srdma_region_keys_encode(frame, keys, SRDMA_REGIONS_MAX);
	for (size_t length = 0; length <= 6 * SRDMA_REGIONS_MAX + 12; length++) {
		int wanted = length > 0 && length % 6 == 0 && length <= 6 * SRDMA_REGIONS_MAX ? 0 : SRDMA_EPROTOCOL;

		assert_int_equal(decode(frame + SRDMA_FRAME_HEADER, length, keys, &count), wanted);
	}
	assert_text_says(srdma_error_text(), "malformed REGION_KEYS of 396 bytes");
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		for (size_t n = 0; n < 3; n++)
			keys[n] = (struct srdma_region_key){wrong[i][n], 7};
		srdma_region_keys_encode(frame, keys, 3);
		assert_int_equal(decode(frame + SRDMA_FRAME_HEADER, 18, keys, &count), SRDMA_EPROTOCOL);
		assert_text_says(srdma_error_text(), "ids do not grow");
	}
}

TEST(an_offer_is_read_as_it_was_written)
{
	const struct srdma_region_offer offer = {.id = 0x0102, .access = IBV_ACCESS_REMOTE_READ, .rkey = 0x03040506, .address = 0x0708090a0b0c0d0e, .length = 0x0f, .name = "abc"};
	static const uint8_t wanted[] = {0, 28, 1, 16, 1, 2, 0, 4, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 0, 0, 0, 0, 0, 0, 15, 3, 'a', 'b', 'c'};
	struct srdma_region_offer read;

	assert_int_equal(srdma_region_offer_encode(frame, &offer), sizeof wanted);
	assert_memory_equal(frame, wanted, sizeof wanted);
	assert_int_equal(srdma_region_offer_decode(frame + SRDMA_FRAME_HEADER, sizeof wanted - SRDMA_FRAME_HEADER, &read), 0);
	assert_true(read.id == offer.id && read.access == offer.access && read.rkey == offer.rkey && read.address == offer.address && read.length == offer.length);
	assert_string_equal(read.name, "abc");
	for (size_t length = 0; length < sizeof wanted - SRDMA_FRAME_HEADER; length++)
		assert_int_equal(srdma_region_offer_decode(frame + SRDMA_FRAME_HEADER, length, &read), SRDMA_EPROTOCOL);
}

RUN_TESTS(NULL, NULL)
