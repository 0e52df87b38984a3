/* SPDX-License-Identifier: Apache-2.0 */
/* Versions, key exchange, signatures and ciphers, and how much of a handshake is taken: the same for every TLS context. All are
 * named one by one, so that neither OpenSSL's defaults nor a system's openssl.cnf decide about them. */
#ifndef SRDMA_TLS_PARAMETERS_H
#define SRDMA_TLS_PARAMETERS_H

#include <openssl/ssl.h>
#include <stdbool.h>

/* Of a ClientHello, and then of all that a peer sends until the handshake is over; with the headers of its records. */
#define SRDMA_CLIENT_HELLO_BYTES 8192u
#define SRDMA_HANDSHAKE_BYTES 65536u
/* Groups that a client may name: OpenSSL compares each key share with each of them. */
#define SRDMA_CLIENT_GROUPS 64u

/* Errors: SRDMA_ETLS. */
int srdma_tls_set_parameters(SSL_CTX *context, bool server, bool allow_tls12);

#endif
