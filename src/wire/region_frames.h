/* SPDX-License-Identifier: Apache-2.0 */
/* The frames by which an end tells its peer of the regions that it offers: encode, decode, check. docs/PROTOCOL.md, "Regions with names". */
#ifndef SRDMA_REGION_FRAMES_H
#define SRDMA_REGION_FRAMES_H

#include "frames.h"
#include "securdma_memory.h"

/* REGION_OFFER. */
struct srdma_region_offer {
	uint16_t id;      /* not 0 */
	uint16_t access;  /* IBV_ACCESS_REMOTE_* */
	uint32_t rkey;    /* 0 while sealed */
	uint64_t address, length;
	char name[SRDMA_REGION_NAME_SIZE];
};

/* An entry of REGION_KEYS. */
struct srdma_region_key {
	uint16_t id;
	uint32_t rkey;
};

/* Whether this can be a region's name: printable ASCII, short enough, or empty. */
bool srdma_region_name_is_valid(const char *name);

/* Encoders write a whole frame into `frame` (SRDMA_FRAME_MAX bytes) and return its length. */
size_t srdma_region_offer_encode(uint8_t *frame, const struct srdma_region_offer *offer);
/* REGION_WITHDRAW or REGION_RELEASED. */
size_t srdma_region_id_encode(uint8_t *frame, enum srdma_frame_type type, uint16_t id);
/* REGION_KEYS; 1 to SRDMA_REGIONS_MAX keys. */
size_t srdma_region_keys_encode(uint8_t *frame, const struct srdma_region_key *keys, size_t count);

/* Decoders return 0 or SRDMA_EPROTOCOL. They check the values, too, as far as the frame alone tells. */
int srdma_region_offer_decode(const uint8_t *body, size_t length, struct srdma_region_offer *offer);
int srdma_region_id_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, uint16_t *id);
/* Fills 1 to SRDMA_REGIONS_MAX keys. Their ids are not 0 and grow, so none is there twice. */
int srdma_region_keys_decode(const uint8_t *body, size_t length, struct srdma_region_key *keys, size_t *count);

#endif
