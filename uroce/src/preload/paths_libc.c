/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's functions that take a path, for paths.h. Each has a name of its own here, and that of the symbol: the headers'
 * declarations depend on the size of file offsets, and some are inline functions. */
#include "paths.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "next.h"
#include "ucma.h"

#define EXPORT __attribute__((visibility("default")))

/* Makes `found` of `path`: that of the file if it is one of the device's, else the same. */
#define FIND(path) \
	char room_[PATHS_ROOM]; \
	enum path_kind kind; \
	const char *found = paths_find((path), room_, &kind)

static int fail(int error)
{
	errno = error;
	return -1;
}

/* There is no kernel's device behind it: so the kernel says it of such a file. It may be named, though. */
static bool refuses(enum path_kind kind, int flags)
{
	return kind == PATH_NODE && !(flags & O_PATH);
}

/* librdmacm opens this for each event channel. */
static bool is_channel(enum path_kind kind, int flags)
{
	return kind == PATH_CHANNEL && !(flags & O_PATH);
}

/* The start of each function that opens. */
#define OPEN_OWN(flags) \
	if (is_channel(kind, flags)) \
		return ucma_open(flags); \
	if (refuses(kind, flags)) \
		return fail(ENXIO)

/* ---- opening ---- */

static bool takes_mode(int flags)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

#define MODE(last) \
	mode_t mode = 0; \
	if (takes_mode(last)) { \
		va_list list_; \
		va_start(list_, last); \
		mode = (mode_t)va_arg(list_, int); \
		va_end(list_); \
	}

#define OPEN(name, symbol) \
	int name(const char *path, int flags, ...) __asm__(symbol); \
	EXPORT int name(const char *path, int flags, ...) \
	{ \
		MODE(flags) \
		FIND(path); \
		OPEN_OWN(flags); \
		return NEXT(name, symbol)(found, flags, mode); \
	}
OPEN(path_open, "open")
OPEN(path_open64, "open64")

#define OPENAT(name, symbol) \
	int name(int at, const char *path, int flags, ...) __asm__(symbol); \
	EXPORT int name(int at, const char *path, int flags, ...) \
	{ \
		MODE(flags) \
		FIND(path); \
		OPEN_OWN(flags); \
		return NEXT(name, symbol)(at, found, flags, mode); \
	}
OPENAT(path_openat, "openat")
OPENAT(path_openat64, "openat64")

/* Those of _FORTIFY_SOURCE. */
#define OPEN_2(name, symbol) \
	int name(const char *path, int flags) __asm__(symbol); \
	EXPORT int name(const char *path, int flags) \
	{ \
		FIND(path); \
		OPEN_OWN(flags); \
		return NEXT(name, symbol)(found, flags); \
	}
OPEN_2(path_open_2, "__open_2")
OPEN_2(path_open64_2, "__open64_2")

#define OPENAT_2(name, symbol) \
	int name(int at, const char *path, int flags) __asm__(symbol); \
	EXPORT int name(int at, const char *path, int flags) \
	{ \
		FIND(path); \
		OPEN_OWN(flags); \
		return NEXT(name, symbol)(at, found, flags); \
	}
OPENAT_2(path_openat_2, "__openat_2")
OPENAT_2(path_openat64_2, "__openat64_2")

#define FOPEN(name, symbol) \
	FILE *name(const char *path, const char *mode) __asm__(symbol); \
	EXPORT FILE *name(const char *path, const char *mode) \
	{ \
		FIND(path); \
		if (refuses(kind, 0) || is_channel(kind, 0)) { \
			errno = ENXIO; \
			return NULL; \
		} \
		return NEXT(name, symbol)(found, mode); \
	}
FOPEN(path_fopen, "fopen")
FOPEN(path_fopen64, "fopen64")

/* ---- folders ---- */

DIR *path_opendir(const char *path) __asm__("opendir");
EXPORT DIR *path_opendir(const char *path)
{
	FIND(path);
	return NEXT(path_opendir, "opendir")(found);
}

int path_chdir(const char *path) __asm__("chdir");
EXPORT int path_chdir(const char *path)
{
	FIND(path);
	return NEXT(path_chdir, "chdir")(found);
}

#define SCANDIR(name, symbol) \
	int name(const char *path, void *list, void *filter, void *compare) __asm__(symbol); \
	EXPORT int name(const char *path, void *list, void *filter, void *compare) \
	{ \
		FIND(path); \
		return NEXT(name, symbol)(found, list, filter, compare); \
	}
SCANDIR(path_scandir, "scandir")
SCANDIR(path_scandir64, "scandir64")

