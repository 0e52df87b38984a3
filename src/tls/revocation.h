/* SPDX-License-Identifier: Apache-2.0 */
/* Revocation lists: loading them, and checking a verified chain against them.
 *
 * OpenSSL's own check is not used. It looks at the lists before it has checked a signature of the chain, and checks a list's signature
 * anew for each handshake, so that anyone could make a server hash a long list by sending a self-made certificate. And it cannot
 * accept a CA without a list, and yet refuse a CA whose list has expired. */
#ifndef SRDMA_REVOCATION_H
#define SRDMA_REVOCATION_H

#include <openssl/x509.h>
#include <stdbool.h>

/* Thread-safe once it is loaded. */
struct srdma_revocation;

/* Adds the lists of a PEM file to *lists, which is NULL before the first call. `may_have_none`: the file holds certificates, and perhaps
 * lists. A list that may be incomplete is an error: one with a delta indicator, an issuing distribution point that narrows it down, or
 * an extension that is critical and not known here. Errors: SRDMA_ECONFIG, with the file and the fault; -ENOMEM. */
int srdma_revocation_load(const char *file, bool may_have_none, struct srdma_revocation **lists);
/* Checks that each list with the name of one of these CAs has that CA's signature. Errors: SRDMA_ECONFIG. */
int srdma_revocation_match(const struct srdma_revocation *lists, const STACK_OF(X509) *cas);
void srdma_revocation_free(struct srdma_revocation **lists);

/* Checks a verified chain, the peer's own certificate first. `cas`: trusted certificates, among which the function looks for issuers of
 * the last one. A list of its issuer must cover the peer's certificate; with `require_all` also each other certificate that is not
 * itself trusted. Returns X509_V_OK, or an X509_V_ERR_* and *culprit. */
int srdma_revocation_check(struct srdma_revocation *lists, const STACK_OF(X509) *chain, const STACK_OF(X509) *cas, bool require_all,
			   X509 **culprit);

#endif
