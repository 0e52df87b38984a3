/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "frames.h"

#define READ_WRITE (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

/* The HELLO that docs/PROTOCOL.md shows byte for byte. If these bytes change, so does the protocol's version. */
static const uint8_t golden[SRDMA_FRAME_HEADER + SRDMA_HELLO_BODY] = {
	0x00, 0x50, 0x01, 0x01,                         /* 80 bytes, version 1, HELLO */
	0x02, 0x03, 0x00, 0x00,                         /* Ethernet, path MTU 1024, LID 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* GID ::ffff:10.77.0.1 */
	0x00, 0x00, 0xff, 0xff, 0x0a, 0x4d, 0x00, 0x01, /* ... */
	0x00, 0x00, 0x00, 0x11,                         /* QPN 0x000011 */
	0x00, 0x28, 0x07, 0xd5,                         /* PSN 0x2807d5 */
	0x00, 0x00, 0x00, 0x01,                         /* messages */
	0x00, 0x00, 0x10, 0x00,                         /* of 4096 bytes */
	0x00, 0x10, 0x10, 0x08,                         /* depth 16; 16 reads asked for, 8 answered */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* region from 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, /* of 64 KiB */
	0x00, 0x00, 0x0a, 0xbc,                         /* rkey */
	0x00, 0x00, 0x00, 0x06,                         /* for writes and reads */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* no client id in a HELLO */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* reserved */
};

/* Members of a good HELLO, on Ethernet or InfiniBand. A test overrides some of them behind it. */
#define GID(...)             .gid.raw = {__VA_ARGS__}
#define GID_IPV4(a, b, c, d) GID([10] = 0xff, [11] = 0xff, [12] = a, [13] = b, [14] = c, [15] = d)
#define GOOD                                                                                                           \
	.link_layer = IBV_LINK_LAYER_ETHERNET, .path_mtu = IBV_MTU_1024, GID_IPV4(10, 77, 0, 1), .qpn = 0x11, .psn = 0x2807d5,       \
	.features = SRDMA_FEATURE_MESSAGES, .message_size = 4096, .depth = 16, .rd_initiator = 16, .rd_responder = 8,  \
	.region_size = 65536, .region_rkey = 0xabc, .region_access = READ_WRITE
#define GOOD_INFINIBAND GOOD, .link_layer = IBV_LINK_LAYER_INFINIBAND, .lid = 1
#define RAW             .message_size = 0, .depth = 0
#define NO_REGION       .region_size = 0, .region_rkey = 0, .region_access = 0

/* Field by field: the structure has padding. */
static void assert_hello_equal(const struct srdma_hello *a, const struct srdma_hello *b)
{
	assert_int_equal(a->link_layer, b->link_layer);
	assert_int_equal(a->path_mtu, b->path_mtu);
	assert_int_equal(a->lid, b->lid);
	assert_memory_equal(&a->gid, &b->gid, sizeof a->gid);
	assert_int_equal(a->qpn, b->qpn);
	assert_int_equal(a->psn, b->psn);
	assert_int_equal(a->features, b->features);
	assert_int_equal(a->message_size, b->message_size);
	assert_int_equal(a->depth, b->depth);
	assert_int_equal(a->rd_initiator, b->rd_initiator);
	assert_int_equal(a->rd_responder, b->rd_responder);
	assert_true(a->region_address == b->region_address);
	assert_true(a->region_size == b->region_size);
	assert_int_equal(a->region_rkey, b->region_rkey);
	assert_int_equal(a->region_access, b->region_access);
	assert_true(a->client_id == b->client_id);
}

static struct srdma_frame_header header_of(const uint8_t *frame)
{
	struct srdma_frame_header header;

	assert_int_equal(srdma_frame_header_decode(frame, &header), 0);
	assert_int_equal(header.version, SRDMA_PROTOCOL_VERSION);
	return header;
}

/* ---- form ------------------------------------------------------------------------------------------------------ */

