/* SPDX-License-Identifier: Apache-2.0 */
/* Packets to bytes and back: every opcode, every truncation, the limits of the fields. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

/* The specification's own table (volume 1, table 38, and annex A19), written down apart from the code: bytes after the BTH. */
static const struct {
	uint8_t operation;
	uint8_t headers;
	bool rc, uc, ud;
	bool payload;
} table[] = {
	{0x00, 0, 1, 1, 0, 1},  {0x01, 0, 1, 1, 0, 1},  {0x02, 0, 1, 1, 0, 1},  {0x03, 4, 1, 1, 0, 1},  {0x04, 0, 1, 1, 1, 1},
	{0x05, 4, 1, 1, 1, 1},  {0x06, 16, 1, 1, 0, 1}, {0x07, 0, 1, 1, 0, 1},  {0x08, 0, 1, 1, 0, 1},  {0x09, 4, 1, 1, 0, 1},
	{0x0a, 16, 1, 1, 0, 1}, {0x0b, 20, 1, 1, 0, 1}, {0x0c, 16, 1, 0, 0, 0}, {0x0d, 4, 1, 0, 0, 1},  {0x0e, 0, 1, 0, 0, 1},
	{0x0f, 4, 1, 0, 0, 1},  {0x10, 4, 1, 0, 0, 1},  {0x11, 4, 1, 0, 0, 0},  {0x12, 12, 1, 0, 0, 0}, {0x13, 28, 1, 0, 0, 0},
	{0x14, 28, 1, 0, 0, 0}, {0x16, 4, 1, 0, 0, 1},  {0x17, 4, 1, 0, 0, 1},   {0x1c, 20, 1, 0, 0, 0},
	{0x1d, 16, 1, 0, 0, 1},
};

enum { KINDS = sizeof table / sizeof table[0], DETH = 8 };

static int kind_of(uint8_t opcode)
{
	uint8_t transport = opcode & 0xe0;

	for (int i = 0; i < KINDS; i++)
		if (table[i].operation == (opcode & 0x1f) &&
		    ((transport == WIRE_RC && table[i].rc) || (transport == WIRE_UC && table[i].uc) || (transport == WIRE_UD && table[i].ud)))
			return i;
	return -1;
}

static size_t headers_of(uint8_t opcode)
{
	return WIRE_BTH + table[kind_of(opcode)].headers + ((opcode & 0xe0) == WIRE_UD ? DETH : 0u);
}

static struct packet full(uint8_t opcode)
{
	return (struct packet){
		.opcode = opcode, .solicited = true, .ack_req = true, .pkey = 0xfffe, .qpn = 0xfedcba, .psn = 0xabcdef,
		.qkey = 0x80123456, .src_qpn = 0x00c0de, .va = 0x0123456789abcdef, .rkey = 0xdeadbeef, .length = 0x7fffffff,
		.swap_add = 0x1122334455667788, .compare = 0x99aabbccddeeff00, .original = 0xf0e1d2c3b4a59687, .syndrome = 0x62,
		.msn = 0x345678, .imm = 0x01020304, .invalidate = 0xcafebabe, .flush_type = 9, .flush_level = 2,
		.waited = 0x80000001,
	};
}

/* Of no service: the notification of congestion, and uroce's own. */
static bool is_whole(unsigned opcode)
{
	return opcode == OP_CNP || opcode == OP_GAPS || opcode == OP_ASK_TAG || opcode == OP_WAITED;
}

static void opcodes_are_those_of_the_specification(void **state)
{
	(void)state;
	for (unsigned opcode = 0; opcode < 256; opcode++)
		assert_int_equal((wire_traits((uint8_t)opcode) & T_VALID) != 0, kind_of((uint8_t)opcode) >= 0 || is_whole(opcode));
}

static void what_is_encoded_is_decoded(void **state)
{
	(void)state;
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		if (kind_of((uint8_t)opcode) < 0)
			continue;
		uint32_t traits = wire_traits((uint8_t)opcode);
		struct packet in = full((uint8_t)opcode), out;
		uint8_t bytes[WIRE_MAX_HEADER + 8] = {0};
		size_t length = wire_encode(&in, bytes);

		assert_int_equal(length, headers_of((uint8_t)opcode));
		size_t payload = traits & T_PAYLOAD ? 8 : 0;
		memset(bytes + length, 0x5a, payload);
		assert_int_equal(wire_decode(bytes, length + payload, &out), 0);
		assert_int_equal(out.opcode, opcode);
		assert_true(out.solicited && out.ack_req);
		assert_int_equal(out.pkey, in.pkey);
		assert_int_equal(out.qpn, in.qpn);
		assert_int_equal(out.psn, in.psn);
		assert_int_equal(out.payload_length, payload);
		if (payload > 0)
			assert_ptr_equal(out.payload, bytes + length);
		if (traits & T_DETH)
			assert_true(out.qkey == in.qkey && out.src_qpn == in.src_qpn);
		if (traits & (T_RETH | T_ATOMIC_ETH))
			assert_true(out.va == in.va && out.rkey == in.rkey);
		if (traits & T_RETH)
			assert_int_equal(out.length, in.length);
		if (traits & T_ATOMIC_ETH)
			assert_true(out.swap_add == in.swap_add && out.compare == in.compare);
		if (traits & T_AETH)
			assert_true(out.syndrome == in.syndrome && out.msn == in.msn);
		if (traits & T_ATOMIC_ACK_ETH)
			assert_true(out.original == in.original);
		if (traits & T_IMM)
			assert_int_equal(out.imm, in.imm);
		if (traits & T_IETH)
			assert_int_equal(out.invalidate, in.invalidate);
		if (traits & T_FETH)
			assert_true(out.flush_type == in.flush_type && out.flush_level == in.flush_level);
	}
}

