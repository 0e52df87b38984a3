/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include "stale.h"
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each level is an open folder. */
#define DEPTH_MAX 200

struct level {
	DIR *folder;
	struct stat status;
	size_t length; /* of its path */
};

struct files_walk {
	int parent; /* of the first entry; the caller's */
	char leaf[FILES_NAME_MAX + 1];
	bool follow, recursive, all, begun;
	const struct files_excludes *excludes;
	struct level levels[DEPTH_MAX];
	int depth;
	char path[FILES_NAME_MAX + 1];
	size_t length;
	char link[FILES_NAME_MAX + 1];
};

int files_walk_new(int parent, const char *leaf, const char *name, bool follow, bool recursive, struct files_walk **out)
{
	struct files_walk *walk = calloc(1, sizeof *walk);

	if (!walk)
		return -ENOMEM;
	walk->parent = parent;
	walk->follow = follow;
	walk->recursive = recursive;
	snprintf(walk->leaf, sizeof walk->leaf, "%s", leaf);
	walk->length = (size_t)snprintf(walk->path, sizeof walk->path, "%s", name);
	*out = walk;
	return 0;
}

void files_walk_all(struct files_walk *walk)
{
	walk->all = true;
}

void files_walk_exclude(struct files_walk *walk, const struct files_excludes *excludes)
{
	walk->excludes = excludes;
}

int files_walk_folder(const struct files_walk *walk)
{
	/* An entry that is a folder is a level of its own already. */
	return walk->depth > 0 && walk->levels[walk->depth - 1].folder ? dirfd(walk->levels[walk->depth - 1].folder) : -1;
}

void files_walk_free(struct files_walk **walk)
{
	if (!*walk)
		return;
	while ((*walk)->depth > 0)
		closedir((*walk)->levels[--(*walk)->depth].folder);
	free(*walk);
	*walk = NULL;
}

static int tell(struct files_found *found, enum files_found_kind kind, const char *text, const char *detail)
{
	found->kind = kind;
	snprintf(found->text, sizeof found->text, "%s%s", text, detail);
	return 1;
}

static int find_link(struct files_walk *walk, int at, const char *name, struct files_found *found)
{
	ssize_t length = readlinkat(at, name, walk->link, sizeof walk->link);

	if (length < 0)
		return tell(found, FILES_FOUND_FAILED, "cannot read the link: ", strerror(errno));
	if (length == (ssize_t)sizeof walk->link)
		return tell(found, FILES_FOUND_FAILED, "the link is too long", "");
	walk->link[length] = '\0';
	found->kind = FILES_FOUND_LINK;
	found->link = walk->link;
	return 1;
}

static int enter(struct files_walk *walk, int fd, struct files_found *found)
{
	struct level *level = &walk->levels[walk->depth];
	DIR *folder = walk->depth < DEPTH_MAX ? fdopendir(fd) : NULL;

	if (!folder) {
		bool deep = walk->depth == DEPTH_MAX;

		tell(found, FILES_FOUND_FAILED, "cannot read the folder: ", deep ? "more than 200 folders lie within each other" : strerror(errno));
		close(fd);
		return 1;
	}
	level->folder = folder;
	level->status = found->status;
	level->length = walk->length;
	walk->depth++;
	found->kind = FILES_FOUND_FOLDER;
	return 1;
}

