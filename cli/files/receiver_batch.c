/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files that keep their descriptors until they are saved. */
#define DURABLE_MAX 128
/* From so many files on, one call for a whole file system is cheaper than one for each. */
#define MANY 8
/* Others may be mounted within the target. With more than these, a file of one that is not remembered costs a call. */
#define SYSTEMS_MAX 8

void files_pending_free(struct files_pending *pending)
{
	if (pending->fd >= 0)
		close(pending->fd);
	pending->fd = -1;
	files_folder_unref(&pending->folder);
	free(pending->path);
	pending->path = NULL;
}

/* ---- the list -------------------------------------------------------------------------------------------------- */

/* Where the path is, or is to be. There are always free slots. */
static size_t slot_of(const struct files_batch *batch, const char *path)
{
	uint32_t hash = 2166136261u;

	for (const char *at = path; *at; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	hash ^= hash >> 16;
	while (batch->slots[hash % FILES_BATCH_SLOTS] && strcmp(batch->items[batch->slots[hash % FILES_BATCH_SLOTS] - 1].path, path) != 0)
		hash++;
	return hash % FILES_BATCH_SLOTS;
}

bool files_batch_has_room(const struct files_batch *batch, const char *path, size_t bytes)
{
	return batch->count < (batch->durable ? DURABLE_MAX : FILES_BATCH_MAX) && bytes <= FILES_BATCH_BYTES - batch->used && batch->slots[slot_of(batch, path)] == 0;
}

void files_batch_add(struct files_batch *batch, const struct files_pending *pending)
{
	struct files_pending *item = &batch->items[batch->count++];

	*item = *pending;
	if (item->kind != FILES_FOLDER)
		batch->slots[slot_of(batch, item->path)] = (uint16_t)batch->count;
	if (!item->whole.at)
		return;
	item->whole.at = memcpy(batch->bytes + batch->used, pending->whole.at, pending->whole.length);
	batch->used += item->whole.length;
}

void files_batch_clear(struct files_batch *batch)
{
	while (batch->count > 0)
		files_pending_free(&batch->items[--batch->count]);
	memset(batch->slots, 0, sizeof batch->slots);
	batch->used = 0;
}

/* ---- saving ---------------------------------------------------------------------------------------------------- */

int files_pending_set_attributes(int fd, const struct files_pending *item)
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

static void write_content(void *arg, size_t index)
{
	struct files_batch *batch = arg;
	struct files_pending *item = &batch->items[index];

	if (item->kind == FILES_REGULAR && item->whole.at)
		files_pending_write(item, batch);
	else if (item->kind == FILES_REGULAR)
		item->error = files_pending_set_attributes(item->fd, item);
	/* A file in a partial file, or a link, gets its name at once if nothing has to be saved before. */
	if (!batch->durable && item->kind != FILES_FOLDER && item->error == 0 && !item->whole.at)
		files_pending_name(item, batch);
}

static bool is_to_be_saved(const struct files_pending *item)
{
	return item->kind == FILES_REGULAR && item->error == 0 && !item->unchanged;
}

/* File systems that were saved, and how that went. */
struct saved {
	size_t count;
	dev_t devices[SYSTEMS_MAX];
	int errors[SYSTEMS_MAX];
};

static int save_system(struct saved *saved, int fd)
{
	struct stat status;
	int error;

	if (fstat(fd, &status) != 0)
		return -errno;
	for (size_t i = 0; i < saved->count; i++)
		if (saved->devices[i] == status.st_dev)
			return saved->errors[i];
	error = syncfs(fd) == 0 ? 0 : -errno;
	if (saved->count < SYSTEMS_MAX) {
		saved->devices[saved->count] = status.st_dev;
		saved->errors[saved->count++] = error;
	}
	return error;
}

/* The contents first: after a power cut a name must not have an empty file. */
static void save_contents(void *arg, size_t index)
{
	struct files_batch *batch = arg;
	struct saved saved = {0};
	size_t files = 0;

	(void)index;
	for (size_t i = 0; i < batch->count; i++)
		files += is_to_be_saved(&batch->items[i]);
	for (size_t i = 0; i < batch->count; i++) {
		struct files_pending *item = &batch->items[i];

		if (!is_to_be_saved(item))
			continue;
		if (files >= MANY)
			item->error = save_system(&saved, item->fd);
		else if (fsync(item->fd) != 0)
			item->error = -errno;
	}
}

static void name_item(void *arg, size_t index)
{
	struct files_batch *batch = arg;
	struct files_pending *item = &batch->items[index];

	if (item->kind != FILES_FOLDER && item->error == 0 && !item->unchanged)
		files_pending_name(item, batch);
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

static void end_folders(void *arg, size_t index)
{
	struct files_batch *batch = arg;

	(void)index;
	/* A folder's time changes with the names in it, so it comes after these. */
	for (size_t i = 0; i < batch->count; i++)
		if (batch->items[i].kind == FILES_FOLDER)
			batch->items[i].error = files_pending_set_attributes(batch->items[i].folder->fd, &batch->items[i]);
	for (size_t i = 0; batch->durable && i < batch->count; i++)
		if (!is_again(batch, i))
			save_folder(batch, i);
}

int files_batch_commit(struct files_batch *batch, struct files_crew *crew, int (*live)(void *arg), void *arg)
{
	int ret = files_crew_run(crew, write_content, batch, batch->count, live, arg), more = 0;

	if (batch->durable) {
		more = files_crew_run(crew, save_contents, batch, 1, live, arg);
		ret = ret == 0 ? more : ret;
		more = files_crew_run(crew, name_item, batch, batch->count, live, arg);
		ret = ret == 0 ? more : ret;
	}
	more = files_crew_run(crew, end_folders, batch, 1, live, arg);
	return ret == 0 ? more : ret;
}
