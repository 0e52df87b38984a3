/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of the control socket, for status, top, kick and drain. */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include "settings.h"

#include <jansson.h>

/* Where the socket is: --control, or under RUNTIME_DIRECTORY, or NULL (a server has none then). To be freed. */
char *control_path(const struct settings *settings);

/* Asks the server at `path` and gives its answer, to be released. Takes the request over. When the answer says that it did
 * not work out, or there is none, that has been said, unless `quiet`. Returns an exit code. */
int control_ask(const char *path, json_t *request, bool quiet, json_t **answer);

#endif
