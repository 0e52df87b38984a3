/* SPDX-License-Identifier: Apache-2.0 */
/* The map file: which host has a GID that is no address, or a LID (InfiniBand). */
#ifndef AGENT_GID_MAP_H
#define AGENT_GID_MAP_H

#include <stddef.h>
#include <stdint.h>

/* A line of the file: "PREFIX/BITS HOST[:PORT] [NAME]", or "lid FIRST[-LAST] HOST[:PORT] [NAME]". */
struct gid_map_entry {
	uint8_t prefix[16];
	unsigned bits;         /* of the prefix */
	uint16_t first, last;  /* LIDs; 0: it is a prefix */
	char *host, *port;     /* port NULL: the usual one */
	char *name;            /* that the host's certificate must have */
	int line;
};

struct gid_map;

/* Reads the file. Errors: -ENOENT and others of fopen(3); -EINVAL, with the line and what is wrong; -ENOMEM. */
int gid_map_load(const char *file, struct gid_map **out);
/* The entry with the longest prefix of this GID; NULL: there is none. */
const struct gid_map_entry *gid_map_find(const struct gid_map *map, const uint8_t gid[16]);
const struct gid_map_entry *gid_map_find_lid(const struct gid_map *map, uint16_t lid);
size_t gid_map_count(const struct gid_map *map);
void gid_map_free(struct gid_map **map);

#endif
