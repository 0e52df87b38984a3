/* SPDX-License-Identifier: Apache-2.0 */
#include "sender_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY 32

static struct item *item_at(struct sender *sender, size_t index)
{
	return &sender->items[(sender->first + index) % FILES_WINDOW];
}

void files_sender_say(struct sender *sender, enum files_result result, const char *path, const char *text)
{
	struct files_bytes name = files_text(path), why = files_text(text);

	files_report_entry(sender->report, result, &name, &why);
}

int files_sender_skip(struct sender *sender, enum files_result result, const char *path, const char *text)
{
	struct files_frame frame = {.type = FILES_SKIPPED, .kind = result, .name = files_text(path), .text = files_text(text)};

	files_sender_say(sender, result, path, text);
	return frame.name.length > 0 ? files_channel_put(sender->channel, &frame) : 0;
}

/* ---- what the peer says ---------------------------------------------------------------------------------------- */

static int take_answer(struct sender *sender, const struct files_frame *frame)
{
	struct item *item = NULL;
	size_t length = frame->text.length;

	for (size_t i = 0; i < sender->count && !item; i++)
		if (item_at(sender, i)->is_file && !item_at(sender, i)->answered)
			item = item_at(sender, i);
	if (!item || item->id != frame->id)
		return -EPROTO;
	item->answered = true;
	item->verdict = frame->kind;
	sender->is_eager = frame->kind != FILES_HAVE;
	item->size = frame->size;
	item->step = frame->count;
	item->tag_count = frame->data.length / FILES_TAG_SIZE;
	if (item->tag_count > 0)
		memcpy(item->tags, frame->data.at, frame->data.length);
	if (length >= sizeof item->text)
		length = sizeof item->text - 1;
	if (length > 0)
		memcpy(item->text, frame->text.at, length);
	item->text[length] = '\0';
	return 0;
}

static int take_done(struct sender *sender, const struct files_frame *frame)
{
	if (frame->id >= sender->next_id)
		return -EPROTO;
	if (frame->kind == FILES_FAILED) {
		sender->failed_id = frame->id;
		sender->has_failed = true;
	}
	sender->done++;
	if (frame->kind == FILES_UNCHANGED) {
		sender->report->unchanged++;
		sender->is_eager = false;
		return 0;
	}
	/* Both ends may have met a failure of the same file at the same time. */
	if (frame->kind == FILES_FAILED && sender->given_up_id != 0 && frame->id == sender->given_up_id)
		return 0;
	if (frame->kind != FILES_OK)
		files_report_count(sender->report, (unsigned)(frame->id % FILES_ID_STEP), -1);
	files_report_entry(sender->report, (enum files_result)frame->kind, &frame->name, &frame->text);
	return 0;
}

static int take_removed(struct sender *sender, const struct files_frame *frame)
{
	if (!sender->source->deletes)
		return -EPROTO;
	if (frame->kind == FILES_OK)
		files_report_removed(sender->report, &frame->name);
	else
		files_report_entry(sender->report, (enum files_result)frame->kind, &frame->name, &frame->text);
	return 0;
}

static int take_frame(struct sender *sender, const struct files_frame *frame)
{
	switch (frame->type) {
	case FILES_ANSWER: return take_answer(sender, frame);
	case FILES_DONE: return take_done(sender, frame);
	case FILES_REMOVED: return take_removed(sender, frame);
	case FILES_FAILURE: return files_report_failure(sender->report, &frame->text);
	case FILES_BYE:
		sender->finished = sender->said_finish;
		return sender->said_finish ? 0 : -EPROTO;
	default: return frame->type == 0 ? -ECONNRESET : -EPROTO;
	}
}

int files_sender_take_frames(struct sender *sender, bool wait)
{
	struct files_frame frame;
	int ret;

	for (;; wait = false) {
		ret = files_channel_next(sender->channel, wait, &frame);
		if (ret == -EAGAIN)
			return 0;
		if (ret == 0)
			ret = take_frame(sender, &frame);
		if (ret < 0 || sender->finished)
			return ret;
	}
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

static void drop_item(struct sender *sender)
{
	struct item *item = item_at(sender, 0);

	if (item->fd >= 0)
		close(item->fd);
	free(item->path);
	sender->first = (sender->first + 1) % FILES_WINDOW;
	sender->count--;
}

/* The first item, whose turn it is. */
static int send_item(struct sender *sender)
{
	const struct item *item = item_at(sender, 0);
	struct files_frame leave = {
		.type = FILES_LEAVE,
		.id = item->id,
		.mode = item->status.st_mode & 0777,
		.mtime = item->status.st_mtim.tv_sec,
		.mtime_ns = (uint32_t)item->status.st_mtim.tv_nsec,
		.name = files_text(item->path),
	};
	int ret = 0;

	if (item->is_whole) {
		ret = files_send_whole(sender, item);
	} else if (!item->is_file) {
		ret = files_channel_put(sender->channel, &leave);
	} else if (item->verdict == FILES_HAVE) {
		sender->report->unchanged++;
		files_report_moved(sender->report, 0, (uint64_t)item->status.st_size);
	} else if (item->verdict == FILES_REFUSED) {
		files_report_count(sender->report, FILES_REGULAR, -1);
		files_sender_say(sender, FILES_FAILED, item->path, item->text);
	} else {
		ret = files_send_file(sender, item);
	}
	drop_item(sender);
	return ret;
}

static unsigned kind_of(const struct files_found *found)
{
	switch (found->kind) {
	case FILES_FOUND_FILE: return FILES_REGULAR;
	case FILES_FOUND_FOLDER: return FILES_FOLDER;
	case FILES_FOUND_LINK: return FILES_LINK;
	default: return 0;
	}
}

/* Announces a file, a folder or a link. */
static int announce(struct sender *sender, const struct files_found *found, uint64_t id)
{
	const struct stat *status = &found->status;
	struct files_frame frame = {
		.type = FILES_ENTRY,
		.id = id,
		.kind = kind_of(found),
		.mode = status->st_mode & 0777,
		.mtime = status->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)status->st_mtim.tv_nsec,
		.size = found->kind == FILES_FOUND_FILE ? (uint64_t)status->st_size : 0,
		.name = files_text(found->path),
		.text = files_text(found->kind == FILES_FOUND_LINK ? found->link : ""),
	};

	files_report_count(sender->report, frame.kind, 1);
	if (found->kind != FILES_FOUND_FILE)
		sender->expected++;
	return files_channel_put(sender->channel, &frame);
}

