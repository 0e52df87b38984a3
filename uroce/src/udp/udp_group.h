/* SPDX-License-Identifier: Apache-2.0 */
/* Multicast groups. The kernel joins them (IGMP, MLD), and gives each socket that has joined, of any process, its own copy of a packet:
 * those of this host too, and of this process. So nothing is steered or passed on. udp.h has udp_join and udp_leave. */
#ifndef UROCE_UDP_GROUP_H
#define UROCE_UDP_GROUP_H

#include "udp_link.h"

struct udp_group {
	union ibv_gid gid;
	unsigned users;
	unsigned count;
	struct udp_socket sockets[UDP_MAX_GIDS]; /* one for each interface */
};

/* The socket that an event, without its kind, is about; NULL: it has gone. */
struct udp_socket *udp_group_socket(struct udp_link *link, uint32_t which);
/* The address that a group's packets are sent to. In loopback mode, where all packets are IPv4's and the loopback has no route to groups of
 * IPv6, such a group is carried by one of IPv4, which a hash of 24 bits chooses. */
void udp_group_carrier(const struct udp_link *link, const union ibv_gid *gid, union ibv_gid *out);
/* Async-signal-safe: the descriptors. */
void udp_group_abandon(struct udp_link *link);
void udp_group_close(struct udp_link *link);

#endif
