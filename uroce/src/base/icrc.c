/* SPDX-License-Identifier: Apache-2.0 */
/* The invariant CRC: InfiniBand volume 1, 7.8.1, and annex A17, 17.3.3 (what RoCEv2 masks). */
#include "icrc.h"

#include <libdeflate.h>
#include <string.h>

#include "wire.h"

enum {
	LRH_BYTES = 8, /* ones stand for the link header that RoCE does not have */
	IPV4_BYTES = 20,
	IPV4_ID_AT = 4,
	IPV6_BYTES = 40,
	UDP_BYTES = 8,
	BTH_MASKED_AT = 4,
};

static bool flow_is_v4(const struct icrc_flow *flow)
{
	return gid_is_v4(&flow->src) && gid_is_v4(&flow->dst);
}

/* `length`: of the UDP header and all after it. */
static uint8_t *put_masked_ipv4(uint8_t *p, const struct icrc_flow *flow, uint16_t id, size_t length)
{
	*p++ = 0x45;
	*p++ = 0xff; /* type of service: masked */
	p = wire_put16(p, IPV4_BYTES + length);
	p = wire_put16(p, id);
	p = wire_put16(p, 0x4000); /* don't fragment */
	*p++ = 0xff;          /* time to live: masked */
	*p++ = 17;
	p = wire_put16(p, 0xffff); /* checksum: masked */
	memcpy(p, flow->src.raw + 12, 4);
	memcpy(p + 4, flow->dst.raw + 12, 4);
	return p + 8;
}

static uint8_t *put_masked_ipv6(uint8_t *p, const struct icrc_flow *flow, size_t length)
{
	p = wire_put16(p, 0x6fff); /* traffic class and flow label: masked */
	p = wire_put16(p, 0xffff);
	p = wire_put16(p, length);
	*p++ = 17;
	*p++ = 0xff; /* hop limit: masked */
	memcpy(p, flow->src.raw, 16);
	memcpy(p + 16, flow->dst.raw, 16);
	return p + 32;
}

static uint32_t crc_add(uint32_t crc, const void *bytes, size_t length)
{
	/* With a null pointer libdeflate returns the sum of no bytes. */
	return length == 0 ? crc : libdeflate_crc32(crc, bytes, length);
}

uint32_t icrc_compute(const struct icrc_flow *flow, uint16_t ipv4_id, const struct iovec *pieces, size_t count)
{
	uint8_t head[LRH_BYTES + IPV6_BYTES + UDP_BYTES + WIRE_BTH];
	size_t length = UDP_BYTES + WIRE_ICRC, bth = 0, skip = 0, piece = 0;

	for (size_t i = 0; i < count; i++)
		length += pieces[i].iov_len;
	memset(head, 0xff, LRH_BYTES);
	uint8_t *p = head + LRH_BYTES;
	p = flow_is_v4(flow) ? put_masked_ipv4(p, flow, ipv4_id, length) : put_masked_ipv6(p, flow, length);
	p = wire_put16(p, flow->src_port);
	p = wire_put16(p, flow->dst_port);
	p = wire_put16(p, length);
	p = wire_put16(p, 0xffff); /* checksum: masked */

	/* A BTH of our own, to mask its reserved byte; it may come in pieces. */
	for (; piece < count; piece++) {
		size_t rest = WIRE_BTH - bth;
		skip = pieces[piece].iov_len < rest ? pieces[piece].iov_len : rest;
		if (skip > 0)
			memcpy(p + bth, pieces[piece].iov_base, skip);
		bth += skip;
		if (bth == WIRE_BTH)
			break;
	}
	if (bth > BTH_MASKED_AT)
		p[BTH_MASKED_AT] = 0xff;

	uint32_t crc = libdeflate_crc32(0, head, (size_t)(p - head) + bth);
	for (; piece < count; piece++, skip = 0)
		crc = crc_add(crc, (const uint8_t *)pieces[piece].iov_base + skip, pieces[piece].iov_len - skip);
	for (size_t i = 0; flow->twice && i < count; i++)
		crc = crc_add(crc, pieces[i].iov_base, pieces[i].iov_len);
	return crc;
}

/* ---- which identification ----
 *
 * A CRC register is a polynomial over GF(2), modulo the CRC's; bit 31 is the constant term. Two packets that differ in
 * the identification alone have sums whose difference is D = I * x^(32 + 8n): I is the difference of the two bytes, n
 * the number of bytes after them. The polynomial has a constant term, so x has an inverse, and I = D * x^-(32 + 8n). */

#define CRC_POLYNOMIAL 0xedb88320u /* without x^32 */
#define CRC_ONE        0x80000000u

/* x^-(8 * 2^k): each is the square of the one before. */
static const uint32_t inverse_bytes[] = {
	0x6567cb95, 0xd7125358, 0x5b358fd3, 0x2e9bb40b, 0x12a59a49, 0x8df9403d,
	0x5139de12, 0xba340226, 0x29c45641, 0x12fbc105, 0xecd30c55, 0x3755ebd8,
	0x24ee460c, 0x23783fcf, 0x479933fc, 0xa39442a5, 0x9ea0056d,
};

enum { LONGEST = 1 << 16 };

static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a != 0; a <<= 1) {
		if (a & CRC_ONE)
			product ^= b;
		b = b >> 1 ^ (b & 1 ? CRC_POLYNOMIAL : 0);
	}
	return product;
}

static uint32_t divide_by_bytes(uint32_t value, size_t bytes)
{
	for (unsigned k = 0; bytes != 0; k++, bytes >>= 1)
		if (bytes & 1)
			value = multiply(value, inverse_bytes[k]);
	return value;
}

int icrc_find_id(const struct icrc_flow *flow, const uint8_t *bytes, size_t length, uint32_t stored)
{
	const struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	uint32_t difference = stored ^ icrc_compute(flow, 0, &piece, 1);

	if (difference == 0)
		return 0;
	if (!flow_is_v4(flow) || length > LONGEST)
		return -1;
	size_t summed = flow->twice ? 2 * length : length;
	uint32_t id = divide_by_bytes(difference, 4 + IPV4_BYTES - IPV4_ID_AT - 2 + UDP_BYTES + summed);
	/* Sixteen bits: nothing above x^15. The first byte is the one of the higher powers, its lowest bit the highest. */
	if (id & 0xffff)
		return -1;
	return (int)((id >> 16 & 0xff) << 8 | id >> 24);
}
