/* SPDX-License-Identifier: Apache-2.0 */
/* The last step of all packets on their way to the link. */
#ifndef UROCE_OUTGOING_H
#define UROCE_OUTGOING_H

#include "qp.h"

/* Packets of a message; a message without bytes is one packet. */
static inline uint32_t packets_of(const struct qp *qp, uint32_t length)
{
	return length == 0 ? 1 : (uint32_t)(((uint64_t)length + qp->mtu - 1) / qp->mtu);
}

/* Sends a packet to `qpn` at `to`; `out` has its payload. False: that is in memory that is not there. */
static inline bool send_packet(struct qp *qp, const struct address_vector *to, uint32_t qpn, struct packet *packet,
			       struct packet_out *out)
{
	packet->qpn = qpn;
	packet->pkey = WIRE_PKEY;
	out->dgid = to->dgid;
	out->sgid_index = to->sgid_index;
	out->tclass = to->tclass;
	out->hop_limit = to->hop_limit;
	out->dqpn = qpn;
	out->sqpn = qp->qpn;
	out->icrc_twice = packet->opcode == OP_FLUSH && qp->req.flush_twice;
	out->header_length = wire_encode(packet, out->header);
	return link_send(qp->device->link, out);
}

/* To the peer of a connected queue pair. */
static inline bool send_to_peer(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	return send_packet(qp, &qp->av, qp->attr.dest_qp_num, packet, out);
}

#endif
