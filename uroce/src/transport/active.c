/* SPDX-License-Identifier: Apache-2.0 */
#include "active.h"

#include "outgoing.h"

void active_add_lazily(struct qp *qp)
{
	struct device *device = qp->device;
	if (qp->active || qp->parked)
		return;
	qp->active = true;
	qp->active_next = NULL;
	*device->active_tail = qp;
	device->active_tail = &qp->active_next;
}

void active_add(struct qp *qp)
{
	active_add_lazily(qp);
	qp->device->eager = true;
}

bool active_park(struct qp *qp)
{
	struct device *device = qp->device;
	if (!path_of(qp))
		return true;
	active_remove(qp);
	qp->parked = true;
	qp->active_next = device->parked;
	device->parked = qp;
	return false;
}

static void unpark(struct qp *qp)
{
	struct qp **at = &qp->device->parked;
	while (*at && *at != qp) /* a forked child has no list */
		at = &(*at)->active_next;
	if (*at)
		*at = qp->active_next;
	qp->parked = false;
}

void active_resume(struct qp *qp)
{
	if (qp->parked)
		unpark(qp);
	active_add(qp);
}

void active_unpark(struct device *device)
{
	for (struct qp *qp = device->parked, *next; qp; qp = next) {
		next = qp->active_next;
		if (!peer_ready(qp))
			continue;
		unpark(qp);
		active_add(qp);
	}
}

void active_remove(struct qp *qp)
{
	struct device *device = qp->device;
	if (qp->parked)
		unpark(qp);
	if (!qp->active)
		return;
	struct qp **at = &device->active_head;
	while (*at != qp)
		at = &(*at)->active_next;
	*at = qp->active_next;
	if (device->active_tail == &qp->active_next)
		device->active_tail = at;
	qp->active = false;
}

struct qp *active_take(struct device *device)
{
	struct qp *qp = device->active_head;
	active_remove(qp);
	return qp;
}
