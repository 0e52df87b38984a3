/* SPDX-License-Identifier: Apache-2.0 */
#include "cursor.h"

#include <string.h>

void srdma_reader_init(struct srdma_reader *r, const void *data, size_t length)
{
	*r = (struct srdma_reader){.at = data, .left = length};
}

void srdma_get_bytes(struct srdma_reader *r, void *out, size_t length)
{
	if (length > r->left) {
		r->overrun = true;
		r->left = 0;
		memset(out, 0, length);
		return;
	}
	if (length == 0)
		return; /* r->at may be NULL */
	memcpy(out, r->at, length);
	r->at += length;
	r->left -= length;
}

static uint64_t get_number(struct srdma_reader *r, size_t length)
{
	uint8_t bytes[8];
	uint64_t value = 0;

	srdma_get_bytes(r, bytes, length);
	for (size_t i = 0; i < length; i++)
		value = value << 8 | bytes[i];
	return value;
}

uint8_t srdma_get_u8(struct srdma_reader *r)
{
	return (uint8_t)get_number(r, 1);
}

uint16_t srdma_get_u16(struct srdma_reader *r)
{
	return (uint16_t)get_number(r, 2);
}

uint32_t srdma_get_u32(struct srdma_reader *r)
{
	return (uint32_t)get_number(r, 4);
}

uint64_t srdma_get_u64(struct srdma_reader *r)
{
	return get_number(r, 8);
}

bool srdma_reader_complete(const struct srdma_reader *r)
{
	return !r->overrun && r->left == 0;
}

void srdma_writer_init(struct srdma_writer *w, void *data, size_t size)
{
	*w = (struct srdma_writer){.start = data, .at = data, .left = size};
}

void srdma_put_bytes(struct srdma_writer *w, const void *data, size_t length)
{
	if (w->overrun || length > w->left) {
		w->overrun = true;
		return;
	}
	if (length == 0)
		return;
	memcpy(w->at, data, length);
	w->at += length;
	w->left -= length;
}

static void put_number(struct srdma_writer *w, uint64_t value, size_t length)
{
	uint8_t bytes[8] = {0};

	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(value >> (8 * (length - 1 - i)));
	srdma_put_bytes(w, bytes, length);
}

void srdma_put_u8(struct srdma_writer *w, uint8_t value)
{
	put_number(w, value, 1);
}

void srdma_put_u16(struct srdma_writer *w, uint16_t value)
{
	put_number(w, value, 2);
}

void srdma_put_u32(struct srdma_writer *w, uint32_t value)
{
	put_number(w, value, 4);
}

void srdma_put_u64(struct srdma_writer *w, uint64_t value)
{
	put_number(w, value, 8);
}

size_t srdma_writer_length(const struct srdma_writer *w)
{
	return (size_t)(w->at - w->start);
}
