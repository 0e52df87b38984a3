/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `securdma wrap`: putting the library before a program, running it, and reporting what it did. */
#ifndef CLI_WRAP_H
#define CLI_WRAP_H

#include <stdbool.h>

/* As env(1), nohup(1) and uroce(1), which also run other commands. Documented in securdma-wrap(1). */
enum {
	WRAP_EXIT_OWN = 125,            /* the wrapper itself failed, or can't wrap the command */
	WRAP_EXIT_NOT_EXECUTABLE = 126,
	WRAP_EXIT_NOT_FOUND = 127,
	WRAP_EXIT_SIGNAL = 128,         /* plus the signal's number */
};

/* wrap_library.c: sets LD_PRELOAD and LD_LIBRARY_PATH. 0, or an exit code after a message. */
int wrap_library(void);
/* Whether the dynamic linker will heed them for this command. 0, or an exit code after a message. */
int wrap_check_command(const char *command);

/* wrap_run.c: becomes the command; returns an exit code after a message. */
int wrap_exec(char **argv);
/* Runs it as a child, and returns its exit code. */
int wrap_run(char **argv);

/* wrap_report.c: a file for the records of the command and its children, which SECURDMA_WRAP_REPORT names. Its descriptor, or -1 after a
 * message. */
int wrap_report_open(void);
/* Prints what they say to standard error. */
void wrap_report_print(int fd, const char *command, bool json);

#endif