TEST(hello_has_the_documented_bytes)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	struct srdma_hello in = {GOOD}, out;

	assert_int_equal(srdma_hello_encode(frame, SRDMA_FRAME_HELLO, &in), sizeof golden);
	assert_memory_equal(frame, golden, sizeof golden);
	assert_int_equal(srdma_hello_decode(SRDMA_FRAME_HELLO, golden + SRDMA_FRAME_HEADER, SRDMA_HELLO_BODY, &out), 0);
	assert_hello_equal(&in, &out);
}

TEST(hello_and_welcome_survive_the_round_trip)
{
	static const enum srdma_frame_type types[] = {SRDMA_FRAME_HELLO, SRDMA_FRAME_WELCOME};
	/* Every byte of every field differs, so that swapped or shortened fields show. */
	struct srdma_hello in = {
		.link_layer = 0x01,
		.path_mtu = 0x02,
		.lid = 0x0304,
		.gid.raw = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
		.qpn = 0x21222324,
		.psn = 0x25262728,
		.features = 0x292a2b2c,
		.message_size = 0x2d2e2f30,
		.depth = 0x3132,
		.rd_initiator = 0x33,
		.rd_responder = 0x34,
		.region_address = 0x3536373839404142,
		.region_size = 0x4344454647484950,
		.region_rkey = 0x51525354,
		.region_access = 0x55565758,
		.client_id = 0x5960616263646566,
	};

	for (size_t i = 0; i < 2; i++) {
		uint8_t frame[SRDMA_FRAME_MAX];
		struct srdma_hello out;

		assert_int_equal(srdma_hello_encode(frame, types[i], &in), SRDMA_FRAME_HEADER + SRDMA_HELLO_BODY);
		assert_int_equal(header_of(frame).type, types[i]);
		assert_int_equal(header_of(frame).length, SRDMA_HELLO_BODY);
		assert_int_equal(srdma_hello_decode(SRDMA_FRAME_HELLO, frame + SRDMA_FRAME_HEADER, SRDMA_HELLO_BODY, &out), 0);
		assert_hello_equal(&in, &out);
	}
}

TEST(reject_survives_the_round_trip)
{
	struct srdma_reject in = {.retry_after_ms = 0x01020304}, out;
	uint8_t frame[SRDMA_FRAME_MAX];

	for (unsigned reason = 0; reason <= 0xffff; reason += 5) {
		size_t text = reason % sizeof in.text;

		in.reason = (enum srdma_reject_reason)reason;
		memset(in.text, 'x', text);
		in.text[text] = '\0';
		assert_int_equal(srdma_reject_encode(frame, &in), SRDMA_FRAME_HEADER + 9 + text);
		assert_int_equal(header_of(frame).type, SRDMA_FRAME_REJECT);
		assert_int_equal(header_of(frame).length, 9 + text);
		assert_int_equal(srdma_reject_decode(frame + SRDMA_FRAME_HEADER, 9 + text, &out), 0);
		assert_int_equal(out.reason, reason);
		assert_int_equal(out.retry_after_ms, in.retry_after_ms);
		assert_string_equal(out.text, in.text);
	}
}

TEST(disconnect_and_its_ack_survive_the_round_trip)
{
	static const enum srdma_frame_type types[] = {SRDMA_FRAME_DISCONNECT, SRDMA_FRAME_DISCONNECT_ACK};
	struct srdma_disconnect in = {.messages_sent = 0x0102030405060708}, out;

	for (size_t length = 0; length <= SRDMA_REASON_MAX; length++) {
		uint8_t frame[SRDMA_FRAME_MAX];

		memset(in.reason, 'r', length);
		in.reason[length] = '\0';
		assert_int_equal(srdma_disconnect_encode(frame, types[length % 2], &in),
				 SRDMA_FRAME_HEADER + 9 + length);
		assert_int_equal(header_of(frame).type, types[length % 2]);
		assert_int_equal(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, frame + SRDMA_FRAME_HEADER, 9 + length, &out), 0);
		assert_true(out.messages_sent == in.messages_sent);
		assert_string_equal(out.reason, in.reason);
	}
}

