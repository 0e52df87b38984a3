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
/* On the way to RESET or ERR, and at destruction: sends the last ones, frees and wipes saved results. */
void response_stop(struct qp *qp);

#endif
