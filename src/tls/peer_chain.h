/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the certificates that a peer shows before OpenSSL decodes them. Anyone who can reach the port can send some, and OpenSSL
 * decodes the key of each before it calls any callback; an attacker can make that slow. No I/O here. */
#ifndef SRDMA_PEER_CHAIN_H
#define SRDMA_PEER_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRDMA_CHAIN_BYTES 32768u /* of all certificates together */
#define SRDMA_CHAIN_CERTS 8u
#define SRDMA_RSA_BITS_MIN 2048u
#define SRDMA_RSA_BITS_MAX 4096u

/* The body of a Certificate message: RFC 8446, 4.4.2, or, without `tls13`, RFC 5246, 7.4.2. Returns NULL if OpenSSL may
 * decode it, else the fault, to follow "the peer's certificate is not acceptable: ". Static. */
const char *srdma_chain_problem(const uint8_t *body, size_t length, bool tls13);

/* The same check of one public key, a SubjectPublicKeyInfo in DER. */
const char *srdma_key_problem(const uint8_t *spki, size_t length);

#endif
