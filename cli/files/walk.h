/* SPDX-License-Identifier: Apache-2.0 */
/* A tree, entry by entry, with one open folder for each level and nothing else: its size does not matter. */
#ifndef FILES_WALK_H
#define FILES_WALK_H

#include "exclude.h"

#include <stdbool.h>
#include <sys/stat.h>

enum files_found_kind {
	FILES_FOUND_FILE,
	FILES_FOUND_FOLDER,
	FILES_FOUND_LINK,
	FILES_FOUND_LEAVE,  /* all in the folder has been found */
	FILES_FOUND_FAILED, /* `text` says why */
	FILES_FOUND_LEFT_OUT,
};

/* What was found; valid until the next call. */
struct files_found {
	enum files_found_kind kind;
	const char *path; /* as the receiver is to have it */
	int fd;           /* of a file, open to read; becomes the caller's */
	struct stat status;
	char *link;       /* where a link leads, FILES_NAME_MAX bytes at most */
	char text[160];
};

struct files_walk;

/* Walks what has the name `leaf` in the folder `parent`, which stays the caller's. The paths begin with `name`; "" stands for what is in the
 * folder `leaf` alone. `follow`: also when it is a link. `recursive`: folders, with what is in them. Errors: -ENOMEM. */
int files_walk_new(int parent, const char *leaf, const char *name, bool follow, bool recursive, struct files_walk **out);
/* From now on partial files of copies are found as well, which stay out of a copy. */
void files_walk_all(struct files_walk *walk);
/* What these are for is not found, unless the walk begins with it. They stay the caller's; NULL: there are none. */
void files_walk_exclude(struct files_walk *walk, const struct files_excludes *excludes);
/* The folder that the last entry was found in; -1: it began the walk. */
int files_walk_folder(const struct files_walk *walk);
/* Returns 1 with an entry, or 0 when there are no more. */
int files_walk_next(struct files_walk *walk, struct files_found *found);
void files_walk_free(struct files_walk **walk);

#endif
