/* SPDX-License-Identifier: Apache-2.0 */
/* A subcommand's command line: the shared settings, its own options, its operands, its help text. */
#ifndef CLI_COMMAND_LINE_H
#define CLI_COMMAND_LINE_H

#include "settings.h"

struct command_line {
	const char *name;             /* "connect" */
	unsigned command;             /* FOR_CONNECT */
	const char *synopsis;         /* what follows the name */
	const char *about;            /* a few lines */
	const char *details;          /* examples and exit codes, after the options */
	const struct option *options; /* the subcommand's own; may be NULL */
	size_t option_count;
	void *values;              /* structure of `options` */
	struct settings *settings; /* initialised, with the subcommand's own defaults; NULL: it has none, and no file */
	const char **operands;
	int max_operands;
	int operand_count; /* set by command_line_parse */
};

/* Reads the configuration file, then the flags, and starts the log. Returns true to go on; false when the command is to
 * end with *exit_code: help was asked for, or something was wrong and has been said. */
bool command_line_parse(struct command_line *line, int argc, char **argv, int *exit_code);
/* The same once more, into other settings, of a command that runs: the log goes on as it is. Returns an exit code. */
int command_line_read_again(struct command_line *line, int argc, char **argv);

#endif
