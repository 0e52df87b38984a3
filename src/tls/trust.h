/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer's certificate is checked against: CAs, their revocation lists, a pin. */
#ifndef SRDMA_TRUST_H
#define SRDMA_TRUST_H

#include "securdma.h"

#include <openssl/ssl.h>

struct srdma_revocation;

struct srdma_trust {
	STACK_OF(X509) *cas; /* NULL: none */
	struct srdma_revocation *lists; /* NULL: none is consulted */
	bool require_all_lists;
	bool has_pin;
	unsigned char pin[SRDMA_PIN_SIZE];
};

/* Trusts what is in the PEM file: CAs, roots or not, for all that they issue, and any certificate for itself. Lists in it count as
 * those in `crl_file`, which may be NULL. Errors: -ENOENT, -EACCES, SRDMA_ECONFIG, -ENOMEM. */
int srdma_trust_load(struct srdma_trust *trust, SSL_CTX *context, const char *ca_file, const char *crl_file);
/* From here on the context verifies peers by this; it stays where it is. */
void srdma_trust_enforce(struct srdma_trust *trust, SSL_CTX *context);
void srdma_trust_clear(struct srdma_trust *trust);

#endif
