/* SPDX-License-Identifier: Apache-2.0 */
/* The server's end of `securdma tunnel`: for each client that asks for a target, and may, one TCP connection to it. The client's worker
 * moves the bytes and never waits. One thread watches all the TCP sockets, and wakes the worker of the client whose socket is ready. */
#ifndef CLI_TUNNEL_SERVER_H
#define CLI_TUNNEL_SERVER_H

#include "services.h"
#include "settings.h"

#include <jansson.h>
#include <stdio.h>

struct tunnel_server;

extern const struct service tunnel_service;

/* Whether the settings name any target. */
bool tunnel_server_wanted(const struct settings *settings);
/* Looks the targets up, and says what is wrong with them. Returns an exit code. */
int tunnel_server_check(struct settings *settings);
/* Starts the thread. `limited`: the sandbox lets it connect only to the ports of these targets. Returns an exit code. */
int tunnel_server_new(const struct settings *settings, bool limited, struct tunnel_server **out);
/* Whether the sandbox lets it connect to a target of other settings. One that it does not stays as it was, or away, until the next start. */
bool tunnel_server_reaches(const struct tunnel_server *server, const struct tunnel_target *target);
/* For metrics_add(); `server`: struct tunnel_server *. */
void tunnel_server_print(void *server, FILE *file);
/* What status has of it. NULL: out of memory. */
json_t *tunnel_server_json(struct tunnel_server *server);
/* Other settings, of tunnel_server_check, for tunnels that begin from now on. Errors: -ENOMEM; the old ones stay. */
int tunnel_server_set(struct tunnel_server *server, const struct settings *settings);
/* After the server has stopped. NULL is accepted. */
void tunnel_server_free(struct tunnel_server **server);

#endif
