/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_record.h"

#include "cursor.h"
#include "log.h"

void srdma_sealed_encode(uint8_t out[SRDMA_SEALED_HEADER], const struct srdma_sealed_header *h)
{
	struct srdma_writer w;

	srdma_writer_init(&w, out, SRDMA_SEALED_HEADER);
	srdma_put_u8(&w, h->type);
	srdma_put_u8(&w, h->within);
	srdma_put_u16(&w, h->region);
	srdma_put_u32(&w, h->length);
	srdma_put_u64(&w, h->offset);
	srdma_put_u64(&w, h->address);
	srdma_put_u32(&w, h->rkey);
}

static int decode_one(const uint8_t *data, struct srdma_sealed_header *h)
{
	struct srdma_reader r;
	uint8_t within;

	srdma_reader_init(&r, data, SRDMA_SEALED_HEADER);
	h->type = srdma_get_u8(&r);
	within = srdma_get_u8(&r);
	h->region = srdma_get_u16(&r);
	h->length = srdma_get_u32(&r);
	h->offset = srdma_get_u64(&r);
	h->address = srdma_get_u64(&r);
	h->rkey = srdma_get_u32(&r);
	h->within = within == 1;
	if (!srdma_reader_complete(&r) || within > 1 || (h->region != 0 && h->type != SRDMA_SEALED_WRITE && h->type != SRDMA_SEALED_READ))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed control record");
	if (h->type < SRDMA_SEALED_WRITE || h->type > SRDMA_SEALED_ACK)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control record of unknown type %u", h->type);
	if (h->within && h->type != SRDMA_SEALED_WRITE && h->type != SRDMA_SEALED_ANSWER)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control record of type %u with a chunk in it", h->type);
	return 0;
}

static bool is_chunk(const struct srdma_sealed_header *h)
{
	return h->type == SRDMA_SEALED_WRITE || h->type == SRDMA_SEALED_ANSWER;
}

/* Whether `h` may come after `first`. */
static bool may_follow(const struct srdma_sealed_header *first, const struct srdma_sealed_header *h)
{
	if (h->within || first->type == SRDMA_SEALED_ACK)
		return false;
	return is_chunk(first) ? is_chunk(h) : h->type == first->type;
}

int srdma_sealed_decode(const void *data, uint32_t length, struct srdma_sealed_header out[SRDMA_SEALED_BATCH])
{
	uint32_t count = length / SRDMA_SEALED_HEADER;
	int ret;

	if (count == 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control record of %u byte%s", length, SRDMA_S(length));
	ret = decode_one(data, &out[0]);
	if (ret != 0)
		return ret;
	if (out[0].within && out[0].length == length - SRDMA_SEALED_HEADER)
		return 1;
	if (out[0].within || count > SRDMA_SEALED_BATCH || length % SRDMA_SEALED_HEADER != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control record of %u byte%s, which is the wrong length", length, SRDMA_S(length));
	for (uint32_t i = 1; i < count; i++) {
		ret = decode_one((const uint8_t *)data + i * SRDMA_SEALED_HEADER, &out[i]);
		if (ret != 0)
			return ret;
		if (!may_follow(&out[0], &out[i]))
			return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control record of type %u with one of type %u in it", out[0].type,
					  out[i].type);
	}
	return (int)count;
}
