/* SPDX-License-Identifier: Apache-2.0 */
/* The list of queue pairs that have something to send, first come first served. The device's lock is held in all. */
#ifndef UROCE_ACTIVE_H
#define UROCE_ACTIVE_H

#include "qp.h"

/* Puts a queue pair on the list. */
void active_add(struct qp *qp);
/* The same, but it may wait for company: until the next round, or until something that can't wait is sent. */
void active_add_lazily(struct qp *qp);
/* Takes it off again, if it is there. */
void active_remove(struct qp *qp);

/* Takes the first one off the list, which must not be empty. */
struct qp *active_take(struct device *device);

#endif
