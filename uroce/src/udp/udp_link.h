/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP link, as the files that it is made of see it. All of it under the device's lock. */
#ifndef UROCE_UDP_LINK_H
#define UROCE_UDP_LINK_H

#include "block.h"
#include "capture.h"
#include "fault.h"
#include "icrc.h"
#include "udp.h"
#include "udp_address.h"
#include "udp_socket.h"

enum {
	UDP_DEFAULT_HOPS = 64,
	UDP_LOOPBACK_GID = 0, /* index of ::ffff:127.0.0.1 in loopback mode */
	/* BTH, RETH and ImmDt: the longest headers that a full payload can follow. */
	UDP_PAYLOAD_HEADER = 32,
	/* The longest payload of a UDP datagram over IPv4. */
	UDP_MAX_DATAGRAM = 65507,
};

/* Kinds of events of the link's epoll, besides the index of a socket. */
#define UDP_EVENT_TIMER 0xffffffffu
#define UDP_EVENT_INBOX 0x80000000u /* and the block */
#define UDP_EVENT_WATCHED 0x40000000u /* and the place */
#define UDP_EVENT_GROUP 0x20000000u /* and its place, and the socket's of it: see udp_group.h */

struct udp_socket {
	int fd;
	bool v4;
	bool gso; /* until the kernel refuses it */
	bool wants_out; /* EPOLLOUT is asked for */
	uint8_t gid_index; /* of its address */
	uint32_t overflows; /* packets for which it had no room */
	union ibv_gid local; /* the real address: in loopback mode the carrier's */
	const union ibv_gid *group; /* that it receives for; NULL: it is no group's */
};

struct udp_tx;
struct udp_rx;
struct share;
struct udp_group;

enum { UDP_MAX_GROUPS = 256 };

struct udp_link {
	struct link link;
	struct udp_config config;
	bool loopback;
	bool reports_path; /* see udp_report_path */
	unsigned gids;
	struct udp_address gid[UDP_MAX_GIDS];

	/* Address mode: one for each GID, in their order. Loopback mode: one for each block. */
	struct udp_socket *sockets;
	unsigned socket_count;
	/* By block: the socket in loopback mode, from 1; 0: the block is not ours. In address mode 1 for ours. */
	uint16_t owner[BLOCK_COUNT];
	uint32_t spare; /* first QPN of a block that is claimed but not given out; 0: none */
	size_t receive_buffer;

	int epoll_fd;
	int timer_fd; /* -1 without fault injection */
	uint64_t timer_due; /* its time; UINT64_MAX: not set */
	unsigned watched; /* descriptors given to udp_watch */
	struct udp_group *groups[UDP_MAX_GROUPS]; /* multicast groups that are joined, by place */
	unsigned group_count;
	struct capture *capture;
	struct fault *fault;
	struct udp_tx *tx;
	struct udp_rx *rx;
	struct share *share; /* address mode only */
};

/* Datagrams of `segment` bytes each (the last may be shorter) that came from `source` to an address of ours. */
struct udp_arrival {
	const union udp_sockaddr *source;
	unsigned gid_index; /* of the local address */
	const union ibv_gid *local;
	const uint8_t *bytes;
	size_t length;
	size_t segment;
	uint8_t tclass;
	uint8_t hop_limit;
	bool passed_on; /* by another process */
	const union ibv_gid *group; /* that it was sent to; NULL: to this host alone */
	uint64_t arrived; /* packet_path.arrived */
};

#endif
