/* SPDX-License-Identifier: Apache-2.0 */
/* Paths where programs look for a device without libibverbs. The kernel has nothing there for uroce0: they lead to its files in
 * own_files.h. */
#ifndef UROCE_PATHS_H
#define UROCE_PATHS_H

#include <stdbool.h>

enum { PATHS_ROOM = 512 };

enum path_kind {
	PATH_OTHER, /* none of the device's */
	PATH_FILE,  /* a file or folder of its own, or a folder of all devices */
	PATH_NODE,  /* its character device in /dev/infiniband */
	PATH_CHANNEL, /* the one of the connection manager beside it */
};

/* The path to use for `path`: that of the device's file, in `room`, or `path` itself. errno is kept. */
const char *paths_find(const char *path, char room[PATHS_ROOM], enum path_kind *kind);
/* The same for a pattern of glob(3). */
const char *paths_find_pattern(const char *pattern, char room[PATHS_ROOM]);
/* Makes of the path of a device's file what the program knows it by, in place. */
void paths_restore(char *path);
/* The device numbers of a character device. */
void paths_node(enum path_kind kind, unsigned *major, unsigned *minor);
/* Makes a struct stat, if it is one of 64-bit offsets, that of the character device. */
void paths_set_node(enum path_kind kind, void *status);

/* While libibverbs itself looks for the kernel's devices in this thread, it finds those alone. */
void paths_hide(bool hide);

#endif
