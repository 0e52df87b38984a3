/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys that the settings name: judged as `securdma doctor` does, then loaded. */
#ifndef CLI_CREDENTIALS_H
#define CLI_CREDENTIALS_H

#include "settings.h"

/* Warnings are logged. Errors: those of srdma_tls_server_check and srdma_tls_server_new, with their text. */
int credentials_server(const struct settings *settings, struct srdma_tls_context **out);
int credentials_client(const struct settings *settings, struct srdma_tls_context **out);

#endif
