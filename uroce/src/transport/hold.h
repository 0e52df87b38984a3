/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that came ahead of a gap. The responder keeps them, executes them in their turn when the gap is filled, and tells the peer
 * which ones are missing. Memory is bounded, of a queue pair and of the device: what finds no room comes again. The device's lock is
 * held in all. */
#ifndef UROCE_HOLD_H
#define UROCE_HOLD_H

#include "qp.h"

struct held {
	struct packet packet; /* its payload follows */
	uint8_t payload[];
};

/* Keeps a copy of a request that is `ahead` packets before its turn. `news`: the peer should hear of it now. */
void hold_put(struct qp *qp, const struct packet *packet, uint32_t ahead, bool *news);
/* The one with that PSN, which is no longer kept then; NULL: there is none. */
struct held *hold_take(struct qp *qp, uint32_t psn);
void hold_release(struct held *held);
/* Forgets those whose turn has passed, as a request that takes several PSNs may make it. */
void hold_settle(struct qp *qp);
bool hold_empty(const struct qp *qp);
/* Forgets all. */
void hold_clear(struct qp *qp);
/* The same, and frees. */
void hold_free(struct qp *qp);

/* Sends the peer what is missing before the newest request that is kept. */
void hold_report(struct qp *qp);

#endif