/* Opens what is no link. It may have become one meanwhile, or a FIFO, which must not hold the process. */
static int find_open(struct files_walk *walk, int at, const char *name, bool follow, struct files_found *found)
{
	char byte;
	int fd = openat(at, name, O_RDONLY | (follow ? 0 : O_NOFOLLOW) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return tell(found, FILES_FOUND_FAILED, "cannot open it: ", strerror(errno));
	if (fstat(fd, &found->status) != 0) {
		tell(found, FILES_FOUND_FAILED, "cannot look at it: ", strerror(errno));
	} else if (S_ISREG(found->status.st_mode) && found->status.st_size == 0 && read(fd, &byte, 1) == 1) {
		tell(found, FILES_FOUND_FAILED, "it has content, but no size that could be copied, as files of /proc do", "");
	} else if (S_ISREG(found->status.st_mode)) {
		found->kind = FILES_FOUND_FILE;
		found->fd = fd;
		return 1;
	} else if (S_ISDIR(found->status.st_mode)) {
		return enter(walk, fd, found);
	} else {
		tell(found, FILES_FOUND_LEFT_OUT, "it is no file, folder or link any more", "");
	}
	close(fd);
	return 1;
}

static const char *special_name(mode_t mode)
{
	return S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : S_ISCHR(mode) ? "a character device" : "a block device";
}

static int find(struct files_walk *walk, int at, const char *name, bool follow, unsigned char type, struct files_found *found)
{
	/* A count of what is there needs the size also of files that it may not read. */
	if (type == DT_REG && !walk->all)
		return find_open(walk, at, name, follow, found);
	if (fstatat(at, name, &found->status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
		return tell(found, FILES_FOUND_FAILED, "cannot look at it: ", strerror(errno));
	if (S_ISLNK(found->status.st_mode))
		return find_link(walk, at, name, found);
	if (S_ISDIR(found->status.st_mode) && !walk->recursive)
		return tell(found, FILES_FOUND_FAILED, "it is a folder; -r copies folders", "");
	if (!S_ISREG(found->status.st_mode) && !S_ISDIR(found->status.st_mode))
		/* One that was named is missed; among others in a folder it is not. */
		return tell(found, walk->depth == 0 ? FILES_FOUND_FAILED : FILES_FOUND_LEFT_OUT, "not copied: it is ",
			    special_name(found->status.st_mode));
	return find_open(walk, at, name, follow, found);
}

/* The folder's end, or an error that ends it. */
static int leave(struct files_walk *walk, int error, struct files_found *found)
{
	struct level *level = &walk->levels[walk->depth - 1];

	walk->length = level->length;
	walk->path[walk->length] = '\0';
	if (error != 0) {
		/* Once: the next call leaves the folder. */
		closedir(level->folder);
		level->folder = NULL;
		return tell(found, FILES_FOUND_FAILED, "cannot read the rest of the folder: ", strerror(error));
	}
	found->kind = FILES_FOUND_LEAVE;
	found->status = level->status;
	if (level->folder)
		closedir(level->folder);
	walk->depth--;
	return 1;
}

/* The path is the walk's. */
static bool is_excluded(const struct files_walk *walk, int folder, const struct dirent *entry)
{
	struct stat status;
	bool is_folder = entry->d_type == DT_DIR;

	if (!walk->excludes || walk->excludes->count == 0)
		return false;
	if (entry->d_type == DT_UNKNOWN && fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
		is_folder = S_ISDIR(status.st_mode);
	return files_excludes_match(walk->excludes, walk->path, is_folder);
}

static int next(struct files_walk *walk, struct files_found *found)
{
	struct level *level = &walk->levels[walk->depth - 1];
	const struct dirent *entry;
	size_t length;

again:
	do {
		errno = 0;
		/* No other thread has this folder. */
		/* cppcheck-suppress readdirCalled */
		entry = level->folder ? readdir(level->folder) : NULL;
		if (!entry)
			return leave(walk, level->folder ? errno : 0, found);
	} while (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	length = level->length + (level->length > 0) + strlen(entry->d_name);
	walk->length = level->length;
	if (length > FILES_NAME_MAX) {
		walk->path[walk->length] = '\0';
		return tell(found, FILES_FOUND_FAILED, "a path in it is longer than 4095 bytes", "");
	}
	walk->length = length;
	snprintf(walk->path + level->length, sizeof walk->path - level->length, "%s%s", level->length > 0 ? "/" : "", entry->d_name);
	if (is_excluded(walk, dirfd(level->folder), entry))
		goto again;
	if (!walk->all && files_stale_is_partial(entry->d_name))
		return tell(found, FILES_FOUND_LEFT_OUT, "not copied: it is the partial file of another copy", "");
	return find(walk, dirfd(level->folder), entry->d_name, false, entry->d_type, found);
}

int files_walk_next(struct files_walk *walk, struct files_found *found)
{
	*found = (struct files_found){.fd = -1, .path = walk->path};
	if (!walk->begun) {
		walk->begun = true;
		return find(walk, walk->parent, walk->leaf, walk->follow, DT_UNKNOWN, found);
	}
	return walk->depth > 0 ? next(walk, found) : 0;
}