TEST(ready_and_finish_are_a_header_alone)
{
	uint8_t frame[SRDMA_FRAME_MAX];

	assert_int_equal(srdma_empty_encode(frame, SRDMA_FRAME_READY), SRDMA_FRAME_HEADER);
	assert_memory_equal(frame, ((const uint8_t[]){0, 0, 1, 4}), SRDMA_FRAME_HEADER);
	assert_int_equal(srdma_empty_encode(frame, SRDMA_FRAME_FINISH), SRDMA_FRAME_HEADER);
	assert_memory_equal(frame, ((const uint8_t[]){0, 0, 1, 7}), SRDMA_FRAME_HEADER);
}

TEST(reject_and_disconnect_have_the_documented_bytes)
{
	static const uint8_t reject[] = {0, 13, 1, 3, 0, 3, 0, 0, 0, 0, 0x03, 0xe8, 4, 'f', 'u', 'l', 'l'};
	static const uint8_t disconnect[] = {0, 12, 1, 5, 0, 0, 0, 0, 0, 0, 0, 42, 3, 'b', 'y', 'e'};
	struct srdma_reject r = {.reason = SRDMA_REJECT_FULL, .retry_after_ms = 1000, .text = "full"};
	struct srdma_disconnect d = {.messages_sent = 42, .reason = "bye"};
	uint8_t frame[SRDMA_FRAME_MAX];

	assert_int_equal(srdma_reject_encode(frame, &r), sizeof reject);
	assert_memory_equal(frame, reject, sizeof reject);
	assert_int_equal(srdma_disconnect_encode(frame, SRDMA_FRAME_DISCONNECT, &d), sizeof disconnect);
	assert_memory_equal(frame, disconnect, sizeof disconnect);
}

/* A frame of each kind, and its decoder. */
union decoded {
	struct srdma_hello hello;
	struct srdma_reject reject;
	struct srdma_disconnect disconnect;
};

typedef int decode_fn(const uint8_t *body, size_t length, union decoded *out);

static int decode_hello(const uint8_t *body, size_t length, union decoded *out)
{
	return srdma_hello_decode(SRDMA_FRAME_HELLO, body, length, &out->hello);
}

static int decode_reject(const uint8_t *body, size_t length, union decoded *out)
{
	return srdma_reject_decode(body, length, &out->reject);
}

static int decode_disconnect(const uint8_t *body, size_t length, union decoded *out)
{
	return srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, body, length, &out->disconnect);
}

/* From a block of exactly its length, so that a sanitizer sees a read past the end; and nothing is handed out. */
static void assert_decode_refused(decode_fn *decode, const uint8_t *body, size_t length)
{
	union decoded out, before;
	uint8_t *copy = malloc(length ? length : 1);

	assert_non_null(copy);
	memcpy(copy, body, length);
	memset(&out, 0xaa, sizeof out);
	memcpy(&before, &out, sizeof before);
	assert_int_equal(decode(copy, length, &out), SRDMA_EPROTOCOL);
	assert_memory_equal(&before, &out, sizeof before);
	free(copy);
}

static void assert_decoded_whole_only(decode_fn *decode, const uint8_t *frame, size_t whole)
{
	union decoded out;

	assert_int_equal(decode(frame + SRDMA_FRAME_HEADER, whole - SRDMA_FRAME_HEADER, &out), 0);
	for (size_t length = 0; length <= SRDMA_FRAME_BODY_MAX; length++)
		if (length != whole - SRDMA_FRAME_HEADER)
			assert_decode_refused(decode, frame + SRDMA_FRAME_HEADER, length);
}

TEST(truncated_or_extended_frame_is_refused)
{
	struct srdma_reject reject = {.reason = SRDMA_REJECT_FULL, .text = "all places are taken"};
	struct srdma_disconnect disconnect = {.messages_sent = 7, .reason = "done"};
	uint8_t frame[SRDMA_FRAME_MAX] = {0};

	memcpy(frame, golden, sizeof golden);
	assert_decoded_whole_only(decode_hello, frame, sizeof golden);
	memset(frame, 0, sizeof frame);
	assert_decoded_whole_only(decode_reject, frame, srdma_reject_encode(frame, &reject));
	memset(frame, 0, sizeof frame);
	assert_decoded_whole_only(decode_disconnect, frame, srdma_disconnect_encode(frame, SRDMA_FRAME_DISCONNECT, &disconnect));
}

