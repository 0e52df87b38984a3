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

static struct srdma_hello good(void)
{
	return (struct srdma_hello){
		.link_layer = IBV_LINK_LAYER_ETHERNET,
		.path_mtu = IBV_MTU_1024,
		.gid.raw = {[10] = 0xff, [11] = 0xff, [12] = 10, [13] = 77, [15] = 1},
		.qpn = 0x11,
		.psn = 0x2807d5,
		.features = SRDMA_FEATURE_MESSAGES,
		.message_size = 4096,
		.depth = 16,
		.rd_initiator = 16,
		.rd_responder = 8,
		.region_size = 65536,
		.region_rkey = 0xabc,
		.region_access = READ_WRITE,
	};
}

static struct srdma_hello good_infiniband(void)
{
	struct srdma_hello h = good();

	h.link_layer = IBV_LINK_LAYER_INFINIBAND;
	h.lid = 1;
	return h;
}

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
	struct srdma_hello in = good(), out;

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

/* In a block of exactly its length, so that a sanitizer sees a read past the end. */
/* The decoders that take the type of the frame, for assert_decode_refused. */
static int decode_hello(const uint8_t *body, size_t length, struct srdma_hello *out)
{
	return srdma_hello_decode(SRDMA_FRAME_HELLO, body, length, out);
}

static int decode_disconnect(const uint8_t *body, size_t length, struct srdma_disconnect *out)
{
	return srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, body, length, out);
}

#define assert_decode_refused(decode, body, length, out)                                                               \
	do {                                                                                                           \
		uint8_t before_[sizeof *(out)];                                                                        \
		uint8_t *copy_ = malloc((length) ? (length) : 1);                                                      \
                                                                                                                       \
		assert_non_null(copy_);                                                                                \
		memcpy(copy_, body, length);                                                                           \
		memset(out, 0xaa, sizeof *(out));                                                                      \
		memcpy(before_, out, sizeof before_);                                                                  \
		assert_int_equal(decode(copy_, length, out), SRDMA_EPROTOCOL);                                         \
		assert_memory_equal(before_, out, sizeof before_);                                                     \
		free(copy_);                                                                                           \
	} while (0)

TEST(truncated_or_extended_hello_is_refused)
{
	uint8_t body[SRDMA_FRAME_BODY_MAX] = {0};
	struct srdma_hello out;

	memcpy(body, golden + SRDMA_FRAME_HEADER, SRDMA_HELLO_BODY);
	for (size_t length = 0; length <= sizeof body; length++)
		if (length != SRDMA_HELLO_BODY)
			assert_decode_refused(decode_hello, body, length, &out);
}

TEST(truncated_or_extended_reject_is_refused)
{
	struct srdma_reject in = {.reason = SRDMA_REJECT_FULL, .text = "all places are taken"}, out;
	uint8_t frame[SRDMA_FRAME_MAX] = {0};
	size_t whole = srdma_reject_encode(frame, &in) - SRDMA_FRAME_HEADER;

	for (size_t length = 0; length <= SRDMA_FRAME_BODY_MAX; length++)
		if (length != whole)
			assert_decode_refused(srdma_reject_decode, frame + SRDMA_FRAME_HEADER, length, &out);
}

TEST(truncated_or_extended_disconnect_is_refused)
{
	struct srdma_disconnect in = {.messages_sent = 7, .reason = "done"}, out;
	uint8_t frame[SRDMA_FRAME_MAX] = {0};
	size_t whole = srdma_disconnect_encode(frame, SRDMA_FRAME_DISCONNECT, &in) - SRDMA_FRAME_HEADER;

	for (size_t length = 0; length <= SRDMA_FRAME_BODY_MAX; length++)
		if (length != whole)
			assert_decode_refused(decode_disconnect, frame + SRDMA_FRAME_HEADER, length, &out);
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
	assert_int_equal(srdma_hello_decode(SRDMA_FRAME_WELCOME, NULL, 0, &hello), SRDMA_EPROTOCOL);
	assert_non_null(strstr(srdma_error_text(), "a WELCOME with a body of 0 bytes"));
}

