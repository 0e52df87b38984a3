/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver.h"

#include "receiver_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long finished entries may wait for others, to be saved together with them. */
#define GATHER_MS 20
/* Between two requests to the kernel to begin with the disk, so that the last one is short. */
#define WRITE_BEHIND ((int64_t)32 << 20)

/* A file that was announced, and whose turn comes after those before it. */
struct announced {
	struct files_pending pending; /* .fd -1: its partial file is not open yet */
	uint64_t size;
	int64_t kept;                 /* bytes of the partial file that the sender was told of */
};

struct receiver {
	struct files_channel *channel;
	const struct files_receiver_options *options;
	struct files_target *target;
	struct announced announced[FILES_WINDOW];
	size_t first, count;
	/* The content that comes, of the first one. */
	bool started, failed;
	int64_t at, behind;
	uint64_t next_id;
	bool over;
	struct files_batch batch;
	uint8_t *buffer;
};

static const char *reason_of(int error)
{
	switch (-error) {
	case EDQUOT: return "the quota of the folder is used up";
	case EBUSY: return "another copy writes it at this moment";
	case ENOTDIR: return "a part of its path is not a folder, or is a link";
	case EISDIR: return "a folder of this name is there";
	case EINVAL: return "its name cannot be used";
	default: return strerror(-error);
	}
}

static int say_done(struct receiver *receiver, uint64_t id, enum files_result result, const struct files_bytes *name, const char *text)
{
	struct files_frame frame = {.type = FILES_DONE, .id = id, .kind = result, .name = *name, .text = files_text(text)};

	files_report_entry(receiver->options->report, result, name, &frame.text);
	return files_channel_put(receiver->channel, &frame);
}

static int commit(struct receiver *receiver)
{
	struct files_batch *batch = &receiver->batch;
	int ret = 0;

	if (batch->count == 0)
		return 0;
	files_batch_commit(batch, receiver->options->account);
	for (size_t i = 0; i < batch->count && ret == 0; i++) {
		const struct files_pending *item = &batch->items[i];
		const struct files_bytes name = files_text(item->path);

		if (item->error < 0)
			ret = say_done(receiver, item->id, FILES_FAILED, &name, reason_of(item->error));
		else if (item->kind != FILES_FOLDER)
			ret = say_done(receiver, item->id, FILES_OK, &name, "");
	}
	files_batch_clear(batch);
	return ret == 0 ? files_channel_flush(receiver->channel) : ret;
}