TEST(body_that_is_null_is_refused)
{
	struct srdma_hello hello;
	struct srdma_reject reject;
	struct srdma_disconnect disconnect;

	assert_int_equal(srdma_hello_decode(SRDMA_FRAME_HELLO, NULL, 0, &hello), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_reject_decode(NULL, 0, &reject), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, NULL, 0, &disconnect), SRDMA_EPROTOCOL);
	assert_string_equal(srdma_error_text(), "the peer sent a malformed DISCONNECT of 0 bytes");
	assert_int_equal(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT_ACK, NULL, 0, &disconnect), SRDMA_EPROTOCOL);
	assert_string_equal(srdma_error_text(), "the peer sent a malformed DISCONNECT_ACK of 0 bytes");
	assert_int_equal(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT_ACK, (const uint8_t *)"", 1, &disconnect), SRDMA_EPROTOCOL);
	assert_string_equal(srdma_error_text(), "the peer sent a malformed DISCONNECT_ACK of 1 byte");
	assert_int_equal(srdma_hello_decode(SRDMA_FRAME_WELCOME, NULL, 0, &hello), SRDMA_EPROTOCOL);
	assert_error_says("a WELCOME with a body of 0 bytes");
}

TEST(reason_longer_than_its_place_is_refused)
{
	uint8_t body[9 + 255];

	memset(body, 'x', sizeof body);
	for (size_t length = SRDMA_REASON_MAX + 1; length <= 255; length++) {
		body[8] = (uint8_t)length;
		assert_decode_refused(decode_disconnect, body, 9 + length);
	}
}

TEST(reserved_field_that_is_not_zero_is_refused)
{
	for (size_t at = 72; at < SRDMA_HELLO_BODY; at++) {
		uint8_t body[SRDMA_HELLO_BODY];

		memcpy(body, golden + SRDMA_FRAME_HEADER, sizeof body);
		body[at] = 0x80;
		assert_decode_refused(decode_hello, body, sizeof body);
		assert_error_says("reserved");
	}
}

TEST(frame_over_512_bytes_is_refused_by_its_header)
{
	static const unsigned too_long[] = {SRDMA_FRAME_BODY_MAX + 1, 0x1000, 0xffff};
	struct srdma_frame_header header;

	for (size_t i = 0; i < COUNT(too_long); i++) {
		uint8_t bytes[SRDMA_FRAME_HEADER] = {(uint8_t)(too_long[i] >> 8), (uint8_t)too_long[i], 1, 1};
		char number[16];

		assert_int_equal(srdma_frame_header_decode(bytes, &header), SRDMA_EPROTOCOL);
		snprintf(number, sizeof number, "%u", too_long[i]);
		assert_error_says(number);
	}
	assert_int_equal(srdma_frame_header_decode((const uint8_t[]){0x02, 0x00, 9, 8}, &header), 0);
	assert_int_equal(header.length, SRDMA_FRAME_BODY_MAX);
	assert_int_equal(header.version, 9);
	assert_int_equal(header.type, 8);
}

TEST(text_of_the_peer_holds_no_control_characters)
{
	uint8_t body[9 + 255] = {0};
	struct srdma_reject reject;
	struct srdma_disconnect disconnect;

	body[8] = 255;
	for (unsigned i = 0; i < 255; i++)
		body[9 + i] = (uint8_t)i;
	assert_int_equal(srdma_reject_decode(body, sizeof body, &reject), 0);
	assert_int_equal(strlen(reject.text), 255);
	for (unsigned i = 0; i < 255; i++)
		assert_int_equal((uint8_t)reject.text[i], i >= 0x20 && i < 0x7f ? i : '?');
	body[8] = 6;
	/* The second CSI is U+009B in UTF-8. */
	memcpy(body + 9, "\033[\n\0\xc2\x9b", 6);
	assert_int_equal(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, body, 9 + 6, &disconnect), 0);
	assert_string_equal(disconnect.reason, "?[????");
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static void check_refused(const struct srdma_hello *h, bool welcome, enum srdma_reject_reason reason, const char *field)
{
	struct srdma_reject reject = {.reason = SRDMA_REJECT_NONE};

	if (srdma_hello_validate(h, welcome, &reject) != SRDMA_EPROTOCOL || reject.reason != reason || !strstr(reject.text, field))
		fail_msg("reason %d, '%s'; wanted reason %d, '%s'", reject.reason, reject.text, reason, field);
	assert_int_equal(reject.retry_after_ms, 0);
}

