/* SPDX-License-Identifier: Apache-2.0 */
/* Options: what a flag or a line of the configuration file may say, and where the value goes. One table entry
 * serves the command line, the file, and the help text. */
#ifndef CLI_OPTION_H
#define CLI_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
	OPTION_TEXT,   /* char *, owned */
	OPTION_NUMBER, /* an integer between min and max */
	OPTION_SIZE,   /* likewise; K, M and G suffixes */
	OPTION_SWITCH, /* bool; the flag takes no value */
	OPTION_ACCESS, /* an integer: IBV_ACCESS_REMOTE_* from rw, r, w, none */
	OPTION_LEVEL,  /* an integer: enum srdma_log_level */
	OPTION_LOG_FORMAT, /* an integer: enum cli_log_format */
	OPTION_MODE,   /* an integer: enum local_mode (agent/local.h) */
	OPTION_SEAL,   /* an integer: enum srdma_seal */
	OPTION_WORKERS, /* an integer: a number between 1 and max, or SRDMA_WORKERS_* from auto, per-client */
	OPTION_LIST,   /* struct option_list; the flag may be repeated */
};

struct option_list {
	char **items;
	size_t count;
};

struct option {
	const char *flag;          /* "--device" */
	const char *section, *key; /* in the configuration file; NULL: only a flag */
	enum option_type type;
	unsigned commands; /* mask of the commands that have the flag */
	size_t offset, width; /* of the value in the structure that the table belongs to: OPTION_AT */
	int64_t min, max;
	const char *value_name; /* "NAME", for the help text */
	const char *help;
};

/* Offset and width of a field. An integer of one byte is unsigned, a wider one signed: no limit of a setting is so high that it
 * would matter. */
#define OPTION_AT(structure, field) offsetof(structure, field), sizeof(((structure *)NULL)->field)

/* Sets the option's value in the structure `base` from text. On failure *allowed (of `size` bytes) says what would have
 * been right. Errors: -EINVAL, -ENOMEM. */
int option_set(const struct option *option, void *base, const char *text, char *allowed, size_t size);

/* Writes the value as text that option_set would read. */
void option_format(const struct option *option, const void *base, char *text, size_t size);

/* Whether the values in the structures `a` and `b` are the same. Lists are not compared: no setting is one. */
bool option_equals(const struct option *option, const void *a, const void *b);

/* Frees the texts and lists of the structure `base`. */
void options_free(const struct option *options, size_t count, void *base);

#endif
