/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "peer_frames.h"
#include "securdma.h"

#include <infiniband/verbs.h>

static const struct peer_end x = {.gid = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}, .qpn = 0x11};
static const struct peer_end y = {.gid = {0xfd, [15] = 2}, .qpn = 0x22};

/* Encodes and decodes; the frame must come out as it went in. */
static void assert_passes(const struct peer_frame *frame)
{
	uint8_t bytes[PEER_FRAME_MAX], again[PEER_FRAME_MAX];
	size_t length = peer_frame_encode(frame, bytes);
	struct peer_header header;
	struct peer_frame out;

	assert_int_equal(peer_header_decode(bytes, &header), 0);
	assert_int_equal(PEER_HEADER + header.length, length);
	assert_int_equal(peer_frame_decode(&header, bytes + PEER_HEADER, &out), 0);
	assert_int_equal(out.type, frame->type);
	assert_int_equal(peer_frame_encode(&out, again), length);
	assert_memory_equal(bytes, again, length);
}

static void assert_refused(const struct peer_frame *frame, const char *words)
{
	uint8_t bytes[PEER_FRAME_MAX];
	struct peer_header header;
	struct peer_frame out;

	peer_frame_encode(frame, bytes);
	assert_int_equal(peer_header_decode(bytes, &header), 0);
	assert_int_equal(peer_frame_decode(&header, bytes + PEER_HEADER, &out), SRDMA_EPROTOCOL);
	assert_error_says(words);
}

static struct peer_frame a_query(void)
{
	return (struct peer_frame){.type = PEER_QUERY, .query = {.id = 1, .asker = x, .asked = y, .psn = 0xffffff, .type = IBV_QPT_RC}};
}

TEST(every_frame_passes)
{
	struct peer_frame hello = {.type = PEER_HELLO, .hello = {.version = PEER_VERSION, .count = PEER_GIDS}};
	struct peer_frame query = a_query();

	for (int i = 0; i < PEER_GIDS; i++)
		hello.hello.gids[i][15] = (uint8_t)(i + 1);
	assert_passes(&hello);
	assert_passes(&query);
	query.query.asker = (struct peer_end){.lid = 1, .qpn = 2};
	assert_passes(&query);
	assert_passes(&(struct peer_frame){.type = PEER_ANSWER, .answer = {.id = 1, .psn = 5}});
	assert_passes(&(struct peer_frame){.type = PEER_ANSWER, .answer = {.id = 1, .status = PEER_BUSY, .text = "later"}});
	assert_passes(&(struct peer_frame){.type = PEER_REVOKE, .notice = {.end = x, .other = y, .psn = 5, .text = "why"}});
	assert_passes(&(struct peer_frame){.type = PEER_RELEASE, .notice = {.end = x, .other = y}});
	assert_passes(&(struct peer_frame){.type = PEER_PING, .ping = {.token = UINT64_MAX}});
	assert_passes(&(struct peer_frame){.type = PEER_PONG});
}

TEST(values_out_of_range_are_refused)
{
	struct peer_frame query = a_query();

	query.query.psn = 1 << 24;
	assert_refused(&query, "PSN");
	query = a_query();
	query.query.type = IBV_QPT_UD;
	assert_refused(&query, "neither RC nor UC");
	query = a_query();
	query.query.asker.qpn = 1;
	assert_refused(&query, "number is out of range");
	query.query.asker.qpn = 1 << 24;
	assert_refused(&query, "number is out of range");
	query = a_query();
	query.query.asked.gid[0] = 0xff;
	assert_refused(&query, "multicast");
	query.query.asked = (struct peer_end){.qpn = 5};
	assert_refused(&query, "neither a GID nor a LID");
	query.query.asked.lid = 0xc000;
	assert_refused(&query, "neither a GID nor a LID");
	query = a_query();
	query.query.asker.lid = 1;
	assert_refused(&query, "a GID and a LID");
	assert_refused(&(struct peer_frame){.type = PEER_ANSWER, .answer = {.status = 5}}, "status");
	assert_refused(&(struct peer_frame){.type = PEER_ANSWER, .answer = {.status = PEER_DENIED, .psn = 1}}, "PSN of an ANSWER");
	assert_refused(&(struct peer_frame){.type = PEER_REVOKE, .notice = {.end = x, .other = y, .psn = 1 << 24}}, "PSN");
	assert_refused(&(struct peer_frame){.type = PEER_HELLO, .hello = {.version = 2}}, "version");
	assert_refused(&(struct peer_frame){.type = PEER_HELLO, .hello = {.version = PEER_VERSION, .count = 1}}, "a GID that is none");
}

TEST(every_other_length_is_refused)
{
	struct peer_frame query = a_query(), out;
	uint8_t bytes[PEER_FRAME_MAX] = {0};
	size_t length = peer_frame_encode(&query, bytes);

	for (size_t i = 0; i + PEER_HEADER <= sizeof bytes; i++)
		if (i + PEER_HEADER != length)
			assert_int_equal(peer_frame_decode(&(struct peer_header){.type = PEER_QUERY, .length = (uint16_t)i}, bytes + PEER_HEADER, &out), SRDMA_EPROTOCOL);
	/* The longest text, and one more. */
	memset(bytes, 0, sizeof bytes);
	assert_int_equal(peer_frame_decode(&(struct peer_header){.type = PEER_ANSWER, .length = 9 + PEER_TEXT - 1}, bytes, &out), 0);
	assert_int_equal(peer_frame_decode(&(struct peer_header){.type = PEER_ANSWER, .length = 9 + PEER_TEXT}, bytes, &out), SRDMA_EPROTOCOL);
}

TEST(headers_are_checked)
{
	const uint8_t bad[][PEER_HEADER] = {{0, 0, 0, 0}, {8, 0, 0, 0}, {255, 0, 0, 0}, {2, 1, 0, 0}, {2, 0, 0xff, 0xff}};
	struct peer_header header;

	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(peer_header_decode(bad[i], &header), SRDMA_EPROTOCOL);
}

TEST(text_of_a_peer_can_be_shown)
{
	struct peer_frame frame = {.type = PEER_ANSWER, .answer = {.status = PEER_DENIED, .text = "a\n\033[31mb"}}, out;
	struct peer_header header;
	uint8_t bytes[PEER_FRAME_MAX];

	peer_frame_encode(&frame, bytes);
	assert_int_equal(peer_header_decode(bytes, &header), 0);
	assert_int_equal(peer_frame_decode(&header, bytes + PEER_HEADER, &out), 0);
	assert_string_equal(out.answer.text, "a??[31mb");
}

RUN_TESTS(NULL, NULL)
