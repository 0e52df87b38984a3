/* SPDX-License-Identifier: Apache-2.0 */
/* RoCEv2 packets as an attacker makes them: from the IP header to the ICRC, with any field false. Written from the
 * specification, and on purpose not shared with uroce: a mistake in both would hide itself. */
#ifndef ATTACK_ROCE_H
#define ATTACK_ROCE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROCE_PORT        4791
#define ROCE_PSN_MASK    0xffffffu
#define ROCE_MAX_PAYLOAD 4096
#define ROCE_MAX_PACKET  (40 + 8 + 12 + 28 + 4 + ROCE_MAX_PAYLOAD + 3 + 4)

enum roce_opcode {
	ROCE_SEND_FIRST = 0x00,
	ROCE_SEND_LAST_IMM = 0x03,
	ROCE_SEND_ONLY = 0x04,
	ROCE_SEND_ONLY_IMM = 0x05,
	ROCE_WRITE_FIRST = 0x06,
	ROCE_WRITE_LAST_IMM = 0x09,
	ROCE_WRITE_ONLY = 0x0a,
	ROCE_WRITE_ONLY_IMM = 0x0b,
	ROCE_READ_REQUEST = 0x0c,
	ROCE_READ_FIRST = 0x0d,
	ROCE_READ_MIDDLE = 0x0e,
	ROCE_READ_LAST = 0x0f,
	ROCE_READ_ONLY = 0x10,
	ROCE_ACK = 0x11,
	ROCE_ATOMIC_ACK = 0x12,
	ROCE_COMPARE_SWAP = 0x13,
	ROCE_FETCH_ADD = 0x14,
};

/* Of an AETH: acknowledgement without credits, and the NAKs. */
enum { ROCE_SYNDROME_ACK = 0x1f, ROCE_NAK_SEQUENCE = 0x60, ROCE_NAK_INVALID, ROCE_NAK_ACCESS, ROCE_NAK_OPERATION };

/* The sender that a packet claims. Network byte order. */
struct roce_flow {
	int family; /* AF_INET or AF_INET6 */
	union {
		struct in_addr v4;
		struct in6_addr v6;
	} source, target;
	uint16_t source_port; /* host order */
};

/* Host byte order. */
struct roce_packet {
	uint8_t opcode;
	bool solicited, ack_req;
	uint32_t qpn, psn;
	uint32_t tag; /* in the reserved bits, where uroce has one */
	uint64_t va; /* RETH and AtomicETH */
	uint32_t rkey, length;
	uint64_t swap_add, compare;
	uint8_t syndrome; /* AETH */
	uint32_t msn;
	uint32_t imm;
	const uint8_t *payload;
	size_t payload_length;
};

/* Which headers an opcode of the RC transport has. */
bool roce_has_reth(uint8_t opcode);
bool roce_has_aeth(uint8_t opcode);
bool roce_has_imm(uint8_t opcode);
bool roce_has_atomic(uint8_t opcode);

/* Fills `out` with an IP packet; returns its length. `id` is the identification of IPv4. */
size_t roce_build(const struct roce_flow *flow, const struct roce_packet *packet, uint16_t id,
		  uint8_t out[ROCE_MAX_PACKET]);

/* From the IP header on. False: not RoCEv2, or truncated. `out->payload` points into `ip`. */
bool roce_parse(const uint8_t *ip, size_t length, struct roce_flow *flow, struct roce_packet *out);

/* Puts ICRC and UDP checksum right after bytes were changed. `length` as the IP header says. */
void roce_seal(uint8_t *ip, size_t length);

/* The UDP checksum alone: in what is captured on the sender's host it is often not there yet. */
void roce_put_checksum(uint8_t *ip, size_t length);

/* In a packet that is there: the ICRC is not put right. */
void roce_put_qpn(uint8_t *ip, uint32_t qpn);
void roce_put_psn(uint8_t *ip, uint32_t psn);
void roce_put_msn(uint8_t *ip, uint32_t msn); /* of an opcode with an AETH and nothing before it */

/* The ICRC that an IP packet should have, as stored (little-endian); its last four bytes are not looked at. */
uint32_t roce_icrc(const uint8_t *ip, size_t length);

/* Where the BTH lies. */
size_t roce_bth(const uint8_t *ip);

#endif
