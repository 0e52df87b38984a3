/* SPDX-License-Identifier: Apache-2.0 */
#include "active.h"

void active_add_lazily(struct qp *qp)
{
	struct device *device = qp->device;
	if (qp->active)
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

void active_remove(struct qp *qp)
{
	struct device *device = qp->device;
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
