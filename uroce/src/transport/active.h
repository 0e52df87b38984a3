/* SPDX-License-Identifier: Apache-2.0 */
/* The list of queue pairs that have something to send, first come first served. The device's lock is held in all. */
#ifndef UROCE_ACTIVE_H
#define UROCE_ACTIVE_H

#include "qp.h"

/* Puts a queue pair on the list. */
void active_add(struct qp *qp);
/* The same, but it may wait for company: until the next round, or until something that can't wait is sent. */
void active_add_lazily(struct qp *qp);
/* The peer is on this host, and has no room: the queue pair waits until it has. Returns whether the link is what has no room: then
 * there is more to send when that has. */
bool active_park(struct qp *qp);
/* It is active, even if it waits. */
void active_resume(struct qp *qp);
/* Those that need not wait any more are active again. */
void active_unpark(struct device *device);

/* Takes it off again, if it is there; nor does it wait. */
void active_remove(struct qp *qp);

/* Takes the first one off the list, which must not be empty. */
struct qp *active_take(struct device *device);

#endif
