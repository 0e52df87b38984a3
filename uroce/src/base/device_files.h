/* SPDX-License-Identifier: Apache-2.0 */
/* A tree of files in memory that looks like the part of /sys and /dev that the kernel has for a device. Each process has one, from
 * when it first looks there until it ends. */
#ifndef UROCE_DEVICE_FILES_H
#define UROCE_DEVICE_FILES_H

#include <stdbool.h>
#include <sys/types.h>

enum {
	DEVICE_FILES_ROOT = 64,
	DEVICE_FILES_PATH = 256, /* of a file in the tree, its root included */
};

struct device_files {
	char root[DEVICE_FILES_ROOT]; /* stands for "/"; "": there is no tree */
	pid_t owner;
	int lock; /* of the root, held as long as the owner lives */
};

/* Makes the root, empty, and removes what processes that were killed have left. Without it (the reason is logged) there are no
 * files, which is no failure of the device. */
void device_files_make(struct device_files *files);
/* A file with this text, a link, a folder: `path` begins with "/", folders above it are made. False and errno. */
bool device_files_write(const struct device_files *files, const char *path, const char *text);
bool device_files_link(const struct device_files *files, const char *path, const char *target);
bool device_files_folder(const struct device_files *files, const char *path);
/* Removes all, in the process that has made it. */
void device_files_remove(struct device_files *files);
/* In a forked child: the parent's tree remains the parent's. Async-signal-safe. */
void device_files_abandon(struct device_files *files);

#endif
