/* SPDX-License-Identifier: Apache-2.0 */
#include "utf8.h"

#include "array.h"

#include <string.h>

size_t srdma_utf8_decode(const char *text, size_t length, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *bytes = (const unsigned char *)text;
	size_t size;

	if (length == 0)
		return 0;
	size = bytes[0] < 0x80 ? 1 : (bytes[0] & 0xe0) == 0xc0 ? 2 : (bytes[0] & 0xf0) == 0xe0 ? 3 : (bytes[0] & 0xf8) == 0xf0 ? 4 : 0;
	if (size == 0 || size > length)
		return 0;
	*code = size == 1 ? bytes[0] : bytes[0] & (0x7fu >> size);
	for (size_t i = 1; i < size; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (bytes[i] & 0x3fu);
	}
	/* Accepts only the shortest form, and no UTF-16 surrogates. */
	return *code < least[size] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff) ? 0 : size;
}

bool srdma_utf8_is_shown(uint32_t code)
{
	/* In order, from Unicode 15: controls, spaces other than U+0020 and U+3000, invisible, formatting and bidirectional characters,
	 * variation selectors, private use, noncharacters. */
	static const struct {
		uint32_t first, last;
	} hidden[] = {
		{0x00, 0x1f},	    {0x7f, 0xa0},	{0xad, 0xad},	    {0x34f, 0x34f},	{0x61c, 0x61c},	    {0x115f, 0x1160},
		{0x1680, 0x1680},   {0x17b4, 0x17b5},	{0x180b, 0x180f},   {0x2000, 0x200f},	{0x2028, 0x202f},   {0x205f, 0x206f},
		{0x3164, 0x3164},   {0xd800, 0xf8ff},	{0xfdd0, 0xfdef},   {0xfe00, 0xfe0f},	{0xfeff, 0xfeff},   {0xffa0, 0xffa0},
		{0xfff0, 0xffff},   {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0x1fffe, 0x1ffff}, {0x2fffe, 0x2ffff}, {0x3fffe, 0x10ffff},
	};

	for (size_t i = 0; i < SRDMA_COUNT(hidden); i++)
		if (code <= hidden[i].last)
			return code < hidden[i].first;
	return false;
}

bool srdma_utf8_make_shown(char *text, size_t length)
{
	bool whole = true;
	size_t size;

	for (size_t i = 0; i < length; i += size) {
		uint32_t code;

		size = srdma_utf8_decode(text + i, length - i, &code);
		if (size > 0 && srdma_utf8_is_shown(code))
			continue;
		size = size ? size : 1;
		memset(text + i, '?', size);
		whole = false;
	}
	return whole;
}