/* The names are the same in both, whatever the size of offsets is. */
static void restore_all(const glob_t *found, int flags)
{
	size_t first = flags & GLOB_DOOFFS ? found->gl_offs : 0;

	for (size_t i = 0; i < found->gl_pathc; i++)
		paths_restore(found->gl_pathv[first + i]);
}

#define GLOB(name, symbol) \
	int name(const char *pattern, int flags, void *error, glob_t *found) __asm__(symbol); \
	EXPORT int name(const char *pattern, int flags, void *error, glob_t *found) \
	{ \
		char room[PATHS_ROOM]; \
		const char *use = paths_find_pattern(pattern, room); \
		int result = NEXT(name, symbol)(use, flags, error, found); \
		if (use != pattern && result == 0) \
			restore_all(found, flags); \
		return result; \
	}
GLOB(path_glob, "glob")
GLOB(path_glob64, "glob64")

/* ---- attributes ---- */

void paths_set_node(enum path_kind kind, void *room)
{
#if __SIZEOF_LONG__ == 8 || (defined(_FILE_OFFSET_BITS) && _FILE_OFFSET_BITS == 64)
	struct stat *status = room;
	unsigned major, minor;

	paths_node(kind, &major, &minor);
	status->st_mode = S_IFCHR | 0666;
	status->st_rdev = makedev(major, minor);
#else
	(void)kind;
	(void)room;
#endif
}

static bool is_node(enum path_kind kind)
{
	return kind == PATH_NODE || kind == PATH_CHANNEL;
}

#define DONE(call) \
	do { \
		int result_ = call; \
		if (result_ == 0 && is_node(kind)) \
			paths_set_node(kind, status); \
		return result_; \
	} while (0)

#define STAT(name, symbol) \
	int name(const char *path, void *status) __asm__(symbol); \
	EXPORT int name(const char *path, void *status) \
	{ \
		FIND(path); \
		DONE(NEXT(name, symbol)(found, status)); \
	}
STAT(path_stat, "stat")
STAT(path_stat64, "stat64")
STAT(path_lstat, "lstat")
STAT(path_lstat64, "lstat64")

/* The same, of programs that were built with a glibc before 2.33. */
#define XSTAT(name, symbol) \
	int name(int version, const char *path, void *status) __asm__(symbol); \
	EXPORT int name(int version, const char *path, void *status) \
	{ \
		FIND(path); \
		DONE(NEXT(name, symbol)(version, found, status)); \
	}
XSTAT(path_xstat, "__xstat")
XSTAT(path_xstat64, "__xstat64")
XSTAT(path_lxstat, "__lxstat")
XSTAT(path_lxstat64, "__lxstat64")

#define FSTATAT(name, symbol) \
	int name(int at, const char *path, void *status, int flags) __asm__(symbol); \
	EXPORT int name(int at, const char *path, void *status, int flags) \
	{ \
		FIND(path); \
		DONE(NEXT(name, symbol)(at, found, status, flags)); \
	}
FSTATAT(path_fstatat, "fstatat")
FSTATAT(path_fstatat64, "fstatat64")

#define FXSTATAT(name, symbol) \
	int name(int version, int at, const char *path, void *status, int flags) __asm__(symbol); \
	EXPORT int name(int version, int at, const char *path, void *status, int flags) \
	{ \
		FIND(path); \
		DONE(NEXT(name, symbol)(version, at, found, status, flags)); \
	}
FXSTATAT(path_fxstatat, "__fxstatat")
FXSTATAT(path_fxstatat64, "__fxstatat64")

/* The kernel's struct statx, which not all C libraries declare. */
struct statx_start {
	uint32_t unused[7];
	uint16_t mode;
	uint16_t more[49];
	uint32_t rdev_major;
	uint32_t rdev_minor;
};
_Static_assert(offsetof(struct statx_start, mode) == 28 && offsetof(struct statx_start, rdev_major) == 128, "the kernel's layout");

int path_statx(int at, const char *path, int flags, unsigned mask, struct statx_start *status) __asm__("statx");
EXPORT int path_statx(int at, const char *path, int flags, unsigned mask, struct statx_start *status)
{
	FIND(path);
	int result = NEXT(path_statx, "statx")(at, found, flags, mask, status);
	if (result == 0 && is_node(kind)) {
		status->mode = S_IFCHR | 0666;
		paths_node(kind, &status->rdev_major, &status->rdev_minor);
	}
	return result;
}

#define ACCESS(name, symbol) \
	int name(const char *path, int mode) __asm__(symbol); \
	EXPORT int name(const char *path, int mode) \
	{ \
		FIND(path); \
		return NEXT(name, symbol)(found, mode); \
	}
