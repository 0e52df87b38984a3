/* SPDX-License-Identifier: Apache-2.0 */
/* The connection manager: endpoints that connect, accept, and disconnect. InfiniBand Architecture Specification volume 1, chapter 12.
 * All under the device's lock; what an endpoint hears of is told by calls of `struct cm_user`, under the lock too. */
#ifndef UROCE_CM_H
#define UROCE_CM_H

#include "gsi.h"

enum cm_state {
	CM_IDLE,
	CM_LISTENING,
	CM_REQ_SENT,
	CM_REQ_RECEIVED,
	CM_REP_SENT,
	CM_REP_RECEIVED,
	CM_ESTABLISHED,
	CM_DREQ_SENT,
	CM_DREQ_RECEIVED,
	CM_TIMEWAIT,
	CM_SIDR_SENT,
	CM_SIDR_RECEIVED,
	CM_ENDED, /* refused, timed out, or answered: nothing more comes */
};

enum cm_event {
	CM_RESPONSE,     /* the peer accepts: cm_confirm completes it */
	CM_CONNECTED,    /* the peer has confirmed; of SIDR: the answer */
	CM_REJECTED,     /* status: the reason */
	CM_UNREACHABLE,  /* status: -ETIMEDOUT, or SIDR's status */
	CM_DISCONNECTED,
	CM_TIMEWAIT_EXIT,
};

struct cm;
struct cm_endpoint;

struct cm_user {
	/* A request for `listener`: an endpoint for it, which was not used before, or NULL: no room. */
	struct cm_endpoint *(*request)(struct cm_endpoint *listener, const struct mad *request);
	/* After `request`: it is complete. */
	void (*requested)(struct cm_endpoint *listener, struct cm_endpoint *endpoint, const struct mad *request);
	/* `mad`: the message behind it, or NULL. */
	void (*event)(struct cm_endpoint *endpoint, enum cm_event event, int status, const struct mad *mad);
};

struct cm_endpoint {
	struct cm *cm;
	enum cm_state state;
	uint32_t id; /* 0: none */
	uint32_t remote; /* the peer's */
	uint64_t transaction;
	struct gsi_path path;
	uint64_t service;
	struct gsi_name at; /* of the listener */

	uint32_t qpn, peer_qpn;
	/* A message tells the PSN with which its receiver is to begin sending (12.7.31): `psn` is the first that this end receives, and
	 * `peer_psn` the first that it sends. */
	uint32_t psn, peer_psn;
	uint32_t peer_qkey;
	uint8_t transport;
	uint8_t responder_resources; /* of this end's queue pair */
	uint8_t initiator_depth;
	uint8_t retry_count;
	uint8_t rnr_retry_count;
	uint8_t mtu; /* enum ibv_mtu */
	uint8_t ack_timeout;
	bool alternate; /* the peer's request had an alternate path */
	/* Of one whose peer is on another host: cm_watch.c. */
	bool answers;  /* that one has answered a question */
	uint8_t asked; /* questions since that have no answer yet */

	/* Of one that listens. */
	struct gsi_service name; /* of `at` */
	/* Of one that was made by a request: the next with the same hash of its peer. */
	struct cm_endpoint *next;
	bool chained;

	/* What was sent last, until it is answered. */
	struct timer timer;
	uint64_t give_up; /* at this time */
	uint64_t pause;   /* before it is sent again */
	struct mad last;
};

/* 0 or -ENOMEM. In loopback mode, and until cm_start, it needs nothing. */
int cm_open(struct device *device, const struct cm_user *user, struct cm **out);
/* Before the first endpoint: 0, or a negative errno, logged. */
int cm_start(struct cm *cm);
/* Without an endpoint. NULL is allowed; *cm is set to NULL. */
void cm_close(struct cm **cm);
/* In a forked child: nothing happens any more. Async-signal-safe. */
void cm_abandon(struct cm *cm);
/* The process ends: peers are told, once. */
void cm_settle(struct cm *cm);

/* 0 or -ENOMEM. `endpoint` is all 0; its owner sets `path` before it connects. */
int cm_add(struct cm *cm, struct cm_endpoint *endpoint);
/* Ends it in whatever state it is; the peer is told. */
void cm_remove(struct cm_endpoint *endpoint);

/* The following: 0, or -EINVAL in a state that has no such call. */

/* Takes a name, so that nobody else does. -EADDRINUSE and others. */
int cm_reserve(struct cm_endpoint *endpoint, const struct gsi_name *name);
/* The same in place of the name that it has, of which the new one may be a part. After an error it has that one. */
int cm_rename(struct cm_endpoint *endpoint, const struct gsi_name *name);
/* Listens there. */
int cm_listen(struct cm_endpoint *endpoint);
/* Sends a REQ: `message` has queue pair, depths, counts and private data. */
int cm_connect(struct cm_endpoint *endpoint, uint64_t service, const struct mad *message);
/* Sends a SIDR_REQ with this private data. */
int cm_resolve_service(struct cm_endpoint *endpoint, uint64_t service, const struct mad *message);
/* Answers a request: REP, or SIDR_REP. */
int cm_accept(struct cm_endpoint *endpoint, const struct mad *message);
/* Confirms the peer's acceptance. */
int cm_confirm(struct cm_endpoint *endpoint);
/* Private data, and a reason or (of SIDR) none. */
int cm_reject(struct cm_endpoint *endpoint, const struct mad *message);
int cm_disconnect(struct cm_endpoint *endpoint);
/* The queue pair has received something before the confirmation. */
int cm_note_established(struct cm_endpoint *endpoint);

#endif
