/* SPDX-License-Identifier: Apache-2.0 */
/* Small files that come with their content. Such a file is written without a name, so nobody else can reach it, and then named: no lock
 * and no partial file are needed, and a killed process leaves nothing. Where that cannot be, it goes the way of large files. */
#include "receiver_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int files_pending_look(const struct files_pending *pending, struct stat *old)
{
	*old = (struct stat){0};
	if (pending->folder && fstatat(pending->folder->fd, pending->leaf, old, AT_SYMLINK_NOFOLLOW) != 0) {
		*old = (struct stat){0};
		return errno == ENOENT ? 0 : -errno;
	}
	return S_ISDIR(old->st_mode) ? -EISDIR : 0;
}

bool files_pending_has_time(const struct files_pending *pending, const struct stat *old)
{
	return old->st_mtim.tv_sec == pending->mtime.tv_sec && old->st_mtim.tv_nsec == pending->mtime.tv_nsec;
}

int files_pending_refresh(const struct files_pending *pending)
{
	int fd = openat(pending->folder->fd, pending->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = files_pending_set_attributes(fd, pending);
	close(fd);
	return ret;
}

int files_pending_compare(const struct files_pending *pending, uint64_t size)
{
	struct stat old;
	int ret = files_pending_look(pending, &old);

	if (ret < 0 || !S_ISREG(old.st_mode) || (uint64_t)old.st_size != size || !files_pending_has_time(pending, &old))
		return ret;
	/* As rsync does: what is the same still gets the rights that it is to have. Without them it is no worse than it was. */
	if ((old.st_mode & 0777) != (pending->mode & 0777))
		files_pending_refresh(pending);
	return 1;
}

int files_write_all(int fd, const uint8_t *data, size_t length, int64_t offset)
{
	while (length > 0) {
		ssize_t count = pwrite(fd, data, length, (off_t)offset);

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count < 0 ? -errno : -EIO;
		data += count;
		length -= (size_t)count;
		offset += count;
	}
	return 0;
}

static void fill(struct files_pending *pending)
{
	pending->error = files_write_all(pending->fd, pending->whole.at, pending->whole.length, 0);
	if (pending->error == 0)
		pending->error = files_pending_set_attributes(pending->fd, pending);
}

static void make_partial_name(struct files_pending *pending)
{
	const struct files_bytes leaf = {(const uint8_t *)pending->leaf, strnlen(pending->leaf, sizeof pending->leaf)};

	files_partial_name(&leaf, pending->partial);
}

static void write_partial(struct files_pending *pending)
{
	int64_t size;

	make_partial_name(pending);
	pending->error = files_partial_open(pending->folder, pending->partial, true, &pending->fd, &size);
	/* The server of a client that was killed may still save it. */
	for (int waited = 0; pending->error == -EBUSY && waited < FILES_BUSY_MS; waited += FILES_BUSY_TURN_MS) {
		const struct timespec turn = {.tv_nsec = FILES_BUSY_TURN_MS * 1000000L};

		nanosleep(&turn, NULL);
		pending->error = files_partial_open(pending->folder, pending->partial, true, &pending->fd, &size);
	}
	if (pending->error == 0 && size > 0 && ftruncate(pending->fd, 0) != 0)
		pending->error = -errno;
	if (pending->error == 0)
		fill(pending);
	if (pending->error < 0 && pending->fd >= 0)
		unlinkat(pending->folder->fd, pending->partial, 0);
}

/* What is there under the name already. Returns whether the file is to be written. */
static bool look(struct files_pending *pending)
{
	int ret = files_pending_compare(pending, pending->whole.length);

	pending->error = ret < 0 ? ret : 0;
	pending->unchanged = ret == 1;
	return ret == 0;
}

/* What the new name replaces gives its room back. */
static void rename_partial(struct files_pending *pending, const struct files_batch *batch)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, pending->mtime};
	int folder = pending->folder->fd;
	struct stat old;
	bool replaces = fstatat(folder, pending->leaf, &old, AT_SYMLINK_NOFOLLOW) == 0;

	if (renameat(folder, pending->partial, folder, pending->leaf) != 0) {
		pending->error = -errno;
		return;
	}
	/* Not before: an old link under the partial name looks like one that was given up. A file system without such times keeps the link. */
	if (pending->kind == FILES_LINK)
		utimensat(folder, pending->leaf, times, AT_SYMLINK_NOFOLLOW);
	if (replaces)
		files_account_give(batch->account, files_account_freed(&old));
}

static int link_name(const struct files_pending *pending)
{
	char descriptor[32];

	if (linkat(pending->fd, "", pending->folder->fd, pending->leaf, AT_EMPTY_PATH) == 0)
		return 0;
	/* Before Linux 6.10 that takes CAP_DAC_READ_SEARCH. */
	if (errno != ENOENT)
		return -errno;
	snprintf(descriptor, sizeof descriptor, "/proc/self/fd/%d", pending->fd);
	return linkat(AT_FDCWD, descriptor, pending->folder->fd, pending->leaf, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/* An earlier copy that was killed may have left some of the file. */
static void forget_partial(struct files_pending *pending)
{
	if (pending->folder->is_new)
		return;
	make_partial_name(pending);
	files_partial_remove(pending->folder, pending->partial);
	pending->partial[0] = '\0';
}

/* The name is taken, by an older file as a rule; or the system cannot give a file without a name one. */
static void take_the_long_way(struct files_pending *pending, const struct files_batch *batch)
{
	close(pending->fd);
	pending->fd = -1;
	if (!look(pending))
		return;
	write_partial(pending);
	if (pending->error == 0 && batch->durable && fsync(pending->fd) != 0)
		pending->error = -errno;
}

void files_pending_name(struct files_pending *pending, struct files_batch *batch)
{
	if (!pending->partial[0]) {
		int ret = link_name(pending);

		if (ret == 0) {
			forget_partial(pending);
			return;
		}
		if (ret != -EEXIST)
			atomic_store_explicit(&batch->cannot_link, true, memory_order_relaxed);
		take_the_long_way(pending, batch);
	}
	if (pending->error == 0 && !pending->unchanged)
		rename_partial(pending, batch);
}

void files_pending_write(struct files_pending *pending, struct files_batch *batch)
{
	struct stat old;
	bool replaces;

	/* That a name is taken shows when the file gets it; a durable one would then have to be saved once more, alone. */
	if (batch->durable && !look(pending))
		return;
	replaces = batch->durable && files_pending_look(pending, &old) == 0 && old.st_mode != 0;
	if (!replaces && !atomic_load_explicit(&batch->cannot_link, memory_order_relaxed))
		pending->fd = openat(pending->folder->fd, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
	if (pending->fd >= 0)
		fill(pending);
	else if (look(pending))
		write_partial(pending);
	if (batch->durable)
		return;
	if (pending->error == 0 && !pending->unchanged)
		files_pending_name(pending, batch);
	if (pending->fd >= 0)
		close(pending->fd);
	pending->fd = -1;
}
