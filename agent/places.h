/* SPDX-License-Identifier: Apache-2.0 */
/* Where the devices of this host's programs are: how many of them have a GID or a LID. A lookup takes the same time, however many programs
 * and devices there are. */
#ifndef AGENT_PLACES_H
#define AGENT_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_end;
struct place;

struct places {
	struct place **buckets;
	size_t size; /* a power of two, or 0 */
	size_t count;
	uint32_t seed; /* random: nobody can choose GIDs that have the same hash */
};

/* The number of `end` has no meaning. Errors: -ENOMEM. */
int places_add(struct places *places, const struct peer_end *end);
/* Takes back what was added. */
void places_remove(struct places *places, const struct peer_end *end);
bool places_have(const struct places *places, const struct peer_end *end);
void places_free(struct places *places);

#endif
