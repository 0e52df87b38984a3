/* SPDX-License-Identifier: Apache-2.0 */
/* What a running server says of itself, on SIGUSR1 and over the control socket. */
#ifndef CLI_SERVER_STATUS_H
#define CLI_SERVER_STATUS_H

#include "securdma_server.h"

#include <jansson.h>

/* NULL: out of memory. */
json_t *server_status_json(struct srdma_server *server);
/* The same for people, from that object, on stdout. */
void server_status_show(const json_t *status);
/* Columns for the names of these clients. */
unsigned server_status_name_columns(const json_t *clients);
void server_status_print(struct srdma_server *server, bool json);
/* Disconnects all clients in order. */
void server_status_kick_all(struct srdma_server *server, const char *reason);
/* The answer to a line on the control socket: status, kick, drain. */
json_t *server_status_answer(const json_t *request, struct srdma_server *server);

#endif