ACCESS(path_access, "access")
ACCESS(path_euidaccess, "euidaccess")
ACCESS(path_eaccess, "eaccess")

int path_faccessat(int at, const char *path, int mode, int flags) __asm__("faccessat");
EXPORT int path_faccessat(int at, const char *path, int mode, int flags)
{
	FIND(path);
	return NEXT(path_faccessat, "faccessat")(at, found, mode, flags);
}

/* ls -l asks for the extended ones. */
#define GETXATTR(name, symbol) \
	ssize_t name(const char *path, const char *attribute, void *value, size_t size) __asm__(symbol); \
	EXPORT ssize_t name(const char *path, const char *attribute, void *value, size_t size) \
	{ \
		FIND(path); \
		return NEXT(name, symbol)(found, attribute, value, size); \
	}
GETXATTR(path_getxattr, "getxattr")
GETXATTR(path_lgetxattr, "lgetxattr")

#define LISTXATTR(name, symbol) \
	ssize_t name(const char *path, char *list, size_t size) __asm__(symbol); \
	EXPORT ssize_t name(const char *path, char *list, size_t size) \
	{ \
		FIND(path); \
		return NEXT(name, symbol)(found, list, size); \
	}
LISTXATTR(path_listxattr, "listxattr")
LISTXATTR(path_llistxattr, "llistxattr")

/* ---- links: the device's files are none ---- */

ssize_t path_readlink(const char *path, char *target, size_t size) __asm__("readlink");
EXPORT ssize_t path_readlink(const char *path, char *target, size_t size)
{
	FIND(path);
	return is_node(kind) ? fail(EINVAL) : NEXT(path_readlink, "readlink")(found, target, size);
}

ssize_t path_readlink_chk(const char *path, char *target, size_t size, size_t room) __asm__("__readlink_chk");
EXPORT ssize_t path_readlink_chk(const char *path, char *target, size_t size, size_t room)
{
	FIND(path);
	return is_node(kind) ? fail(EINVAL) : NEXT(path_readlink_chk, "__readlink_chk")(found, target, size, room);
}

ssize_t path_readlinkat(int at, const char *path, char *target, size_t size) __asm__("readlinkat");
EXPORT ssize_t path_readlinkat(int at, const char *path, char *target, size_t size)
{
	FIND(path);
	return is_node(kind) ? fail(EINVAL) : NEXT(path_readlinkat, "readlinkat")(at, found, target, size);
}

ssize_t path_readlinkat_chk(int at, const char *path, char *target, size_t size, size_t room) __asm__("__readlinkat_chk");
EXPORT ssize_t path_readlinkat_chk(int at, const char *path, char *target, size_t size, size_t room)
{
	FIND(path);
	return is_node(kind) ? fail(EINVAL) : NEXT(path_readlinkat_chk, "__readlinkat_chk")(at, found, target, size, room);
}

/* The node itself, which is a link in the tree; NULL if `path` is another. */
static char *node_itself(const char *path, enum path_kind kind, char *resolved)
{
	char *copy = is_node(kind) ? strdup(path) : NULL;

	if (!copy)
		return NULL;
	paths_restore(copy);
	if (!resolved)
		return copy;
	strcpy(resolved, copy);
	free(copy);
	return resolved;
}

static char *restored(char *path)
{
	if (path)
		paths_restore(path);
	return path;
}

char *path_realpath(const char *path, char *resolved) __asm__("realpath");
EXPORT char *path_realpath(const char *path, char *resolved)
{
	FIND(path);
	char *node = node_itself(found, kind, resolved);
	if (node)
		return node;
	char *real = NEXT(path_realpath, "realpath")(found, resolved);
	return kind == PATH_OTHER ? real : restored(real);
}

char *path_realpath_chk(const char *path, char *resolved, size_t room) __asm__("__realpath_chk");
EXPORT char *path_realpath_chk(const char *path, char *resolved, size_t room)
{
	FIND(path);
	char *node = node_itself(found, kind, resolved);
	if (node)
		return node;
	char *real = NEXT(path_realpath_chk, "__realpath_chk")(found, resolved, room);
	return kind == PATH_OTHER ? real : restored(real);
}

char *path_canonicalize(const char *path) __asm__("canonicalize_file_name");
EXPORT char *path_canonicalize(const char *path)
{
	FIND(path);
	char *node = node_itself(found, kind, NULL);
	if (node)
		return node;
	char *real = NEXT(path_canonicalize, "canonicalize_file_name")(found);
	return kind == PATH_OTHER ? real : restored(real);
}
