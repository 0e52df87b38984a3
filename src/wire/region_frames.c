/* SPDX-License-Identifier: Apache-2.0 */
#include "region_frames.h"

#include "cursor.h"
#include "log.h"

#include <string.h>

#define KEY_SIZE 6u

bool srdma_region_name_is_valid(const char *name)
{
	size_t length = strnlen(name, SRDMA_REGION_NAME_SIZE);

	for (size_t i = 0; i < length; i++)
		if (name[i] < 0x20 || name[i] > 0x7e)
			return false;
	return length < SRDMA_REGION_NAME_SIZE;
}

static size_t finish(const struct srdma_writer *w, uint8_t *frame, enum srdma_frame_type type, const uint8_t *body)
{
	return srdma_program_encode(frame, type, body, srdma_writer_length(w));
}

size_t srdma_region_offer_encode(uint8_t *frame, const struct srdma_region_offer *offer)
{
	size_t length = strlen(offer->name);
	uint8_t body[SRDMA_FRAME_BODY_MAX];
	struct srdma_writer w;

	srdma_writer_init(&w, body, sizeof body);
	srdma_put_u16(&w, offer->id);
	srdma_put_u16(&w, offer->access);
	srdma_put_u32(&w, offer->rkey);
	srdma_put_u64(&w, offer->address);
	srdma_put_u64(&w, offer->length);
	srdma_put_u8(&w, (uint8_t)length);
	srdma_put_bytes(&w, offer->name, length);
	return finish(&w, frame, SRDMA_FRAME_REGION_OFFER, body);
}

size_t srdma_region_id_encode(uint8_t *frame, enum srdma_frame_type type, uint16_t id)
{
	uint8_t body[2];
	struct srdma_writer w;

	srdma_writer_init(&w, body, sizeof body);
	srdma_put_u16(&w, id);
	return finish(&w, frame, type, body);
}

size_t srdma_region_keys_encode(uint8_t *frame, const struct srdma_region_key *keys, size_t count)
{
	uint8_t body[KEY_SIZE * SRDMA_REGIONS_MAX];
	struct srdma_writer w;

	srdma_writer_init(&w, body, sizeof body);
	for (size_t i = 0; i < count; i++) {
		srdma_put_u16(&w, keys[i].id);
		srdma_put_u32(&w, keys[i].rkey);
	}
	return finish(&w, frame, SRDMA_FRAME_REGION_KEYS, body);
}

static const char *offer_fault(const struct srdma_region_offer *offer, size_t name_length)
{
	if (offer->id == 0)
		return "the id 0";
	if (offer->access == 0 || (offer->access & ~(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)))
		return "unknown access bits, or none";
	if (offer->length == 0)
		return "no bytes";
	if (offer->length > UINT64_MAX - offer->address)
		return "an end beyond the address space";
	return strlen(offer->name) == name_length && srdma_region_name_is_valid(offer->name) ? NULL : "a name that no region can have";
}

int srdma_region_offer_decode(const uint8_t *body, size_t length, struct srdma_region_offer *offer)
{
	struct srdma_region_offer o = {0};
	struct srdma_reader r;
	size_t name_length;
	const char *fault;

	srdma_reader_init(&r, body, length);
	o.id = srdma_get_u16(&r);
	o.access = srdma_get_u16(&r);
	o.rkey = srdma_get_u32(&r);
	o.address = srdma_get_u64(&r);
	o.length = srdma_get_u64(&r);
	name_length = srdma_get_u8(&r);
	if (name_length < sizeof o.name)
		srdma_get_bytes(&r, o.name, name_length);
	if (!srdma_reader_complete(&r))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed REGION_OFFER of %zu byte%s", length, SRDMA_S(length));
	fault = offer_fault(&o, name_length);
	if (fault)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer offers a region with %s", fault);
	*offer = o;
	return 0;
}

int srdma_region_id_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, uint16_t *id)
{
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	*id = srdma_get_u16(&r);
	return srdma_reader_complete(&r) ? 0
					 : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed frame of type %d, of %zu byte%s, about a region",
						      type, length, SRDMA_S(length));
}

int srdma_region_keys_decode(const uint8_t *body, size_t length, struct srdma_region_key *keys, size_t *count)
{
	size_t entries = length / KEY_SIZE;
	struct srdma_reader r;

	if (entries == 0 || entries > SRDMA_REGIONS_MAX || length % KEY_SIZE != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed REGION_KEYS of %zu byte%s", length, SRDMA_S(length));
	srdma_reader_init(&r, body, length);
	for (size_t i = 0; i < entries; i++) {
		keys[i] = (struct srdma_region_key){.id = srdma_get_u16(&r)};
		keys[i].rkey = srdma_get_u32(&r);
		if (keys[i].id <= (i > 0 ? keys[i - 1].id : 0))
			return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a REGION_KEYS whose ids do not grow (%u after %u)", keys[i].id,
					  i > 0 ? keys[i - 1].id : 0);
	}
	*count = entries;
	return 0;
}
