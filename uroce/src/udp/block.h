/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of QPNs. A block is the QPNs with the same upper ten bits; the kernel sees to it that only one process of the
 * network namespace has it, and takes it back when the process ends, however it ends. */
#ifndef UROCE_BLOCK_H
#define UROCE_BLOCK_H

#include <netinet/in.h>
#include <stdint.h>

#include "udp.h"

enum {
	BLOCK_COUNT = 1 << (24 - UDP_BLOCK_BITS),
	/* The first and the last are never used: QPNs 0, 1 and 0xffffff are special. */
	BLOCK_FIRST = 1,
	BLOCK_LAST = BLOCK_COUNT - 2,
	BLOCK_GIDS = 2, /* of the loopback: ::ffff:127.0.0.1 and ::1 */
};

static inline unsigned block_of(uint32_t qpn)
{
	return (qpn >> UDP_BLOCK_BITS) & (BLOCK_COUNT - 1);
}

static inline uint32_t block_first_qpn(unsigned block)
{
	return (uint32_t)block << UDP_BLOCK_BITS;
}

/* The loopback address that a block receives at, which its packets of GID 0 come from. All of 127.0.0.0/8 is this host, so
 * none must be configured. */
struct in_addr block_carrier(unsigned block);
/* The address that its packets of a GID come from: a receiver knows the sender's GID by it. */
struct in_addr block_source(unsigned block, unsigned gid_index);
/* The block of a source address and the GID's index; or 0. */
unsigned block_of_source(struct in_addr address, unsigned *gid_index);

/* Claims a block that nobody has: calls `claim` with random ones until it does not return -EADDRINUSE. -ENOSPC when all
 * are taken, other errors of `claim`, -EIO. */
int block_choose(int (*claim)(void *arg, unsigned block), void *arg, unsigned *out);

#endif
