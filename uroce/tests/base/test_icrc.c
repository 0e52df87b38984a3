/* SPDX-License-Identifier: Apache-2.0 */
/* The invariant CRC, against one that is computed bit by bit over headers written out whole. */
#include "check.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <string.h>

#include "icrc.h"
#include "wire.h"

enum { MOST = 64 };

static uint32_t crc32_by_bits(const uint8_t *bytes, size_t length)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static struct icrc_flow flow_between(const char *src, const char *dst)
{
	struct icrc_flow flow = {.src_port = 49153, .dst_port = WIRE_PORT};

	if (strchr(src, ':')) {
		assert_int_equal(inet_pton(AF_INET6, src, flow.src.raw), 1);
		assert_int_equal(inet_pton(AF_INET6, dst, flow.dst.raw), 1);
	} else {
		flow.src.raw[10] = flow.src.raw[11] = flow.dst.raw[10] = flow.dst.raw[11] = 0xff;
		assert_int_equal(inet_pton(AF_INET, src, flow.src.raw + 12), 1);
		assert_int_equal(inet_pton(AF_INET, dst, flow.dst.raw + 12), 1);
	}
	return flow;
}

/* The packet as on the wire, its variant fields set to ones as 7.8.1 and A17.3.3 list them, after 64 ones for the LRH. */
static uint32_t expected(const struct icrc_flow *flow, uint16_t id, const uint8_t *bth, size_t length)
{
	uint8_t all[8 + sizeof(struct ip6_hdr) + sizeof(struct udphdr) + MOST] = {0};
	uint8_t *p = all + 8;
	struct udphdr udp = {
		.source = htons(flow->src_port), .dest = htons(flow->dst_port), .len = htons((uint16_t)(8 + length + 4)), .check = 0xffff,
	};

	memset(all, 0xff, 8);
	if (gid_is_v4(&flow->src)) {
		struct iphdr ip = {
			.version = 4, .ihl = 5, .tos = 0xff, .tot_len = htons((uint16_t)(20 + 8 + length + 4)), .id = htons(id),
			.frag_off = htons(IP_DF), .ttl = 0xff, .protocol = IPPROTO_UDP, .check = 0xffff,
		};
		memcpy(&ip.saddr, flow->src.raw + 12, 4);
		memcpy(&ip.daddr, flow->dst.raw + 12, 4);
		memcpy(p, &ip, sizeof ip);
		p += sizeof ip;
	} else {
		struct ip6_hdr ip = {
			.ip6_flow = htonl(0x6fffffff), .ip6_plen = udp.len, .ip6_nxt = IPPROTO_UDP, .ip6_hlim = 0xff,
		};
		memcpy(&ip.ip6_src, flow->src.raw, 16);
		memcpy(&ip.ip6_dst, flow->dst.raw, 16);
		memcpy(p, &ip, sizeof ip);
		p += sizeof ip;
	}
	memcpy(p, &udp, sizeof udp);
	p += sizeof udp;
	memcpy(p, bth, length);
	p[4] = 0xff;
	return crc32_by_bits(all, (size_t)(p - all) + length);
}

static void fill(uint8_t *bytes, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++) {
		seed = seed * 1103515245 + 12345;
		bytes[i] = (uint8_t)(seed >> 16);
	}
}

static uint32_t compute(const struct icrc_flow *flow, uint16_t id, const uint8_t *bytes, size_t length)
{
	struct iovec piece = {(void *)(uintptr_t)bytes, length};
	return icrc_compute(flow, id, &piece, 1);
}

static void sum_is_that_of_the_specification(void **state)
{
	(void)state;
	struct icrc_flow flows[] = {flow_between("10.77.0.1", "192.168.255.254"), flow_between("fd77::1", "2001:db8::ff")};
	uint8_t bytes[MOST];

	for (size_t f = 0; f < 2; f++)
		for (size_t length = WIRE_BTH; length <= MOST; length += 4) {
			uint16_t id = (uint16_t)(length * 977);
			fill(bytes, length, (unsigned)length);
			assert_int_equal(compute(&flows[f], id, bytes, length), expected(&flows[f], id, bytes, length));
		}
}

