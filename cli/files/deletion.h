/* SPDX-License-Identifier: Apache-2.0 */
/* Deletes what the target has and the sender does not: in the folders that are copied, when all that is to stay in one is known. */
#ifndef FILES_DELETION_H
#define FILES_DELETION_H

#include "account.h"
#include "exclude.h"

struct files_deletion;

struct files_deletion_options {
	const struct files_excludes *excludes; /* what they are for stays */
	struct files_account *account;         /* gets the room back; NULL */
	bool dry_run;                          /* only tells */
	/* An entry was deleted, or, with an error below 0, could not be. A result below 0 ends the copy. */
	int (*deleted)(void *arg, const char *path, int error);
	void *arg;
};

/* Errors: -ENOMEM. */
int files_deletion_new(const struct files_deletion_options *options, struct files_deletion **out);
void files_deletion_free(struct files_deletion **deletion);

/* The sender has an entry with this path; of a folder, others follow, until files_deletion_leave(). Errors: -ENOMEM. */
int files_deletion_keep(struct files_deletion *deletion, const struct files_bytes *path, bool is_folder);
/* The sender could not read all that it has: from now on nothing is deleted. */
void files_deletion_stop(struct files_deletion *deletion);
/* Whether anything was left because of that, or since there were too many names to remember. */
bool files_deletion_has_stopped(const struct files_deletion *deletion);
/* All entries of the folder `path` are known, "" for the target itself: deletes the others in it. `fd`, the folder, stays the caller's; -1: there
 * is no such folder, or its content is not to be judged. Errors: those of `deleted`. */
int files_deletion_leave(struct files_deletion *deletion, const struct files_bytes *path, int fd);

#endif
