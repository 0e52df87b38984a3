/* SPDX-License-Identifier: Apache-2.0 */
/* Entries that are saved together: one wait for the disk is enough for many, and several threads make small files faster than one. */
#ifndef FILES_RECEIVER_BATCH_H
#define FILES_RECEIVER_BATCH_H

#include "account.h"
#include "crew.h"
#include "target.h"

#include <stdatomic.h>

#define FILES_BATCH_MAX   256
#define FILES_BATCH_SLOTS 1024
/* For contents of whole files. */
#define FILES_BATCH_BYTES ((size_t)1 << 20)

/* How long a partial file may be another copy's: one whose client was killed ends soon, and its successor is to go on with the file. */
#define FILES_BUSY_MS      3000
#define FILES_BUSY_TURN_MS 50

/* A file, a link, or the end of a folder. What it points to is its own, but for the content. */
struct files_pending {
	unsigned kind; /* enum files_kind */
	uint64_t id;
	struct files_folder *folder; /* that it is in; or itself */
	int fd;                      /* of a file's content */
	char *path;
	char partial[FILES_PARTIAL_SIZE]; /* ""; only WHOLE files have no such name */
	char leaf[256];
	uint32_t mode;
	struct timespec mtime;
	struct files_bytes whole; /* content of a file that is not written yet, among the batch's bytes; NULL: it is in a partial file */
	bool unchanged;           /* it was there already */
	int error;                /* that it met; 0 */
};

struct files_batch {
	struct files_pending items[FILES_BATCH_MAX];
	size_t count;
	uint16_t slots[FILES_BATCH_SLOTS]; /* of files and links by their paths: index + 1 */
	uint8_t *bytes;                    /* FILES_BATCH_BYTES */
	size_t used;
	bool durable;                      /* contents and names are to be on stable storage */
	struct files_account *account;
	atomic_bool cannot_link;           /* a file without a name cannot get one here */
};

/* Whether the path is not in the batch yet, and there is room for it and so many bytes. */
bool files_batch_has_room(const struct files_batch *batch, const char *path, size_t bytes);
/* Takes over all that the entry points to, and copies its content. */
void files_batch_add(struct files_batch *batch, const struct files_pending *pending);
/* Saves everything under its name, by the crew. The items stay, with their errors. Returns an error of `live` (files_crew_run()). */
int files_batch_commit(struct files_batch *batch, struct files_crew *crew, int (*live)(void *arg), void *arg);
void files_batch_clear(struct files_batch *batch);
void files_pending_free(struct files_pending *pending);

/* receiver_whole.c. What is there under a file's name; its mode is 0 when nothing is, or when there is no folder yet. An error: no file can
 * be there. */
int files_pending_look(const struct files_pending *pending, struct stat *old);
bool files_pending_has_time(const struct files_pending *pending, const struct stat *old);
/* Gives the file that is there under its name the rights and the time that it is to have. */
int files_pending_refresh(const struct files_pending *pending);
/* What a file of these attributes would replace: 1, the same file as far as size and time tell, which has its mode now; 0, something else or
 * nothing; or an error: no file can be there. */
int files_pending_compare(const struct files_pending *pending, uint64_t size);
int files_write_all(int fd, const uint8_t *data, size_t length, int64_t offset);
/* Writes a whole file, and gives it its name unless the batch is durable. */
void files_pending_write(struct files_pending *pending, struct files_batch *batch);
/* Gives a file that was written, or a link, its name. */
void files_pending_name(struct files_pending *pending, struct files_batch *batch);
int files_pending_set_attributes(int fd, const struct files_pending *pending);

#endif
