/* SPDX-License-Identifier: Apache-2.0 */
/* The opcodes of RC, UC and UD, and their headers to and from bytes. */
#include "wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
	DETH_BYTES = 8,
	RETH_BYTES = 16,
	ATOMIC_ETH_BYTES = 28,
	AETH_BYTES = 4,
	ATOMIC_ACK_ETH_BYTES = 8,
	IMM_BYTES = 4,
	IETH_BYTES = 4,
	FETH_BYTES = 4,
	WAITED_BYTES = 4,
};

/* The second byte of a BTH. */
enum { BTH_SOLICITED = 0x80, BTH_MIGRATED = 0x40, BTH_PAD_SHIFT = 4, BTH_PAD_MASK = 3, BTH_VERSION_MASK = 0x0f };
enum { BTH_ACK_REQ = 0x80 };
/* The reserved bits of a BTH: six of the fifth byte, which the ICRC does not cover, and seven of the ninth. */
enum { TAG_HIGH_MASK = 0x3f, TAG_LOW_BITS = 7, TAG_LOW_MASK = 0x7f };
enum { BTH_BECN = 0x40 };
/* Of a FETH: the lowest six bits, and nothing else. */
enum { FETH_TYPE_MASK = 0x0f, FETH_LEVEL_SHIFT = 4, FETH_LEVEL_MASK = 3 };

enum {
	FIRST = T_VALID | T_REQUEST | T_PAYLOAD | T_START,
	MIDDLE = T_VALID | T_REQUEST | T_PAYLOAD,
	LAST = T_VALID | T_REQUEST | T_PAYLOAD | T_END,
	ONLY = T_VALID | T_REQUEST | T_PAYLOAD | T_START | T_END,
	QUESTION = T_VALID | T_REQUEST | T_START | T_END, /* a request without payload */
	RESPONSE = T_VALID,
};

static const uint32_t rc_traits[32] = {
	[OP_SEND_FIRST] = FIRST | T_SEND,
	[OP_SEND_MIDDLE] = MIDDLE | T_SEND,
	[OP_SEND_LAST] = LAST | T_SEND,
	[OP_SEND_LAST_IMM] = LAST | T_SEND | T_IMM,
	[OP_SEND_ONLY] = ONLY | T_SEND,
	[OP_SEND_ONLY_IMM] = ONLY | T_SEND | T_IMM,
	[OP_WRITE_FIRST] = FIRST | T_WRITE | T_RETH,
	[OP_WRITE_MIDDLE] = MIDDLE | T_WRITE,
	[OP_WRITE_LAST] = LAST | T_WRITE,
	[OP_WRITE_LAST_IMM] = LAST | T_WRITE | T_IMM,
	[OP_WRITE_ONLY] = ONLY | T_WRITE | T_RETH,
	[OP_WRITE_ONLY_IMM] = ONLY | T_WRITE | T_RETH | T_IMM,
	[OP_READ_REQUEST] = QUESTION | T_RETH,
	[OP_READ_FIRST] = RESPONSE | T_READ_RESPONSE | T_PAYLOAD | T_START | T_AETH,
	[OP_READ_MIDDLE] = RESPONSE | T_READ_RESPONSE | T_PAYLOAD,
	[OP_READ_LAST] = RESPONSE | T_READ_RESPONSE | T_PAYLOAD | T_END | T_AETH,
	[OP_READ_ONLY] = RESPONSE | T_READ_RESPONSE | T_PAYLOAD | T_START | T_END | T_AETH,
	[OP_ACK] = RESPONSE | T_START | T_END | T_AETH,
	[OP_ATOMIC_ACK] = RESPONSE | T_START | T_END | T_AETH | T_ATOMIC_ACK_ETH,
	[OP_COMPARE_SWAP] = QUESTION | T_ATOMIC | T_ATOMIC_ETH,
	[OP_FETCH_ADD] = QUESTION | T_ATOMIC | T_ATOMIC_ETH,
	[OP_SEND_LAST_INV] = LAST | T_SEND | T_IETH,
	[OP_SEND_ONLY_INV] = ONLY | T_SEND | T_IETH,
	[OP_FLUSH] = QUESTION | T_FETH | T_RETH,
	[OP_ATOMIC_WRITE] = ONLY | T_RETH,
};

