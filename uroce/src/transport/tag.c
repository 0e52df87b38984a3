/* SPDX-License-Identifier: Apache-2.0 */
#include "tag.h"

#include "active.h"
#include "outgoing.h"
#include "random.h"

enum {
	TAGS = (1 << WIRE_TAG_BITS) - 1, /* 0 is none */
	ANSWER_NS = 1000000000, /* a tag that comes later than this after the question is none: a peer that has none is not given one */
};

void tag_ask(struct qp *qp)
{
	if (qp->type != IBV_QPT_RC || qp->tag.peer != 0 || !qp->device->keeps_ahead || path_of(qp))
		return;
	qp->tag.ask_due = true;
	active_add_lazily(qp);
}

void tag_asked(struct qp *qp)
{
	uint32_t drawn;
	/* Without one nothing is kept. */
	if (!qp->device->keeps_ahead || (qp->tag.own == 0 && random_u32(&drawn) != 0))
		return;
	if (qp->tag.own == 0)
		qp->tag.own = (uint16_t)(1 + drawn % TAGS);
	/* It has its own when it is asked for it. */
	if (qp->tag.asked_at == 0)
		tag_ask(qp);
}

void tag_learn(struct qp *qp, uint16_t tag)
{
	if (qp->tag.asked_at != 0 && qp->device->now - qp->tag.asked_at < ANSWER_NS)
		qp->tag.peer = tag;
}

void tag_pump(struct qp *qp)
{
	struct packet packet = { .opcode = OP_ASK_TAG };
	qp->tag.ask_due = false;
	qp->tag.asked_at = qp->device->now;
	send_own(qp, &packet, NULL);
}
