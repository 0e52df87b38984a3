/* SPDX-License-Identifier: Apache-2.0 */
/* The set-up of a client, from its TCP socket to a connected queue pair. Nothing here blocks, so one thread can set up many. */
#ifndef SRDMA_ACCEPT_H
#define SRDMA_ACCEPT_H

#include "conn.h"

/* Decides about a client that is authenticated and whose HELLO is valid, before anything is made for it: 0 with
 * conn->client_id set (and conn->notifier, if it is to have one), else SRDMA_EREJECTED with *reject filled. */
typedef int srdma_accept_admit_fn(struct srdma_conn *conn, struct srdma_reject *reject, void *arg);

/* A TCP connection as it was accepted. */
struct srdma_newcomer {
	int socket;
	struct sockaddr_storage peer;
	bool behind_proxy; /* it comes from a balancer, and must begin with a PROXY header */
};

/* Asks a program's function about the client, and takes its private data for this client. */
int srdma_accept_ask(struct srdma_conn *conn, srdma_admit_fn *fn, struct srdma_reject *reject, void *arg);

/* Takes over the socket, even when it fails. */
int srdma_accept_new(const struct srdma_newcomer *newcomer, struct srdma_tls_context *context, struct srdma_device *device,
		     const struct srdma_conn_options *options, srdma_accept_admit_fn *admit, void *admit_arg, struct srdma_accept **out);
uint64_t srdma_accept_deadline(const struct srdma_accept *accept);
bool srdma_accept_has_spoken(const struct srdma_accept *accept);
bool srdma_accept_is_authenticated(const struct srdma_accept *accept);
/* The client's own address, when a balancer has reported it; NULL: the address of the TCP connection. */
const struct sockaddr *srdma_accept_proxied(const struct srdma_accept *accept);
/* Whether the connection that ended with `error` was a balancer's check of the server, not a client's. */
bool srdma_accept_was_check(const struct srdma_accept *accept, int error);
/* The phase that the set-up is in, or failed in: "proxy" (its header), "tls", "hello" (from waiting for it to the queue pair), "ready". */
const char *srdma_accept_phase(const struct srdma_accept *accept);
/* The REJECT that the client was sent; SRDMA_REJECT_NONE: none. */
enum srdma_reject_reason srdma_accept_rejection(const struct srdma_accept *accept);
/* Empty until the handshake is over. */
const struct srdma_peer_names *srdma_accept_peer_names(const struct srdma_accept *accept);
/* Records the error of a set-up that the server gives up, with the step that the set-up was in. Returns `error`. */
int srdma_accept_fail(const struct srdma_accept *accept, int error, const char *why);

#endif
