/* SPDX-License-Identifier: Apache-2.0 */
/* Revocation lists: which are taken, and what they say of a chain that has been verified.
 *
 * OpenSSL's own check is not used. It looks at the lists before it has checked a signature of the chain, and checks a list's signature
 * anew for each handshake, so that anybody could make a server hash a long list with a certificate of his own making; and it cannot
 * let a CA pass that has no list, and stop at one whose list has expired. */
#ifndef SRDMA_REVOCATION_H
#define SRDMA_REVOCATION_H

#include <openssl/x509.h>
#include <stdbool.h>

/* Thread-safe once it is loaded. */
struct srdma_revocation;

/* Reads the lists of a PEM file; to begin with, *lists is NULL. A list that may leave something out is an error: one with a delta
 * indicator, an issuing distribution point that narrows it down, or an extension that is critical and not known here.
 * Errors: SRDMA_ECONFIG, with the file and what is wrong; -ENOMEM. */
int srdma_revocation_load(const char *file, struct srdma_revocation **lists);
/* The same for a file that holds certificates and may hold lists. */
int srdma_revocation_load_beside(const char *file, struct srdma_revocation **lists);
/* Whether the lists of these CAs are signed by them. Errors: SRDMA_ECONFIG. */
int srdma_revocation_match(const struct srdma_revocation *lists, const STACK_OF(X509) *cas);
void srdma_revocation_free(struct srdma_revocation **lists);

/* What the lists say of a verified chain, the peer's own certificate first. `cas`: trusted ones, in which issuers of the last
 * certificate are looked for. The peer's certificate must be covered by a list of its issuer; with `require_all` each other one that
 * is not trusted itself, too. Returns X509_V_OK, or an X509_V_ERR_* and *culprit. */
int srdma_revocation_check(struct srdma_revocation *lists, const STACK_OF(X509) *chain, const STACK_OF(X509) *cas, bool require_all,
			   X509 **culprit);

#endif
