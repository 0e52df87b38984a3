/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent reads of others: frames of other agents, packets of programs, the kernel's answers over rdma netlink. The first byte chooses. */
#include "fuzz.h"

#include "local_check.h"
#include "owner.h"
#include "peer_frames.h"

#include <string.h>

static void check_end(const struct peer_end *end)
{
	static const uint8_t none[16];
	bool has_gid = memcmp(end->gid, none, sizeof none) != 0;

	require(end->qpn > 1 && end->qpn >> 24 == 0);
	require(has_gid ? end->lid == 0 && end->gid[0] != 0xff : end->lid > 0 && end->lid < 0xc000);
}

static void check_text(const char *text)
{
	require(strnlen(text, PEER_TEXT) < PEER_TEXT);
	for (; *text; text++)
		require((unsigned char)*text >= 0x20 && *text != 0x7f);
}

static void check_frame(const struct peer_frame *frame)
{
	switch (frame->type) {
	case PEER_HELLO: require(frame->hello.count <= PEER_GIDS && frame->hello.version == PEER_VERSION); break;
	case PEER_QUERY:
		check_end(&frame->query.asker);
		check_end(&frame->query.asked);
		require(frame->query.psn >> 24 == 0 && (frame->query.type == 2 || frame->query.type == 3));
		break;
	case PEER_ANSWER:
		require(frame->answer.status <= PEER_BUSY && frame->answer.psn >> 24 == 0);
		check_text(frame->answer.text);
		break;
	case PEER_REVOKE:
	case PEER_RELEASE:
		check_end(&frame->notice.end);
		check_end(&frame->notice.other);
		check_text(frame->notice.text);
		break;
	default: break;
	}
}

static void fuzz_frame(const uint8_t *data, size_t size)
{
	uint8_t bytes[PEER_FRAME_MAX];
	struct peer_header header;
	struct peer_frame frame, again;

	if (size < PEER_HEADER || peer_header_decode(data, &header) != 0)
		return;
	require(header.length <= PEER_BODY_MAX);
	if (header.length > size - PEER_HEADER || peer_frame_decode(&header, data + PEER_HEADER, &frame) != 0)
		return;
	check_frame(&frame);
	/* What is sent on means the same. */
	require(peer_frame_encode(&frame, bytes) <= sizeof bytes && peer_header_decode(bytes, &header) == 0);
	require(peer_frame_decode(&header, bytes + PEER_HEADER, &again) == 0 && memcmp(&frame, &again, sizeof frame) == 0);
}

static void fuzz_packet(const uint8_t *data, size_t size)
{
	union local_request request;

	/* As the agent receives it: what follows is of the packet before. */
	memset(&request, 0xff, sizeof request);
	memcpy(&request, data, size < sizeof request ? size : sizeof request);
	if (local_request_problem(&request, size) || request.header.version != LOCAL_VERSION)
		return;
	require(size <= sizeof request && request.header.length == size);
	if (request.header.type == LOCAL_CONNECT) {
		require(strnlen(request.connect.device, LOCAL_NAME) < LOCAL_NAME && !strchr(request.connect.device, '/'));
		require(request.connect.qpn > 1 && request.connect.qpn >> 24 == 0);
	}
	if (request.header.type == LOCAL_DEVICE)
		require(request.device.count <= LOCAL_GIDS && request.device.port >= 1 && request.device.port <= 255);
}

static void fuzz_answer(const uint8_t *data, size_t size)
{
	struct owner_answer answer;
	/* The kernel's answers are aligned. */
	uint8_t *copy = malloc(size + 1);

	if (!copy)
		return;
	memcpy(copy, data, size);
	owner_read(copy, size, "rxe0", 0, &answer);
	owner_read(copy, size, "rxe0", 17, &answer);
	require(answer.device[0] == '\0' || strcmp(answer.device, "rxe0") == 0);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % 3) {
	case 0: fuzz_frame(data + 1, size - 1); break;
	case 1: fuzz_packet(data + 1, size - 1); break;
	default: fuzz_answer(data + 1, size - 1); break;
	}
	return 0;
}
