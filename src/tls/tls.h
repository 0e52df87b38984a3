/* SPDX-License-Identifier: Apache-2.0 */
/* One TLS channel over a non-blocking socket. */
#ifndef SRDMA_TLS_H
#define SRDMA_TLS_H

#include "peer_names.h"
#include "securdma.h"

#include <openssl/ssl.h>

/* The ALPN name that both ends must offer: this protocol and its version. A context has this one unless it is given another. */
#define SRDMA_ALPN "securdma/1"
#define SRDMA_ALPN_MAX 32

bool srdma_tls_context_is_server(const struct srdma_tls_context *context);
/* Whether it is of this end. Errors: -EINVAL. */
int srdma_tls_context_check(const struct srdma_tls_context *context, bool is_server);
const struct srdma_name_order *srdma_tls_context_name_order(const struct srdma_tls_context *context);
/* The end of validity of this end's certificate, in seconds since the epoch; 0: there is none. */
int64_t srdma_tls_context_not_after(const struct srdma_tls_context *context);
/* Sets the protocol of all channels to come. Must be called before the first one. Errors: -EINVAL, -ENOMEM. */
int srdma_tls_context_set_alpn(struct srdma_tls_context *context, const char *protocol);
/* The protocol, which has no NUL at its end. */
const char *srdma_tls_context_alpn(const struct srdma_tls_context *context, unsigned *length);
/* Which names of peers identify them, for a context that has no option for it. */
/* What a client's end says of a certificate that is not for the name that it connects to; `text` is static. */
void srdma_tls_context_set_wrong_name(struct srdma_tls_context *context, const char *text);
void srdma_tls_context_set_name_order(struct srdma_tls_context *context, const struct srdma_name_order *order);
/* The names in this end's certificate; none if it has no certificate. Errors: -EINVAL, -ENOMEM. */
int srdma_tls_context_own_names(const struct srdma_tls_context *context, struct srdma_peer_names *out);
/* Makes an SSL that follows the context's rules; `host`: the name that the client connected to. */
int srdma_tls_context_ssl(struct srdma_tls_context *context, const char *host, SSL **out);

struct srdma_tls;

/* Takes over the socket, even when it fails. */
int srdma_tls_new(struct srdma_tls_context *context, int fd, const char *host, struct srdma_tls **out);
/* Closes the socket at once, after a close_notify if the channel is healthy. */
void srdma_tls_delete(struct srdma_tls **tls);

int srdma_tls_fd(const struct srdma_tls *tls);
/* The events that poll(2) must wait for after -EAGAIN. */
short srdma_tls_events(const struct srdma_tls *tls);

/* One step; none blocks. -EAGAIN: wait and call again. */
int srdma_tls_handshake(struct srdma_tls *tls);
/* Number of bytes, or -EAGAIN, SRDMA_ECLOSED (close_notify), SRDMA_ELOST (end without one), SRDMA_ETLS, SRDMA_ECERT (the
 * peer refused our certificate). */
int srdma_tls_read(struct srdma_tls *tls, void *data, size_t size);
int srdma_tls_write(struct srdma_tls *tls, const void *data, size_t length);
/* Whether a read must first send something: poll(2) for POLLOUT, and not for POLLIN, which may stay set for ever. */
bool srdma_tls_read_needs_room(const struct srdma_tls *tls);
/* Counts a handshake message of the peer. Messages after the handshake (KeyUpdate) cost this end work and the peer none, so more than a
 * few in a minute end the channel. */
void srdma_tls_note_handshake_message(const SSL *ssl);
bool srdma_tls_is_server(const struct srdma_tls *tls);
/* Whether anything has come from the peer. */
bool srdma_tls_has_received(const struct srdma_tls *tls);
/* Ends our side after a refusal. 0: the peer has read everything; closing the socket earlier could destroy an alert or REJECT on its
 * way. -EAGAIN: wait and call again. */
int srdma_tls_linger(struct srdma_tls *tls);

/* Key material of this session for `label` and `context`, the same at both ends. RFC 8446 7.5, RFC 5705. */
int srdma_tls_export(const struct srdma_tls *tls, const char *label, const void *context, size_t context_length, uint8_t *out,
		     size_t length);

/* For callbacks that watch the handshake. They do nothing for an `ssl` without a channel. */
/* From here on the peer may send this many bytes in all. */
void srdma_tls_allow(SSL *ssl, size_t bytes);
/* Records why the handshake is going to fail. The first reason counts. */
void srdma_tls_refuse(SSL *ssl, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

const char *srdma_tls_version(const struct srdma_tls *tls);
const char *srdma_tls_cipher(const struct srdma_tls *tls);
/* The group of the key exchange: "x25519", "X25519MLKEM768". */
const char *srdma_tls_group(const struct srdma_tls *tls);
/* The names in the peer's certificate; none when it showed none. Errors: -EINVAL, -ENOMEM. */
int srdma_tls_peer_names(const struct srdma_tls *tls, struct srdma_peer_names *out);
/* The peer's certificate, which the caller frees; NULL: the peer showed none. */
X509 *srdma_tls_peer_cert(const struct srdma_tls *tls);

#endif
