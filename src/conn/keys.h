/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a sealed connection, from its TLS session. docs/PROTOCOL.md, "Keys". */
#ifndef SRDMA_KEYS_H
#define SRDMA_KEYS_H

#include "conn.h"

/* One for each sealed stream: the client's messages, the client's chunks, the server's messages, the server's chunks. */
#define SRDMA_KEYS 4

/* Derives the secret of each stream from the TLS session and from both ends' HELLO and WELCOME. The caller wipes the secrets. */
int srdma_keys_derive(struct srdma_tls *tls, const struct srdma_hello *hello, const struct srdma_hello *welcome,
		      uint8_t secrets[SRDMA_KEYS][SRDMA_SEAL_SECRET]);
/* Seals the connection from here on. HELLO and WELCOME are known, and both ends require it (srdma_setup_check_fit). */
int srdma_keys_seal(struct srdma_conn *conn);

#endif