uint32_t wire_traits(uint8_t opcode)
{
	unsigned operation = opcode & 0x1f;

	switch (opcode & 0xe0) {
	case WIRE_RC: return rc_traits[operation];
	case WIRE_UC: return operation <= OP_WRITE_ONLY_IMM ? rc_traits[operation] : 0;
	case WIRE_UD:
		if (operation == OP_SEND_ONLY || operation == OP_SEND_ONLY_IMM)
			return rc_traits[operation] | T_DETH;
		return 0;
	default: break;
	}
	switch (opcode) {
	case OP_CNP:
	case OP_GAPS: return RESPONSE | T_PAYLOAD;
	case OP_WAITED: return RESPONSE | T_WAITED;
	case OP_ASK_TAG: return RESPONSE;
	default: return 0;
	}
}

static size_t header_length_of(uint32_t traits)
{
	size_t length = WIRE_BTH;

	length += traits & T_DETH ? DETH_BYTES : 0;
	length += traits & T_FETH ? FETH_BYTES : 0;
	length += traits & T_RETH ? RETH_BYTES : 0;
	length += traits & T_ATOMIC_ETH ? ATOMIC_ETH_BYTES : 0;
	length += traits & T_AETH ? AETH_BYTES : 0;
	length += traits & T_ATOMIC_ACK_ETH ? ATOMIC_ACK_ETH_BYTES : 0;
	length += traits & T_IMM ? IMM_BYTES : 0;
	length += traits & T_IETH ? IETH_BYTES : 0;
	length += traits & T_WAITED ? WAITED_BYTES : 0;
	return length;
}

size_t wire_header_length(uint8_t opcode)
{
	return header_length_of(wire_traits(opcode));
}

/* ---- from bytes ---- */

/* Each reads a number in network order, and steps over it. */

static uint32_t get16(const uint8_t **at)
{
	__be16 value;
	memcpy(&value, *at, sizeof value);
	*at += sizeof value;
	return be16toh(value);
}

static uint32_t get32(const uint8_t **at)
{
	__be32 value;
	memcpy(&value, *at, sizeof value);
	*at += sizeof value;
	return be32toh(value);
}

static uint64_t get64(const uint8_t **at)
{
	__be64 value;
	memcpy(&value, *at, sizeof value);
	*at += sizeof value;
	return be64toh(value);
}

/* Reads the headers after the BTH, all of which are there. */
static void get_extensions(const uint8_t *at, uint32_t traits, struct packet *out)
{
	if (traits & T_DETH) {
		out->qkey = get32(&at);
		out->src_qpn = get32(&at) & 0xffffff;
	}
	if (traits & T_FETH) {
		uint32_t bits = get32(&at);
		out->flush_type = bits & FETH_TYPE_MASK;
		out->flush_level = bits >> FETH_LEVEL_SHIFT & FETH_LEVEL_MASK;
	}
	if (traits & (T_RETH | T_ATOMIC_ETH)) {
		out->va = get64(&at);
		out->rkey = get32(&at);
	}
	if (traits & T_RETH)
		out->length = get32(&at);
	if (traits & T_ATOMIC_ETH) {
		out->swap_add = get64(&at);
		out->compare = get64(&at);
	}
	if (traits & T_AETH) {
		uint32_t word = get32(&at);
		out->syndrome = (uint8_t)(word >> 24);
		out->msn = word & WIRE_PSN_MASK;
	}
	if (traits & T_ATOMIC_ACK_ETH)
		out->original = get64(&at);
	if (traits & T_IMM) {
		memcpy(&out->imm, at, IMM_BYTES);
		at += IMM_BYTES;
	}
	if (traits & T_IETH)
		out->invalidate = get32(&at);
	if (traits & T_WAITED)
		out->waited = get32(&at);
}

