/* SPDX-License-Identifier: Apache-2.0 */
/* The header of the PROXY protocol, versions 1 and 2, in which a balancer names the client whose connection it passes on. */
#ifndef SRDMA_PROXY_H
#define SRDMA_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The smallest segment that every TCP carries, into which the protocol's headers fit. */
#define SRDMA_PROXY_MAX 536

struct srdma_proxy {
	size_t length; /* of the header, bytes; at least this many while the header is incomplete */
	bool own;      /* the balancer speaks for itself; `source` is not set */
	struct sockaddr_storage source; /* the client: IPv4 or IPv6, with its port */
};

/* Reads the header that `data` begins with: 0; -EAGAIN: it is not complete, and has proxy->length bytes at least, so that
 * many can be read without taking any of what follows it; SRDMA_EPROTOCOL: it is not a valid header. */
int srdma_proxy_parse(const uint8_t *data, size_t have, struct srdma_proxy *proxy);

#endif
