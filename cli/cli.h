/* SPDX-License-Identifier: Apache-2.0 */
/* What every subcommand of `securdma` uses: exit codes, output, and the subcommands themselves. */
#ifndef CLI_H
#define CLI_H

#include "securdma.h"

#include <jansson.h>
#include <stdbool.h>

/* Documented in securdma(1): scripts depend on them. */
enum cli_exit {
	CLI_EXIT_OK = 0,
	CLI_EXIT_FAILED = 1,   /* what was asked for did not work out */
	CLI_EXIT_USAGE = 2,    /* command line, settings, or credentials that don't fit together */
	CLI_EXIT_CONNECT = 3,  /* no TCP connection, or no answer in time */
	CLI_EXIT_TLS = 4,      /* TLS, certificates or the exchange failed */
	CLI_EXIT_REJECTED = 5, /* the server said REJECT */
	CLI_EXIT_DEVICE = 6,   /* no RDMA device, or it failed */
	CLI_EXIT_LOST = 7,     /* the connection was lost or ended by the peer */
	CLI_EXIT_UNFINISHED = 8, /* a server stopped as it was told to, and some clients did not end in order */
	CLI_EXIT_PARTIAL = 9,    /* some files were not copied, and all others were */
};

/* The exit code for a negative error of the library. */
int cli_exit_code(int error);

/* cli_error with "<message>: <srdma_error_text()>"; returns cli_exit_code(error). */
int cli_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints "securdma COMMAND: <message>" and how to get help to stderr; returns CLI_EXIT_USAGE.
 * `command` NULL: the message concerns no subcommand. */
int cli_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Milliseconds on CLOCK_MONOTONIC. */
int64_t cli_now_ms(void);

/* Whether SIGPIPE was ignored when this program started: what it runs instead of itself inherits that. */
extern bool cli_sigpipe_ignored;

/* Behind a count in a text: "2 bytes", "1 byte". */
#define CLI_S(count) ((count) == 1 ? "" : "s")

/* Prints one object on one line of stdout and flushes it. Steals the reference. NULL (out of memory) is reported. */
void cli_json_print(json_t *object);

/* Writes `length` bytes as printable ASCII: others become \n, \t, \r, \\ or \xHH; what finds no room in `size` is left
 * out. Four bytes for each and one for the end are always enough. Returns `text`. */
char *cli_escape(const void *data, size_t length, char *text, size_t size);

/* A text in UTF-8, without control characters, for `fd`: as it is, or, on a terminal that does not speak UTF-8, with \u{XX} for what is
 * not ASCII. Ten bytes for each of its characters and one for the end are always enough. Returns `out`. */
char *cli_show(int fd, const char *text, char *out, size_t size);
/* Prints such a text, and blanks up to a width in columns; a character takes one. */
void cli_print_column(const char *text, unsigned columns);
/* Characters of what cli_print_column prints. */
unsigned cli_columns(const char *text);

enum cli_log_format { CLI_LOG_TEXT, CLI_LOG_JSON };

/* Prints the library's log lines up to `level` to stderr. In text, with the time of day before each when `timestamps`. Where
 * stderr is the journal, each line has its priority, and no time. */
void cli_log_start(enum srdma_log_level level, enum cli_log_format format, bool timestamps);
/* Keeps errors back until cli_log_start, which knows how to print them. */
void cli_log_hold(void);
/* Whether `fd` is the journal's stream, which JOURNAL_STREAM names. */
bool cli_log_is_journal(int fd);

/* Prints why the command fails: "securdma: <message>", or a JSON object when the log has that format. Only the main thread may call
 * it. Returns `code`, an exit code. */
int cli_failed(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define cli_error(...) ((void)cli_failed(CLI_EXIT_FAILED, __VA_ARGS__))
/* The same, under another name than command.failed; `event` is a string constant. */
void cli_error_event(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* From now on errors are also collected; cli_log_collected ends that and returns them, with "; " between them, static. */
void cli_log_collect(void);
const char *cli_log_collected(void);

/* Prints one line of the command's own in the same form. */
#define cli_log(level, ...) cli_log_event(level, SRDMA_LOG_PLAIN, __VA_ARGS__)
/* The same, with the name of an event. */
void cli_log_event(enum srdma_log_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with fields. */
void cli_log_record(const struct srdma_log_record *record);

/* The subcommands; argv[0] is the subcommand's name. Each returns an exit code. */
int cmd_serve(int argc, char **argv);
int cmd_agent(int argc, char **argv);
int cmd_connect(int argc, char **argv);
int cmd_cp(int argc, char **argv);
int cmd_cert(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_tunnel(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_kick(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_wrap(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
