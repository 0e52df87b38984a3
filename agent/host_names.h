/* SPDX-License-Identifier: Apache-2.0 */
/* The names in a host's certificate, and for which ends of connections they let it speak. */
#ifndef AGENT_HOST_NAMES_H
#define AGENT_HOST_NAMES_H

#include "gid_map.h"
#include "peer_frames.h"
#include "peer_names.h"

struct host_names {
	struct srdma_peer_names names;
	uint8_t (*gids)[16]; /* the IP addresses among them, as GIDs */
	size_t count;
};

/* Takes the names over. Errors: -ENOMEM. */
int host_names_take(struct srdma_peer_names *names, struct host_names *out);
/* Whether the certificate has this IP address. */
bool host_names_have(const struct host_names *host, const uint8_t gid[16]);
/* Whether the host may speak for this end: its certificate has the GID as an IP address, or the name that the map's line for it says. */
bool host_names_cover(const struct host_names *host, const struct gid_map *map, const struct peer_end *end);
void host_names_clear(struct host_names *host);

/* "10.0.0.1", "fd00::1", or "LID 7". Returns `text`. */
const char *peer_end_format(const struct peer_end *end, char text[64]);

#endif
