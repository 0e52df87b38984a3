/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up the addresses of host names, with a deadline. */
#ifndef SRDMA_RESOLVE_H
#define SRDMA_RESOLVE_H

#include <netdb.h>
#include <stdint.h>

/* Looks up the addresses of `host` for a TCP socket to connect to, or, with AI_PASSIVE in `flags`, to listen on (NULL then means all).
 * freeaddrinfo(3) frees the list. Errors: -EINVAL `port` is neither a number nor a service, or a listening address is not valid;
 * -EHOSTUNREACH no such host; -ETIMEDOUT; -ENOMEM. */
int srdma_resolve(const char *host, const char *port, int flags, uint64_t deadline, struct addrinfo **list);

#endif
