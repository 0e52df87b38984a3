/* SPDX-License-Identifier: Apache-2.0 */
/* The responses of a connected queue pair's responder: READ responses, results of atomics, acknowledgements and NAKs. The
 * device's lock is held in all. */
#ifndef UROCE_RESPONSE_H
#define UROCE_RESPONSE_H

#include "qp.h"

static inline struct read_atomic *response_at(const struct responder *resp, uint32_t position)
{
	return ring_slot(resp->reads, sizeof *resp->reads, resp->read_size, position);
}

/* Sends responses that are due, up to `budget` packets. `more`: there is more to send. False: memory that a READ asks for may not be
 * read any more, so that the request with `refused_psn` has no response. */
bool response_pump(struct qp *qp, unsigned budget, bool *more, uint32_t *refused_psn);
/* A request that is to be acknowledged has come: from now on it waits, and the peer is told for how long. */
void response_note_asked(struct qp *qp, const struct packet *packet);
/* Writes the acknowledgement that is due, and comes before all other answers: it can go out with a packet. False: there is none. */
bool response_make_ack(struct qp *qp, uint8_t out[WIRE_MAX_HEADER]);
/* It was sent. */
void response_acked(struct qp *qp);
/* On the way to RESET or ERR, and at destruction: sends the last ones, frees and wipes saved results. */
void response_stop(struct qp *qp);

#endif
