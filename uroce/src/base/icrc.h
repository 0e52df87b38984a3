/* SPDX-License-Identifier: Apache-2.0 */
/* The invariant CRC of RoCEv2: CRC-32 over the packet with the fields that routers change set to ones. */
#ifndef UROCE_ICRC_H
#define UROCE_ICRC_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* One flow's part of the sum: addresses and ports. IPv4 when both GIDs are IPv4-mapped. */
struct icrc_flow {
	union ibv_gid src;
	union ibv_gid dst;
	uint16_t src_port; /* host order */
	uint16_t dst_port;
	/* For a FLUSH of rdma_rxe, which takes the headers for payload too: after the sum, the BTH and all behind it once more. */
	bool twice;
};

/* The ICRC over a BTH and the bytes behind it, in `count` pieces (payload padding included), as it is stored: four bytes,
 * little-endian. `ipv4_id` is the identification field of the IPv4 header, host order; unused with IPv6. */
uint32_t icrc_compute(const struct icrc_flow *flow, uint16_t ipv4_id, const struct iovec *pieces, size_t count);

/* Whether `stored` fits; for IPv4, whose identification the receiver of a datagram cannot see, finds the one that the
 * sender must have used: -1 if none of the 65,536 does. With IPv6 returns 0 when it fits, else -1. */
int icrc_find_id(const struct icrc_flow *flow, const uint8_t *bytes, size_t length, uint32_t stored);

#endif
