/* SPDX-License-Identifier: Apache-2.0 */
#include "roce.h"

#include <arpa/inet.h>
#include <libdeflate.h>
#include <string.h>

enum { IPV4 = 20, IPV6 = 40, UDP = 8, BTH = 12, ICRC = 4, UDP_CHECKSUM_AT = 6 };

bool roce_has_reth(uint8_t opcode)
{
	return opcode == ROCE_WRITE_FIRST || opcode == ROCE_WRITE_ONLY || opcode == ROCE_WRITE_ONLY_IMM ||
	       opcode == ROCE_READ_REQUEST;
}

bool roce_has_aeth(uint8_t opcode)
{
	return opcode >= ROCE_READ_FIRST && opcode <= ROCE_ATOMIC_ACK && opcode != ROCE_READ_MIDDLE;
}

bool roce_has_imm(uint8_t opcode)
{
	return opcode == ROCE_SEND_LAST_IMM || opcode == ROCE_SEND_ONLY_IMM || opcode == ROCE_WRITE_LAST_IMM ||
	       opcode == ROCE_WRITE_ONLY_IMM;
}

bool roce_has_atomic(uint8_t opcode)
{
	return opcode == ROCE_COMPARE_SWAP || opcode == ROCE_FETCH_ADD;
}

static uint8_t *put(uint8_t *at, uint64_t value, unsigned size)
{
	for (unsigned i = size; i > 0; i--)
		*at++ = (uint8_t)(value >> (8 * (i - 1)));
	return at;
}

static uint64_t get(const uint8_t **at, unsigned size)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < size; i++)
		value = value << 8 | *(*at)++;
	return value;
}

static bool is_v4(const uint8_t *ip)
{
	return ip[0] >> 4 == 4;
}

size_t roce_bth(const uint8_t *ip)
{
	return (is_v4(ip) ? (ip[0] & 0xfu) * 4u : IPV6) + UDP;
}

/* ---- checks ---- */

uint32_t roce_icrc(const uint8_t *ip, size_t length)
{
	uint8_t head[8 + 60 + UDP + BTH];
	size_t bth = roce_bth(ip), masked = bth + BTH;

	/* The fields that routers change count as ones: annex A17, 17.3.3. */
	memset(head, 0xff, 8);
	memcpy(head + 8, ip, masked);
	uint8_t *copy = head + 8;
	if (is_v4(ip)) {
		copy[1] = copy[8] = copy[10] = copy[11] = 0xff;
	} else {
		copy[0] |= 0x0f;
		copy[1] = copy[2] = copy[3] = copy[7] = 0xff;
	}
	copy[bth - UDP + UDP_CHECKSUM_AT] = copy[bth - UDP + UDP_CHECKSUM_AT + 1] = 0xff;
	copy[bth + 4] = 0xff;
	uint32_t crc = libdeflate_crc32(0, head, 8 + masked);
	return length - ICRC == masked ? crc : libdeflate_crc32(crc, ip + masked, length - ICRC - masked);
}

static uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return length % 2 == 0 ? sum : sum + ((uint32_t)bytes[length - 1] << 8);
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* IPv4 may go without; IPv6 may not. */
void roce_put_checksum(uint8_t *ip, size_t length)
{
	size_t udp = roce_bth(ip) - UDP;
	uint8_t *field = ip + udp + UDP_CHECKSUM_AT;

	put(field, 0, 2);
	if (is_v4(ip))
		return;
	uint32_t sum = sum16((uint32_t)(length - udp) + IPPROTO_UDP, ip + 8, 32);
	uint16_t folded = fold(sum16(sum, ip + udp, length - udp));
	put(field, folded == 0 ? 0xffff : folded, 2);
}

void roce_put_qpn(uint8_t *ip, uint32_t qpn)
{
	put(ip + roce_bth(ip) + 5, qpn, 3);
}

void roce_put_psn(uint8_t *ip, uint32_t psn)
{
	put(ip + roce_bth(ip) + 9, psn, 3);
}

void roce_put_msn(uint8_t *ip, uint32_t msn)
{
	put(ip + roce_bth(ip) + BTH + 1, msn, 3);
}

void roce_seal(uint8_t *ip, size_t length)
{
	uint32_t crc = roce_icrc(ip, length);

	memcpy(ip + length - ICRC, &crc, sizeof(crc));
	roce_put_checksum(ip, length);
	if (is_v4(ip)) {
		put(ip + 10, 0, 2);
		put(ip + 10, fold(sum16(0, ip, IPV4)), 2);
	}
}

/* ---- to bytes ---- */

static uint8_t *put_ip(uint8_t *at, const struct roce_flow *flow, uint16_t id)
{
	if (flow->family == AF_INET) {
		const uint8_t head[] = {0x45, 0, 0, 0, (uint8_t)(id >> 8), (uint8_t)id, 0x40, 0, 64, IPPROTO_UDP, 0, 0};
		memcpy(at, head, sizeof(head));
		memcpy(at + 12, &flow->source.v4, 4);
		memcpy(at + 16, &flow->target.v4, 4);
		return at + IPV4;
	}
	const uint8_t head[] = {0x60, 0, 0, 0, 0, 0, IPPROTO_UDP, 64};
	memcpy(at, head, sizeof(head));
	memcpy(at + 8, &flow->source.v6, 16);
	memcpy(at + 24, &flow->target.v6, 16);
	return at + IPV6;
}

