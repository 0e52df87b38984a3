/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of a listener that securdma.h does not offer. */
#ifndef SRDMA_LISTENER_H
#define SRDMA_LISTENER_H

#include "securdma.h"

/* As srdma_listener_accept, and also returns the peer's address, which a socket whose connection has ended no longer knows. */
int srdma_listener_accept_from(struct srdma_listener *listener, int timeout_ms, struct sockaddr_storage *peer);

/* The address it listens on, in the form of srdma_server_address. */
const char *srdma_listener_name(const struct srdma_listener *listener);

#endif
