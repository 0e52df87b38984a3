/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of an attacker: raw IP packets with any source, and all frames of an interface. Both need CAP_NET_RAW. */
#ifndef ATTACK_WIRE_H
#define ATTACK_WIRE_H

#include "roce.h"

#define WIRE_BATCH 64

/* Packets that wait to be sent together. */
struct wire_batch {
	int fd;
	bool segmented;        /* the kernel cuts the batch, and numbers the packets from 0 */
	struct roce_flow flow; /* the target of all */
	unsigned count;
	uint64_t sent;
	size_t length[WIRE_BATCH];
	uint8_t packet[WIRE_BATCH][ROCE_MAX_PACKET];
};

/* All exit the program when they fail. */
void wire_die(const char *what);
/* Of packets of one length, over IPv4, several times as many a second. */
void wire_open_segmented(struct wire_batch *batch, const struct roce_flow *flow);
void wire_open_raw(struct wire_batch *batch, const struct roce_flow *flow);
/* Where the next packet goes; flushes first when there is no room. */
uint8_t *wire_next(struct wire_batch *batch);
void wire_push(struct wire_batch *batch, size_t length);
void wire_flush(struct wire_batch *batch);

/* All frames that cross an interface, from the Ethernet header on. `with_header`: each with a virtio_net_hdr before it,
 * both ways, by which checksums that the sender's kernel left open stay so. */
int wire_open_frames(const char *interface, bool with_header);

/* Makes the kernel cut large datagrams before the interface, so that each packet is seen as it would be on a cable. */
void wire_cut_packets(const char *interface);

#endif
