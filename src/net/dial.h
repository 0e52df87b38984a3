/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection to a host, on its way. */
#ifndef SRDMA_DIAL_H
#define SRDMA_DIAL_H

#include "watch.h"

struct srdma_dial;

/* Begins to connect, to the address of `host` that answers first. `who`: what is to listen there, "server", for errors; static. No call waits; the descriptors to wait on are in `watch`, which
 * must outlive the object. Errors: -EINVAL the host or the port is not valid; -ETIMEDOUT; -ENOMEM. */
int srdma_dial_start(const char *host, const char *port, const char *who, uint64_t deadline, struct srdma_watch *watch, struct srdma_dial **out);
/* Goes as far as it can. 0 with the socket, once, which is the caller's: non-blocking, close-on-exec, with TCP_NODELAY and keepalive.
 * After any other result but -EAGAIN only srdma_dial_free is useful. Errors: -EAGAIN; -EHOSTUNREACH, -ETIMEDOUT and others of
 * connect(2). */
int srdma_dial_step(struct srdma_dial *dial, int *out);
/* The time by which to call srdma_dial_step even if no descriptor is ready. */
uint64_t srdma_dial_due(const struct srdma_dial *dial);
void srdma_dial_free(struct srdma_dial **dial);

#endif
