/* SPDX-License-Identifier: Apache-2.0 */
/* The connection manager, as the files that it is made of see it. All under the device's lock. */
#ifndef UROCE_CM_PARTS_H
#define UROCE_CM_PARTS_H

#include "cm.h"

enum {
	CM_PEERS = 4096,
	/* The times that messages carry: 4.096 us times 2 to this power. The kernel's are the same. */
	CM_RESPONSE_TIMEOUT = 20,
	CM_MRA_TIMEOUT = 24,
	CM_PACKET_LIFETIME = 18,
	CM_MAX_RETRIES = 15,
};
#define CM_NS(power) (UINT64_C(4096) << (power))

struct cm {
	struct device *device;
	struct gsi *gsi;
	const struct cm_user *user;
	bool started;
	uint32_t next_number;
	struct table ids; /* endpoints by ID */
	struct timers timers;
	struct timer timer; /* the device's, for them */
	struct timer watch; /* one of them: whether peers are there still */
	unsigned looks;     /* that it has taken */
	/* Of a process of another host that is silent: whether any process there has the port. */
	struct {
		int fd; /* -1: nobody is asked */
		uint32_t id; /* its communication ID */
		union ibv_gid peer;
	} knock;
	size_t count;
	struct cm_endpoint *listeners; /* by `next` */
	struct cm_endpoint *peers[CM_PEERS];
};

/* After a change of the timers, but for one by a timer that fires. */
void cm_set_device_timer(struct cm *cm);
void cm_set_timer(struct cm_endpoint *endpoint, uint64_t ns);
void cm_stop_timer(struct cm_endpoint *endpoint);
/* The message that was sent last. */
void cm_send_again(struct cm_endpoint *endpoint);
/* A message that the peer repeats its own for, if it is lost. */
void cm_send_once(struct cm_endpoint *endpoint, enum mad_kind kind);
void cm_tell(struct cm_endpoint *endpoint, enum cm_event event, int status, const struct mad *mad);
void cm_enter_timewait(struct cm_endpoint *endpoint);
/* Endpoints that requests have made, by their peers. */
struct cm_endpoint **cm_chain_of(struct cm *cm, uint32_t remote, const union ibv_gid *peer);
struct cm_endpoint *cm_find_peer(struct cm *cm, uint32_t remote, const union ibv_gid *peer);
void cm_establish(struct cm_endpoint *endpoint, const struct mad *mad);
/* The peer rejects the connection, or ends it. */
void cm_take_rej(struct cm_endpoint *endpoint, const struct mad *mad);
/* Sees from now on whether the process at the other end goes away. */
void cm_watch(struct cm_endpoint *endpoint);
/* An answer to its question. */
void cm_take_apr(struct cm_endpoint *endpoint, const struct mad *mad);
/* A message for this process: gsi.h's gsi_take. */
void cm_take(void *cm, const struct mad *mad, const struct gsi_path *path);

#endif