static void check_accepted(const struct srdma_hello *h, bool welcome)
{
	struct srdma_reject reject = {.text = ""};

	if (srdma_hello_validate(h, welcome, &reject) != 0)
		fail_msg("refused: %s", reject.text);
}

TEST(bad_field_is_refused_by_name)
{
	static const struct {
		const char *field;
		struct srdma_hello hello;
	} cases[] = {
		{"PSN", {GOOD, .psn = 0x1000000}},
		{"PSN", {GOOD, .psn = 0x12807d5}},
		{"PSN", {GOOD, .psn = UINT32_MAX}},
		{"QPN", {GOOD, .qpn = 0}},
		{"QPN", {GOOD, .qpn = 1}},
		{"QPN", {GOOD, .qpn = 0x1000000}},
		{"QPN", {GOOD, .qpn = UINT32_MAX}},
		/* Addresses that are no host's: none, multicast, a network, broadcast. */
		{"GID", {GOOD, GID(0)}},
		{"GID", {GOOD, GID(0xff, [10] = 0xff, [11] = 0xff, [12] = 10, [13] = 77, [15] = 1)}},
		{"GID", {GOOD, GID(0xff, 2, [15] = 1)}},
		{"GID", {GOOD, GID_IPV4(0, 77, 0, 1)}},
		{"GID", {GOOD, GID_IPV4(224, 77, 0, 1)}},
		{"GID", {GOOD, GID_IPV4(239, 77, 0, 1)}},
		{"GID", {GOOD, GID_IPV4(255, 255, 255, 255)}},
		{"LID", {GOOD_INFINIBAND, .lid = 0}},
		{"LID", {GOOD_INFINIBAND, .lid = 0xc000}},
		{"LID", {GOOD_INFINIBAND, .lid = 0xffff}},
		{"MTU", {GOOD, .path_mtu = 0}},
		{"MTU", {GOOD, .path_mtu = 6}},
		{"MTU", {GOOD, .path_mtu = 255}},
		{"link layer", {GOOD, .link_layer = IBV_LINK_LAYER_UNSPECIFIED}},
		{"link layer", {GOOD, .link_layer = 3}},
		{"link layer", {GOOD, .link_layer = 255}},
		{"message size", {GOOD, .message_size = 0}},
		{"message size", {GOOD, .message_size = 63}},
		{"message size", {GOOD, .message_size = (1u << 20) + 1}},
		{"message size", {GOOD, .message_size = UINT32_MAX}},
		{"depth", {GOOD, .depth = 0}},
		{"depth", {GOOD, .depth = 4097}},
		{"depth", {GOOD, .depth = 0xffff}},
		/* A raw connection has neither. */
		{"depth", {GOOD, .features = 0, .message_size = 0}},
		{"message size", {GOOD, .features = 0, .depth = 0}},
		/* Features that contradict the rest. */
		{"rkey", {GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_SEALED, .region_size = 4096, .region_rkey = 7}},
		{"rkey", {GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_WINDOW, .region_size = 4096, .region_rkey = 7}},
		{"message", {GOOD, RAW, .features = SRDMA_FEATURE_EPOCHS}},
		{"message", {GOOD, RAW, .features = SRDMA_FEATURE_SEALED}},
		{"rkeys", {GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_EPOCHS | SRDMA_FEATURE_REGION_KEYS}},
		{"rkeys", {GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_REGIONS | SRDMA_FEATURE_REGION_KEYS}},
		{"rkeys", {GOOD, RAW, .features = SRDMA_FEATURE_REGIONS | SRDMA_FEATURE_REGION_KEYS}},
		/* Regions beyond the address space, and fields of a region where there is none. */
		{"region", {GOOD, .region_address = 1, .region_size = UINT64_MAX}},
		{"region", {GOOD, .region_address = UINT64_MAX, .region_size = 1}},
		{"region", {GOOD, .region_address = 1ull << 63, .region_size = 1ull << 63}},
		{"region", {GOOD, NO_REGION, .region_address = 1}},
		{"region", {GOOD, NO_REGION, .region_rkey = 0xabc}},
		{"region", {GOOD, NO_REGION, .region_access = READ_WRITE}},
		{"RDMA read", {GOOD, .rd_responder = 0}},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		check_refused(&cases[i].hello, false, SRDMA_REJECT_MALFORMED, cases[i].field);
		check_refused(&cases[i].hello, true, SRDMA_REJECT_MALFORMED, cases[i].field);
	}
}

