/* SPDX-License-Identifier: Apache-2.0 */
/* The queue pairs that this process has brought to INIT, and what the agent said of each. */
#ifndef WRAP_QUEUE_PAIRS_H
#define WRAP_QUEUE_PAIRS_H

#include "local.h"

#include <infiniband/verbs.h>
#include <stdbool.h>

enum queue_pair_state { QUEUE_PAIR_INIT = 1, QUEUE_PAIR_CONNECTED, QUEUE_PAIR_STARTED };

/* A copy of a table's entry: the table is guarded by a lock of its own. */
struct queue_pair {
	struct ibv_qp *qp;
	struct ibv_context *context;
	char device[LOCAL_NAME];
	uint32_t qpn, psn, peer_qpn, peer_psn, peer_lid;
	uint32_t type; /* enum ibv_qp_type */
	uint8_t port;
	uint8_t state; /* enum queue_pair_state */
	bool registered; /* the agent drew `psn` */
	bool vouched;    /* the agent gave `peer_psn`; else the PSNs are the program's own, which observe lets through */
	bool asked;      /* the agent may have told `psn` to the host of peer_*, whether the queue pair is connected or not */
	bool revoked;    /* and it has been said */
	uint8_t gid[16], peer_gid[16];
};

/* XRC connects as RC does: the agent knows RC and UC. */
static inline uint32_t queue_pair_agents_type(uint32_t type)
{
	return type == IBV_QPT_UC ? IBV_QPT_UC : IBV_QPT_RC;
}

/* False: it is not known. */
bool queue_pairs_find(const struct ibv_qp *qp, struct queue_pair *out);
/* Adds it, or puts this in place of what was known of pair->qp. What the thread noted as revoked stays so until a new INIT. 0 or ENOMEM. */
int queue_pairs_put(const struct queue_pair *pair);
/* Notes for which peer the agent was asked, and nothing else: the queue pair stays in INIT. False: it was reset or destroyed meanwhile. */
bool queue_pairs_note_asked(const struct queue_pair *pair);
/* Takes it out, and tells the agent. False: it was not known. */
bool queue_pairs_forget(const struct ibv_qp *qp, struct queue_pair *out);
/* All of a context that is closed. */
void queue_pairs_forget_context(const struct ibv_context *context);
/* Puts one back that could not be destroyed. */
void queue_pairs_restore(const struct queue_pair *pair);

#endif