static int finish_later(struct receiver *receiver, const struct files_pending *pending)
{
	files_batch_add(&receiver->batch, pending);
	return receiver->batch.count == FILES_BATCH_MAX ? commit(receiver) : 0;
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

static char *copy_text(const struct files_bytes *bytes)
{
	return strndup((const char *)bytes->at, bytes->length);
}

static int take(struct receiver *receiver, uint64_t bytes)
{
	return files_account_take(receiver->options->account, receiver->options->quota, bytes);
}

/* The folder that an entry is in, its names, its rights. */
static int make_pending(struct receiver *receiver, const struct files_frame *frame, struct files_pending *pending)
{
	struct files_bytes folder, leaf;
	unsigned made = 0;
	int ret;

	*pending = (struct files_pending){
		.kind = frame->kind, .id = frame->id, .fd = -1, .mode = frame->mode, .mtime = {frame->mtime, (long)frame->mtime_ns}};
	if (!files_name_is_safe(&frame->name))
		return -EINVAL;
	files_name_split(&frame->name, &folder, &leaf);
	memcpy(pending->leaf, leaf.at, leaf.length);
	files_partial_name(&leaf, pending->partial);
	pending->path = copy_text(&frame->name);
	if (!pending->path)
		return -ENOMEM;
	/* The folder was announced before; so it is there, unless that failed. */
	ret = files_target_folder(receiver->target, &folder, false, &pending->folder, &made);
	return ret;
}

static int put_answer(struct receiver *receiver, uint64_t id, enum files_verdict verdict, const char *text)
{
	struct files_frame frame = {.type = FILES_ANSWER, .id = id, .kind = verdict, .text = files_text(text)};

	return files_channel_put(receiver->channel, &frame);
}

/* Checksums of a partial file. Returns 1, or 0 when it cannot be read, or an error of the channel. */
static int sum_up(struct receiver *receiver, const struct announced *file, uint64_t step, uint8_t *tags, size_t *count)
{
	struct files_mac *mac = files_channel_mac(receiver->channel);
	int ret = 0;

	*count = 0;
	for (int64_t at = 0; at < file->kept && ret == 0;) {
		int64_t end = file->kept - at < (int64_t)step ? file->kept : at + (int64_t)step;

		files_mac_begin(mac, FILES_MAC_PART, (uint32_t)*count, file->pending.id);
		while (at < end && ret == 0) {
			size_t piece = end - at < FILES_DATA_MAX ? (size_t)(end - at) : FILES_DATA_MAX;
			ssize_t got = pread(file->pending.fd, receiver->buffer, piece, (off_t)at);

			if (got <= 0)
				return 0;
			files_mac_add(mac, receiver->buffer, (size_t)got);
			at += got;
			ret = files_channel_live(receiver->channel);
		}
		if (files_mac_end(mac, tags + FILES_TAG_SIZE * (*count)++) < 0)
			return 0;
	}
	return ret < 0 ? ret : 1;
}

/* The partial file of an earlier copy is open: says what is in it. */
static int answer_partial(struct receiver *receiver, struct announced *file)
{
	uint8_t tags[FILES_RUNGS_MAX * FILES_TAG_SIZE];
	struct files_frame frame = {.type = FILES_ANSWER, .id = file->pending.id, .kind = FILES_PARTIAL, .text = files_text("")};
	size_t count = 0;
	int ret;

	frame.size = (uint64_t)file->kept;
	frame.count = ((uint64_t)file->kept + FILES_RUNGS_MAX - 1) / FILES_RUNGS_MAX;
	frame.count = (frame.count + 65535) / 65536 * 65536;
	ret = sum_up(receiver, file, frame.count, tags, &count);
	if (ret < 0)
		return ret;
	frame.data = (struct files_bytes){tags, count * FILES_TAG_SIZE};
	if (ret == 1)
		return files_channel_put(receiver->channel, &frame);
	file->kept = 0;
	return put_answer(receiver, file->pending.id, FILES_SEND, "");
}

/* A file that is there under its name. Returns whether it is the same, as far as size and time tell; an error: no file can be. */
static int look_at_old(const struct files_pending *pending, uint64_t size)
{
	struct stat old;

	if (fstatat(pending->folder->fd, pending->leaf, &old, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(old.st_mode))
		return -EISDIR;
	return S_ISREG(old.st_mode) && (uint64_t)old.st_size == size && old.st_mtim.tv_sec == pending->mtime.tv_sec &&
	       old.st_mtim.tv_nsec == pending->mtime.tv_nsec;
}

static int take_file(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = &receiver->announced[(receiver->first + receiver->count) % FILES_WINDOW];
	int ret;

	if (receiver->count == FILES_WINDOW)
		return -EPROTO;
	*file = (struct announced){.size = frame->size};
	ret = make_pending(receiver, frame, &file->pending);
	if (ret == 0)
		ret = look_at_old(&file->pending, frame->size);
	if (ret == 1) {
		receiver->options->report->unchanged++;
		files_report_moved(receiver->options->report, 0, frame->size);
		files_pending_free(&file->pending);
		return put_answer(receiver, frame->id, FILES_HAVE, "");
	}
	if (ret == 0) {
		ret = files_partial_open(file->pending.folder, file->pending.partial, false, &file->pending.fd, &file->kept);
		if (ret == -ENOENT)
			ret = 0;
	}
	if (ret < 0) {
		const char *reason = reason_of(ret);
		struct files_bytes text = files_text(reason);

		files_report_entry(receiver->options->report, FILES_FAILED, &frame->name, &text);
		files_pending_free(&file->pending);
		return put_answer(receiver, frame->id, FILES_REFUSED, reason);
	}
	receiver->count++;
	if (file->pending.fd >= 0 && file->kept > 0)
		return answer_partial(receiver, file);
	return put_answer(receiver, frame->id, FILES_SEND, "");
}

static int take_folder(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_folder *folder = NULL;
	struct stat status;
	unsigned made = 0;
	int ret = files_name_is_safe(&frame->name) ? take(receiver, FILES_ENTRY_COST) : -EINVAL;

	if (ret == 0) {
		ret = files_target_folder(receiver->target, &frame->name, true, &folder, &made);
		if (made == 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	/* One that is there may forbid what it is now needed for; its end brings the rights that it is to have. */
	if (ret == 0 && fstat(folder->fd, &status) == 0 && (status.st_mode & 0700) != 0700)
		fchmod(folder->fd, status.st_mode | 0700);
	files_folder_unref(&folder);
	return say_done(receiver, frame->id, ret == 0 ? FILES_OK : FILES_FAILED, &frame->name, ret == 0 ? "" : reason_of(ret));
}

static int make_link(struct files_pending *pending, const struct files_bytes *link)
{
	char where[FILES_NAME_MAX + 1];
	int ret = look_at_old(pending, 0);

	if (ret < 0)
		return ret;
	if (link->length > FILES_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(where, link->at, link->length);
	where[link->length] = '\0';
	if (unlinkat(pending->folder->fd, pending->partial, 0) != 0 && errno != ENOENT)
		return -errno;
	return symlinkat(where, pending->folder->fd, pending->partial) == 0 ? 0 : -errno;
}

static int take_link(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_pending pending;
	int ret = make_pending(receiver, frame, &pending);

	if (ret == 0 && !files_link_stays(&frame->name, &frame->text)) {
		files_pending_free(&pending);
		return say_done(receiver, frame->id, FILES_LEFT_OUT, &frame->name, "the link leads out of the folder that is copied to");
	}
	if (ret == 0)
		ret = take(receiver, FILES_ENTRY_COST);
	if (ret == 0) {
		ret = make_link(&pending, &frame->text);
		if (ret < 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	if (ret == 0)
		return finish_later(receiver, &pending);
	files_pending_free(&pending);
	return say_done(receiver, frame->id, FILES_FAILED, &frame->name, reason_of(ret));
}

static int take_entry(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_report *report = receiver->options->report;

	/* A number is used once: checksums go by it. */
	if (frame->id < receiver->next_id || frame->id == UINT64_MAX)
		return -EPROTO;
	receiver->next_id = frame->id + 1;
	if (receiver->options->expects && !receiver->options->expects(receiver->options->arg, &frame->name))
		return -EPROTO;
	if (frame->kind == FILES_REGULAR) {
		report->files++;
		return take_file(receiver, frame);
	}
	if (frame->kind == FILES_FOLDER) {
		report->folders++;
		return take_folder(receiver, frame);
	}
	report->links++;
	return take_link(receiver, frame);
}

static int take_leave(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_pending pending = {
		.kind = FILES_FOLDER, .id = frame->id, .fd = -1, .mode = frame->mode, .mtime = {frame->mtime, (long)frame->mtime_ns}};
	unsigned made = 0;
	int ret;

	if (!files_name_is_safe(&frame->name))
		return 0; /* its entry failed, which was said */
	ret = files_target_folder(receiver->target, &frame->name, false, &pending.folder, &made);
	if (ret < 0)
		return 0; /* likewise */
	pending.path = copy_text(&frame->name);
	if (!pending.path) {
		files_pending_free(&pending);
		return -ENOMEM;
	}
	return finish_later(receiver, &pending);
}

/* ---- contents -------------------------------------------------------------------------------------------------- */

static struct announced *first_of(struct receiver *receiver, uint64_t id)
{
	struct announced *file = &receiver->announced[receiver->first];

	return receiver->count > 0 && file->pending.id == id ? file : NULL;
}

/* The file has failed here. The sender is told at once, and what it still sends of the file is not used. */
static int fail_content(struct receiver *receiver, struct announced *file, int error)
{
	const struct files_bytes name = files_text(file->pending.path);

	receiver->failed = true;
	return say_done(receiver, file->pending.id, FILES_FAILED, &name, reason_of(error));
}

static int open_content(struct receiver *receiver, struct announced *file, uint64_t offset)
{
	int ret = 0;
	int64_t size = file->kept;

	if (file->pending.fd < 0) {
		ret = take(receiver, FILES_ENTRY_COST);
		if (ret < 0)
			return ret;
		ret = files_partial_open(file->pending.folder, file->pending.partial, true, &file->pending.fd, &size);
		if (ret < 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	if (ret == 0 && size > (int64_t)offset) {
		if (ftruncate(file->pending.fd, (off_t)offset) != 0)
			return -errno;
		files_account_give(receiver->options->account, (uint64_t)size - offset);
	}
	return ret;
}

static int take_start(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = first_of(receiver, frame->id);
	int ret;

	if (!file || receiver->started || frame->size > (uint64_t)file->kept || frame->size > file->size)
		return -EPROTO;
	receiver->started = true;
	receiver->failed = false;
	receiver->at = receiver->behind = (int64_t)frame->size;
	files_report_moved(receiver->options->report, 0, frame->size);
	ret = open_content(receiver, file, frame->size);
	return ret < 0 ? fail_content(receiver, file, ret) : 0;
}

static int write_all(int fd, const uint8_t *data, size_t length, int64_t offset)
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

/* Keeps the disk at work, and waits for what was begun before, so that the end of a large file is no long wait. */
static void write_behind(struct receiver *receiver, int fd)
{
	while (receiver->at - receiver->behind >= 2 * WRITE_BEHIND) {
		sync_file_range(fd, receiver->behind + WRITE_BEHIND, WRITE_BEHIND, SYNC_FILE_RANGE_WRITE);
		sync_file_range(fd, receiver->behind, WRITE_BEHIND,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		receiver->behind += WRITE_BEHIND;
	}
}

static int take_data(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = &receiver->announced[receiver->first];
	struct files_report *report = receiver->options->report;
	int64_t offset = (int64_t)frame->size, end = offset + (int64_t)frame->data.length;
	int ret;

	if (!receiver->started || offset < receiver->at || (uint64_t)end > file->size)
		return -EPROTO;
	files_report_moved(report, frame->data.length, (uint64_t)(offset - receiver->at));
	receiver->at = end;
	if (receiver->failed)
		return 0;
	ret = take(receiver, frame->data.length);
	if (ret == 0)
		ret = write_all(file->pending.fd, frame->data.at, frame->data.length, offset);
	if (ret < 0)
		return fail_content(receiver, file, ret);
	write_behind(receiver, file->pending.fd);
	return 0;
}

/* The file at its end, whole or not. A partial file stays, for a later copy, unless nothing is in it. */
static int end_content(struct receiver *receiver, struct announced *file, const struct files_frame *frame)
{
	struct files_pending *pending = &file->pending;
	int64_t end = receiver->at;

	if (frame->kind == FILES_OK && !receiver->failed) {
		files_report_moved(receiver->options->report, 0, file->size - (uint64_t)end);
		if (ftruncate(pending->fd, (off_t)file->size) == 0) {
			int ret = finish_later(receiver, pending);

			*pending = (struct files_pending){.fd = -1};
			return ret;
		}
		return fail_content(receiver, file, -errno);
	}
	if (pending->fd >= 0 && end == 0 && unlinkat(pending->folder->fd, pending->partial, 0) == 0)
		files_account_give(receiver->options->account, FILES_ENTRY_COST);
	if (!receiver->failed) {
		const struct files_bytes name = files_text(pending->path);

		files_report_entry(receiver->options->report, FILES_FAILED, &name, &frame->text);
	}
	return 0;
}

static int take_end(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = first_of(receiver, frame->id);
	int ret;

	if (!file || (frame->kind == FILES_OK && (!receiver->started || frame->size != file->size)))
		return -EPROTO;
	if (!receiver->started)
		receiver->failed = false;
	ret = end_content(receiver, file, frame);
	files_pending_free(&file->pending);
	receiver->started = receiver->failed = false;
	receiver->first = (receiver->first + 1) % FILES_WINDOW;
	receiver->count--;
	return ret;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static int take_frame(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_report *report = receiver->options->report;

	switch (frame->type) {
	case FILES_ENTRY: return take_entry(receiver, frame);
	case FILES_LEAVE: return take_leave(receiver, frame);
	case FILES_START: return take_start(receiver, frame);
	case FILES_DATA: return take_data(receiver, frame);
	case FILES_END: return take_end(receiver, frame);
	case FILES_SKIPPED:
		files_report_entry(report, frame->kind == FILES_LEFT_OUT ? FILES_LEFT_OUT : FILES_FAILED, &frame->name, &frame->text);
		return 0;
	case FILES_TOTAL:
		report->total_bytes = frame->size;
		report->total_files = frame->count;
		return 0;
	case FILES_FINISH:
		receiver->over = true;
		return receiver->count == 0 ? 0 : -EPROTO;
	case FILES_FAILURE: return files_report_failure(report, &frame->text);
	default: return frame->type == 0 ? -ECONNRESET : -EPROTO;
	}
}

/* Answers must go before this end waits for what they make the sender do; finished entries are saved when nothing else is to do. */
static int next_frame(struct receiver *receiver, struct files_frame *frame)
{
	int ret = files_channel_next(receiver->channel, false, frame);

	if (ret != -EAGAIN)
		return ret;
	ret = files_channel_flush(receiver->channel);
	if (ret == 0 && receiver->batch.count > 0) {
		ret = files_channel_next_within(receiver->channel, GATHER_MS, frame);
		if (ret != -EAGAIN)
			return ret;
		ret = commit(receiver);
	}
	return ret == 0 ? files_channel_next(receiver->channel, true, frame) : ret;
}

static int receive_all(struct receiver *receiver)
{
	const struct files_frame bye = {.type = FILES_BYE};
	struct files_frame frame;
	int ret = 0;

	while (ret == 0 && !receiver->over) {
		ret = next_frame(receiver, &frame);
		if (ret == 0)
			ret = take_frame(receiver, &frame);
	}
	if (ret == 0)
		ret = commit(receiver);
	if (ret == 0)
		ret = files_channel_put(receiver->channel, &bye);
	return ret == 0 ? files_channel_flush(receiver->channel) : ret;
}

int files_receive(struct files_channel *channel, const struct files_receiver_options *options)
{
	struct receiver *receiver = calloc(1, sizeof *receiver);
	int root = fcntl(options->root, F_DUPFD_CLOEXEC, 0), ret = -ENOMEM;

	if (receiver && root >= 0) {
		receiver->channel = channel;
		receiver->options = options;
		receiver->buffer = malloc(FILES_DATA_MAX);
		ret = receiver->buffer ? files_target_new(root, &receiver->target) : -ENOMEM;
	}
	if (ret == 0) {
		ret = receive_all(receiver);
		files_batch_clear(&receiver->batch);
		for (size_t i = 0; i < receiver->count; i++)
			files_pending_free(&receiver->announced[(receiver->first + i) % FILES_WINDOW].pending);
	} else if (root >= 0) {
		close(root);
	}
	if (receiver) {
		files_target_free(&receiver->target);
		free(receiver->buffer);
	}
	free(receiver);
	return ret;
}
