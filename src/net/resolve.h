/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up the addresses of host names, with a deadline. */
#ifndef SRDMA_RESOLVE_H
#define SRDMA_RESOLVE_H

#include <netdb.h>
#include <stdint.h>

/* A lookup that is under way, or over. */
struct srdma_lookup;

/* Begins to look up the addresses of `host` for a TCP socket to connect to, or, with AI_PASSIVE in `flags`, to listen on (NULL then
 * means all). A name needs a thread; an address, or none, is looked up at once. Errors: -EINVAL `port` is neither a number nor a
 * service; -ETIMEDOUT too many earlier lookups have no answer yet; -ENOMEM. */
int srdma_lookup_start(const char *host, const char *port, int flags, struct srdma_lookup **out);
/* Readable once srdma_lookup_step has a result; -1: it has one already. */
int srdma_lookup_fd(const struct srdma_lookup *lookup);
/* Never waits. 0 with the list, once, which freeaddrinfo(3) frees. Errors: -EAGAIN; -EINVAL a listening address is not valid;
 * -EHOSTUNREACH no such host; -ENOMEM. */
int srdma_lookup_step(struct srdma_lookup *lookup, struct addrinfo **list);
/* The error of a caller that waited `ms` in vain: -ETIMEDOUT. */
int srdma_lookup_fail_late(const struct srdma_lookup *lookup, int ms);
/* Abandons a lookup that is under way. */
void srdma_lookup_free(struct srdma_lookup **lookup);

/* A whole lookup, for which the caller waits. Errors: those above; -ETIMEDOUT. */
int srdma_resolve(const char *host, const char *port, int flags, uint64_t deadline, struct addrinfo **list);

#endif