static void pieces_are_as_the_whole(void **state)
{
	(void)state;
	struct icrc_flow flow = flow_between("10.0.0.1", "10.0.0.2");
	uint8_t bytes[MOST];

	fill(bytes, sizeof bytes, 1);
	for (size_t a = 0; a <= sizeof bytes; a++)
		for (size_t b = a; b <= sizeof bytes; b += 3) {
			struct iovec pieces[] = {{bytes, a}, {bytes + a, b - a}, {bytes + b, sizeof bytes - b}};
			assert_int_equal(icrc_compute(&flow, 7, pieces, 3), compute(&flow, 7, bytes, sizeof bytes));
		}
}

static void every_bit_counts_but_the_reserved_byte(void **state)
{
	(void)state;
	struct icrc_flow flow = flow_between("fd00::1", "fd00::2");
	uint8_t bytes[40];

	fill(bytes, sizeof bytes, 2);
	uint32_t sum = compute(&flow, 0, bytes, sizeof bytes);
	for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(compute(&flow, 0, bytes, sizeof bytes) == sum, bit / 8 == 4);
		assert_int_equal(icrc_find_id(&flow, bytes, sizeof bytes, sum), bit / 8 == 4 ? 0 : -1);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	flow.src_port++;
	assert_int_not_equal(compute(&flow, 0, bytes, sizeof bytes), sum);
}

static void identification_is_found(void **state)
{
	(void)state;
	struct icrc_flow flow = flow_between("127.0.0.1", "127.0.0.2");
	static uint8_t bytes[WIRE_BTH + WIRE_MAX_MTU];
	const size_t lengths[] = {WIRE_BTH, 28, 60, 1040, sizeof bytes};

	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		fill(bytes, lengths[i], (unsigned)i);
		for (unsigned id = 0; id < 65536; id += 251)
			assert_int_equal(icrc_find_id(&flow, bytes, lengths[i], compute(&flow, (uint16_t)id, bytes, lengths[i])), id);
	}
}

/* rdma_rxe's table of opcodes gives a FLUSH no place of its payload, so that it begins at the BTH. */
static void a_flush_of_rdma_rxe_is_summed_twice(void **state)
{
	(void)state;
	struct icrc_flow flows[] = {flow_between("10.77.0.1", "192.168.255.254"), flow_between("fd77::1", "2001:db8::ff")};
	enum { FLUSH = WIRE_BTH + 4 + 16 };
	uint8_t bytes[2 * FLUSH];

	fill(bytes, FLUSH, 5);
	memcpy(bytes + FLUSH, bytes, FLUSH);
	for (size_t f = 0; f < 2; f++)
		for (unsigned id = 0; id < 65536; id += 4369) {
			struct icrc_flow *flow = &flows[f];
			/* expected() would have the length of both: the first sum, and then as zlib's crc32() goes on. */
			flow->twice = false;
			uint32_t once = compute(flow, (uint16_t)id, bytes, FLUSH);
			uint32_t crc = ~once;
			for (size_t i = FLUSH; i < sizeof bytes; i++) {
				crc ^= bytes[i];
				for (int bit = 0; bit < 8; bit++)
					crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
			}
			flow->twice = true;
			assert_int_equal(compute(flow, (uint16_t)id, bytes, FLUSH), ~crc);
			assert_int_equal(icrc_find_id(flow, bytes, FLUSH, ~crc), f == 0 ? (int)id : 0);
			assert_true(icrc_find_id(flow, bytes, FLUSH, once) != (int)id || f == 1);
		}
}

/* Of 65,536 wrong sums one has an identification: 20,000 should meet none or a few. */
static void wrong_sums_have_no_identification(void **state)
{
	(void)state;
	struct icrc_flow flow = flow_between("127.0.0.1", "127.0.0.2");
	uint8_t bytes[WIRE_BTH] = {4};
	uint32_t sum = compute(&flow, 5, bytes, sizeof bytes);
	unsigned found = 0;

	for (uint32_t i = 1; i <= 20000; i++)
		found += icrc_find_id(&flow, bytes, sizeof bytes, sum ^ i * 2654435761u) >= 0;
	assert_true(found <= 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sum_is_that_of_the_specification),
		cmocka_unit_test(pieces_are_as_the_whole),
		cmocka_unit_test(every_bit_counts_but_the_reserved_byte),
		cmocka_unit_test(identification_is_found),
		cmocka_unit_test(a_flush_of_rdma_rxe_is_summed_twice),
		cmocka_unit_test(wrong_sums_have_no_identification),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
