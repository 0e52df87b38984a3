/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the UDP link share. All of it under the device's lock. */
#ifndef UROCE_UDP_INTERNAL_H
#define UROCE_UDP_INTERNAL_H

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "block.h"
#include "capture.h"
#include "fault.h"
#include "icrc.h"
#include "udp.h"

enum {
	UDP_MAX_GIDS = 16,
	UDP_DEFAULT_HOPS = 64,
	UDP_LOOPBACK_GID = 0, /* index of ::ffff:127.0.0.1 in loopback mode */
	/* BTH, RETH and ImmDt: the longest headers that a full payload can follow. */
	UDP_PAYLOAD_HEADER = 32,
	/* What a UDP datagram over IPv4 can hold. */
	UDP_MAX_DATAGRAM = 65507,
};

/* Kinds of events of the link's epoll, besides the index of a socket. */
#define UDP_EVENT_TIMER 0xffffffffu
#define UDP_EVENT_INBOX 0x80000000u /* and the block */

union udp_sockaddr {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct udp_address {
	union ibv_gid gid;
	unsigned ifindex;
	unsigned mtu; /* of the interface */
	bool of_interface; /* named by its interface: one among several, which may be unusable */
};

/* udp_address.c: the GID table that UROCE_ADDR asks for. Logged. */
int udp_parse_addresses(const char *text, struct udp_address out[UDP_MAX_GIDS], unsigned *count);
/* An address as people write it. */
#define UDP_ADDRESS_TEXT (INET6_ADDRSTRLEN + 16)
void udp_address_text(const struct udp_address *address, char out[UDP_ADDRESS_TEXT]);

struct udp_socket {
	int fd;
	bool v4;
	bool gso; /* until the kernel refuses it */
	bool wants_out; /* EPOLLOUT is asked for */
	uint8_t gid_index; /* of its address */
	uint32_t overflows; /* packets for which it had no room */
	union ibv_gid local; /* the real address: in loopback mode the carrier's */
};

struct udp_tx;
struct udp_rx;
struct share;

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
	uint64_t timer_due; /* what it is set to; UINT64_MAX: not */
	struct capture *capture;
	struct fault *fault;
	struct udp_tx *tx;
	struct udp_rx *rx;
	struct share *share; /* address mode only */
};

/* udp_tx.c */
extern const struct link_ops udp_ops;
int udp_tx_open(struct udp_link *link);
void udp_tx_close(struct udp_link *link);
/* Sends what fault injection has held back until now. */
void udp_tx_run_faults(struct udp_link *link);

/* udp_rx.c */
int udp_rx_open(struct udp_link *link);
void udp_rx_close(struct udp_link *link);
/* Datagrams of `segment` bytes each (the last may be shorter) that came from `source` to an address of ours.
 * udp_rx_arrival returns the number delivered. */
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
};
unsigned udp_rx_arrival(struct udp_link *link, const struct udp_arrival *arrival);

static inline uint64_t udp_monotonic(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void udp_map_v4(union ibv_gid *gid, in_addr_t address)
{
	memset(gid, 0, sizeof(*gid));
	gid->raw[10] = gid->raw[11] = 0xff;
	memcpy(gid->raw + 12, &address, sizeof(address));
}

static inline bool udp_is_loopback(const union ibv_gid *gid)
{
	static const union ibv_gid one = { .raw = { [15] = 1 } };
	return gid_is_v4(gid) ? gid->raw[12] == 127 : memcmp(gid, &one, sizeof(one)) == 0;
}

#endif
