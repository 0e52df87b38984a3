/* SPDX-License-Identifier: Apache-2.0 */
/* A frame with a REJECT, READY, DISCONNECT, DISCONNECT_ACK or one of an epoch. What is decoded is printable and in range, and comes
 * out the same when it is encoded and decoded once more. */
#include "fuzz.h"

#include "frames.h"
#include "region_frames.h"

#include <string.h>

static void check_text(const char *text, size_t size)
{
	require(strnlen(text, size) < size);
	for (; *text; text++)
		require(*text >= 0x20 && *text < 0x7f);
}

static void try_reject(const uint8_t *body, size_t length)
{
	struct srdma_reject first, second;
	uint8_t frame[SRDMA_FRAME_MAX];

	if (srdma_reject_decode(body, length, &first) != 0)
		return;
	check_text(first.text, sizeof first.text);
	require(srdma_reject_reason_name(first.reason) != NULL);
	require(srdma_reject_encode(frame, &first) == SRDMA_FRAME_HEADER + length);
	require(srdma_reject_decode(frame + SRDMA_FRAME_HEADER, length, &second) == 0);
	require(first.reason == second.reason && first.retry_after_ms == second.retry_after_ms);
	require(strcmp(first.text, second.text) == 0);
}

static void try_disconnect(enum srdma_frame_type type, const uint8_t *body, size_t length)
{
	struct srdma_disconnect first, second;
	uint8_t frame[SRDMA_FRAME_MAX];

	if (srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, body, length, &first) != 0)
		return;
	check_text(first.reason, sizeof first.reason);
	require(srdma_disconnect_encode(frame, type, &first) == SRDMA_FRAME_HEADER + length);
	require(srdma_disconnect_decode(SRDMA_FRAME_DISCONNECT, frame + SRDMA_FRAME_HEADER, length, &second) == 0);
	require(first.messages_sent == second.messages_sent && strcmp(first.reason, second.reason) == 0);
}

static void try_epoch(enum srdma_frame_type type, const uint8_t *body, size_t length)
{
	struct srdma_epoch_frame first, second;
	uint8_t frame[SRDMA_FRAME_MAX];

	if (srdma_epoch_decode(type, body, length, &first) != 0)
		return;
	require(first.psn <= 0xffffff && first.qpn <= 0xffffff);
	require(srdma_epoch_encode(frame, type, &first) == SRDMA_FRAME_HEADER + length);
	require(memcmp(frame + SRDMA_FRAME_HEADER, body, length) == 0);
	require(srdma_epoch_decode(type, frame + SRDMA_FRAME_HEADER, length, &second) == 0);
	require(first.number == second.number && first.sends == second.sends && first.consumed == second.consumed);
}

static void try_ready(const uint8_t *body, size_t length)
{
	uint64_t count;
	uint32_t rkey;

	require((srdma_ready_decode(body, length, false, &rkey) == 0) == (length == 0));
	require((srdma_ready_decode(body, length, true, &rkey) == 0) == (length == 4));
	require((srdma_taken_decode(body, length, &count) == 0) == (length == 8));
}

static void try_region(enum srdma_frame_type type, const uint8_t *body, size_t length)
{
	struct srdma_region_key keys[SRDMA_REGIONS_MAX];
	struct srdma_region_offer offer;
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t count;
	uint16_t id;

	if (type == SRDMA_FRAME_REGION_OFFER && srdma_region_offer_decode(body, length, &offer) == 0) {
		require(offer.id != 0 && offer.length > 0 && offer.address + offer.length >= offer.length);
		require(srdma_region_name_is_valid(offer.name));
		require(srdma_region_offer_encode(frame, &offer) == SRDMA_FRAME_HEADER + length);
		require(memcmp(frame + SRDMA_FRAME_HEADER, body, length) == 0);
	}
	if (type == SRDMA_FRAME_REGION_KEYS && srdma_region_keys_decode(body, length, keys, &count) == 0) {
		require(count > 0 && count <= SRDMA_REGIONS_MAX && keys[0].id != 0);
		for (size_t i = 1; i < count; i++)
			require(keys[i].id > keys[i - 1].id);
		require(srdma_region_keys_encode(frame, keys, count) == SRDMA_FRAME_HEADER + length);
		require(memcmp(frame + SRDMA_FRAME_HEADER, body, length) == 0);
	}
	if (type == SRDMA_FRAME_REGION_WITHDRAW || type == SRDMA_FRAME_REGION_RELEASED)
		require((srdma_region_id_decode(type, body, length, &id) == 0) == (length == 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct srdma_frame_header header;

	if (size < SRDMA_FRAME_HEADER || srdma_frame_header_decode(data, &header) != 0)
		return 0;
	if (header.length > size - SRDMA_FRAME_HEADER)
		return 0;
	if (header.type == SRDMA_FRAME_REJECT)
		try_reject(data + SRDMA_FRAME_HEADER, header.length);
	else if (header.type >= SRDMA_FRAME_EPOCH_REQUEST && header.type <= SRDMA_FRAME_EPOCH_READY)
		try_epoch((enum srdma_frame_type)header.type, data + SRDMA_FRAME_HEADER, header.length);
	else if (header.type >= SRDMA_FRAME_REGION_OFFER && header.type <= SRDMA_FRAME_REGION_KEYS)
		try_region((enum srdma_frame_type)header.type, data + SRDMA_FRAME_HEADER, header.length);
	else if (header.type == SRDMA_FRAME_READY)
		try_ready(data + SRDMA_FRAME_HEADER, header.length);
	else
		try_disconnect((enum srdma_frame_type)header.type, data + SRDMA_FRAME_HEADER, header.length);
	return 0;
}
