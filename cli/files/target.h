/* SPDX-License-Identifier: Apache-2.0 */
/* A folder below which a copy reads and writes, and nowhere else. Each folder on the way is opened by its name alone, from the
 * descriptor of the one above it, and never through a symbolic link: so neither names nor links that others exchange meanwhile lead out. */
#ifndef FILES_TARGET_H
#define FILES_TARGET_H

#include "frame.h"

#include <stdbool.h>
#include <sys/stat.h>

/* The content of a file that is not whole yet stands beside it under such a name. */
#define FILES_PARTIAL_PREFIX ".securdma-part-"
#define FILES_PARTIAL_SIZE   (sizeof FILES_PARTIAL_PREFIX + 32)

/* Whether a path may come from a peer: relative, and no component is empty, ".", "..", longer than 255 bytes, or a partial file's. */
bool files_name_is_safe(const struct files_bytes *path);
/* Whether a link that stands at `path` leads to something below the same folder, whatever other such links there are: it is relative, has
 * ".." only in front, and no more of them than folders above it. */
bool files_link_stays(const struct files_bytes *path, const struct files_bytes *link);
/* The last component, and all before it. */
void files_name_split(const struct files_bytes *path, struct files_bytes *folder, struct files_bytes *leaf);
/* Of a file with this name in the same folder. */
void files_partial_name(const struct files_bytes *leaf, char name[FILES_PARTIAL_SIZE]);

struct files_target;

/* `root` becomes the target's; -1: there is no such folder, and nothing below it. `durable`: folders that are made are to be on stable
 * storage. Errors: -ENOMEM. */
int files_target_new(int root, bool durable, struct files_target **out);
void files_target_free(struct files_target **target);
/* Folders that are made get this mode, less the umask. Until then it is 0700: what they are to have comes at the end. */
void files_target_set_mode(struct files_target *target, mode_t mode);

/* An open folder; files of it that wait for their end share it. */
struct files_folder {
	int fd;
	unsigned refs;
	bool is_new; /* this copy has made it */
	size_t length;
	char path[];
};
/* Opens a folder below the target, and makes it, and those above it, if `make`; an empty path: the target itself. The caller has a
 * reference. *made counts the folders that were made. Errors: -ENOTDIR, also for a link; -ENOENT; others of open(2) and mkdir(2). */
int files_target_folder(struct files_target *target, const struct files_bytes *path, bool make, struct files_folder **out, unsigned *made);
struct files_folder *files_folder_ref(struct files_folder *folder);
void files_folder_unref(struct files_folder **folder);

/* Opens a partial file, for this process alone, and tells its size. Anything else of that name is removed.
 * Errors: -EBUSY: another copy writes it; -ENOENT: there is none, and `make` is false; those of open(2). */
int files_partial_open(const struct files_folder *folder, const char *name, bool make, int *fd, int64_t *size);
/* Removes a partial file, if there is one that no copy writes. */
void files_partial_remove(const struct files_folder *folder, const char *name);

#endif
