/* SPDX-License-Identifier: Apache-2.0 */
/* The last step of all packets on their way out: by the link, or through shared memory to a process of this host. */
#ifndef UROCE_OUTGOING_H
#define UROCE_OUTGOING_H

#include "qp.h"
#include "packet_ring.h"
#include "shm.h"

/* Packets of a message; a message without bytes is one packet. */
static inline uint32_t packets_of(const struct qp *qp, uint32_t length)
{
	return length == 0 ? 1 : (uint32_t)(((uint64_t)length + qp->mtu - 1) / qp->mtu);
}

/* PSNs that a received packet stands for. */
static inline uint32_t packets_in(const struct qp *qp, const struct packet *packet)
{
	return packet->local ? packets_of(qp, packet->payload_length) : 1;
}

/* The way to a connected queue pair's peer through shared memory, or NULL. */
static inline struct shm_path *path_of(const struct qp *qp)
{
	return qp->device->shm ? qp->path : NULL;
}

/* The longest payload of a packet to the peer: of several packets of the wire, where it does not go there. */
static inline uint32_t longest_payload(const struct qp *qp)
{
	return path_of(qp) ? RING_PAYLOAD : qp->mtu;
}

/* Whether a packet can be sent to the peer. False: queue pairs that have to wait are told. */
static inline bool peer_ready(struct qp *qp)
{
	struct shm_path *path = path_of(qp);
	return path ? shm_ready(path) : link_ready(qp->device->link);
}

/* The same for a packet without payload. */
static inline bool peer_ready_for_short(struct qp *qp)
{
	struct shm_path *path = path_of(qp);
	return path ? shm_ready_for_short(path) : link_ready(qp->device->link);
}

/* Sends what is queued. */
static inline void send_queued(struct device *device)
{
	link_flush(device->link);
	if (device->shm)
		shm_flush(device->shm);
}

/* Routers may mark what goes to a peer that answers marks: uroce. */
static inline uint8_t traffic_class(const struct qp *qp, const struct address_vector *to, const struct packet *packet)
{
	if (qp->tag.peer == 0 || !qp->device->ecn)
		return to->tclass;
	return (uint8_t)((to->tclass & ~WIRE_ECN_MASK) | (packet->opcode == OP_CNP ? 0 : WIRE_ECT));
}

/* Makes a packet for `qpn` at `to`; `out` has its payload. */
static inline void make_packet(struct qp *qp, const struct address_vector *to, uint32_t qpn, struct packet *packet, struct packet_out *out)
{
	packet->qpn = qpn;
	packet->pkey = WIRE_PKEY;
	packet->tag = qp->tag.own;
	out->dgid = to->dgid;
	out->sgid_index = to->sgid_index;
	out->tclass = traffic_class(qp, to, packet);
	out->hop_limit = to->hop_limit;
	out->dqpn = qpn;
	out->sqpn = qp->qpn;
	out->icrc_twice = packet->opcode == OP_FLUSH && qp->req.flush_twice;
	out->header_length = wire_encode(packet, out->header);
}

/* The same, and sends it. False: the payload is in memory that is not there. */
static inline bool send_packet(struct qp *qp, struct shm_path *path, const struct address_vector *to, uint32_t qpn,
			       struct packet *packet, struct packet_out *out)
{
	make_packet(qp, to, qpn, packet, out);
	return path ? shm_send(path, out, NULL) : link_send(qp->device->link, out);
}

/* To the peer of a connected queue pair. */
static inline bool send_to_peer(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	return send_packet(qp, path_of(qp), &qp->av, qp->attr.dest_qp_num, packet, out);
}

/* The same for a packet whose payload, if it has one, is a few bytes of the device's own, which may then change. */
static inline bool send_own(struct qp *qp, struct packet *packet, void *payload)
{
	struct packet_out out;
	out.may_change = true;
	out.piece[0] = (struct iovec){ .iov_base = payload, .iov_len = packet->payload_length };
	out.pieces = packet->payload_length > 0;
	out.payload_length = packet->payload_length;
	return send_to_peer(qp, packet, &out);
}

#endif
