/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_state.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Between two requests to the kernel to begin with the disk, so that the last one is short. */
#define WRITE_BEHIND ((int64_t)32 << 20)

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
	files_report_count(receiver->options->report, FILES_REGULAR, -1);
	return files_receiver_say(receiver, file->pending.id, FILES_FAILED, &name, files_reason(error));
}

static int open_content(struct receiver *receiver, struct announced *file, uint64_t offset)
{
	int ret = 0;
	int64_t size = file->kept;

	if (file->pending.fd < 0) {
		ret = files_receiver_take(receiver, FILES_ENTRY_COST);
		if (ret < 0)
			return ret;
		ret = files_receiver_open(receiver, &file->pending, true, &size);
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

int files_receiver_start(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = first_of(receiver, frame->id);
	int ret;

	if (!file || receiver->started || receiver->options->dry_run || frame->size > (uint64_t)file->kept || frame->size > file->size)
		return -EPROTO;
	receiver->started = true;
	receiver->failed = false;
	receiver->at = receiver->behind = (int64_t)frame->size;
	files_report_moved(receiver->options->report, 0, frame->size);
	ret = open_content(receiver, file, frame->size);
	return ret < 0 ? fail_content(receiver, file, ret) : 0;
}

/* Keeps the disk at work, and waits for what was begun before, so that the end of a large file is no long wait. */
static void write_behind(struct receiver *receiver, int fd)
{
	while (receiver->batch.durable && receiver->at - receiver->behind >= 2 * WRITE_BEHIND) {
		sync_file_range(fd, receiver->behind + WRITE_BEHIND, WRITE_BEHIND, SYNC_FILE_RANGE_WRITE);
		sync_file_range(fd, receiver->behind, WRITE_BEHIND,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		receiver->behind += WRITE_BEHIND;
	}
}

int files_receiver_data(struct receiver *receiver, const struct files_frame *frame)
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
	ret = files_receiver_take(receiver, frame->data.length);
	if (ret == 0)
		ret = files_write_all(file->pending.fd, frame->data.at, frame->data.length, offset);
	if (ret < 0)
		return fail_content(receiver, file, ret);
	write_behind(receiver, file->pending.fd);
	return 0;
}

/* Its size tells, not what came: the first write may have failed. */
static bool is_empty(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && status.st_size == 0;
}

/* The file at its end, whole or not. A partial file stays, for a later copy, unless nothing is in it. */
static int end_content(struct receiver *receiver, struct announced *file, const struct files_frame *frame)
{
	struct files_pending *pending = &file->pending;
	int64_t end = receiver->at;

	if (frame->kind == FILES_OK && !receiver->failed) {
		files_report_moved(receiver->options->report, 0, file->size - (uint64_t)end);
		/* A hole at the end is not there yet. */
		if ((uint64_t)end == file->size || ftruncate(pending->fd, (off_t)file->size) == 0) {
			int ret = files_receiver_finish(receiver, pending);

			*pending = (struct files_pending){.fd = -1};
			return ret;
		}
		return fail_content(receiver, file, -errno);
	}
	if (pending->fd >= 0 && is_empty(pending->fd) && unlinkat(pending->folder->fd, pending->partial, 0) == 0)
		files_account_give(receiver->options->account, FILES_ENTRY_COST);
	if (!receiver->failed) {
		const struct files_bytes name = files_text(pending->path);

		files_report_count(receiver->options->report, FILES_REGULAR, -1);
		files_report_entry(receiver->options->report, FILES_FAILED, &name, &frame->text);
	}
	return 0;
}

/* The file at the target has this content already. */
static int keep_old(struct receiver *receiver, const struct announced *file)
{
	const struct files_bytes name = files_text(file->pending.path);
	int ret = receiver->options->dry_run ? 0 : files_pending_refresh(&file->pending);

	files_report_moved(receiver->options->report, 0, file->size);
	if (ret == 0) {
		receiver->options->report->unchanged++;
		return 0;
	}
	files_report_count(receiver->options->report, FILES_REGULAR, -1);
	return files_receiver_say(receiver, file->pending.id, FILES_FAILED, &name, files_reason(ret));
}

/* Nothing is sent in a dry run: this end stands for all. */
static int note_wanted(struct receiver *receiver, const struct announced *file)
{
	const struct files_bytes name = files_text(file->pending.path), text = files_text(FILES_NEW);

	files_report_moved(receiver->options->report, file->size, 0);
	files_report_entry(receiver->options->report, FILES_OK, &name, &text);
	return 0;
}

static bool is_due(const struct receiver *receiver, const struct announced *file, const struct files_frame *frame)
{
	switch (frame->kind) {
	case FILES_OK: return frame->size == file->size && receiver->started != receiver->options->dry_run;
	case FILES_UNCHANGED: return file->compared && !receiver->started;
	case FILES_FAILED: return true;
	default: return false;
	}
}

int files_receiver_end(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = first_of(receiver, frame->id);
	int ret;

	if (!file || !is_due(receiver, file, frame))
		return -EPROTO;
	if (!receiver->started)
		receiver->failed = false;
	if (frame->kind == FILES_UNCHANGED)
		ret = keep_old(receiver, file);
	else if (frame->kind == FILES_OK && receiver->options->dry_run)
		ret = note_wanted(receiver, file);
	else
		ret = end_content(receiver, file, frame);
	files_pending_free(&file->pending);
	receiver->started = receiver->failed = false;
	receiver->first = (receiver->first + 1) % FILES_WINDOW;
	receiver->count--;
	return ret;
}
