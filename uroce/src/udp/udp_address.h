/* SPDX-License-Identifier: Apache-2.0 */
/* UROCE_ADDR, and addresses as people write them. */
#ifndef UROCE_UDP_ADDRESS_H
#define UROCE_UDP_ADDRESS_H

#include <net/if.h>
#include <netinet/in.h>

#include "wire.h"

enum { UDP_MAX_GIDS = 16 };

struct udp_address {
	union ibv_gid gid;
	unsigned ifindex;
	unsigned mtu; /* of the interface */
	bool of_interface; /* named by its interface: one among several, which may be unusable */
};

/* The GID table that UROCE_ADDR asks for. Logged. */
int udp_parse_addresses(const char *text, struct udp_address out[UDP_MAX_GIDS], unsigned *count);
/* ioctl about an interface; false when it fails. */
bool udp_ask_interface(const char *name, unsigned question, struct ifreq *answer);
/* An address as people write it. */
#define UDP_ADDRESS_TEXT (INET6_ADDRSTRLEN + 16)
void udp_address_text(const struct udp_address *address, char out[UDP_ADDRESS_TEXT]);

#endif