static uint8_t *put_extensions(uint8_t *at, const struct roce_packet *packet)
{
	if (roce_has_reth(packet->opcode) || roce_has_atomic(packet->opcode)) {
		at = put(at, packet->va, 8);
		at = put(at, packet->rkey, 4);
	}
	if (roce_has_reth(packet->opcode))
		at = put(at, packet->length, 4);
	if (roce_has_atomic(packet->opcode)) {
		at = put(at, packet->swap_add, 8);
		at = put(at, packet->compare, 8);
	}
	if (roce_has_aeth(packet->opcode))
		at = put(at, (uint64_t)packet->syndrome << 24 | packet->msn, 4);
	if (packet->opcode == ROCE_ATOMIC_ACK)
		at = put(at, 0, 8);
	if (roce_has_imm(packet->opcode))
		at = put(at, packet->imm, 4);
	return at;
}

size_t roce_build(const struct roce_flow *flow, const struct roce_packet *packet, uint16_t id,
		  uint8_t out[ROCE_MAX_PACKET])
{
	size_t pad = -packet->payload_length & 3;
	uint8_t *udp = put_ip(out, flow, id), *at = udp + UDP;

	at = put(at, packet->opcode, 1);
	at = put(at, (packet->solicited ? 0x80u : 0) | 0x40 | pad << 4, 1);
	at = put(at, 0xffff, 2);
	at = put(at, (packet->tag >> 7) << 24 | (packet->qpn & 0xffffff), 4);
	at = put(at, (packet->ack_req ? 0x80000000u : 0) | (packet->tag & 0x7f) << 24 | (packet->psn & ROCE_PSN_MASK), 4);
	at = put_extensions(at, packet);
	if (packet->payload_length > 0)
		memcpy(at, packet->payload, packet->payload_length);
	at += packet->payload_length;
	at = put(at, 0, (unsigned)pad) + ICRC;

	size_t length = (size_t)(at - out), datagram = (size_t)(at - udp);
	if (flow->family == AF_INET)
		put(out + 2, length, 2);
	else
		put(out + 4, datagram, 2);
	put(udp, flow->source_port, 2);
	put(udp + 2, ROCE_PORT, 2);
	put(udp + 4, datagram, 2);
	roce_seal(out, length);
	return length;
}

/* ---- from bytes ---- */

/* False: not UDP to port 4791, or the header's length is not what came. */
static bool parse_ip(const uint8_t *ip, size_t *length, struct roce_flow *flow)
{
	if (*length < IPV4 + UDP + BTH + ICRC || (!is_v4(ip) && *length < IPV6 + UDP + BTH + ICRC) ||
	    (!is_v4(ip) && ip[0] >> 4 != 6))
		return false;
	size_t said = is_v4(ip) ? (size_t)ip[2] << 8 | ip[3] : IPV6 + ((size_t)ip[4] << 8 | ip[5]);
	size_t bth = roce_bth(ip);
	if ((is_v4(ip) ? ip[9] : ip[6]) != IPPROTO_UDP || said > *length || said < bth + BTH + ICRC)
		return false;
	*length = said;
	*flow = (struct roce_flow){.family = is_v4(ip) ? AF_INET : AF_INET6};
	if (is_v4(ip)) {
		memcpy(&flow->source.v4, ip + 12, 4);
		memcpy(&flow->target.v4, ip + 16, 4);
	} else {
		memcpy(&flow->source.v6, ip + 8, 16);
		memcpy(&flow->target.v6, ip + 24, 16);
	}
	const uint8_t *udp = ip + bth - UDP;
	flow->source_port = (uint16_t)get(&udp, 2);
	return get(&udp, 2) == ROCE_PORT;
}

static size_t extension_bytes(uint8_t opcode)
{
	return (roce_has_reth(opcode) ? 16u : 0) + (roce_has_atomic(opcode) ? 28u : 0) +
	       (roce_has_aeth(opcode) ? 4u : 0) + (opcode == ROCE_ATOMIC_ACK ? 8u : 0) +
	       (roce_has_imm(opcode) ? 4u : 0);
}

bool roce_parse(const uint8_t *ip, size_t length, struct roce_flow *flow, struct roce_packet *out)
{
	if (!parse_ip(ip, &length, flow))
		return false;
	const uint8_t *at = ip + roce_bth(ip), *end = ip + length - ICRC;
	*out = (struct roce_packet){.opcode = (uint8_t)get(&at, 1)};
	uint8_t flags = (uint8_t)get(&at, 1);
	at += 2;
	out->solicited = flags & 0x80;
	uint32_t first = (uint32_t)get(&at, 4);
	out->qpn = first & 0xffffff;
	uint32_t last = (uint32_t)get(&at, 4);
	out->ack_req = last >> 31;
	out->psn = last & ROCE_PSN_MASK;
	out->tag = (first >> 24 & 0x3f) << 7 | (last >> 24 & 0x7f);
	size_t pad = flags >> 4 & 3;
	if ((size_t)(end - at) < extension_bytes(out->opcode) + pad)
		return false;
	if (roce_has_reth(out->opcode) || roce_has_atomic(out->opcode)) {
		out->va = get(&at, 8);
		out->rkey = (uint32_t)get(&at, 4);
	}
	if (roce_has_reth(out->opcode))
		out->length = (uint32_t)get(&at, 4);
	if (roce_has_atomic(out->opcode))
		at += 16;
	if (roce_has_aeth(out->opcode)) {
		uint32_t aeth = (uint32_t)get(&at, 4);
		out->syndrome = (uint8_t)(aeth >> 24);
		out->msn = aeth & ROCE_PSN_MASK;
	}
	if (out->opcode == ROCE_ATOMIC_ACK)
		at += 8;
	if (roce_has_imm(out->opcode))
		out->imm = (uint32_t)get(&at, 4);
	out->payload = at;
	out->payload_length = (size_t)(end - at) - pad;
	return true;
}
