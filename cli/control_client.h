/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of the control socket, for status, top, kick and drain. */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include "command_line.h"

#include <jansson.h>

/* Where a server's socket is: --control, or under RUNTIME_DIRECTORY, or NULL: it has none, so that servers that are started by hand
 * do not meet. To be freed. */
char *control_path_of_server(const struct settings *settings);
/* Runs a command that asks a server: reads the command line, and calls `work` with the path of the server's socket. `line` has neither
 * settings nor a command mask yet. `agent`: where the command line says that an agent is asked; NULL: only a server. Returns an exit code. */
int control_command(struct command_line *line, int argc, char **argv, const bool *agent, int (*work)(const char *path, const struct command_line *line));

/* Asks the server at `path` and gives its answer, to be released. Takes the request over. When the answer says that it did
 * not work out, or there is none, that has been said, unless `quiet`. Returns an exit code. */
int control_ask(const char *path, json_t *request, bool quiet, json_t **answer);
/* For an answer that the server may have to work for: it is awaited so long. */
int control_ask_within(const char *path, json_t *request, int timeout_s, bool quiet, json_t **answer);

/* Whether there is a server at all, which may be too busy to answer. */
bool control_is_served(const char *path);

#endif