static void how_long_a_request_has_waited_has_four_bytes(void **state)
{
	(void)state;
	struct packet in = full(OP_WAITED), out;
	uint8_t bytes[WIRE_MAX_HEADER];
	assert_int_equal(wire_encode(&in, bytes), WIRE_BTH + 4);
	assert_int_equal(wire_decode(bytes, WIRE_BTH + 4, &out), 0);
	assert_int_equal(out.waited, in.waited);
	assert_int_equal(out.psn, in.psn);
}

/* Volume 1, 9.2: the first bytes of a send with immediate data, written out by hand. */
static void bytes_lie_where_the_specification_says(void **state)
{
	(void)state;
	struct packet in = {
		.opcode = OP_SEND_ONLY_IMM, .solicited = true, .ack_req = true, .pad = 3, .pkey = 0xffff, .qpn = 0x010203,
		.psn = 0x0a0b0c, .imm = 0,
	};
	const uint8_t expected[] = {0x05, 0xf0, 0xff, 0xff, 0, 1, 2, 3, 0x80, 0x0a, 0x0b, 0x0c, 'i', 'm', 'm', '!'};
	uint8_t bytes[WIRE_MAX_HEADER];

	memcpy(&in.imm, "imm!", 4);
	assert_int_equal(wire_encode(&in, bytes), sizeof expected);
	/* The migration bit is set, as rdma_rxe and the specification's default have it, or not: it is nobody's concern. */
	bytes[1] |= 0x40;
	assert_memory_equal(bytes, expected, sizeof expected);
}

/* Annex A19: the level in bits 5 and 4 of the FETH, the type in the lowest four, and the RETH after it. */
static void a_flush_has_its_header_before_the_reth(void **state)
{
	(void)state;
	struct packet in = {
		.opcode = OP_FLUSH, .ack_req = true, .pkey = 0xffff, .qpn = 0x010203, .psn = 0x0a0b0c, .flush_type = 3, .flush_level = 1,
		.va = 0x1112131415161718, .rkey = 0x21222324, .length = 0x31323334,
	};
	const uint8_t expected[] = {0x1c, 0x40, 0xff, 0xff, 0, 1, 2, 3, 0x80, 0x0a, 0x0b, 0x0c, 0, 0, 0, 0x13,
				    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34};
	uint8_t bytes[WIRE_MAX_HEADER];

	assert_int_equal(wire_encode(&in, bytes), sizeof expected);
	assert_memory_equal(bytes, expected, sizeof expected);
}

static void truncated_packets_are_refused(void **state)
{
	(void)state;
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		uint8_t bytes[WIRE_MAX_HEADER] = {(uint8_t)opcode};
		struct packet in = full((uint8_t)opcode), out;
		size_t length = kind_of((uint8_t)opcode) < 0 && !is_whole(opcode) ? sizeof bytes : wire_encode(&in, bytes);

		for (size_t cut = 0; cut < length; cut++) {
			/* On the heap: a read beyond its end would be found. */
			uint8_t *copy = malloc(cut + (cut == 0));
			assert_non_null(copy);
			memcpy(copy, bytes, cut);
			assert_int_equal(wire_decode(copy, cut, &out), -EBADMSG);
			free(copy);
		}
	}
}

static void padding_comes_off_the_payload(void **state)
{
	(void)state;
	for (uint8_t pad = 0; pad < 4; pad++) {
		struct packet in = full(OP_SEND_ONLY), out;
		uint8_t bytes[WIRE_MAX_HEADER + 8] = {0};
		in.pad = pad;
		size_t length = wire_encode(&in, bytes);

		assert_int_equal(wire_decode(bytes, length + 8, &out), 0);
		assert_int_equal(out.payload_length, 8 - pad);
		assert_int_equal(wire_decode(bytes, length, &out), pad == 0 ? 0 : -EBADMSG);
	}
}

static void other_versions_and_lengths_are_refused(void **state)
{
	(void)state;
	struct packet in = full(OP_SEND_ONLY), out;
	static uint8_t bytes[WIRE_MAX_HEADER + WIRE_MAX_MTU + 8];
	size_t length = wire_encode(&in, bytes);

	assert_int_equal(wire_decode(bytes, length + WIRE_MAX_MTU, &out), 0);
	assert_int_equal(wire_decode(bytes, length + WIRE_MAX_MTU + 4, &out), -EBADMSG);
	bytes[1] |= 1; /* the transport header's version */
	assert_int_equal(wire_decode(bytes, length, &out), -EBADMSG);
	/* A request without data does not come with any. */
	in = full(OP_READ_REQUEST);
	length = wire_encode(&in, bytes);
	assert_int_equal(wire_decode(bytes, length, &out), 0);
	assert_int_equal(wire_decode(bytes, length + 4, &out), -EBADMSG);
}

static void psns_go_round(void **state)
{
	(void)state;
	assert_int_equal(psn_add(0xffffff, 1), 0);
	assert_int_equal(psn_diff(0, 0xffffff), 1);
	assert_int_equal(psn_diff(0xffffff, 0), -1);
	assert_int_equal(psn_diff(0x7fffff, 0), 0x7fffff);
	assert_int_equal(psn_diff(0x800000, 0), -0x800000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opcodes_are_those_of_the_specification),
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(how_long_a_request_has_waited_has_four_bytes),
		cmocka_unit_test(bytes_lie_where_the_specification_says),
		cmocka_unit_test(a_flush_has_its_header_before_the_reth),
		cmocka_unit_test(truncated_packets_are_refused),
		cmocka_unit_test(padding_comes_off_the_payload),
		cmocka_unit_test(other_versions_and_lengths_are_refused),
		cmocka_unit_test(psns_go_round),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
