/* SPDX-License-Identifier: Apache-2.0 */
#include "places.h"

#include "log.h"
#include "peer_frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_FIRST 64

struct place {
	struct place *next; /* with the same hash */
	uint8_t gid[16];
	uint16_t lid;
	unsigned devices;
};

static size_t hash(const struct places *places, const uint8_t gid[16], uint16_t lid)
{
	uint32_t mixed = places->seed ^ lid;

	for (int i = 0; i < 16; i++)
		mixed = (mixed ^ gid[i]) * 0x9e3779b1u;
	return (mixed ^ mixed >> 15) & (places->size - 1);
}

/* Where it is, or where it would be. There are buckets. */
static struct place **find(const struct places *places, const struct peer_end *end)
{
	struct place **at = &places->buckets[hash(places, end->gid, end->lid)];

	while (*at && ((*at)->lid != end->lid || memcmp((*at)->gid, end->gid, sizeof end->gid) != 0))
		at = &(*at)->next;
	return at;
}

static int grow(struct places *places)
{
	struct places grown = {.size = places->size ? 2 * places->size : SIZE_FIRST, .count = places->count, .seed = places->seed};

	grown.buckets = calloc(grown.size, sizeof(struct place *));
	if (!grown.buckets)
		return srdma_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < places->size; i++) {
		struct place *next;

		for (struct place *place = places->buckets[i]; place; place = next) {
			struct place **bucket = &grown.buckets[hash(&grown, place->gid, place->lid)];

			next = place->next;
			place->next = *bucket;
			*bucket = place;
		}
	}
	free(places->buckets);
	*places = grown;
	return 0;
}

int places_add(struct places *places, const struct peer_end *end)
{
	int ret = places->count < places->size ? 0 : grow(places);
	struct place **at;

	if (ret != 0)
		return ret;
	at = find(places, end);
	if (!*at) {
		*at = calloc(1, sizeof **at);
		if (!*at)
			return srdma_fail(-ENOMEM, "out of memory");
		memcpy((*at)->gid, end->gid, sizeof end->gid);
		(*at)->lid = end->lid;
		places->count++;
	}
	(*at)->devices++;
	return 0;
}

void places_remove(struct places *places, const struct peer_end *end)
{
	struct place **at = find(places, end), *place = *at;

	if (--place->devices > 0)
		return;
	*at = place->next;
	places->count--;
	free(place);
}

bool places_have(const struct places *places, const struct peer_end *end)
{
	return places->size > 0 && *find(places, end);
}

void places_free(struct places *places)
{
	free(places->buckets);
	*places = (struct places){0};
}
