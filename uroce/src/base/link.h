/* SPDX-License-Identifier: Apache-2.0 */
/* The carrier of packets: UDP sockets (udp.c), or a simulated wire in the tests. All under the device's lock. */
#ifndef UROCE_LINK_H
#define UROCE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire.h"

#define LINK_MAX_PIECES 32

/* One packet to send. The pieces are read before link_flush returns, or never. */
struct packet_out {
	union ibv_gid dgid;
	uint32_t dqpn;      /* some links find the peer's socket by it */
	uint32_t sqpn;      /* the sender's: chooses the local socket */
	uint8_t sgid_index; /* local address */
	uint8_t tclass;
	uint8_t hop_limit;  /* 0: the default */
	uint8_t header[WIRE_MAX_HEADER]; /* from wire_encode */
	size_t header_length;
	struct iovec piece[LINK_MAX_PIECES]; /* the payload, without padding */
	size_t pieces;
	uint32_t payload_length;
	/* The payload is to be copied before it is summed: else a change meanwhile would make a wrong ICRC. */
	bool may_change;
	bool icrc_twice; /* icrc_flow.twice */
};

struct link;

struct link_ops {
	/* False while the socket takes no more: then send nothing; the engine tries again when it does. */
	bool (*ready)(struct link *link);
	/* Adds padding and ICRC and queues the packet; may transmit. False: memory of the payload is not there, and nothing is
	 * sent. A packet that cannot be sent for other reasons counts as lost. */
	bool (*send)(struct link *link, const struct packet_out *packet);
	/* Transmits the queued packets. */
	void (*flush)(struct link *link);
};

struct link {
	const struct link_ops *ops;
};

/* One that is never ready and carries nothing. */
extern struct link link_dead;

static inline bool link_ready(struct link *link)
{
	return link->ops->ready(link);
}

static inline bool link_send(struct link *link, const struct packet_out *packet)
{
	return link->ops->send(link, packet);
}

static inline void link_flush(struct link *link)
{
	link->ops->flush(link);
}

/* Where a received packet came from and went to, as GIDs of the device: a loopback carrier address has already been
 * turned into the device's loopback GID. */
struct packet_path {
	union ibv_gid sgid;
	union ibv_gid dgid;
	uint8_t sgid_index; /* of dgid in the device's table */
	uint8_t tclass;
	uint8_t hop_limit;
	uint64_t arrived; /* when it came to this host, in nanoseconds of CLOCK_MONOTONIC; 0: not known */
};

#endif
