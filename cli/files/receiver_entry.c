/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *copy_text(const struct files_bytes *bytes)
{
	return strndup((const char *)bytes->at, bytes->length);
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
	if (frame->type != FILES_WHOLE)
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

static int take_file(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = &receiver->announced[(receiver->first + receiver->count) % FILES_WINDOW];
	int ret;

	if (receiver->count == FILES_WINDOW)
		return -EPROTO;
	*file = (struct announced){.size = frame->size};
	ret = make_pending(receiver, frame, &file->pending);
	if (ret == 0)
		ret = files_pending_compare(&file->pending, frame->size);
	if (ret == 1) {
		receiver->options->report->unchanged++;
		files_report_moved(receiver->options->report, 0, frame->size);
		files_pending_free(&file->pending);
		return put_answer(receiver, frame->id, FILES_HAVE, "");
	}
	if (ret == 0) {
		ret = files_receiver_open(receiver, &file->pending, false, &file->kept);
		if (ret == -ENOENT)
			ret = 0;
	}
	if (ret < 0) {
		const char *reason = files_reason(ret);
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

/* It is written, or found to be there, with the others of its batch. */
static int take_whole(struct receiver *receiver, const struct files_frame *frame)
{
	const uint64_t cost = FILES_ENTRY_COST + frame->data.length;
	struct files_pending pending;
	int ret = make_pending(receiver, frame, &pending);

	files_report_moved(receiver->options->report, frame->data.length, 0);
	pending.kind = FILES_REGULAR;
	pending.whole = frame->data;
	if (ret == 0)
		ret = files_receiver_take(receiver, cost);
	if (ret == 0)
		return files_receiver_finish(receiver, &pending);
	files_pending_free(&pending);
	return files_receiver_say(receiver, frame->id, FILES_FAILED, &frame->name, files_reason(ret));
}

static int take_folder(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_folder *folder = NULL;
	struct stat status;
	unsigned made = 0;
	int ret = files_name_is_safe(&frame->name) ? files_receiver_take(receiver, FILES_ENTRY_COST) : -EINVAL;

	if (ret == 0) {
		ret = files_target_folder(receiver->target, &frame->name, true, &folder, &made);
		if (made == 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	/* One that is there may forbid what it is now needed for; its end brings the rights that it is to have. */
	if (ret == 0 && fstat(folder->fd, &status) == 0 && (status.st_mode & 0700) != 0700)
		fchmod(folder->fd, status.st_mode | 0700);
	files_folder_unref(&folder);
	return files_receiver_say(receiver, frame->id, ret == 0 ? FILES_OK : FILES_FAILED, &frame->name, ret == 0 ? "" : files_reason(ret));
}

static int make_link(struct files_pending *pending, const struct files_bytes *link)
{
	char where[FILES_NAME_MAX + 1];
	int ret = files_pending_compare(pending, 0);

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
		return files_receiver_say(receiver, frame->id, FILES_LEFT_OUT, &frame->name, "the link leads out of the folder that is copied to");
	}
	if (ret == 0)
		ret = files_receiver_take(receiver, FILES_ENTRY_COST);
	if (ret == 0) {
		ret = make_link(&pending, &frame->text);
		if (ret < 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	if (ret == 0)
		return files_receiver_finish(receiver, &pending);
	files_pending_free(&pending);
	return files_receiver_say(receiver, frame->id, FILES_FAILED, &frame->name, files_reason(ret));
}

int files_receiver_entry(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_report *report = receiver->options->report;

	/* A number is used once: checksums go by it. */
	if (frame->id < receiver->next_id || frame->id == UINT64_MAX)
		return -EPROTO;
	receiver->next_id = frame->id + 1;
	if (receiver->options->expects && !receiver->options->expects(receiver->options->arg, &frame->name))
		return -EPROTO;
	if (frame->type == FILES_WHOLE || frame->kind == FILES_REGULAR) {
		report->files++;
		return frame->type == FILES_WHOLE ? take_whole(receiver, frame) : take_file(receiver, frame);
	}
	if (frame->kind == FILES_FOLDER) {
		report->folders++;
		return take_folder(receiver, frame);
	}
	report->links++;
	return take_link(receiver, frame);
}

int files_receiver_leave(struct receiver *receiver, const struct files_frame *frame)
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
	return files_receiver_finish(receiver, &pending);
}
