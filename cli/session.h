/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of `securdma connect`, and the operations on it that check what comes back. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli.h"
#include "securdma_link.h"
#include "settings.h"

#include <stdio.h>

struct session {
	const struct settings *settings;
	struct srdma_link *link;
	struct srdma_conn *conn;     /* the link's of the moment; NULL: none */
	struct srdma_conn_timing timing;
	struct srdma_conn_info info; /* as it was when the connection came up */
	bool show_psn;
	char *reply; /* room for the longest message */
	size_t reply_size, reply_length;
	json_t *results; /* with --json: what the script's commands gave; else NULL */
	uint64_t reconnects; /* connections after the first */
	uint64_t messages_verified, bytes_written, bytes_read_back;
	int error;   /* the library's error that ended the connection; 0 while it is up */
	int failure; /* the library's error of the last operation that failed; 0: the failure is ours */
	char failure_text[768];
};

/* There is a connection, the first or a new one. Returns an exit code. */
int session_begin(struct session *session);

/* A call on the connection has failed with `error`: connects again, if the settings say so. Returns CLI_EXIT_OK with a new
 * connection, when the work can go on, else the exit code; what failed has been said. */
int session_recover(struct session *session, int error, const char *what);

/* Sends `data` and waits for the echo; session->reply then holds the payload, session->reply_length bytes. Returns an
 * exit code; CLI_EXIT_FAILED when the echo is not what was sent. What failed has been said. After a reconnection a message whose
 * echo did not come is sent again: to echo it twice does no harm. */
int session_echo(struct session *session, const void *data, size_t length);

/* Waits for up to `ms` or until the user interrupts. Returns 0, -EINTR, or the connection's error. */
int session_idle(struct session *session, int ms);

/* Says what failed, and remembers an error that ended the connection. Returns the exit code. */
int session_fail(struct session *session, int error, const char *what);

/* Says a failure that is not the library's, on one line. Returns CLI_EXIT_FAILED. */
int session_complain(struct session *session, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Handles SIGINT and SIGTERM from here on: the first one ends the wait that is under way, a second one the process. */
void session_watch_signals(struct session *session);
void session_ignore_signals(void);
bool session_interrupted(void);

/* The agreed parameters and phases. NULL when out of memory. */
json_t *session_json(const struct session *session);
void session_print(const struct session *session);

/* pattern.c: the run of --pattern. Sends `count` messages of `size` bytes made of `pattern`, each different, and checks every echo; then fills the
 * server's whole region with the pattern, reads it back and compares. Returns an exit code. */
int pattern_run(struct session *session, const char *pattern, uint64_t count, size_t size);

/* shell.c, shell_edit.c: commands typed at a prompt, or from a script. */
/* Runs one command. `line` is changed. Returns an exit code; *quit is set by `quit`. */
int shell_command(struct session *session, char *line, bool *quit);

/* Runs the commands of a text, separated by ';'. */
int shell_text(struct session *session, const char *text, bool *quit);

/* Runs the lines of `file` until its end, `quit`, or one that fails. */
int shell_script(struct session *session, FILE *file);

/* Reads commands from the terminal, with editing and history, until its end, `quit`, or the end of the connection. */
int shell_interactive(struct session *session);

#endif
