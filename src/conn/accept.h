/* SPDX-License-Identifier: Apache-2.0 */
/* A client being set up, from its TCP socket to a connected queue pair. Nothing here blocks, so one thread can have many. */
#ifndef SRDMA_ACCEPT_H
#define SRDMA_ACCEPT_H

#include "conn.h"

struct srdma_accept;

/* Decides about a client that is authenticated and whose HELLO is valid, before anything is made for it: 0 with
 * conn->client_id set (and conn->notifier, if it is to have one), else SRDMA_EREJECTED with *reject filled. */
typedef int srdma_accept_admit_fn(struct srdma_conn *conn, struct srdma_reject *reject, void *arg);

/* A TCP connection as it was accepted. */
struct srdma_newcomer {
	int socket;
	struct sockaddr_storage peer;
	bool behind_proxy; /* it is a balancer's, and must begin with a PROXY header */
};

/* Takes the socket, also when it fails. */
int srdma_accept_new(const struct srdma_newcomer *newcomer, struct srdma_tls_context *context, struct srdma_device *device,
		     const struct srdma_conn_options *options, srdma_accept_admit_fn *admit, void *admit_arg,
		     struct srdma_accept **out);
void srdma_accept_delete(struct srdma_accept **accept);

/* Goes as far as it can: 0 with the connection in *out; -EAGAIN: call again when the descriptor is ready, or the deadline
 * has passed; else the error, when the client has been told why, or its time to hear it was over. */
int srdma_accept_step(struct srdma_accept *accept, struct srdma_conn **out);
int srdma_accept_fd(const struct srdma_accept *accept);
short srdma_accept_events(const struct srdma_accept *accept); /* of poll(2) */
uint64_t srdma_accept_deadline(const struct srdma_accept *accept);
/* Whether the client has said anything at all. */
bool srdma_accept_has_spoken(const struct srdma_accept *accept);
/* Whether the client is authenticated. */
bool srdma_accept_is_authenticated(const struct srdma_accept *accept);
/* The client's own address, when a balancer has told it; NULL: it is that of the TCP connection. */
const struct sockaddr *srdma_accept_proxied(const struct srdma_accept *accept);
/* Whether what ended with `error` was no client, but a balancer that looked whether the server is there. */
bool srdma_accept_was_check(const struct srdma_accept *accept, int error);
/* Where it is, or where it failed: "proxy" (its header), "tls", "hello" (waiting for it, judging it, making the queue pair), "ready". */
const char *srdma_accept_phase(const struct srdma_accept *accept);
/* The REJECT that the client was sent; SRDMA_REJECT_NONE: none. */
enum srdma_reject_reason srdma_accept_rejection(const struct srdma_accept *accept);
/* None before they are known. */
const struct srdma_peer_names *srdma_accept_peer_names(const struct srdma_accept *accept);
/* The error of a set-up that is given up now: which step it was in. Returns `error`. */
int srdma_accept_fail(const struct srdma_accept *accept, int error, const char *why);

#endif
