/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the connection manager, to bytes and back; and one as the kernel's (6.1, rdma_rxe) was seen to send it. */
#include "check.h"

#include <errno.h>
#include <string.h>

#include "mad.h"

static const enum mad_kind kinds[] = {MAD_REQ, MAD_MRA, MAD_REJ, MAD_REP, MAD_RTU, MAD_DREQ, MAD_DREP, MAD_SIDR_REQ, MAD_SIDR_REP,
				      MAD_LAP, MAD_APR};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* The common header, then the message of a REP; zeros follow. */
static const uint8_t kernels_rep[] = {
	0x01, 0x07, 0x02, 0x03, 0x00, 0x00, 0x00, 0x00, 0x87, 0xd1, 0x1d, 0x49, 0x21, 0x4a, 0x70, 0xd1, 0x00, 0x13, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x80, 0xce, 0x3e, 0x18, 0x21, 0x4a, 0x70, 0xd1, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x11, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x36, 0x55, 0xdb, 0x00, 0x01, 0x01, 0x78, 0xe0, 0x48, 0xe1, 0xd1, 0xff, 0xfe, 0xcf, 0x99, 0x7b,
};

static void kernels_message_is_understood(void **state)
{
	(void)state;
	uint8_t bytes[MAD_BYTES] = {0};
	struct mad mad;

	memcpy(bytes, kernels_rep, sizeof kernels_rep);
	assert_int_equal(mad_decode(bytes, sizeof bytes, &mad), 0);
	assert_int_equal(mad.kind, MAD_REP);
	assert_int_equal(mad.transaction, UINT64_C(0x87d11d49214a70d1));
	assert_int_equal(mad.local, 0x80ce3e18);
	assert_int_equal(mad.remote, 0x214a70d1);
	assert_int_equal(mad.qpn, 0x11);
	assert_int_equal(mad.psn, 0x3655db);
	assert_int_equal(mad.responder_resources, 1);
	assert_int_equal(mad.initiator_depth, 1);
	assert_int_equal(mad.target_ack_delay, 15);
	assert_int_equal(mad.rnr_retry_count, 7);
	assert_int_equal(mad.guid, UINT64_C(0x48e1d1fffecf997b));
	assert_int_equal(mad.private_length, 196);
	assert_int_equal(mad.ece_vendor, 0);
	uint8_t again[MAD_BYTES];
	mad_encode(&mad, again);
	assert_memory_equal(again, bytes, sizeof bytes);
}

/* Every field at once, with the most that it holds or a value of its own. */
static struct mad full(enum mad_kind kind)
{
	struct mad mad = {
		.kind = kind,
		.transaction = UINT64_C(0x0123456789abcdef),
		.local = 0xfedcba98,
		.remote = kind == MAD_REQ || kind == MAD_SIDR_REQ || kind == MAD_SIDR_REP ? 0 : 0x76543210,
		.private_length = (uint8_t)mad_private_room(kind),
	};
	for (size_t i = 0; i < MAD_PRIVATE && i < mad.private_length; i++)
		mad.private_data[i] = (uint8_t)(i + 1);
	if (kind == MAD_REQ || kind == MAD_REP) {
		mad.guid = UINT64_C(0x1122334455667788);
		mad.qkey = 0x80aabbcc;
		mad.qpn = 0xabcdef;
		mad.psn = 0xfffffe;
		mad.responder_resources = 255;
		mad.initiator_depth = 254;
		mad.flow_control = true;
		mad.srq = true;
		mad.rnr_retry_count = 6;
	}
	if (kind == MAD_REQ) {
		mad.service = UINT64_C(0x0000000001061234);
		mad.transport = 1;
		mad.retry_count = 5;
		mad.max_retries = 15;
		mad.remote_timeout = 31;
		mad.local_timeout = 20;
		mad.pkey = 0xffff;
		mad.mtu = IBV_MTU_4096;
		mad.local_gid.raw[15] = 1;
		mad.remote_gid.raw[0] = 0xfe;
		mad.tclass = 0xb8;
		mad.hop_limit = 64;
		mad.rate = 0x3f;
		mad.ack_timeout = 31;
	}
	if (kind == MAD_REQ || kind == MAD_REP || kind == MAD_SIDR_REP) {
		mad.ece_vendor = 0xa1b2c3;
		mad.ece_options = 0x89abcdef;
	}
	if (kind == MAD_REP) {
		mad.target_ack_delay = 31;
		mad.failover = 3;
	}
	if (kind == MAD_REJ || kind == MAD_MRA)
		mad.about = MAD_ABOUT_OTHER;
	if (kind == MAD_MRA)
		mad.service_timeout = 24;
	if (kind == MAD_REJ) {
		mad.reason = 28;
		mad.info_length = MAD_REJ_INFO;
		memset(mad.info, 0x5a, sizeof mad.info);
	}
	if (kind == MAD_APR) {
		mad.reason = MAD_APR_UNSUPPORTED;
		mad.info_length = MAD_REJ_INFO;
		memset(mad.info, 0x5a, sizeof mad.info);
	}
	if (kind == MAD_DREQ || kind == MAD_LAP)
		mad.qpn = 0x123456;
	if (kind == MAD_LAP)
		mad.remote_timeout = 20;
	if (kind == MAD_SIDR_REQ || kind == MAD_SIDR_REP)
		mad.service = UINT64_C(0x0000000001111234);
	if (kind == MAD_SIDR_REQ)
		mad.pkey = 0x8001;
	if (kind == MAD_SIDR_REP) {
		mad.reason = MAD_SIDR_REJECTED;
		mad.qpn = 0x654321;
		mad.qkey = 0x01234567;
	}
	return mad;
}

