/* SPDX-License-Identifier: Apache-2.0 */
/* One address, several processes of one user. Each has a socket on the port (SO_REUSEPORT), and the kernel picks one for a
 * packet: the right one when its steering program knows the block's owner, else any. A process passes packets for another
 * on to the inbox of the block. Passing on makes it right, and steering (steer.h) makes it fast. */
#ifndef UROCE_SHARE_H
#define UROCE_SHARE_H

#include "udp_link.h"

int share_open(struct udp_link *link); /* logged */
void share_close(struct udp_link *link);
/* Async-signal-safe: the descriptors. */
void share_abandon(struct udp_link *link);

/* Claims a block: binds its inbox. -ENOSPC and others, logged. */
int share_claim(struct udp_link *link, unsigned *block);
/* Queue pairs may now get numbers of a block that was claimed: the kernel should know. */
void share_announce(struct udp_link *link);

/* Packets for a block of another process: `count` of them. */
void share_forward(struct udp_link *link, unsigned block, const struct udp_arrival *packets, size_t count);
/* Delivers packets, and returns their number. */
typedef unsigned share_deliver(struct udp_link *link, const struct udp_arrival *arrival);
/* Reads a block's inbox; returns the number of packets delivered. */
unsigned share_receive(struct udp_link *link, unsigned block, share_deliver *deliver);
/* Takes a message that is not RoCE but asks which socket the kernel picks. False: it is none. */
bool share_is_probe(struct udp_link *link, const struct udp_arrival *arrival);

#endif