int wire_decode_parts(const uint8_t *headers, const uint8_t *bytes, size_t length, size_t longest, struct packet *out)
{
	memset(out, 0, sizeof *out);
	if (length < WIRE_BTH || length > WIRE_MAX_HEADER + longest)
		return -EBADMSG;

	uint32_t traits = wire_traits(headers[0]);
	size_t header_length = header_length_of(traits);
	uint8_t pad = headers[1] >> BTH_PAD_SHIFT & BTH_PAD_MASK;
	if (!(traits & T_VALID) || (headers[1] & BTH_VERSION_MASK) != 0 || length < header_length)
		return -EBADMSG;
	/* Packets are whole words: the pad count says how many bytes the last one lacks. */
	size_t rest = length - header_length;
	if (rest % 4 != 0 || pad > rest || (rest > 0 && !(traits & T_PAYLOAD)) || rest - pad > longest)
		return -EBADMSG;

	const uint8_t *at = headers + 2;
	out->opcode = headers[0];
	out->solicited = headers[1] & BTH_SOLICITED;
	out->pad = pad;
	out->pkey = (uint16_t)get16(&at);
	out->qpn = get32(&at) & 0xffffff;
	out->ack_req = *at & BTH_ACK_REQ;
	out->tag = (uint16_t)((headers[4] & TAG_HIGH_MASK) << TAG_LOW_BITS | (*at & TAG_LOW_MASK));
	out->psn = get32(&at) & WIRE_PSN_MASK;
	get_extensions(at, traits, out);
	out->payload = bytes + header_length;
	out->payload_length = (uint32_t)(rest - pad);
	return 0;
}

int wire_decode(const uint8_t *bytes, size_t length, struct packet *out)
{
	return wire_decode_parts(bytes, bytes, length, WIRE_MAX_MTU, out);
}

/* ---- to bytes ---- */

/* Each writes a number in network order; returns the place behind it. */

static uint8_t *put32(uint8_t *at, uint32_t value)
{
	__be32 there = htobe32(value);
	memcpy(at, &there, sizeof there);
	return at + sizeof there;
}

static uint8_t *put64(uint8_t *at, uint64_t value)
{
	__be64 there = htobe64(value);
	memcpy(at, &there, sizeof there);
	return at + sizeof there;
}

size_t wire_encode(const struct packet *in, uint8_t out[WIRE_MAX_HEADER])
{
	uint32_t traits = wire_traits(in->opcode);
	uint8_t *at = out;

	*at++ = in->opcode;
	/* Without alternate paths a connection is for ever in the state "migrated". */
	*at++ = (uint8_t)((in->solicited ? BTH_SOLICITED : 0) | BTH_MIGRATED | (in->pad & BTH_PAD_MASK) << BTH_PAD_SHIFT);
	at = wire_put16(at, in->pkey);
	at = put32(at, (uint32_t)((in->tag >> TAG_LOW_BITS & TAG_HIGH_MASK) | (in->opcode == OP_CNP ? BTH_BECN : 0)) << 24 |
			       (in->qpn & 0xffffff));
	at = put32(at, (in->ack_req ? (uint32_t)BTH_ACK_REQ << 24 : 0) | (uint32_t)(in->tag & TAG_LOW_MASK) << 24 |
			       (in->psn & WIRE_PSN_MASK));
	if (traits & T_DETH) {
		at = put32(at, in->qkey);
		at = put32(at, in->src_qpn & 0xffffff);
	}
	if (traits & T_FETH)
		at = put32(at, (in->flush_level & FETH_LEVEL_MASK) << FETH_LEVEL_SHIFT | (in->flush_type & FETH_TYPE_MASK));
	if (traits & (T_RETH | T_ATOMIC_ETH)) {
		at = put64(at, in->va);
		at = put32(at, in->rkey);
	}
	if (traits & T_RETH)
		at = put32(at, in->length);
	if (traits & T_ATOMIC_ETH) {
		at = put64(at, in->swap_add);
		at = put64(at, in->compare);
	}
	if (traits & T_AETH)
		at = put32(at, (uint32_t)in->syndrome << 24 | (in->msn & WIRE_PSN_MASK));
	if (traits & T_ATOMIC_ACK_ETH)
		at = put64(at, in->original);
	if (traits & T_IMM) {
		memcpy(at, &in->imm, IMM_BYTES);
		at += IMM_BYTES;
	}
	if (traits & T_IETH)
		at = put32(at, in->invalidate);
	if (traits & T_WAITED)
		at = put32(at, in->waited);
	return (size_t)(at - out);
}
