/* SPDX-License-Identifier: Apache-2.0 */
/* What `securdma agent` and the commands that ask an agent share. */
#ifndef CLI_AGENT_COMMAND_H
#define CLI_AGENT_COMMAND_H

#include "settings.h"

#include <jansson.h>

struct agent_rules;

/* agent_paths.c: where an agent's sockets are: as the settings say, or below the folder of the service manager, of the user, or /run. To be
 * freed; NULL: out of memory. */
char *agent_socket_path(const struct settings *settings);
char *agent_control_path(const struct settings *settings);

/* agent_rules.c: certificates, map file and policy as the settings say; prints errors. Returns an exit code. */
int agent_rules_load(const struct settings *settings, struct agent_rules *out);

/* agent_status.c: prints an agent's answer to `securdma status` as text. */
void agent_status_show(const json_t *status);

#endif
