/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of `securdma connect`: typed at a prompt, or from a script. */
#ifndef CLI_SHELL_H
#define CLI_SHELL_H

#include "session.h"

#include <stdio.h>

/* Runs one command. `line` is changed. Returns an exit code; *quit is set by `quit`. */
int shell_command(struct session *session, char *line, bool *quit);

/* Runs the commands of a text, separated by ';'. */
int shell_text(struct session *session, const char *text, bool *quit);

/* Runs the lines of `file` until its end, `quit`, or one that fails. */
int shell_script(struct session *session, FILE *file);

/* Reads commands from the terminal, with editing and history, until its end, `quit`, or the end of the connection. */
int shell_interactive(struct session *session);

#endif
