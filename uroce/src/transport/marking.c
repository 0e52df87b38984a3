/* SPDX-License-Identifier: Apache-2.0 */
#include "marking.h"

#include "active.h"
#include "outgoing.h"
#include "requester.h"

enum { CNP_NS = 50000 /* from one to the next, at least */ };

void marking_seen(struct qp *qp, const struct packet *packet)
{
	bool answer = wire_traits(packet->opcode) & T_READ_RESPONSE;
	uint64_t now = qp->device->now;
	if (packet->payload_length == 0 || packet->opcode == OP_GAPS)
		return;
	counter_add(&qp->device->counters->ecn_marked, 1);
	if (answer && requester_may_send(qp))
		congestion_marked(&qp->req.path, now);
	/* A peer like us answers READs as fast as they are asked for, and has nothing to slow down. */
	if ((answer && qp->tag.peer != 0) || (qp->cnp_at != 0 && now - qp->cnp_at < CNP_NS))
		return;
	qp->cnp_at = now;
	qp->cnp_due = true;
	active_add_lazily(qp);
}

void marking_notified(struct qp *qp)
{
	if (!requester_may_send(qp))
		return;
	counter_add(&qp->device->counters->cnps_received, 1);
	congestion_marked(&qp->req.path, qp->device->now);
}

void marking_pump(struct qp *qp)
{
	static uint8_t reserved[WIRE_CNP_BYTES];
	struct packet packet = { .opcode = OP_CNP, .payload_length = sizeof reserved };
	qp->cnp_due = false;
	if (send_own(qp, &packet, reserved))
		counter_add(&qp->device->counters->cnps_sent, 1);
}
