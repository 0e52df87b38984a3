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
enum { GSI_NUMBER_BITS = 20 };
uint32_t gsi_prefix(const struct gsi *gsi);

/* One that a process listens at: at one address, at all of a family (0.0.0.0 or ::), or (NULL) at all of both. */
struct gsi_service {
	unsigned names; /* 0: none */
	unsigned place[2];
};

/* Takes the names of a service. -EADDRINUSE: another process, or another service of this one, has one of them. */
int gsi_listen(struct gsi *gsi, uint64_t service, const union ibv_gid *address, struct gsi_service *out);
void gsi_unlisten(struct gsi *gsi, struct gsi_service *service);

/* Sends; a message that can't be sent counts as lost. */
void gsi_send(struct gsi *gsi, const struct gsi_path *path, const struct mad *mad);

#endif
