/* SPDX-License-Identifier: Apache-2.0 */
/* Tags: what makes a packet ahead of a gap believable. Whoever forges packets without seeing any must hit the one PSN, of 2^24, that
 * is awaited; where packets ahead of it are kept, any of thousands would do. So each of two peers that keep them asks the other for a
 * tag: a random number of 13 bits, of the connection alone, in bits of the BTH that are reserved. Once a peer's tag is known,
 * packets without it are dropped, and those that have it may come ahead of a gap: 2^13 tags times 2^11 places of 2^13 PSNs make up for
 * it. Peers that do not answer, as rdma_rxe, have no tag, and nothing of theirs is kept. The device's lock is held in all. */
#ifndef UROCE_TAG_H
#define UROCE_TAG_H

#include "qp.h"

enum { TAG_ASK_AFTER = 4 /* packets of full length: a short exchange needs no tag */ };

/* Something was lost, or much has come: the peer is to be asked, unless its tag is known. */
void tag_ask(struct qp *qp);
/* The peer asks. */
void tag_asked(struct qp *qp);
void tag_learn(struct qp *qp, uint16_t tag);
/* The peer's is not known, and has not been asked for, or not for longer than that. */
static inline bool tag_may_come(const struct qp *qp, uint64_t ns)
{
	return qp->tag.peer == 0 && (qp->tag.asked_at == 0 || qp->device->now - qp->tag.asked_at < ns);
}
/* Sends the question that is due. */
void tag_pump(struct qp *qp);

/* False: the packet is not the peer's. */
static inline bool tag_fits(const struct qp *qp, const struct packet *packet)
{
	return qp->tag.peer == 0 || packet->tag == qp->tag.peer || packet->local;
}

/* A packet has the PSN that is awaited, or one of a request that is to be answered: what tag it has is the peer's. */
static inline void tag_look(struct qp *qp, const struct packet *packet)
{
	if (packet->tag != 0 && qp->tag.peer == 0)
		tag_learn(qp, packet->tag);
}

/* A packet of the peer was taken. */
static inline void tag_note(struct qp *qp, const struct packet *packet)
{
	if (qp->tag.received >= TAG_ASK_AFTER || packet->payload_length != qp->mtu || packet->local)
		return;
	if (++qp->tag.received == TAG_ASK_AFTER)
		tag_ask(qp);
}

#endif
