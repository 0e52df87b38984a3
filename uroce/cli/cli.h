/* SPDX-License-Identifier: Apache-2.0 */
/* The command uroce: what its files share. */
#ifndef UROCE_CLI_H
#define UROCE_CLI_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>

#include "counters.h"

/* Like env(1) and nohup(1), which also run other commands. */
enum {
	EXIT_USAGE = 2,
	EXIT_OWN = 125,           /* uroce itself failed: its library, memory */
	EXIT_NOT_EXECUTABLE = 126,
	EXIT_NOT_FOUND = 127,
	EXIT_SIGNAL = 128,        /* plus the signal's number */
};

/* Prints "uroce: " and the text to standard error; returns `status`. */
int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* library.c: puts the library into LD_PRELOAD for the command, and calls the next. 0, or an exit status after a message. */
int library_preload(const char *command);
/* sanitizer.c */
#define SANITIZER_NAME 64
/* Whether this word of LD_PRELOAD is the run-time library of a sanitizer. */
bool is_sanitizer(const char *word, size_t length);
/* The name of the run-time library that the command is linked to; false: none that must come first. */
bool sanitizer_of(const char *command, char *name, size_t size);
/* dropin.c: puts a folder with a libibverbs.so.1 that goes with the library first into LD_LIBRARY_PATH. The same. */
int dropin_path(const char *library);

/* check.c: whether an option's value can be understood; prints what is wrong with it if not. */
bool check_addresses(const char *list);
bool check_fault(const char *spec);
bool check_log_level(const char *level);

/* run.c */
/* Becomes the command; returns an exit status after a message. */
int run_command(char **argv);
enum report { REPORT_NONE, REPORT_TEXT, REPORT_JSON };
/* Runs the command as a child and prints the counters of all its processes at the end; returns its exit status. `mounted`: the
 * counters are also shown in mounted files meanwhile. */
int run_counted(char **argv, enum report report, bool mounted);

/* mount.c */
/* Shows the device's files to this process, and all that it starts, by mounts; false after a message: without. After library_preload. */
bool mount_files(void);
/* Writes the counters into the mounted files. */
void mount_refresh(const struct counters *counters);
/* `uroce --copy-files FOLDER`, by which mount_files calls this program with the library: copies of all files. 0 or an errno. */
int mount_copy(const char *folder);

/* find.c: the descriptor of a process's counters, opened here too; -1 if it has none. `directory`: its /proc/PID/fd. */
int counters_find(DIR *directory);
/* A copy: its owner, who may be anybody, can cut a mapping short under its reader. False and errno; EPROTO: another version's. */
bool counters_read(int fd, struct counters *counters);

/* ports.c */
enum { PORT_ADDRESS = 46 };
struct port {
	unsigned long inode; /* of its socket */
	const char *space;
	uint16_t number;
	char address[PORT_ADDRESS]; /* "any": all */
};
/* The ports that a process is bound to by rdma_cm; returns how many. `process`: its folder in /proc; `fds`: its descriptors, which are
 * read anew. The caller frees *out. */
size_t ports_of(int process, DIR *fds, struct port **out);

/* stats.c: `uroce stats PID [--json]`. */
int cmd_stats(int argc, char **argv);
/* resources.c: `uroce resources [--json]`. */
int cmd_resources(int argc, char **argv);

/* print.c: the counters that are not zero, one a line with what they mean; as JSON all of them, in one object. */
void print_counters(FILE *out, const struct counters *counters);
void print_counters_json(FILE *out, const struct counters *counters);

#endif
