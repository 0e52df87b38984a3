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
	/* A dry run has not made it. */
	return ret == -ENOENT && receiver->options->dry_run ? 0 : ret;
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

/* The partial file of an earlier copy, or the whole one that is there, is open: says what is in it. */
static int answer_sums(struct receiver *receiver, struct announced *file, enum files_verdict verdict)
{
	uint8_t tags[FILES_RUNGS_MAX * FILES_TAG_SIZE];
	struct files_frame frame = {.type = FILES_ANSWER, .id = file->pending.id, .kind = verdict, .text = files_text("")};
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

/* The content of what is there decides. Returns 1 when the sender was told of it, 0 when it can't be read, or an error of the channel. */
static int answer_compare(struct receiver *receiver, struct announced *file)
{
	const struct files_pending *pending = &file->pending;
	int ret;

	file->pending.fd = openat(pending->folder->fd, pending->leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (pending->fd < 0)
		return 0;
	file->kept = (int64_t)file->size;
	ret = answer_sums(receiver, file, FILES_COMPARE);
	file->compared = file->kept > 0;
	file->kept = 0;
	close(pending->fd);
	file->pending.fd = -1;
	return ret < 0 ? ret : 1;
}

static int keep_old(struct receiver *receiver, struct announced *file, const struct stat *old)
{
	/* As rsync does: what is the same still gets the rights that it is to have. Without them it is no worse than it was. */
	if (!receiver->options->dry_run && ((old->st_mode & 0777) != (file->pending.mode & 0777) || !files_pending_has_time(&file->pending, old)))
		files_pending_refresh(&file->pending);
	receiver->options->report->unchanged++;
	files_report_moved(receiver->options->report, 0, file->size);
	return put_answer(receiver, file->pending.id, FILES_HAVE, "");
}

static int refuse_file(struct receiver *receiver, const struct files_frame *frame, const char *reason)
{
	struct files_bytes text = files_text(reason);

	files_report_count(receiver->options->report, FILES_REGULAR, -1);
	files_report_entry(receiver->options->report, FILES_FAILED, &frame->name, &text);
	return put_answer(receiver, frame->id, FILES_REFUSED, reason);
}

static unsigned kind_of(const struct files_frame *frame)
{
	return frame->type == FILES_WHOLE ? FILES_REGULAR : frame->kind;
}

/* Of what has no question: a folder, a link, or a whole file. */
static int refuse_entry(struct receiver *receiver, const struct files_frame *frame, enum files_result result, const char *reason)
{
	files_report_count(receiver->options->report, kind_of(frame), -1);
	return files_receiver_say(receiver, frame->id, result, &frame->name, reason);
}

/* One reason is enough for all that is below a folder which cannot be there. */
static bool is_blocked(const struct receiver *receiver, const struct files_bytes *name)
{
	size_t length = receiver->blocked ? strlen(receiver->blocked) : 0;

	return length > 0 && name->length > length && memcmp(name->at, receiver->blocked, length) == 0 && name->at[length] == '/';
}

static int block(struct receiver *receiver, const struct files_bytes *name)
{
	free(receiver->blocked);
	receiver->blocked = copy_text(name);
	return receiver->blocked ? 0 : -ENOMEM;
}

static int take_file(struct receiver *receiver, const struct files_frame *frame)
{
	struct announced *file = &receiver->announced[(receiver->first + receiver->count) % FILES_WINDOW];
	bool same_size;
	struct stat old;
	int ret;

	if (receiver->count == FILES_WINDOW)
		return -EPROTO;
	*file = (struct announced){.size = frame->size};
	ret = make_pending(receiver, frame, &file->pending);
	if (ret == 0)
		ret = files_pending_look(&file->pending, &old);
	same_size = ret == 0 && S_ISREG(old.st_mode) && (uint64_t)old.st_size == frame->size;
	if (same_size && (frame->size == 0 || !receiver->options->checksum) && (receiver->options->checksum || files_pending_has_time(&file->pending, &old))) {
		ret = keep_old(receiver, file, &old);
		files_pending_free(&file->pending);
		return ret;
	}
	if (same_size && receiver->options->checksum) {
		ret = answer_compare(receiver, file);
		receiver->count += ret == 1;
		if (ret != 0)
			return ret < 0 ? ret : 0;
	}
	if (ret == 0 && !receiver->options->dry_run) {
		ret = files_receiver_open(receiver, &file->pending, false, &file->kept);
		if (ret == -ENOENT)
			ret = 0;
	}
	if (ret < 0) {
		files_pending_free(&file->pending);
		return refuse_file(receiver, frame, files_reason(ret));
	}
	receiver->count++;
	if (file->pending.fd >= 0 && file->kept > 0)
		return answer_sums(receiver, file, FILES_PARTIAL);
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
	return refuse_entry(receiver, frame, FILES_FAILED, files_reason(ret));
}

static int look_for_folder(struct receiver *receiver, const struct files_frame *frame, bool *is_new)
{
	struct files_folder *folder = NULL;
	unsigned made = 0;
	int ret = files_target_folder(receiver->target, &frame->name, false, &folder, &made);

	files_folder_unref(&folder);
	*is_new = ret == -ENOENT;
	return *is_new ? 0 : ret;
}

/* One that is there already takes no room. */
static int make_folder(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_folder *folder = NULL;
	struct stat status;
	unsigned made = 0;
	int ret = files_target_folder(receiver->target, &frame->name, false, &folder, &made);

	if (ret == -ENOENT) {
		ret = files_receiver_take(receiver, FILES_ENTRY_COST);
		if (ret < 0)
			return ret;
		ret = files_target_folder(receiver->target, &frame->name, true, &folder, &made);
		if (made == 0)
			files_account_give(receiver->options->account, FILES_ENTRY_COST);
	}
	/* One that is there may forbid what it is now needed for; its end brings the rights that it is to have. */
	if (ret == 0 && fstat(folder->fd, &status) == 0 && (status.st_mode & 0700) != 0700)
		fchmod(folder->fd, status.st_mode | 0700);
	files_folder_unref(&folder);
	return ret;
}

static int take_folder(struct receiver *receiver, const struct files_frame *frame)
{
	bool is_new = false;
	int ret = receiver->options->dry_run ? look_for_folder(receiver, frame, &is_new) : make_folder(receiver, frame);

	if (ret == 0)
		return files_receiver_say(receiver, frame->id, FILES_OK, &frame->name, is_new ? FILES_NEW : "");
	if (block(receiver, &frame->name) < 0)
		return -ENOMEM;
	return refuse_entry(receiver, frame, FILES_FAILED, files_reason(ret));
}

static int make_link(struct files_pending *pending, const struct files_bytes *link)
{
	char where[FILES_NAME_MAX + 1];

	if (link->length > FILES_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(where, link->at, link->length);
	where[link->length] = '\0';
	if (unlinkat(pending->folder->fd, pending->partial, 0) != 0 && errno != ENOENT)
		return -errno;
	return symlinkat(where, pending->folder->fd, pending->partial) == 0 ? 0 : -errno;
}

static bool is_same_link(const struct files_pending *pending, const struct files_bytes *link)
{
	char where[FILES_NAME_MAX + 1];
	ssize_t length = pending->folder ? readlinkat(pending->folder->fd, pending->leaf, where, sizeof where) : -1;

	return length == (ssize_t)link->length && memcmp(where, link->at, link->length) == 0;
}

static int take_link(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_pending pending;
	struct stat old;
	bool same;
	int ret = make_pending(receiver, frame, &pending);

	if (ret == 0 && !files_link_stays(&frame->name, &frame->text)) {
		files_pending_free(&pending);
		return refuse_entry(receiver, frame, FILES_LEFT_OUT, "the link leads out of the folder that is copied to");
	}
	if (ret == 0)
		ret = files_pending_look(&pending, &old);
	if (ret == 0 && receiver->options->dry_run) {
		same = is_same_link(&pending, &frame->text);
		files_pending_free(&pending);
		return files_receiver_say(receiver, frame->id, FILES_OK, &frame->name, same ? "" : FILES_NEW);
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
	return refuse_entry(receiver, frame, FILES_FAILED, files_reason(ret));
}

int files_receiver_entry(struct receiver *receiver, const struct files_frame *frame)
{
	/* A number is used once: checksums go by it. */
	if (frame->id < receiver->next_id || frame->id == UINT64_MAX)
		return -EPROTO;
	receiver->next_id = frame->id + 1;
	if (receiver->options->expects && !receiver->options->expects(receiver->options->arg, &frame->name))
		return -EPROTO;
	if (files_receiver_keep(receiver, &frame->name, frame->kind == FILES_FOLDER, true) < 0)
		return -ENOMEM;
	files_report_count(receiver->options->report, kind_of(frame), 1);
	if (is_blocked(receiver, &frame->name))
		return frame->kind == FILES_REGULAR ? refuse_file(receiver, frame, "") : refuse_entry(receiver, frame, FILES_FAILED, "");
	if (frame->type == FILES_WHOLE)
		return receiver->options->dry_run ? -EPROTO : take_whole(receiver, frame);
	if (frame->kind == FILES_REGULAR)
		return take_file(receiver, frame);
	return frame->kind == FILES_FOLDER ? take_folder(receiver, frame) : take_link(receiver, frame);
}

/* What is in it was asked for alone, so it keeps its own rights and times. */
static int leave_target(struct receiver *receiver)
{
	const struct files_bytes path = files_text("");
	struct files_folder *folder = NULL;
	unsigned made = 0;
	int ret = files_target_folder(receiver->target, &path, false, &folder, &made);

	ret = files_receiver_clear_folder(receiver, &path, ret == 0 ? folder->fd : -1);
	files_folder_unref(&folder);
	return ret;
}

int files_receiver_leave(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_pending pending = {
		.kind = FILES_FOLDER, .id = frame->id, .fd = -1, .mode = frame->mode, .mtime = {frame->mtime, (long)frame->mtime_ns}};
	unsigned made = 0;
	int ret;

	if (frame->name.length == 0)
		return receiver->deletion ? leave_target(receiver) : -EPROTO;
	if (!files_name_is_safe(&frame->name))
		return 0; /* its entry failed, which was said */
	ret = files_target_folder(receiver->target, &frame->name, false, &pending.folder, &made);
	if (ret < 0) /* likewise */
		return files_receiver_clear_folder(receiver, &frame->name, -1);
	ret = files_receiver_clear_folder(receiver, &frame->name, pending.folder->fd);
	if (ret < 0 || receiver->options->dry_run) {
		files_pending_free(&pending);
		return ret;
	}
	pending.path = copy_text(&frame->name);
	if (!pending.path) {
		files_pending_free(&pending);
		return -ENOMEM;
	}
	return files_receiver_finish(receiver, &pending);
}
