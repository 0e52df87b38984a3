/* SPDX-License-Identifier: Apache-2.0 */
/* Entries whose content is there, and which get their names, rights and times together: one wait for the disk is enough for many. */
#ifndef FILES_RECEIVER_BATCH_H
#define FILES_RECEIVER_BATCH_H

#include "account.h"
#include "target.h"

#define FILES_BATCH_MAX 128

/* A file, a link, or the end of a folder. What it points to is its own. */
struct files_pending {
	unsigned kind; /* enum files_kind */
	uint64_t id;
	struct files_folder *folder; /* that it is in; or itself */
	int fd;                      /* of a file's content */
	char *path;
	char partial[FILES_PARTIAL_SIZE];
	char leaf[256];
	uint32_t mode;
	struct timespec mtime;
	int error; /* that it met; 0 */
};

struct files_batch {
	struct files_pending items[FILES_BATCH_MAX];
	size_t count;
};

/* Takes over all that the entry points to. */
void files_batch_add(struct files_batch *batch, const struct files_pending *pending);
/* Puts everything on stable storage under its name. The items stay, with their errors. */
void files_batch_commit(struct files_batch *batch, struct files_account *account);
void files_batch_clear(struct files_batch *batch);
void files_pending_free(struct files_pending *pending);

#endif
