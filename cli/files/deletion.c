/* SPDX-License-Identifier: Apache-2.0 */
#include "deletion.h"

#include "stale.h"
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* In all folders at once that are not left yet, so that a sender can't take the memory: 8 bytes each. */
#define NAMES_MAX   ((size_t)4 << 20)
#define FOLDERS_MAX 1024
#define DEPTH_MAX   200

/* The names that stay in a folder, as hashes: two with the same one only keep an entry that could go. */
struct kept {
	struct kept *next;
	uint64_t *names;
	size_t count, room;
	size_t length;
	char path[];
};

struct files_deletion {
	struct files_deletion_options options;
	struct kept *folders; /* the latest first */
	size_t names, folder_count;
	bool stopped;
	char path[FILES_NAME_MAX + 1]; /* of what is deleted */
};

static uint64_t hash(const void *name, size_t length)
{
	const uint8_t *at = name;
	uint64_t value = 14695981039346656037u;

	for (size_t i = 0; i < length; i++)
		value = (value ^ at[i]) * 1099511628211u;
	return value;
}

int files_deletion_new(const struct files_deletion_options *options, struct files_deletion **out)
{
	struct files_deletion *deletion = calloc(1, sizeof *deletion);

	if (!deletion)
		return -ENOMEM;
	deletion->options = *options;
	*out = deletion;
	return 0;
}

static void forget(struct files_deletion *deletion, struct kept **at)
{
	struct kept *old = *at;

	*at = old->next;
	deletion->names -= old->count;
	deletion->folder_count--;
	free(old->names);
	free(old);
}

void files_deletion_free(struct files_deletion **deletion)
{
	if (!*deletion)
		return;
	while ((*deletion)->folders)
		forget(*deletion, &(*deletion)->folders);
	free(*deletion);
	*deletion = NULL;
}

/* Where the folder is in the list. */
static struct kept **find(struct files_deletion *deletion, const struct files_bytes *path)
{
	struct kept **at = &deletion->folders;

	while (*at && ((*at)->length != path->length || (path->length > 0 && memcmp((*at)->path, path->at, path->length) != 0)))
		at = &(*at)->next;
	return at;
}

static int begin(struct files_deletion *deletion, const struct files_bytes *path, struct kept **out)
{
	struct kept *kept = calloc(1, sizeof *kept + path->length + 1);

	if (!kept)
		return -ENOMEM;
	kept->length = path->length;
	if (path->length > 0)
		memcpy(kept->path, path->at, path->length);
	kept->next = deletion->folders;
	deletion->folders = kept;
	deletion->folder_count++;
	*out = kept;
	return 0;
}

static int add(struct files_deletion *deletion, struct kept *kept, uint64_t name)
{
	if (kept->count == kept->room) {
		size_t room = kept->room ? 2 * kept->room : 16;
		uint64_t *names = realloc(kept->names, room * sizeof *names);

		if (!names)
			return -ENOMEM;
		kept->names = names;
		kept->room = room;
	}
	kept->names[kept->count++] = name;
	deletion->names++;
	return 0;
}

void files_deletion_stop(struct files_deletion *deletion)
{
	deletion->stopped = true;
	while (deletion->folders)
		forget(deletion, &deletion->folders);
}

bool files_deletion_has_stopped(const struct files_deletion *deletion)
{
	return deletion->stopped;
}

int files_deletion_keep(struct files_deletion *deletion, const struct files_bytes *path, bool is_folder)
{
	struct files_bytes folder, leaf;
	struct kept *kept;
	int ret = 0;

	if (deletion->stopped)
		return 0;
	files_name_split(path, &folder, &leaf);
	kept = *find(deletion, &folder);
	/* The target itself has no entry that begins it. */
	if (!kept && folder.length == 0)
		ret = begin(deletion, &folder, &kept);
	if (ret == 0 && kept)
		ret = add(deletion, kept, hash(leaf.at, leaf.length));
	if (ret == 0 && is_folder && !*find(deletion, path))
		ret = begin(deletion, path, &kept);
	if (deletion->names > NAMES_MAX || deletion->folder_count > FOLDERS_MAX)
		files_deletion_stop(deletion);
	return ret;
}

/* ---- deleting -------------------------------------------------------------------------------------------------- */

static int tell(struct files_deletion *deletion, int error)
{
	return deletion->options.deleted(deletion->options.arg, deletion->path, error);
}

