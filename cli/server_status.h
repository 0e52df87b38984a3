/* SPDX-License-Identifier: Apache-2.0 */
/* What a running server says of itself on SIGUSR1. */
#ifndef CLI_SERVER_STATUS_H
#define CLI_SERVER_STATUS_H

#include "securdma.h"

void server_status_print(struct srdma_server *server, bool json);

#endif