TEST(good_fields_are_accepted_up_to_their_limits)
{
	static const struct srdma_hello cases[] = {
		{GOOD},
		{GOOD_INFINIBAND},
		{GOOD, .psn = 0},
		{GOOD, .psn = 0xffffff},
		{GOOD, .qpn = 2},
		{GOOD, .qpn = 0xffffff},
		{GOOD, GID_IPV4(1, 77, 0, 1)},
		{GOOD, GID_IPV4(223, 77, 0, 1)},
		{GOOD, GID(0xfe, 0x80, [15] = 1)},
		{GOOD, GID(0xfd, [12] = 239, [15] = 1)},
		{GOOD_INFINIBAND, .lid = 0xbfff},
		{GOOD_INFINIBAND, GID(0)},
		{GOOD, .lid = 0},
		{GOOD, .path_mtu = IBV_MTU_256},
		{GOOD, .path_mtu = IBV_MTU_4096},
		{GOOD, .message_size = 64},
		{GOOD, .message_size = 1u << 20},
		{GOOD, .depth = 1},
		{GOOD, .depth = 4096},
		{GOOD, RAW, .features = 0},
		{GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_EPOCHS},
		{GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_SEALED | SRDMA_FEATURE_CHACHA, .region_rkey = 0},
		{GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_EPOCHS | SRDMA_FEATURE_REGIONS | SRDMA_FEATURE_REGION_KEYS},
		{GOOD, .region_address = 0, .region_size = UINT64_MAX},
		{GOOD, .region_address = UINT64_MAX - 4096, .region_size = 4096},
		{GOOD, NO_REGION},
		{GOOD, .region_access = 0},
		{GOOD, .rd_responder = 0, .region_access = IBV_ACCESS_REMOTE_WRITE},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		check_accepted(&cases[i], false);
		check_accepted(&cases[i], true);
	}
}

TEST(refused_psn_is_not_repeated_in_the_text)
{
	struct srdma_hello h = {GOOD};
	struct srdma_reject reject;
	char digits[16];

	h.psn = 0x1abcdef;
	assert_int_equal(srdma_hello_validate(&h, false, &reject), SRDMA_EPROTOCOL);
	assert_null(strstr(reject.text, "abcdef"));
	snprintf(digits, sizeof digits, "%u", h.psn);
	assert_null(strstr(reject.text, digits));
}

/* Its READY brings the rkey. */
TEST(window_is_offered_by_a_client_only_and_without_an_rkey)
{
	static const struct srdma_hello hello = {GOOD, .features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_WINDOW, .region_rkey = 0};

	check_accepted(&hello, false);
	check_refused(&hello, true, SRDMA_REJECT_MALFORMED, "rkey");
}

TEST(only_remote_write_and_read_can_be_offered)
{
	for (unsigned bit = 0; bit < 32; bit++) {
		struct srdma_hello h = {GOOD};

		for (int welcome = 0; welcome < 2; welcome++) {
			h.region_access = READ_WRITE & 1u << bit ? 1u << bit : READ_WRITE | 1u << bit;
			if (READ_WRITE & 1u << bit)
				check_accepted(&h, welcome);
			else
				check_refused(&h, welcome, SRDMA_REJECT_MALFORMED, "region access");
		}
	}
}

