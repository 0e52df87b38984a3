/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy was asked to send: a few paths, each a file or a tree. */
#ifndef FILES_LIST_H
#define FILES_LIST_H

#include "sender.h"
#include "target.h"

#define FILES_LIST_MAX 256

struct files_list {
	struct files_target *target; /* that the paths are below, of which no link is followed; NULL: they are this process's own */
	bool recursive;
	const struct files_excludes *excludes; /* NULL: none */
	char *paths[FILES_LIST_MAX];
	size_t count, next;
	struct files_folder *folder; /* of the present one */
	struct files_walk *walk;
};

/* Copies a path. Errors: -E2BIG: there are FILES_LIST_MAX; -ENOMEM. */
int files_list_add(struct files_list *list, const struct files_bytes *path);
/* The name that what is at a path gets at the other end; "" for what is in a folder such as "." or "/". `length` bytes at most. */
void files_list_name(const char *path, char *name, size_t size);
/* The entries of all paths; `arg` of struct files_source is the list. */
int files_list_next(void *arg, struct files_found *found);
/* Counts files and bytes. Calls `live` now and then, whose error ends it. */
int files_list_total(struct files_list *list, int (*live)(void *arg), void *arg, uint64_t *bytes, uint64_t *files);
/* Frees what it points to, and not `target`. */
void files_list_clear(struct files_list *list);

#endif