/* A partial file that a copy writes at this moment. */
static bool is_in_use(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool used;

	if (fd < 0)
		return false;
	used = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	close(fd);
	return used;
}

static int remove_entry(struct files_deletion *deletion, int folder, const char *name, size_t length, unsigned depth);

/* All in a folder that goes. *left: something in it stays, or could not be deleted. */
static int empty(struct files_deletion *deletion, int folder, const char *name, unsigned depth, bool *left)
{
	/* A link that has taken the folder's place meanwhile is not followed. */
	int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), ret = 0;
	DIR *entries = fd >= 0 && depth < DEPTH_MAX ? fdopendir(fd) : NULL;
	size_t length = strlen(deletion->path);
	const struct dirent *entry;
	struct stat status;

	*left = !entries;
	if (!entries) {
		ret = depth < DEPTH_MAX ? -errno : -ELOOP;
		if (fd >= 0)
			close(fd);
		return tell(deletion, ret);
	}
	/* No other thread has this folder's stream. */
	/* cppcheck-suppress readdirCalled */
	while (ret == 0 && (entry = readdir(entries))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		ret = remove_entry(deletion, fd, entry->d_name, length, depth + 1);
		deletion->path[length] = '\0';
		if (ret == 0 && !deletion->options.dry_run && fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
			*left = true;
	}
	closedir(entries);
	return ret;
}

static bool extend(struct files_deletion *deletion, size_t length, const char *name)
{
	return snprintf(deletion->path + length, sizeof deletion->path - length, "%s%s", length > 0 ? "/" : "", name) <
	       (int)(sizeof deletion->path - length);
}

/* `length`: of the path of the folder, which stands in deletion->path. Errors: those of `deleted`. */
static int remove_entry(struct files_deletion *deletion, int folder, const char *name, size_t length, unsigned depth)
{
	bool dry_run = deletion->options.dry_run, left = false;
	struct stat status;
	int ret = 0;

	if (!extend(deletion, length, name) || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
		return 0;
	if (files_excludes_match(deletion->options.excludes, deletion->path, S_ISDIR(status.st_mode)))
		return 0;
	if (files_stale_is_partial(name) && S_ISREG(status.st_mode) && is_in_use(folder, name))
		return 0;
	if (S_ISDIR(status.st_mode))
		ret = empty(deletion, folder, name, depth, &left);
	if (ret < 0 || left)
		return ret;
	if (!dry_run && unlinkat(folder, name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0) != 0)
		return tell(deletion, errno == ENOENT ? 0 : -errno);
	if (!dry_run)
		files_account_give(deletion->options.account, files_account_freed(&status));
	return tell(deletion, 0);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static bool is_kept(const struct kept *kept, const char *name)
{
	const uint64_t wanted = hash(name, strlen(name));

	return kept->count > 0 && bsearch(&wanted, kept->names, kept->count, sizeof wanted, compare);
}

static int delete_others(struct files_deletion *deletion, struct kept *kept, int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	snprintf(deletion->path, sizeof deletion->path, "%s", kept->path);
	if (!entries) {
		ret = tell(deletion, -errno);
		if (fd >= 0)
			close(fd);
		return ret;
	}
	if (kept->count > 0)
		qsort(kept->names, kept->count, sizeof *kept->names, compare);
	/* No other thread has this folder's stream. */
	/* cppcheck-suppress readdirCalled */
	while (ret == 0 && (entry = readdir(entries))) {
		/* A partial file here is what a later copy goes on with; its age decides. */
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || files_stale_is_partial(entry->d_name) ||
		    is_kept(kept, entry->d_name))
			continue;
		ret = remove_entry(deletion, fd, entry->d_name, kept->length, 0);
		deletion->path[kept->length] = '\0';
	}
	closedir(entries);
	return ret;
}

int files_deletion_leave(struct files_deletion *deletion, const struct files_bytes *path, int fd)
{
	struct kept **at = find(deletion, path), *empty_one;
	int ret = 0;

	/* Nothing is in the folder whose content alone was asked for. */
	if (!*at && path->length == 0 && !deletion->stopped) {
		ret = begin(deletion, path, &empty_one);
		at = &deletion->folders;
	}
	if (ret < 0 || !*at)
		return ret;
	if (fd >= 0)
		ret = delete_others(deletion, *at, fd);
	forget(deletion, at);
	return ret;
}