TEST(unknown_feature_is_refused_as_such)
{
	for (unsigned bit = 9; bit < 32; bit++) {
		struct srdma_hello h = {GOOD, .features = SRDMA_FEATURE_MESSAGES | 1u << bit};
		char name[16];

		snprintf(name, sizeof name, "0x%x", 1u << bit);
		check_refused(&h, false, SRDMA_REJECT_FEATURE, "feature");
		check_refused(&h, true, SRDMA_REJECT_FEATURE, name);
	}
}

TEST(client_id_comes_from_the_server_only)
{
	static const struct srdma_hello hello = {GOOD, .client_id = 1};

	check_refused(&hello, false, SRDMA_REJECT_MALFORMED, "client id");
	check_accepted(&hello, true);
}

/* ---- the frames of epochs -------------------------------------------------------------------------------------- */

static const enum srdma_frame_type epoch_types[] = {SRDMA_FRAME_EPOCH_REQUEST, SRDMA_FRAME_EPOCH_BEGIN,
						    SRDMA_FRAME_EPOCH_PARAMETERS, SRDMA_FRAME_EPOCH_READY};

#define GOOD_EPOCH                                                                                                     \
	.number = 7, .reason = SRDMA_EPOCH_TIME, .broken = true, .qpn = 0x123456, .psn = 0xabcdef,                     \
	.sends = 1ull << 40, .consumed = 12345678901, .rkey = 0xdeadbeef

TEST(epoch_frames_arrive_as_they_were_sent)
{
	for (size_t i = 0; i < COUNT(epoch_types); i++) {
		struct srdma_epoch_frame e = {GOOD_EPOCH}, back;
		enum srdma_frame_type type = epoch_types[i];
		uint8_t frame[SRDMA_FRAME_MAX];
		size_t body = srdma_epoch_encode(frame, type, &e) - SRDMA_FRAME_HEADER;

		assert_int_equal(frame[3], type);
		assert_int_equal(srdma_epoch_decode(type, frame + SRDMA_FRAME_HEADER, body, &back), 0);
		assert_int_equal(back.number, e.number);
		if (type == SRDMA_FRAME_EPOCH_PARAMETERS) {
			assert_int_equal(back.psn, e.psn);
			assert_int_equal(back.qpn, e.qpn);
			assert_true(back.consumed == e.consumed && back.sends == e.sends && back.broken);
		}
		if (type == SRDMA_FRAME_EPOCH_BEGIN)
			assert_true(back.reason == e.reason && back.broken && back.sends == e.sends);
		if (type == SRDMA_FRAME_EPOCH_READY)
			assert_int_equal(back.rkey, e.rkey);
		for (size_t length = 0; length < body + 2; length++)
			if (length != body)
				assert_int_equal(srdma_epoch_decode(type, frame + SRDMA_FRAME_HEADER, length, &back), SRDMA_EPROTOCOL);
	}
}

TEST(epoch_frame_out_of_range_is_refused)
{
	static const struct {
		enum srdma_frame_type type;
		struct srdma_epoch_frame epoch;
	} cases[] = {
		{SRDMA_FRAME_EPOCH_BEGIN, {GOOD_EPOCH, .reason = 0}},
		{SRDMA_FRAME_EPOCH_REQUEST, {GOOD_EPOCH, .reason = SRDMA_EPOCH_REASONS}},
		{SRDMA_FRAME_EPOCH_PARAMETERS, {GOOD_EPOCH, .qpn = 1}},
		{SRDMA_FRAME_EPOCH_PARAMETERS, {GOOD_EPOCH, .qpn = 1u << 24}},
		{SRDMA_FRAME_EPOCH_PARAMETERS, {GOOD_EPOCH, .psn = 1u << 24}},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t frame[SRDMA_FRAME_MAX];
		size_t length = srdma_epoch_encode(frame, cases[i].type, &cases[i].epoch) - SRDMA_FRAME_HEADER;
		struct srdma_epoch_frame back;

		if (srdma_epoch_decode(cases[i].type, frame + SRDMA_FRAME_HEADER, length, &back) != SRDMA_EPROTOCOL)
			fail_msg("case %zu, of frame %u, was taken", i, cases[i].type);
	}
}

