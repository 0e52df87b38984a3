/* SPDX-License-Identifier: Apache-2.0 */
#include "device_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define PREFIX "uroce-files."

enum { DEEPEST = 12, PLACES = 2, ATTEMPTS = 8 };

/* The first is memory, on every Linux with glibc's shared memory; some containers have none. */
static const char *const places[PLACES] = {"/dev/shm", "/tmp"};

/* ---- removing ---- */

/* A folder of this user's; -1: it is none. Anybody may put one into the place, and what is in theirs may lead anywhere. */
static int open_own(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat status;

	if (fd >= 0 && (fstat(fd, &status) != 0 || status.st_uid != geteuid())) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* What is in `fd`, which is closed. Of a link only the link itself goes. */
static void empty(int fd, int depth)
{
	DIR *folder = fdopendir(fd);
	struct dirent *entry;

	if (!folder) {
		close(fd);
		return;
	}
	while (depth < DEEPEST && (entry = readdir(folder))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, entry->d_name, 0) == 0)
			continue;
		int inner = open_own(fd, entry->d_name);
		if (inner < 0)
			continue;
		empty(inner, depth + 1);
		unlinkat(fd, entry->d_name, AT_REMOVEDIR);
	}
	closedir(folder);
}

static void remove_tree(const char *path)
{
	int fd = open_own(AT_FDCWD, path);

	if (fd < 0)
		return;
	empty(fd, 0);
	rmdir(path);
}

/* The process that has made it is no more. Not its number tells that, which means nothing in another namespace of processes (a
 * container that shares the place), but the lock, which goes with the process. */
static void remove_if_stale(const char *path)
{
	int fd = open_own(AT_FDCWD, path);

	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		remove_tree(path);
	close(fd);
}

/* Those of processes that were killed. */
static void remove_stale(const char *where)
{
	DIR *place = opendir(where);
	struct dirent *entry;

	while (place && (entry = readdir(place))) {
		char path[DEVICE_FILES_ROOT];
		if (strncmp(entry->d_name, PREFIX, sizeof PREFIX - 1) == 0 &&
		    snprintf(path, sizeof path, "%s/%s", where, entry->d_name) < (int)sizeof path)
			remove_if_stale(path);
	}
	if (place)
		closedir(place);
}

void device_files_remove(struct device_files *files)
{
	if (files->root[0] == '\0' || files->owner != getpid())
		return;
	remove_tree(files->root);
	close(files->lock);
	files->root[0] = '\0';
}

void device_files_abandon(struct device_files *files)
{
	/* The parent's own descriptor goes on holding the lock. */
	if (files->root[0] != '\0')
		close(files->lock);
}

/* ---- making ---- */

/* A new root, and its lock: the descriptor, or -1. */
static int make_root(const char *where, struct device_files *files)
{
	/* Until it is locked, another process may take it for a stale one and remove it. */
	for (int i = 0; i < ATTEMPTS; i++) {
		struct stat held, there;
		snprintf(files->root, sizeof files->root, "%s/" PREFIX "%ld.XXXXXX", where, (long)files->owner);
		if (!mkdtemp(files->root))
			return -1;
		int fd = open_own(AT_FDCWD, files->root);
		if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0 && fstat(fd, &held) == 0 && stat(files->root, &there) == 0 &&
		    held.st_ino == there.st_ino)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	errno = EBUSY;
	return -1;
}

void device_files_make(struct device_files *files)
{
	files->owner = getpid();
	for (int i = 0; i < PLACES; i++) {
		remove_stale(places[i]);
		files->lock = make_root(places[i], files);
		if (files->lock < 0)
			continue;
		/* As those of the kernel: a program that changes its user must still find them. */
		chmod(files->root, 0755);
		return;
	}
	log_write(LOG_INFO, "cannot make files of the device in %s or %s: %s", places[0], places[1], strerror(errno));
	files->root[0] = '\0';
}

/* The path in the tree, whose folders are made: all of them, or but the last part. */
static bool prepare(const struct device_files *files, const char *path, bool last, char out[DEVICE_FILES_PATH])
{
	size_t root = strlen(files->root), length = root + strlen(path);

	if (length >= DEVICE_FILES_PATH) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(out, files->root, root);
	strcpy(out + root, path);
	for (char *p = out + root + 1;; p++) {
		if (*p != '/' && (*p != '\0' || !last)) {
			if (*p == '\0')
				return true;
			continue;
		}
		char after = *p;
		*p = '\0';
		bool there = mkdir(out, 0755) == 0 || errno == EEXIST;
		*p = after;
		if (!there || after == '\0')
			return there;
	}
}

bool device_files_folder(const struct device_files *files, const char *path)
{
	char name[DEVICE_FILES_PATH];
	return prepare(files, path, true, name);
}

bool device_files_write(const struct device_files *files, const char *path, const char *text)
{
	char name[DEVICE_FILES_PATH];
	ssize_t length = (ssize_t)strlen(text);

	if (!prepare(files, path, false, name))
		return false;
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0444 | S_IWUSR);
	if (fd < 0)
		return false;
	bool written = pwrite(fd, text, (size_t)length, 0) == length;
	close(fd);
	return written;
}

bool device_files_link(const struct device_files *files, const char *path, const char *target)
{
	char name[DEVICE_FILES_PATH];
	return prepare(files, path, false, name) && (symlink(target, name) == 0 || errno == EEXIST);
}
