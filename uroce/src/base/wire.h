/* SPDX-License-Identifier: Apache-2.0 */
/* RoCEv2 packets: the base transport header and its extensions, to and from bytes. Nothing here knows a queue pair.
 * InfiniBand Architecture Specification volume 1, chapter 9 (transport) and annex A17 (RoCEv2). */
#ifndef UROCE_WIRE_H
#define UROCE_WIRE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_PORT 4791
#define WIRE_GSI_QPN 1 /* management datagrams: of the port, and of no process's own */
#define WIRE_BTH 12
#define WIRE_ICRC 4
#define WIRE_MAX_HEADER 56 /* BTH + AtomicETH is 40; BTH + DETH + RETH + ImmDt is 40: room to spare */
#define WIRE_MAX_MTU 4096
#define WIRE_ACK 16 /* BTH + AETH: a whole acknowledgement */
#define WIRE_GRH 40
#define WIRE_PKEY 0xffff
#define WIRE_PSN_MASK 0xffffffu
#define WIRE_TAG_BITS 13

/* The upper three bits of a BTH opcode. */
enum { WIRE_RC = 0x00, WIRE_UC = 0x20, WIRE_UD = 0x60 };

/* Congestion: two bits of the traffic class. A router changes ECT to CE instead of dropping the packet. */
enum { WIRE_ECN_MASK = 3, WIRE_ECT = 2, WIRE_CE = 3 };

/* Whole opcodes that are of no service. The range from 0xc0 on is each manufacturer's own: others drop what they do not know. */
enum {
	OP_CNP = 0x81,  /* congestion notification, annex A17: the sender of packets learns that some were marked; WIRE_CNP_BYTES follow */
	OP_GAPS = 0xd5, /* uroce's: which requests are missing, BTH.PSN being the first; WIRE_GAP bytes for each gap */
	OP_ASK_TAG = 0xd6, /* uroce's: the peer is asked to put its tag into all packets of the connection; no payload, PSN 0 */
	OP_WAITED = 0xd7, /* uroce's: how long the request of this PSN has waited for its answer, which follows; no payload */
};
enum {
	WIRE_CNP_BYTES = 16, /* reserved */
	WIRE_GAP = 4,   /* offset from the PSN, length, each two bytes; the last gap is empty and says how far the list goes */
	WIRE_GAPS = 256, /* at most, and no more than the path's MTU has room for */
};

/* The lower five bits. */
enum wire_operation {
	OP_SEND_FIRST = 0x00,
	OP_SEND_MIDDLE = 0x01,
	OP_SEND_LAST = 0x02,
	OP_SEND_LAST_IMM = 0x03,
	OP_SEND_ONLY = 0x04,
	OP_SEND_ONLY_IMM = 0x05,
	OP_WRITE_FIRST = 0x06,
	OP_WRITE_MIDDLE = 0x07,
	OP_WRITE_LAST = 0x08,
	OP_WRITE_LAST_IMM = 0x09,
	OP_WRITE_ONLY = 0x0a,
	OP_WRITE_ONLY_IMM = 0x0b,
	OP_READ_REQUEST = 0x0c,
	OP_READ_FIRST = 0x0d,
	OP_READ_MIDDLE = 0x0e,
	OP_READ_LAST = 0x0f,
	OP_READ_ONLY = 0x10,
	OP_ACK = 0x11,
	OP_ATOMIC_ACK = 0x12,
	OP_COMPARE_SWAP = 0x13,
	OP_FETCH_ADD = 0x14,
	OP_SEND_LAST_INV = 0x16,
	OP_SEND_ONLY_INV = 0x17,
	OP_FLUSH = 0x1c,        /* answered, as OP_ATOMIC_WRITE is, by an empty OP_READ_ONLY: annex A19 */
	OP_ATOMIC_WRITE = 0x1d,
};

/* Traits of an operation, and the headers that follow the BTH: wire_traits(). */
enum {
	T_VALID = 1 << 0,
	T_REQUEST = 1 << 1,  /* else a response */
	T_SEND = 1 << 2,
	T_WRITE = 1 << 3,
	T_READ_RESPONSE = 1 << 4,
	T_ATOMIC = 1 << 5,   /* a request */
	T_START = 1 << 6,    /* first or only */
	T_END = 1 << 7,      /* last or only */
	T_PAYLOAD = 1 << 8,
	T_RETH = 1 << 9,
	T_IMM = 1 << 10,
	T_IETH = 1 << 11,
	T_AETH = 1 << 12,
	T_ATOMIC_ETH = 1 << 13,
	T_ATOMIC_ACK_ETH = 1 << 14,
	T_DETH = 1 << 15,
	T_FETH = 1 << 16,
	T_WAITED = 1 << 17,
};