TEST(ready_bears_an_rkey_only_where_one_is_due)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	uint32_t rkey;

	assert_int_equal(srdma_ready_encode(frame, true, 0x01020304), SRDMA_FRAME_HEADER + 4);
	assert_int_equal(srdma_ready_decode(frame + SRDMA_FRAME_HEADER, 4, true, &rkey), 0);
	assert_int_equal(rkey, 0x01020304);
	assert_int_equal(srdma_ready_decode(frame + SRDMA_FRAME_HEADER, 4, false, &rkey), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_ready_decode(frame + SRDMA_FRAME_HEADER, 0, true, &rkey), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_ready_decode(frame + SRDMA_FRAME_HEADER, 0, false, &rkey), 0);
}

TEST(program_data_and_reports_have_the_documented_bytes)
{
	static const uint8_t taken[] = {0, 8, 1, 15, 1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t frame[SRDMA_FRAME_MAX], data[SRDMA_FRAME_BODY_MAX];
	uint64_t count;

	memset(data, 0xa5, sizeof data);
	assert_int_equal(srdma_program_encode(frame, SRDMA_FRAME_PRIVATE_DATA, data, sizeof data), SRDMA_FRAME_MAX);
	assert_memory_equal(frame, ((uint8_t[]){2, 0, 1, 13}), SRDMA_FRAME_HEADER);
	assert_memory_equal(frame + SRDMA_FRAME_HEADER, data, sizeof data);
	assert_int_equal(srdma_program_encode(frame, SRDMA_FRAME_CONTROL_MESSAGE, NULL, 0), SRDMA_FRAME_HEADER);
	assert_memory_equal(frame, ((uint8_t[]){0, 0, 1, 14}), SRDMA_FRAME_HEADER);
	assert_int_equal(srdma_taken_encode(frame, 0x0102030405060708), sizeof taken);
	assert_memory_equal(frame, taken, sizeof taken);
	assert_int_equal(srdma_taken_decode(taken + SRDMA_FRAME_HEADER, 8, &count), 0);
	assert_int_equal(count, 0x0102030405060708);
	assert_int_equal(srdma_taken_decode(taken + SRDMA_FRAME_HEADER, 7, &count), SRDMA_EPROTOCOL);
	assert_int_equal(srdma_taken_decode(frame + SRDMA_FRAME_HEADER, 9, &count), SRDMA_EPROTOCOL);
}

/* ---- reject ---------------------------------------------------------------------------------------------------- */

TEST(long_reject_text_is_cut)
{
	struct srdma_reject reject;
	char text[1000];

	memset(text, 'x', sizeof text);
	text[sizeof text - 1] = '\0';
	assert_int_equal(srdma_reject_set(&reject, SRDMA_REJECT_BUSY, 250, "%s", text), SRDMA_EREJECTED);
	assert_int_equal(reject.reason, SRDMA_REJECT_BUSY);
	assert_int_equal(reject.retry_after_ms, 250);
	assert_int_equal(strlen(reject.text), sizeof reject.text - 1);
}

TEST(each_reason_has_its_name)
{
	for (unsigned a = SRDMA_REJECT_NONE; a <= SRDMA_REJECT_BUSY; a++) {
		const char *name = srdma_reject_reason_name((enum srdma_reject_reason)a);

		assert_string_not_equal(name, "unknown");
		for (unsigned b = SRDMA_REJECT_NONE; b < a; b++)
			assert_string_not_equal(name, srdma_reject_reason_name((enum srdma_reject_reason)b));
	}
	assert_string_equal(srdma_reject_reason_name((enum srdma_reject_reason)(SRDMA_REJECT_BUSY + 1)), "unknown");
	assert_string_equal(srdma_reject_reason_name((enum srdma_reject_reason)0xffff), "unknown");
}

RUN_TESTS(NULL, NULL)