static void every_field_survives(void **state)
{
	(void)state;
	for (int i = 0; i < KINDS; i++) {
		struct mad in = full(kinds[i]), out;
		uint8_t bytes[MAD_BYTES];
		mad_encode(&in, bytes);
		memset(&out, 0xee, sizeof out);
		assert_int_equal(mad_decode(bytes, sizeof bytes, &out), 0);
		assert_memory_equal(&in, &out, sizeof in);
	}
}

static void alternate_paths_are_seen(void **state)
{
	(void)state;
	const struct mad in = full(MAD_REQ);
	uint8_t bytes[MAD_BYTES];
	struct mad out;

	for (size_t at = 24 + 96; at < 24 + 96 + 36; at++) {
		mad_encode(&in, bytes);
		bytes[at] = 1;
		assert_int_equal(mad_decode(bytes, sizeof bytes, &out), 0);
		assert_true(out.alternate);
	}
}

static void other_datagrams_are_refused(void **state)
{
	(void)state;
	const struct mad in = full(MAD_REQ);
	uint8_t good[MAD_BYTES], bytes[MAD_BYTES];
	struct mad out;

	mad_encode(&in, good);
	for (size_t length = 0; length < MAD_BYTES; length++)
		assert_int_equal(mad_decode(good, length, &out), -EBADMSG);
	/* Base version, class, class version, method, attribute. */
	static const uint8_t places[] = {0, 1, 2, 3, 16, 17};
	for (size_t i = 0; i < sizeof places; i++) {
		memcpy(bytes, good, sizeof bytes);
		bytes[places[i]] ^= 0x40;
		assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
	}
}

static void impossible_values_are_refused(void **state)
{
	(void)state;
	uint8_t bytes[MAD_BYTES];
	struct mad out;
	static const uint32_t qpns[] = {0, 1, 0xffffff};

	for (size_t i = 0; i < sizeof qpns / sizeof qpns[0]; i++) {
		struct mad req = full(MAD_REQ), rep = full(MAD_REP);
		req.qpn = rep.qpn = qpns[i];
		mad_encode(&req, bytes);
		assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
		mad_encode(&rep, bytes);
		assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
	}
	struct mad req = full(MAD_REQ);
	req.mtu = 0;
	mad_encode(&req, bytes);
	assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
	req.mtu = IBV_MTU_4096 + 1;
	mad_encode(&req, bytes);
	assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
	req = full(MAD_REQ);
	req.transport = 2; /* RD */
	mad_encode(&req, bytes);
	assert_int_equal(mad_decode(bytes, sizeof bytes, &out), -EBADMSG);
}

/* A rejection says how long its information is: no more than there is. */
static void information_ends_with_its_room(void **state)
{
	(void)state;
	const struct mad in = full(MAD_REJ);
	uint8_t bytes[MAD_BYTES];
	struct mad out;

	mad_encode(&in, bytes);
	bytes[24 + 9] = 0xff;
	assert_int_equal(mad_decode(bytes, sizeof bytes, &out), 0);
	assert_int_equal(out.info_length, MAD_REJ_INFO);
}

static void addresses_of_programs_survive(void **state)
{
	(void)state;
	struct mad_ip v4 = {.v4 = true, .port = 7174}, v6 = {.port = 1}, out;
	uint8_t bytes[MAD_IP_BYTES];

	v4.source.raw[10] = v4.source.raw[11] = v4.destination.raw[10] = v4.destination.raw[11] = 0xff;
	memcpy(v4.source.raw + 12, "\x0a\x63\x00\x01", 4);
	memcpy(v4.destination.raw + 12, "\x0a\x63\x00\x02", 4);
	memset(&out, 0, sizeof out);
	mad_write_ip(&v4, bytes);
	assert_true(mad_read_ip(bytes, sizeof bytes, &out));
	assert_memory_equal(&out, &v4, sizeof out);
	v6.source.raw[0] = 0xfd;
	v6.destination.raw[15] = 1;
	mad_write_ip(&v6, bytes);
	assert_true(mad_read_ip(bytes, sizeof bytes, &out));
	assert_memory_equal(&out, &v6, sizeof out);
	assert_false(mad_read_ip(bytes, sizeof bytes - 1, &out));
	bytes[1] = 0x50; /* no such version of IP */
	assert_false(mad_read_ip(bytes, sizeof bytes, &out));
	mad_write_ip(&v6, bytes);
	bytes[0] = 1; /* another version of the header */
	assert_false(mad_read_ip(bytes, sizeof bytes, &out));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernels_message_is_understood),
		cmocka_unit_test(every_field_survives),
		cmocka_unit_test(alternate_paths_are_seen),
		cmocka_unit_test(other_datagrams_are_refused),
		cmocka_unit_test(impossible_values_are_refused),
		cmocka_unit_test(information_ends_with_its_room),
		cmocka_unit_test(addresses_of_programs_survive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
