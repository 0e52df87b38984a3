/* SPDX-License-Identifier: Apache-2.0 */
/* The means of checking a peer's certificate: CAs, their revocation lists, a pin. */
#ifndef SRDMA_TRUST_H
#define SRDMA_TRUST_H

#include "securdma.h"

#include <openssl/ssl.h>

struct srdma_revocation;

struct srdma_trust {
	STACK_OF(X509) *cas; /* NULL: none */
	struct srdma_revocation *lists; /* NULL: none is consulted */
	bool require_all_lists;
	const char *wrong_name; /* what to say of a certificate of another name; static; NULL: as a client says of a server */
	bool has_pin;
	unsigned char pin[SRDMA_PIN_SIZE];
};

/* Trusts the certificates in the PEM file: a CA, root or not, for all that it issues, and any other certificate for itself. Lists in it
 * count like those in `crl_file`, which may be NULL. Errors: -ENOENT, -EACCES, SRDMA_ECONFIG, -ENOMEM. */
int srdma_trust_load(struct srdma_trust *trust, SSL_CTX *context, const char *ca_file, const char *crl_file);
/* Makes the context verify peers by `trust`, which must stay at its address. */
void srdma_trust_enforce(struct srdma_trust *trust, SSL_CTX *context);
void srdma_trust_clear(struct srdma_trust *trust);

#endif
