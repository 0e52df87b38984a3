/* SPDX-License-Identifier: Apache-2.0 */
/* An end's own certificate and private key. */
#ifndef SRDMA_CREDENTIAL_H
#define SRDMA_CREDENTIAL_H

#include <openssl/ssl.h>

/* Loads both, and sends what is missing of the chain from the CAs that the context already trusts. What no peer can use is an error:
 * it would be found out with the first client, by that client. Errors: SRDMA_ECONFIG; -ENOENT, -EACCES for the files; SRDMA_ETLS. */
int srdma_credential_load(SSL_CTX *context, const char *cert_file, const char *key_file);

#endif
