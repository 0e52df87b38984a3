/* SPDX-License-Identifier: Apache-2.0 */
/* Versions, key exchange, signatures and ciphers, and the limits of a handshake: the same for every TLS context. The code names each
 * one, so that neither OpenSSL's defaults nor a system's openssl.cnf decide. */
#ifndef SRDMA_TLS_PARAMETERS_H
#define SRDMA_TLS_PARAMETERS_H

#include <openssl/ssl.h>
#include <stdbool.h>

/* The most bytes of a ClientHello, and then of everything that a peer sends until the handshake is over; with record headers. */
#define SRDMA_CLIENT_HELLO_BYTES 8192u
#define SRDMA_HANDSHAKE_BYTES 65536u
/* Groups that a client may name: OpenSSL compares each key share with each of them. */
#define SRDMA_CLIENT_GROUPS 64u

/* Errors: SRDMA_ETLS. */
int srdma_tls_set_parameters(SSL_CTX *context, bool server, bool allow_tls12);

#endif
