/* SPDX-License-Identifier: Apache-2.0 */
#include "peer_frames.h"

#include "cursor.h"
#include "log.h"
#include "utf8.h"

#include <infiniband/verbs.h>
#include <string.h>

#define MASK24 0xffffffu
/* Unicast LIDs. */
#define LID_MAX 0xbfff

static const uint8_t no_gid[16];

static int fail(const char *what)
{
	return srdma_fail(SRDMA_EPROTOCOL, "a frame of the peer's agent is not valid: %s", what);
}

int peer_header_decode(const uint8_t *data, struct peer_header *out)
{
	struct srdma_reader reader;
	uint8_t reserved;

	srdma_reader_init(&reader, data, PEER_HEADER);
	out->type = srdma_get_u8(&reader);
	reserved = srdma_get_u8(&reader);
	out->length = srdma_get_u16(&reader);
	if (out->type < PEER_HELLO || out->type > PEER_PONG)
		return fail("its type is not known");
	if (reserved != 0)
		return fail("the reserved byte of the header is not 0");
	return out->length > PEER_BODY_MAX ? fail("it is longer than any frame") : 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void get_end(struct srdma_reader *reader, struct peer_end *end)
{
	srdma_get_bytes(reader, end->gid, sizeof end->gid);
	end->lid = srdma_get_u16(reader);
	end->qpn = srdma_get_u32(reader);
}

/* The rest of the frame. */
static void get_text(struct srdma_reader *reader, char *text)
{
	size_t length = reader->left;

	if (length >= PEER_TEXT) {
		reader->overrun = true;
		return;
	}
	srdma_get_bytes(reader, text, length);
	text[length] = '\0';
	/* A NUL within becomes a '?', too: this text goes to a log and to a terminal. */
	srdma_utf8_make_shown(text, length);
}

static const char *end_problem(const struct peer_end *end)
{
	bool has_gid = memcmp(end->gid, no_gid, sizeof no_gid) != 0;

	if (end->qpn < 2 || end->qpn > MASK24)
		return "a queue pair's number is out of range";
	if (has_gid ? end->gid[0] == 0xff : end->lid == 0 || end->lid > LID_MAX)
		return has_gid ? "a GID is a multicast address" : "an end has neither a GID nor a LID";
	return has_gid && end->lid != 0 ? "an end has a GID and a LID" : NULL;
}

static const char *get_hello(struct srdma_reader *reader, struct peer_hello *hello)
{
	hello->version = srdma_get_u16(reader);
	hello->count = srdma_get_u16(reader);
	srdma_get_bytes(reader, hello->instance, sizeof hello->instance);
	if (hello->count > PEER_GIDS)
		return "HELLO has too many GIDs";
	for (unsigned i = 0; i < hello->count; i++)
		srdma_get_bytes(reader, hello->gids[i], sizeof hello->gids[i]);
	for (unsigned i = 0; i < hello->count && !reader->overrun; i++)
		if (memcmp(hello->gids[i], no_gid, sizeof no_gid) == 0 || hello->gids[i][0] == 0xff)
			return "HELLO has a GID that is none";
	return hello->version != PEER_VERSION ? "its version is another one: both hosts need the same version of securdma" : NULL;
}

static const char *get_query(struct srdma_reader *reader, struct peer_query *query)
{
	const char *problem;

	query->id = srdma_get_u32(reader);
	get_end(reader, &query->asker);
	get_end(reader, &query->asked);
	query->psn = srdma_get_u32(reader);
	query->type = srdma_get_u8(reader);
	problem = end_problem(&query->asker);
	if (!problem)
		problem = end_problem(&query->asked);
	if (!problem && query->psn > MASK24)
		problem = "a PSN is out of range";
	if (!problem && query->type != IBV_QPT_RC && query->type != IBV_QPT_UC)
		problem = "a queue pair's type is neither RC nor UC";
	return problem;
}

static const char *get_answer(struct srdma_reader *reader, struct peer_answer *answer)
{
	answer->id = srdma_get_u32(reader);
	answer->status = srdma_get_u8(reader);
	answer->psn = srdma_get_u32(reader);
	get_text(reader, answer->text);
	if (answer->status > PEER_BUSY)
		return "the status of an ANSWER is not known";
	return answer->psn > MASK24 || (answer->status != PEER_OK && answer->psn != 0) ? "the PSN of an ANSWER is out of range" : NULL;
}

static const char *get_notice(struct srdma_reader *reader, struct peer_notice *notice)
{
	const char *problem;

	get_end(reader, &notice->end);
	get_end(reader, &notice->other);
	notice->psn = srdma_get_u32(reader);
	get_text(reader, notice->text);
	problem = end_problem(&notice->end);
	if (!problem)
		problem = end_problem(&notice->other);
	return !problem && notice->psn > MASK24 ? "a PSN is out of range" : problem;
}

int peer_frame_decode(const struct peer_header *header, const uint8_t *body, struct peer_frame *out)
{
	const char *problem = NULL;
	struct srdma_reader reader;

	memset(out, 0, sizeof *out);
	out->type = (enum peer_frame_type)header->type;
	srdma_reader_init(&reader, body, header->length);
	switch (out->type) {
	case PEER_HELLO: problem = get_hello(&reader, &out->hello); break;
	case PEER_QUERY: problem = get_query(&reader, &out->query); break;
	case PEER_ANSWER: problem = get_answer(&reader, &out->answer); break;
	case PEER_REVOKE:
	case PEER_RELEASE: problem = get_notice(&reader, &out->notice); break;
	case PEER_PING:
	case PEER_PONG: out->ping.token = srdma_get_u64(&reader); break;
	}
	if (!srdma_reader_complete(&reader) && (!problem || reader.overrun))
		problem = "its length is wrong";
	return problem ? fail(problem) : 0;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void put_end(struct srdma_writer *writer, const struct peer_end *end)
{
	srdma_put_bytes(writer, end->gid, sizeof end->gid);
	srdma_put_u16(writer, end->lid);
	srdma_put_u32(writer, end->qpn);
}

static void put_text(struct srdma_writer *writer, const char *text)
{
	srdma_put_bytes(writer, text, strnlen(text, PEER_TEXT - 1));
}

static void put_hello(struct srdma_writer *writer, const struct peer_hello *hello)
{
	srdma_put_u16(writer, hello->version);
	srdma_put_u16(writer, hello->count);
	srdma_put_bytes(writer, hello->instance, sizeof hello->instance);
	for (unsigned i = 0; i < hello->count && i < PEER_GIDS; i++)
		srdma_put_bytes(writer, hello->gids[i], sizeof hello->gids[i]);
}

static void put_query(struct srdma_writer *writer, const struct peer_query *query)
{
	srdma_put_u32(writer, query->id);
	put_end(writer, &query->asker);
	put_end(writer, &query->asked);
	srdma_put_u32(writer, query->psn);
	srdma_put_u8(writer, query->type);
}

static void put_answer(struct srdma_writer *writer, const struct peer_answer *answer)
{
	srdma_put_u32(writer, answer->id);
	srdma_put_u8(writer, answer->status);
	srdma_put_u32(writer, answer->psn);
	put_text(writer, answer->text);
}

static void put_notice(struct srdma_writer *writer, const struct peer_notice *notice)
{
	put_end(writer, &notice->end);
	put_end(writer, &notice->other);
	srdma_put_u32(writer, notice->psn);
	put_text(writer, notice->text);
}

size_t peer_frame_encode(const struct peer_frame *frame, uint8_t out[PEER_FRAME_MAX])
{
	struct srdma_writer writer, header;

	srdma_writer_init(&writer, out + PEER_HEADER, PEER_BODY_MAX);
	switch (frame->type) {
	case PEER_HELLO: put_hello(&writer, &frame->hello); break;
	case PEER_QUERY: put_query(&writer, &frame->query); break;
	case PEER_ANSWER: put_answer(&writer, &frame->answer); break;
	case PEER_REVOKE:
	case PEER_RELEASE: put_notice(&writer, &frame->notice); break;
	case PEER_PING:
	case PEER_PONG: srdma_put_u64(&writer, frame->ping.token); break;
	}
	srdma_writer_init(&header, out, PEER_HEADER);
	srdma_put_u8(&header, (uint8_t)frame->type);
	srdma_put_u8(&header, 0);
	srdma_put_u16(&header, (uint16_t)srdma_writer_length(&writer));
	return PEER_HEADER + srdma_writer_length(&writer);
}

const char *peer_status_text(enum peer_status status)
{
	switch (status) {
	case PEER_OK: return "granted";
	case PEER_UNKNOWN: return "no such queue pair is registered there";
	case PEER_TAKEN: return "the queue pair belongs to another connection";
	case PEER_DENIED: return "the peer's policy refuses it";
	case PEER_BUSY: return "the peer's agent is too busy";
	}
	return "unknown status";
}
