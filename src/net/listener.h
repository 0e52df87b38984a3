/* SPDX-License-Identifier: Apache-2.0 */
/* The listening port; what securdma.h does not offer of it. */
#ifndef SRDMA_LISTENER_H
#define SRDMA_LISTENER_H

#include "securdma.h"

/* As srdma_listener_accept, and says whose connection it is: of one that is over by now the socket can't be asked. */
int srdma_listener_accept_from(struct srdma_listener *listener, int timeout_ms, struct sockaddr_storage *peer);

/* Where it listens, as srdma_server_address tells it. */
const char *srdma_listener_name(const struct srdma_listener *listener);

#endif
