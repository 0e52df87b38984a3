/* SPDX-License-Identifier: Apache-2.0 */
#include "active.h"

void activate_lazily(struct qp *qp)
{
	struct device *device = qp->device;
	if (qp->active)
		return;
	qp->active = true;
	qp->active_next = NULL;
	*device->active_tail = qp;
	device->active_tail = &qp->active_next;
}

void activate(struct qp *qp)
{
	activate_lazily(qp);
	qp->device->eager = true;
}

void deactivate(struct qp *qp)
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
	deactivate(qp);
	return qp;
}
