/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "utf8.h"

static size_t encode(uint32_t code, char *out)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};

	for (size_t i = size - 1; i > 0; i--, code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3f));
	out[0] = (char)(first[size] | code);
	return size;
}

TEST(each_character_is_decoded_from_its_own_bytes_alone)
{
	char text[8];
	uint32_t code;

	for (uint32_t want = 0; want <= 0x110000; want++) {
		size_t size = encode(want, text);
		bool good = want <= 0x10ffff && (want < 0xd800 || want > 0xdfff);

		assert_int_equal(srdma_utf8_decode(text, sizeof text, &code), good ? size : 0);
		if (good)
			assert_int_equal(code, want);
		for (size_t cut = 0; cut < size; cut++)
			assert_int_equal(srdma_utf8_decode(text, cut, &code), 0);
	}
}

TEST(what_is_no_utf8_is_not_decoded)
{
	static const char *const bad[] = {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
					  "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff", "\xfe", "\xc3" "a", "\xe2\x80" "a"};
	uint32_t code;

	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(srdma_utf8_decode(bad[i], strlen(bad[i]), &code), 0);
}

TEST(what_steers_turns_or_hides_is_not_shown)
{
	static const uint32_t hidden[] = {0, 7, '\n', 0x1b, 0x7f, 0x80, 0x85, 0x9b, 0x9f, 0xa0, 0xad, 0x34f, 0x61c, 0x180e, 0x200b, 0x200d, 0x200e, 0x200f,
					  0x2028, 0x2029, 0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0x3164, 0xe000, 0xfe0f, 0xfeff, 0xfff9, 0xfffd, 0xffff,
					  0x1fffe, 0xe0001, 0xe0020, 0xe0100, 0xf0000, 0x10ffff};
	static const uint32_t shown[] = {' ', '~', 'A', 0xa1, 0xe9, 0xfc, 0x153, 0x3b1, 0x416, 0x5d0, 0x627, 0x93f, 0x20ac, 0x3000, 0x3042, 0x4e2d, 0xac00,
					 0xfb01, 0x1f600, 0x20000};

	for (size_t i = 0; i < COUNT(hidden); i++)
		if (srdma_utf8_is_shown(hidden[i]))
			fail_msg("U+%04x", hidden[i]);
	for (size_t i = 0; i < COUNT(shown); i++)
		if (!srdma_utf8_is_shown(shown[i]))
			fail_msg("U+%04x", shown[i]);
}

TEST(only_what_is_not_shown_is_replaced)
{
	char good[] = "J\xc3\xbcrgen \xe4\xb8\xad", bad[] = "a\xe2\x80\xae" "b\x1b[31m\xff\0c\xc3";

	assert_true(srdma_utf8_make_shown(good, sizeof good - 1));
	assert_string_equal(good, "J\xc3\xbcrgen \xe4\xb8\xad");
	assert_false(srdma_utf8_make_shown(bad, sizeof bad - 1));
	assert_string_equal(bad, "a???b?[31m??c?");
	assert_true(srdma_utf8_make_shown(bad, 0));
}

RUN_TESTS(NULL, NULL)
