/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sockets with deadlines, and the addresses that GIDs stand for. */
#ifndef SRDMA_NET_H
#define SRDMA_NET_H

#include "securdma.h"

int srdma_net_listen(const char *address, const char *port, int *out);
/* Sets the options of every TLS channel's socket: TCP_NODELAY, and keepalive, which detects a vanished peer. */
int srdma_net_prepare(int fd);
/* "10.0.0.1:4433" or "[fd00::1]:4433". An IPv4-mapped address is shown as IPv4. */
void srdma_net_format(const struct sockaddr *address, char *out, size_t size);
bool srdma_net_is_loopback(const struct sockaddr *address);
/* Waits for `events` on fd (poll(2)). Returns 0 or -ETIMEDOUT. */
int srdma_net_wait(int fd, short events, uint64_t deadline);

bool srdma_net_gid_is_v4(const union ibv_gid *gid);
/* The IPv6 form of an address: itself, or IPv4-mapped. False for other families. */
bool srdma_net_gid_of(const struct sockaddr *address, union ibv_gid *gid);
/* fe80::/10, which names a different host on each link. */
bool srdma_net_gid_is_link_local(const union ibv_gid *gid);
/* Index of a link-local address's network interface; 0: the address is not link-local, or has no interface. */
uint32_t srdma_net_interface(const struct sockaddr *address);

/* The addresses of the interfaces in this network namespace, as GIDs; freed with free(3). NULL and 0: they are unknown. */
union ibv_gid *srdma_net_own_addresses(size_t *count);

/* The networks whose GIDs peers may use. */
struct srdma_networks {
	size_t count;
	struct srdma_network {
		union ibv_gid prefix;
		unsigned length; /* bits of the IPv6 form */
	} *list;
};
/* Parses "10.0.0.0/8, fd00::/8"; NULL or "" gives none. -EINVAL names the bad part. */
int srdma_networks_parse(const char *text, struct srdma_networks *out);
void srdma_networks_clear(struct srdma_networks *networks);
bool srdma_networks_contain(const struct srdma_networks *networks, const union ibv_gid *gid);

#endif