static int queue_item(struct sender *sender, const struct files_found *found, uint64_t id)
{
	struct item *item = item_at(sender, sender->count);
	char *path = strdup(found->path);

	if (!path) {
		if (found->fd >= 0)
			close(found->fd);
		return -ENOMEM;
	}
	*item = (struct item){.is_file = found->kind == FILES_FOUND_FILE, .id = id, .fd = found->fd, .status = found->status, .path = path};
	sender->count++;
	return 0;
}

/* A small file that the peer is not asked about. Others before it keep their turn, for a later one may have the same name. */
static int send_small(struct sender *sender, struct files_found *found)
{
	struct item item = {.fd = found->fd, .status = found->status, .path = (char *)(uintptr_t)found->path};
	int ret;

	files_report_count(sender->report, FILES_REGULAR, 1);
	if (sender->count == 0) {
		ret = files_send_whole(sender, &item);
		close(item.fd);
		return ret;
	}
	ret = queue_item(sender, found, 0);
	if (ret == 0)
		*item_at(sender, sender->count - 1) = (struct item){.is_whole = true, .fd = found->fd, .status = found->status, .path = item_at(sender, sender->count - 1)->path};
	return ret;
}

/* The next entry, if there is one. */
static int send_next(struct sender *sender)
{
	struct files_found found;
	int ret = sender->source->next(sender->source->arg, &found);

	if (ret <= 0) {
		sender->over = ret == 0;
		return ret;
	}
	if (found.kind == FILES_FOUND_FAILED || found.kind == FILES_FOUND_LEFT_OUT)
		return files_sender_skip(sender, found.kind == FILES_FOUND_FAILED ? FILES_FAILED : FILES_LEFT_OUT, found.path, found.text);
	if (found.path[0] == '\0' && (found.kind != FILES_FOUND_LEAVE || !sender->source->deletes)) /* the folder whose content alone is wanted */
		return 0;
	if (found.kind == FILES_FOUND_FILE && sender->is_eager && !sender->source->asks && !sender->source->dry_run && files_is_whole(&found.status))
		return send_small(sender, &found);
	ret = 0;
	if (found.kind == FILES_FOUND_FILE || found.kind == FILES_FOUND_LEAVE)
		ret = queue_item(sender, &found, sender->next_id + kind_of(&found));
	if (ret == 0 && found.kind != FILES_FOUND_LEAVE)
		ret = announce(sender, &found, sender->next_id + kind_of(&found));
	sender->next_id += FILES_ID_STEP;
	return ret;
}

static int send_all(struct sender *sender)
{
	const struct files_frame finish = {.type = FILES_FINISH};
	unsigned turn = 0;
	int ret = 0;

	while (ret == 0 && (!sender->over || sender->count > 0)) {
		const struct item *item = sender->count > 0 ? item_at(sender, 0) : NULL;

		/* To look whether something came costs as much as a small file. */
		ret = ++turn % LOOK_EVERY == 0 ? files_sender_take_frames(sender, false) : 0;
		if (ret < 0)
			break;
		/* Questions go ahead, so that answers are there in time. What needs no answer does not wait for them. */
		if (!sender->over && sender->count < FILES_WINDOW && !(item && !item->is_file)) {
			ret = send_next(sender);
		} else if (item && (!item->is_file || item->answered)) {
			ret = send_item(sender);
		} else {
			ret = files_channel_flush(sender->channel);
			if (ret == 0)
				ret = files_sender_take_frames(sender, true);
		}
	}
	if (ret == 0)
		ret = files_channel_put(sender->channel, &finish);
	sender->said_finish = true;
	if (ret == 0)
		ret = files_channel_flush(sender->channel);
	while (ret == 0 && !sender->finished)
		ret = files_sender_take_frames(sender, true);
	return ret == 0 && sender->done < sender->expected ? -EPROTO : ret;
}

int files_send(struct files_channel *channel, const struct files_source *source, struct files_report *report)
{
	struct sender *sender = calloc(1, sizeof *sender);
	int ret = -ENOMEM;

	if (!sender)
		return ret;
	sender->channel = channel;
	sender->source = source;
	sender->report = report;
	sender->buffer = malloc(FILES_DATA_MAX);
	if (sender->buffer)
		ret = send_all(sender);
	/* What the peer said before the connection failed says more than the failure. */
	if (ret < 0 && ret != -ECONNABORTED && !report->failure[0] && files_sender_take_frames(sender, false) == -ECONNABORTED)
		ret = -ECONNABORTED;
	while (sender->count > 0)
		drop_item(sender);
	free(sender->buffer);
	free(sender);
	return ret;
}
