/* SPDX-License-Identifier: Apache-2.0 */
/* An end's own certificate and private key. */
#ifndef SRDMA_CREDENTIAL_H
#define SRDMA_CREDENTIAL_H

#include <openssl/ssl.h>

/* Loads both, and completes the chain from the CAs that the context already trusts. A certificate or key that no peer can use is an
 * error here, since otherwise the first client would meet it. Errors: SRDMA_ECONFIG; -ENOENT, -EACCES for the files; SRDMA_ETLS. */
int srdma_credential_load(SSL_CTX *context, const char *cert_file, const char *key_file);

#endif
