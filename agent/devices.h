/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that programs use, and which GIDs are this host's. */
#ifndef AGENT_DEVICES_H
#define AGENT_DEVICES_H

#include "local.h"

#include <infiniband/verbs.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

struct gid_map;
struct peer_end;
struct places;

/* A port of a device, as one program reported it. */
struct device {
	struct device *next; /* of the same program */
	char name[LOCAL_NAME];
	uint8_t port;
	bool kernel;     /* the kernel knows the device, as the agent has seen, and can say whose a queue pair is */
	bool infiniband; /* the link layer */
	bool has_lid;    /* it counts among the places that programs' devices are at */
	uint16_t lid;
	uint32_t index;  /* the kernel's number of the device (owner.h); 0: not looked up */
	unsigned count;
	uint8_t (*gids)[16]; /* those that are this host's */
};

/* The addresses of this host. They are read again when they are older than a second. */
struct addresses {
	union ibv_gid *list; /* sorted */
	size_t count;
	uint64_t read_at;
};

/* Whether an address of a network interface, or of the loopback network, is meant. */
bool addresses_contain(struct addresses *addresses, const uint8_t gid[16]);
/* The interface that has this address, if it is a link-local one; NULL: it is not, or there is none. Returns `name`. */
const char *address_interface(const uint8_t gid[16], char name[IF_NAMESIZE]);
void addresses_free(struct addresses *addresses);

/* Takes a program's report: GIDs that are not this host's are left out, and their number is returned. `map`: GIDs below InfiniBand, which are
 * no addresses; NULL: none. `places`: of all programs' devices. Errors: -ENOMEM, -E2BIG. */
int devices_take(struct device **list, const struct local_device *report, struct addresses *addresses, const struct gid_map *map, struct places *places);
struct device *devices_find(struct device *list, const char *name, uint32_t port);
bool device_has_gid(const struct device *device, const uint8_t gid[16]);
/* Whether an end of a connection lies on this port: it has the GID, or, where there is none, the LID. */
bool device_is_at(const struct device *device, const struct peer_end *end);
/* Whether they are one port, or have an address in common. */
bool devices_meet(const struct device *a, const struct device *b);
void devices_free(struct device **list, struct places *places);

#endif
