/* SPDX-License-Identifier: Apache-2.0 */
/* The one way into and out of wire bytes: bounded, big-endian, and it remembers the first overrun, so a caller checks once
 * at the end. */
#ifndef SRDMA_CURSOR_H
#define SRDMA_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct srdma_reader {
	const uint8_t *at;
	size_t left;
	bool overrun; /* a read went past the end, and returned zero */
};

void srdma_reader_init(struct srdma_reader *r, const void *data, size_t length);
uint8_t srdma_get_u8(struct srdma_reader *r);
uint16_t srdma_get_u16(struct srdma_reader *r);
uint32_t srdma_get_u32(struct srdma_reader *r);
uint64_t srdma_get_u64(struct srdma_reader *r);
void srdma_get_bytes(struct srdma_reader *r, void *out, size_t length);
/* Whether nothing is left, and no read went past the end. */
bool srdma_reader_complete(const struct srdma_reader *r);

struct srdma_writer {
	uint8_t *start;
	uint8_t *at;
	size_t left;
	bool overrun; /* a write did not fit and was left out */
};

void srdma_writer_init(struct srdma_writer *w, void *data, size_t size);
void srdma_put_u8(struct srdma_writer *w, uint8_t value);
void srdma_put_u16(struct srdma_writer *w, uint16_t value);
void srdma_put_u32(struct srdma_writer *w, uint32_t value);
void srdma_put_u64(struct srdma_writer *w, uint64_t value);
void srdma_put_bytes(struct srdma_writer *w, const void *data, size_t length);
size_t srdma_writer_length(const struct srdma_writer *w);

#endif