TEST(reason_longer_than_its_place_is_refused)
{
	uint8_t body[9 + 255];
	struct srdma_disconnect out;

	memset(body, 'x', sizeof body);
	for (size_t length = SRDMA_REASON_MAX + 1; length <= 255; length++) {
		body[8] = (uint8_t)length;
		assert_decode_refused(decode_disconnect, body, 9 + length, &out);
	}
}

TEST(reserved_field_that_is_not_zero_is_refused)
{
	struct srdma_hello out;

	for (size_t at = 72; at < SRDMA_HELLO_BODY; at++) {
		uint8_t body[SRDMA_HELLO_BODY];

		memcpy(body, golden + SRDMA_FRAME_HEADER, sizeof body);
		body[at] = 0x80;
		assert_decode_refused(decode_hello, body, sizeof body, &out);
		assert_non_null(strstr(srdma_error_text(), "reserved"));
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
		assert_non_null(strstr(srdma_error_text(), number));
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

	assert_int_equal(srdma_hello_validate(h, welcome, &reject), SRDMA_EPROTOCOL);
	assert_int_equal(reject.reason, reason);
	assert_int_equal(reject.retry_after_ms, 0);
	if (!strstr(reject.text, field))
		fail_msg("'%s' does not name '%s'", reject.text, field);
}

static void check_accepted(const struct srdma_hello *h, bool welcome)
{
	struct srdma_reject reject = {.text = ""};

	if (srdma_hello_validate(h, welcome, &reject) != 0)
		fail_msg("refused: %s", reject.text);
}

/* A good HELLO `h` with one change. */
#define REFUSED(change, field)                                                                                         \
	do {                                                                                                           \
		struct srdma_hello h = good();                                                                         \
		change;                                                                                                \
		check_refused(&h, false, SRDMA_REJECT_MALFORMED, field);                                               \
		check_refused(&h, true, SRDMA_REJECT_MALFORMED, field);                                                \
	} while (0)
#define ACCEPTED(change)                                                                                               \
	do {                                                                                                           \
		struct srdma_hello h = good();                                                                         \
		change;                                                                                                \
		check_accepted(&h, false);                                                                             \
		check_accepted(&h, true);                                                                              \
	} while (0)

TEST(good_hello_is_accepted)
{
	ACCEPTED((void)0);
	ACCEPTED(h = good_infiniband());
}

TEST(psn_over_24_bits_is_refused)
{
	REFUSED(h.psn = 0x1000000, "PSN");
	REFUSED(h.psn = 0x12807d5, "PSN");
	REFUSED(h.psn = UINT32_MAX, "PSN");
	ACCEPTED(h.psn = 0);
	ACCEPTED(h.psn = 0xffffff);
}

TEST(refused_psn_is_not_repeated_in_the_text)
{
	struct srdma_hello h = good();
	struct srdma_reject reject;
	char digits[16];

	h.psn = 0x1abcdef;
	assert_int_equal(srdma_hello_validate(&h, false, &reject), SRDMA_EPROTOCOL);
	assert_null(strstr(reject.text, "abcdef"));
	snprintf(digits, sizeof digits, "%u", h.psn);
	assert_null(strstr(reject.text, digits));
}

TEST(qpn_0_or_1_or_over_24_bits_is_refused)
{
	REFUSED(h.qpn = 0, "QPN");
	REFUSED(h.qpn = 1, "QPN");
	REFUSED(h.qpn = 0x1000000, "QPN");
	REFUSED(h.qpn = UINT32_MAX, "QPN");
	ACCEPTED(h.qpn = 2);
	ACCEPTED(h.qpn = 0xffffff);
}

TEST(gid_that_is_no_hosts_address_is_refused)
{
	REFUSED(memset(&h.gid, 0, sizeof h.gid), "GID");
	REFUSED(h.gid.raw[0] = 0xff, "GID");
	REFUSED((memset(&h.gid, 0, sizeof h.gid), h.gid.raw[0] = 0xff, h.gid.raw[1] = 2, h.gid.raw[15] = 1), "GID");
	REFUSED(h.gid.raw[12] = 0, "GID");
	REFUSED(h.gid.raw[12] = 224, "GID");
	REFUSED(h.gid.raw[12] = 239, "GID");
	REFUSED(memset(h.gid.raw + 12, 0xff, 4), "GID");
	ACCEPTED(h.gid.raw[12] = 1);
	ACCEPTED(h.gid.raw[12] = 223);
	ACCEPTED((memset(&h.gid, 0, sizeof h.gid), h.gid.raw[0] = 0xfe, h.gid.raw[1] = 0x80, h.gid.raw[15] = 1));
	ACCEPTED((memset(&h.gid, 0, sizeof h.gid), h.gid.raw[0] = 0xfd, h.gid.raw[12] = 239, h.gid.raw[15] = 1));
}

TEST(lid_counts_on_infiniband_only)
{
	REFUSED((h = good_infiniband(), h.lid = 0), "LID");
	REFUSED((h = good_infiniband(), h.lid = 0xc000), "LID");
	REFUSED((h = good_infiniband(), h.lid = 0xffff), "LID");
	ACCEPTED((h = good_infiniband(), h.lid = 0xbfff));
	ACCEPTED((h = good_infiniband(), memset(&h.gid, 0, sizeof h.gid)));
	ACCEPTED(h.lid = 0);
}

TEST(path_mtu_outside_its_codes_is_refused)
{
	REFUSED(h.path_mtu = 0, "MTU");
	REFUSED(h.path_mtu = 6, "MTU");
	REFUSED(h.path_mtu = 255, "MTU");
	ACCEPTED(h.path_mtu = IBV_MTU_256);
	ACCEPTED(h.path_mtu = IBV_MTU_4096);
}

TEST(unknown_link_layer_is_refused)
{
	REFUSED(h.link_layer = IBV_LINK_LAYER_UNSPECIFIED, "link layer");
	REFUSED(h.link_layer = 3, "link layer");
	REFUSED(h.link_layer = 255, "link layer");
}

TEST(message_size_and_depth_outside_their_limits_are_refused)
{
	REFUSED(h.message_size = 0, "message size");
	REFUSED(h.message_size = 63, "message size");
	REFUSED(h.message_size = (1u << 20) + 1, "message size");
	REFUSED(h.message_size = UINT32_MAX, "message size");
	REFUSED(h.depth = 0, "depth");
	REFUSED(h.depth = 4097, "depth");
	REFUSED(h.depth = 0xffff, "depth");
	ACCEPTED(h.message_size = 64);
	ACCEPTED(h.message_size = 1u << 20);
	ACCEPTED(h.depth = 1);
	ACCEPTED(h.depth = 4096);
}

TEST(raw_connection_names_no_message_size_or_depth)
{
	ACCEPTED((h.features = 0, h.message_size = 0, h.depth = 0));
	REFUSED((h.features = 0, h.message_size = 0), "depth");
	REFUSED((h.features = 0, h.depth = 0), "message size");
}

TEST(features_that_contradict_are_refused)
{
	struct srdma_hello hello = good();

	ACCEPTED((h.features |= SRDMA_FEATURE_EPOCHS));
	ACCEPTED((h.features |= SRDMA_FEATURE_SEALED | SRDMA_FEATURE_CHACHA, h.region_rkey = 0));
	REFUSED((h.features |= SRDMA_FEATURE_SEALED, h.region_size = 4096, h.region_rkey = 7), "rkey");
	REFUSED((h.features |= SRDMA_FEATURE_WINDOW, h.region_size = 4096, h.region_rkey = 7), "rkey");
	hello.features |= SRDMA_FEATURE_WINDOW;
	hello.region_rkey = 0;
	check_accepted(&hello, false);
	check_refused(&hello, true, SRDMA_REJECT_MALFORMED, "rkey");
	REFUSED((h.features = SRDMA_FEATURE_EPOCHS, h.message_size = 0, h.depth = 0), "message");
	REFUSED((h.features = SRDMA_FEATURE_SEALED, h.message_size = 0, h.depth = 0), "message");
}

/* ---- the frames of epochs -------------------------------------------------------------------------------------- */

static const enum srdma_frame_type epoch_types[] = {SRDMA_FRAME_EPOCH_REQUEST, SRDMA_FRAME_EPOCH_BEGIN,
						    SRDMA_FRAME_EPOCH_PARAMETERS, SRDMA_FRAME_EPOCH_READY};

static struct srdma_epoch_frame good_epoch(void)
{
	return (struct srdma_epoch_frame){.number = 7, .reason = SRDMA_EPOCH_TIME, .broken = true, .qpn = 0x123456, .psn = 0xabcdef,
					  .sends = 1ull << 40, .consumed = 12345678901, .rkey = 0xdeadbeef};
}

TEST(epoch_frames_arrive_as_they_were_sent)
{
	for (size_t i = 0; i < COUNT(epoch_types); i++) {
		struct srdma_epoch_frame e = good_epoch(), back;
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

static void check_epoch(enum srdma_frame_type type, struct srdma_epoch_frame e)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_epoch_encode(frame, type, &e) - SRDMA_FRAME_HEADER;

	assert_int_equal(srdma_epoch_decode(type, frame + SRDMA_FRAME_HEADER, length, &e), SRDMA_EPROTOCOL);
}

TEST(epoch_frame_out_of_range_is_refused)
{
	struct srdma_epoch_frame e;

	check_epoch(SRDMA_FRAME_EPOCH_BEGIN, (e = good_epoch(), e.reason = 0, e));
	check_epoch(SRDMA_FRAME_EPOCH_REQUEST, (e = good_epoch(), e.reason = SRDMA_EPOCH_REASONS, e));
	check_epoch(SRDMA_FRAME_EPOCH_PARAMETERS, (e = good_epoch(), e.qpn = 1, e));
	check_epoch(SRDMA_FRAME_EPOCH_PARAMETERS, (e = good_epoch(), e.qpn = 1u << 24, e));
	check_epoch(SRDMA_FRAME_EPOCH_PARAMETERS, (e = good_epoch(), e.psn = 1u << 24, e));
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

TEST(unknown_feature_is_refused_as_such)
{
	for (unsigned bit = 5; bit < 32; bit++) {
		struct srdma_hello h = good();
		char name[16];

		h.features |= 1u << bit;
		snprintf(name, sizeof name, "0x%x", 1u << bit);
		check_refused(&h, false, SRDMA_REJECT_FEATURE, "feature");
		check_refused(&h, true, SRDMA_REJECT_FEATURE, name);
	}
}

TEST(region_beyond_the_address_space_is_refused)
{
	REFUSED((h.region_address = 1, h.region_size = UINT64_MAX), "region");
	REFUSED((h.region_address = UINT64_MAX, h.region_size = 1), "region");
	REFUSED((h.region_address = 1ull << 63, h.region_size = 1ull << 63), "region");
	ACCEPTED((h.region_address = 0, h.region_size = UINT64_MAX));
	ACCEPTED((h.region_address = UINT64_MAX - 4096, h.region_size = 4096));
}

TEST(region_fields_without_a_region_are_refused)
{
	REFUSED((h.region_size = 0, h.region_rkey = 0, h.region_access = 0, h.region_address = 1), "region");
	REFUSED((h.region_size = 0, h.region_access = 0), "region");
	REFUSED((h.region_size = 0, h.region_rkey = 0), "region");
	ACCEPTED((h.region_size = 0, h.region_rkey = 0, h.region_access = 0));
}

TEST(only_remote_write_and_read_can_be_offered)
{
	for (unsigned bit = 0; bit < 32; bit++) {
		if (READ_WRITE & 1u << bit)
			ACCEPTED(h.region_access = 1u << bit);
		else
			REFUSED(h.region_access |= 1u << bit, "region access");
	}
	ACCEPTED(h.region_access = 0);
}

TEST(readable_region_needs_a_responder)
{
	REFUSED(h.rd_responder = 0, "RDMA read");
	ACCEPTED((h.rd_responder = 0, h.region_access = IBV_ACCESS_REMOTE_WRITE));
}

TEST(client_id_comes_from_the_server_only)
{
	struct srdma_hello h = good();

	h.client_id = 1;
	check_refused(&h, false, SRDMA_REJECT_MALFORMED, "client id");
	check_accepted(&h, true);
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
