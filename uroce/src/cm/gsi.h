/* SPDX-License-Identifier: Apache-2.0 */
/* Management datagrams: from and to queue pair 1, which is no process's own. By UDP where the device has addresses; there any process of
 * an address may get one, and passes it on. In loopback mode, from process to process.
 *
 * A process finds another by names of Unix sockets, which the kernel gives to one process of the network namespace, and takes back when
 * it ends: one for each process, which is in its communication IDs, and one for each service that somebody listens at. All under the
 * device's lock. */
#ifndef UROCE_GSI_H
#define UROCE_GSI_H

#include "device.h"
#include "mad.h"
#include "wire.h"

struct gsi;

/* Between two ports: the own GID and the peer's. */
struct gsi_path {
	union ibv_gid own;
	union ibv_gid peer;
	uint8_t sgid_index; /* of `own` */
	uint8_t tclass;
	uint8_t hop_limit;
};

/* A message for a process that has asked for messages. */
typedef void gsi_take(void *arg, const struct mad *mad, const struct gsi_path *path);

/* 0 or -ENOMEM. */
int gsi_open(struct device *device);
/* In a forked child: the names remain the parent's. Async-signal-safe. */
void gsi_abandon(struct gsi *gsi);
/* For udp_config's `readable`: a socket of ours, at this place, has something. */
void gsi_readable(void *device, unsigned place);
/* The process wants messages from now on. -ENOSPC: too many processes of this host do; others, logged. */
int gsi_start(struct gsi *gsi, gsi_take *take, void *arg);
/* The upper bits of this process's communication IDs, and how many bits are left for a number. */
enum { GSI_NUMBER_BITS = 20, GSI_PROCESSES = 1 << (32 - GSI_NUMBER_BITS) };
uint32_t gsi_prefix(const struct gsi *gsi);

/* What a process listens at: a service at one address, at all of a family, or at all. */
enum gsi_where { GSI_ONE, GSI_ANY, GSI_ANY_V4, GSI_ANY_V6 };
struct gsi_name {
	uint64_t service;
	enum gsi_where where;
	union ibv_gid address; /* of GSI_ONE, as the program names it */
};

/* Whether a request to this address is for those who listen there. */
static inline bool gsi_name_covers(const struct gsi_name *name, const union ibv_gid *address)
{
	switch (name->where) {
	case GSI_ONE:
		return memcmp(&name->address, address, sizeof *address) == 0;
	case GSI_ANY_V4:
		return gid_is_v4(address);
	case GSI_ANY_V6:
		return !gid_is_v4(address);
	default:
		return true;
	}
}

struct gsi_service {
	int fd; /* -1: none */
	unsigned place;
};

/* Takes the name of a service. -EADDRINUSE: another process, or another service of this one, has it, or one that it would be a part of. */
int gsi_listen(struct gsi *gsi, const struct gsi_name *name, struct gsi_service *out);
void gsi_unlisten(struct gsi *gsi, struct gsi_service *service);

/* Whether an address is this process's own, so that those who have it are of this host. */
bool gsi_is_near(const struct gsi *gsi, const union ibv_gid *peer);
/* Whether the process of this host that has given this communication ID has ended. */
bool gsi_has_left(const struct gsi *gsi, uint32_t id);

/* Asks the kernel of the peer's host, by a datagram without bytes, whether any process there has the port of RoCE. The answer takes as long
 * as one of the network: a descriptor to wait with, or a negative errno. */
int gsi_knock(const struct gsi *gsi, const struct gsi_path *path);
/* Whether it has said that none has. */
bool gsi_is_refused(int fd);
/* Closes it; *fd is set to -1. */
void gsi_end_knock(int *fd);

/* Sends; a message that can't be sent counts as lost. */
void gsi_send(struct gsi *gsi, const struct gsi_path *path, const struct mad *mad);

#endif
