/* SPDX-License-Identifier: Apache-2.0 */
/* The names in a peer's certificate, and the one that is its identity. */
#ifndef SRDMA_PEER_NAMES_H
#define SRDMA_PEER_NAMES_H

#include "securdma_cert.h"

#include <openssl/x509.h>

#define SRDMA_NAME_KINDS (SRDMA_NAME_IP + 1)

/* The kinds of names that may be the identity, in order of preference. */
struct srdma_name_order {
	unsigned count;
	enum srdma_name_kind kinds[SRDMA_NAME_KINDS];
};

/* Parses such a list; NULL means the default, "cn,uri,email,dns". Errors: -EINVAL. */
int srdma_name_order_parse(const char *text, struct srdma_name_order *out);

/* All zero for a peer that showed no certificate. */
struct srdma_peer_names {
	char identity[SRDMA_NAME_SIZE];	 /* as struct srdma_identity says; "": anonymous */
	char pin[SRDMA_PIN_TEXT_SIZE];
	struct srdma_cert_name *list;	 /* with their texts, one piece of memory */
	size_t count;
};

/* Errors: -EINVAL a key that cannot be encoded; -ENOMEM. */
int srdma_peer_names_read(X509 *cert, const struct srdma_name_order *order, struct srdma_peer_names *out);
/* Writes all names in printable form, "cn:alice, uri:spiffe://prod/alice"; marks the end if it leaves names out for lack of room. */
void srdma_peer_names_format(const struct srdma_peer_names *names, char *out, size_t size);
void srdma_peer_names_clear(struct srdma_peer_names *names);

/* Checks whether a text can be an identity. Errors: -EINVAL, with the reason. */
int srdma_peer_names_check(const char *text);

#endif
