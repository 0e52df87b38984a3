/* SPDX-License-Identifier: Apache-2.0 */
/* The link over UDP: sockets on port 4791, batching through GSO, GRO, sendmmsg and recvmmsg, ICRC, and the ways in for
 * capture and fault injection. */
#ifndef UROCE_UDP_H
#define UROCE_UDP_H

#include "counters.h"
#include "link.h"

struct device;
struct udp_link;

/* QPNs of a process share their upper bits with no other process on the same address: a block. The kernel, or another
 * process, finds the right socket by them. */
#define UDP_BLOCK_BITS 14 /* QPNs of a block: 2^14 */

struct udp_config {
	const char *addresses; /* UROCE_ADDR; NULL or "": loopback, any number of processes */
	const char *capture;   /* UROCE_CAPTURE: file; NULL or "": none */
	const char *fault;     /* UROCE_FAULT; NULL or "": none */
	struct counters *counters;
	/* Called for each packet whose ICRC fits, without the ICRC. */
	void (*deliver)(void *arg, const uint8_t *bytes, size_t length, const struct packet_path *path);
	/* Called when a descriptor given to udp_watch has something to read; NULL where none is given. */
	void (*readable)(void *arg, unsigned place);
	void *arg;
};

/* -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL (address not understood), -ENOMEM...: logged, with the remedy. */
int udp_open(const struct udp_config *config, struct udp_link **out);
void udp_close(struct udp_link **link);
struct link *udp_link_of(struct udp_link *link);

/* The device's GID table: count, and one entry. */
unsigned udp_gid_count(const struct udp_link *link);
const union ibv_gid *udp_gid(const struct udp_link *link, unsigned index);
/* The index of a GID in the table; the count when it is not there. */
unsigned udp_find_gid(const struct udp_link *link, const union ibv_gid *gid);
/* No address was given: only processes of this host are reached, at the loopback. */
bool udp_is_loopback(const struct udp_link *link);
/* Interface index of a GID's address, 0 if none. */
unsigned udp_gid_ifindex(const struct udp_link *link, unsigned index);
/* The largest path MTU that every address's interface carries. */
enum ibv_mtu udp_mtu(const struct udp_link *link);
/* Bytes that the smallest receive buffer of the sockets takes, the kernel's overhead per packet included. */
size_t udp_receive_buffer(const struct udp_link *link);

/* Whether a GID names this link's own loopback or another address that it can reach (family known): modify_qp and
 * create_ah ask. */
bool udp_reachable(const struct udp_link *link, unsigned sgid_index, const union ibv_gid *dgid);
/* Whether a packet from `sgid` may belong to a queue pair connected to `dgid` (they are equal, or both loopback). */
bool udp_same_peer(const struct udp_link *link, const union ibv_gid *dgid, const union ibv_gid *sgid);

/* Receives what is sent to a multicast group, at all addresses of the group's family, until udp_leave is called as often. 0 or a
 * negative errno: -EINVAL for what is no group, or where there is no such address; -ENOSPC for too many; others of the kernel. */
int udp_join(struct udp_link *link, const union ibv_gid *group);
void udp_leave(struct udp_link *link, const union ibv_gid *group);
/* Whether datagrams can be sent to a group from an address: create_ah asks. */
bool udp_reaches_group(const struct udp_link *link, unsigned sgid_index, const union ibv_gid *group);

/* The first number of the block that is claimed next; 0: not known yet. */
uint32_t udp_next_block(const struct udp_link *link);
/* Claims one more block of QPNs: its first number. -ENOSPC when all are taken. */
int udp_claim_block(struct udp_link *link, uint32_t *first_qpn);

/* From now on traffic class and hop limit are given to the kernel with every packet, and asked for, which takes time. In
 * loopback mode nothing but a datagram's GRH, or a capture, shows them; elsewhere it is always done. */
void udp_report_path(struct udp_link *link);

/* Reads packets that have arrived and delivers them; reads at most about `budget` packets. Returns the number delivered. */
unsigned udp_receive(struct udp_link *link, unsigned budget);

/* Another descriptor that packets come by: it is looked at with the sockets. `place`: what tells it from others, below 2^29. A
 * negative errno. */
int udp_watch(struct udp_link *link, int fd, unsigned place);
void udp_unwatch(struct udp_link *link, int fd);

/* One descriptor (an epoll) that is readable while any socket of the link has something to read, or has become
 * writable while the link was not ready, or a delayed packet of fault injection is due. */
int udp_fd(const struct udp_link *link);

/* Writes the packets that the capture has buffered, and ends it. */
void udp_end_capture(struct udp_link *link);

/* In a forked child: closes the descriptors, so that the parent's addresses do not outlive it. Async-signal-safe. */
void udp_abandon(struct udp_link *link);

#endif
