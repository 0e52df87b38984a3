/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "frame.h"

static struct files_bytes bytes(const char *text)
{
	return (struct files_bytes){(const uint8_t *)text, strlen(text)};
}

static struct files_frame sample(enum files_type type)
{
	return (struct files_frame){
		.type = type, .kind = 1, .version = 7, .flags = 3, .mode = 0640, .id = 0x0102030405060708, .size = 1 << 30, .count = 65536, .mtime = -5,
		.mtime_ns = 999999999, .name = bytes("a/b"), .text = bytes("why"), .data = bytes("0123456789abcdef"),
	};
}

static bool is_equal(const struct files_bytes *a, const struct files_bytes *b)
{
	return a->length == b->length && (a->length == 0 || memcmp(a->at, b->at, a->length) == 0);
}

static struct files_frame sample_of(unsigned type)
{
	struct files_frame frame = sample((enum files_type)type);

	if (type == FILES_ANSWER)
		frame.kind = FILES_PARTIAL;
	return frame;
}

TEST(each_frame_is_read_as_it_was_written)
{
	for (unsigned type = FILES_HELLO; type < FILES_TYPE_COUNT; type++) {
		struct files_frame frame = sample_of(type), copy;
		uint8_t payload[256], again[256];
		int length = files_frame_encode(&frame, payload, sizeof payload);

		assert_true(length >= 0);
		assert_int_equal(files_frame_decode((enum files_type)type, payload, (size_t)length, &copy), 0);
		assert_true(copy.name.length == 0 || is_equal(&copy.name, &frame.name));
		assert_true(copy.mtime == 0 || (copy.mtime == -5 && copy.mtime_ns == 999999999));
		assert_int_equal(files_frame_encode(&copy, again, sizeof again), length);
		assert_memory_equal(payload, again, (size_t)length);
	}
}

TEST(a_frame_that_is_too_short_or_too_long_is_refused)
{
	for (unsigned type = FILES_HELLO; type < FILES_TYPE_COUNT; type++) {
		struct files_frame frame = sample_of(type), copy;
		uint8_t payload[256] = {0};
		int length = files_frame_encode(&frame, payload, sizeof payload);
		/* Data is the rest of a frame, so it can be shorter. */
		bool has_rest = type == FILES_DATA || type == FILES_WHOLE;
		int needed = type == FILES_DATA ? 9 : type == FILES_WHOLE ? length - (int)frame.data.length : length;

		for (int i = 0; i < needed; i++)
			assert_int_equal(files_frame_decode((enum files_type)type, payload, (size_t)i, &copy), -EPROTO);
		if (!has_rest)
			assert_int_equal(files_frame_decode((enum files_type)type, payload, (size_t)length + 1, &copy), -EPROTO);
		assert_int_equal(files_frame_encode(&frame, payload, length > 0 ? (size_t)length - 1 : 0), length > 0 ? -EMSGSIZE : 0);
	}
	assert_int_equal(files_frame_decode((enum files_type)0, NULL, 0, &(struct files_frame){0}), -EPROTO);
	assert_int_equal(files_frame_decode((enum files_type)255, NULL, 0, &(struct files_frame){0}), -EPROTO);
}

static int decode_changed(enum files_type type, void (*change)(struct files_frame *frame))
{
	struct files_frame frame = sample_of(type), copy;
	uint8_t payload[1024];
	int length;

	change(&frame);
	length = files_frame_encode(&frame, payload, sizeof payload);
	assert_true(length >= 0);
	return files_frame_decode(type, payload, (size_t)length, &copy);
}

static void no_kind(struct files_frame *frame)
{
	frame->kind = 0;
}

static void high_kind(struct files_frame *frame)
{
	frame->kind = 9;
}

static void no_name(struct files_frame *frame)
{
	frame->name.length = 0;
}

static void nul_in_name(struct files_frame *frame)
{
	frame->name = (struct files_bytes){(const uint8_t *)"a\0b", 3};
}

static void nul_in_text(struct files_frame *frame)
{
	frame->text = (struct files_bytes){(const uint8_t *)"a\0b", 3};
}

static void much_time(struct files_frame *frame)
{
	frame->mtime_ns = 1000000000;
}

static void much_size(struct files_frame *frame)
{
	frame->size = UINT64_MAX - 2;
}

static void data_to_the_end(struct files_frame *frame)
{
	frame->size = INT64_MAX;
}

static void unknown_flag(struct files_frame *frame)
{
	frame->flags = FILES_FLAGS + 1;
}

static void half_a_tag(struct files_frame *frame)
{
	frame->data.length = 8;
}

static void no_step(struct files_frame *frame)
{
	frame->count = 0;
}

static void not_partial(struct files_frame *frame)
{
	frame->kind = FILES_SEND;
}

TEST(values_out_of_range_are_refused)
{
	assert_int_equal(decode_changed(FILES_ENTRY, no_kind), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, high_kind), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, no_name), -EPROTO);
	assert_int_equal(decode_changed(FILES_HELLO, no_name), 0);
	assert_int_equal(decode_changed(FILES_HELLO, unknown_flag), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, nul_in_name), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, nul_in_text), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, much_time), -EPROTO);
	assert_int_equal(decode_changed(FILES_ENTRY, much_size), -EPROTO);
	assert_int_equal(decode_changed(FILES_DATA, data_to_the_end), -EPROTO);
	assert_int_equal(decode_changed(FILES_ANSWER, half_a_tag), -EPROTO);
	assert_int_equal(decode_changed(FILES_ANSWER, no_step), -EPROTO);
	assert_int_equal(decode_changed(FILES_ANSWER, not_partial), -EPROTO);
}

RUN_TESTS(NULL, NULL)
