/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* From so many files on, one call for the whole file system is cheaper than one for each. */
#define MANY 8

void files_pending_free(struct files_pending *pending)
{
	if (pending->fd >= 0)
		close(pending->fd);
	pending->fd = -1;
	files_folder_unref(&pending->folder);
	free(pending->path);
	pending->path = NULL;
}

void files_batch_add(struct files_batch *batch, const struct files_pending *pending)
{
	batch->items[batch->count++] = *pending;
}

void files_batch_clear(struct files_batch *batch)
{
	while (batch->count > 0)
		files_pending_free(&batch->items[--batch->count]);
}

static int set_attributes(int fd, const struct files_pending *item)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, item->mtime};
	mode_t mode = item->mode & 0777;
	struct stat status;

	/* What hands a group down to new entries is the target's own. */
	if (item->kind == FILES_FOLDER && fstat(fd, &status) == 0)
		mode |= status.st_mode & S_ISGID;
	/* A file system such as FAT has no rights, and that is no reason to lose the file. */
	if (fchmod(fd, mode) != 0 && errno != EPERM && errno != ENOTSUP)
		return -errno;
	if (futimens(fd, times) != 0 && errno != EPERM)
		return -errno;
	return 0;
}

/* The contents first: after a power cut a name must not have an empty file. */
static void save_contents(struct files_batch *batch)
{
	size_t files = 0;
	int together = -1;

	for (size_t i = 0; i < batch->count; i++)
		files += batch->items[i].kind == FILES_REGULAR;
	for (size_t i = 0; i < batch->count; i++) {
		struct files_pending *item = &batch->items[i];

		if (item->kind != FILES_REGULAR)
			continue;
		item->error = set_attributes(item->fd, item);
		if (item->error == 0 && files < MANY && fsync(item->fd) != 0)
			item->error = -errno;
		together = item->fd;
	}
	if (files < MANY || syncfs(together) == 0)
		return;
	for (size_t i = 0; i < batch->count; i++)
		if (batch->items[i].kind == FILES_REGULAR && batch->items[i].error == 0)
			batch->items[i].error = -errno;
}

/* What the new name replaces gives its room back. */
static void give_name(struct files_pending *item, struct files_account *account)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, item->mtime};
	int folder = item->folder->fd;
	struct stat old;
	bool replaces = fstatat(folder, item->leaf, &old, AT_SYMLINK_NOFOLLOW) == 0;

	if (renameat(folder, item->partial, folder, item->leaf) != 0) {
		item->error = -errno;
		return;
	}
	/* Not before: an old link under the partial name looks like one that was given up. A file system without such times keeps the link. */
	if (item->kind == FILES_LINK)
		utimensat(folder, item->leaf, times, AT_SYMLINK_NOFOLLOW);
	if (replaces)
		files_account_give(account, files_account_cost(&old));
}

static void save_folder(struct files_batch *batch, size_t index)
{
	struct files_folder *folder = batch->items[index].folder;
	int error = fsync(folder->fd) == 0 ? 0 : -errno;

	for (size_t i = index; i < batch->count; i++) {
		struct files_pending *item = &batch->items[i];

		if (item->folder == folder && item->error == 0)
			item->error = error;
	}
}

/* Whether an item before has the same folder, which is then saved with it. */
static bool is_again(const struct files_batch *batch, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (batch->items[i].folder == batch->items[index].folder)
			return true;
	return false;
}

void files_batch_commit(struct files_batch *batch, struct files_account *account)
{
	save_contents(batch);
	for (size_t i = 0; i < batch->count; i++)
		if (batch->items[i].kind != FILES_FOLDER && batch->items[i].error == 0)
			give_name(&batch->items[i], account);
	/* A folder's time changes with the names in it, so it comes after these. */
	for (size_t i = 0; i < batch->count; i++)
		if (batch->items[i].kind == FILES_FOLDER)
			batch->items[i].error = set_attributes(batch->items[i].folder->fd, &batch->items[i]);
	for (size_t i = 0; i < batch->count; i++)
		if (!is_again(batch, i))
			save_folder(batch, i);
}