/* Traits of a BTH opcode; 0 for one that is not RC, UC or UD, or not defined there. */
uint32_t wire_traits(uint8_t opcode);
/* Bytes of the headers that the opcode has, BTH included. */
size_t wire_header_length(uint8_t opcode);

/* AETH syndromes. */
enum {
	AETH_ACK = 0x1f,           /* no credit limit */
	AETH_TYPE_MASK = 0x60,
	AETH_TYPE_ACK = 0x00,
	AETH_TYPE_RNR = 0x20,      /* lower five bits: the timer, as min_rnr_timer */
	AETH_TYPE_NAK = 0x60,
	AETH_NAK_SEQUENCE = 0x60,
	AETH_NAK_INVALID = 0x61,
	AETH_NAK_ACCESS = 0x62,
	AETH_NAK_OPERATION = 0x63,
};

/* One packet, decoded. Host byte order, but for `imm`, which is the application's own bytes. */
struct packet {
	uint8_t opcode;
	bool solicited;
	bool ack_req;
	uint8_t pad; /* bytes after the payload, 0 to 3 */
	uint16_t pkey;
	uint32_t qpn; /* destination */
	uint32_t psn;
	uint16_t tag; /* of the sender, where it was asked for: WIRE_TAG_BITS of the BTH that are reserved; else 0 */

	uint32_t qkey;    /* DETH */
	uint32_t src_qpn; /* DETH */
	uint64_t va;      /* RETH, AtomicETH */
	uint32_t rkey;    /* RETH, AtomicETH */
	uint32_t length;  /* RETH */
	uint8_t flush_type;  /* FETH */
	uint8_t flush_level; /* FETH */
	uint64_t swap_add; /* AtomicETH */
	uint64_t compare;
	uint64_t original; /* AtomicAckETH */
	uint8_t syndrome;  /* AETH */
	uint32_t msn;
	__be32 imm;
	uint32_t invalidate; /* IETH */
	uint32_t waited;   /* OP_WAITED: nanoseconds */

	const uint8_t *payload; /* into the received bytes */
	uint32_t payload_length;
	bool local; /* it came through shared memory, and may be several of the wire's packets in one */
};

/* Reads one datagram's UDP payload without its ICRC. -EBADMSG: truncated, or not a packet of a kind known here.
 * `out->payload` points into `bytes`. */
int wire_decode(const uint8_t *bytes, size_t length, struct packet *out);

/* The same for a packet with a payload of up to `longest` bytes, whose first bytes, as many as headers may have, are in `headers`
 * too, where nobody changes them meanwhile. `out->payload` points into `bytes`. */
int wire_decode_parts(const uint8_t *headers, const uint8_t *bytes, size_t length, size_t longest, struct packet *out);

/* Writes BTH and the extension headers that the opcode asks for; returns their length, at most WIRE_MAX_HEADER.
 * `in->pad` must fit the payload that will follow. */
size_t wire_encode(const struct packet *in, uint8_t out[WIRE_MAX_HEADER]);

/* Two bytes in network order; returns the place behind them. */
static inline uint8_t *wire_put16(uint8_t *to, size_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
	return to + 2;
}

/* Distance from b to a on the circle of 24-bit PSNs, -2^23 to 2^23 - 1. */
static inline int32_t psn_diff(uint32_t a, uint32_t b)
{
	return (int32_t)((a - b) << 8) >> 8;
}

static inline uint32_t psn_add(uint32_t psn, uint32_t n)
{
	return (psn + n) & WIRE_PSN_MASK;
}

static inline bool gid_is_v4(const union ibv_gid *gid)
{
	return gid->global.subnet_prefix == 0 && gid->raw[8] == 0 && gid->raw[9] == 0 && gid->raw[10] == 0xff &&
	       gid->raw[11] == 0xff;
}

/* 0.0.0.0 or ::, where a program listens that does so at all addresses of a family. */
static inline bool gid_is_any(const union ibv_gid *gid)
{
	static const union ibv_gid any;
	return memcmp(gid->raw + 12, any.raw, 4) == 0 && (gid_is_v4(gid) || memcmp(gid, &any, sizeof any) == 0);
}

/* The GID of an IPv4 address, which is in network order. */
static inline void gid_map_v4(union ibv_gid *gid, uint32_t address)
{
	*gid = (union ibv_gid){ .raw = { [10] = 0xff, [11] = 0xff } };
	memcpy(gid->raw + 12, &address, sizeof address);
}

static inline bool gid_is_loopback(const union ibv_gid *gid)
{
	static const union ibv_gid one = { .raw = { [15] = 1 } };
	return gid_is_v4(gid) ? gid->raw[12] == 127 : memcmp(gid, &one, sizeof one) == 0;
}

#endif
