/* SPDX-License-Identifier: Apache-2.0 */
/* The short way of messages of some packets at most: from the work request straight into the ring of a peer on this host, while it
 * answers. It spares what only packets that may be lost need, and what the next poll does as well. */
#ifndef UROCE_EXPRESS_H
#define UROCE_EXPRESS_H

#include "qp.h"

/* Whether the next request may go this way, if it is of the right kind. Device's lock held; no clock was read. */
bool express_is_open(struct qp *qp);
/* Sends requests from sq.next up to sq.tail, as far as they may go this way. False: there are more, or a receiver must be woken: the
 * ordinary way does it. Device's lock held. No cancellation point. */
bool express_send(struct qp *qp);

#endif
