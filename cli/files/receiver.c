/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* How long finished entries may wait for others, to be saved together with them. */
#define GATHER_MS 20
const char *files_reason(int error)
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

int files_receiver_say(struct receiver *receiver, uint64_t id, enum files_result result, const struct files_bytes *name, const char *text)
{
	struct files_frame frame = {.type = FILES_DONE, .id = id, .kind = result, .name = *name, .text = files_text(text)};

	files_report_entry(receiver->options->report, result, name, &frame.text);
	return files_channel_put(receiver->channel, &frame);
}

static int live(void *arg)
{
	return files_channel_live(arg);
}

/* A whole file's room was taken before anybody looked whether it is there. */
static void give_back(struct receiver *receiver, const struct files_pending *item)
{
	if (item->whole.at && (item->error < 0 || item->unchanged))
		files_account_give(receiver->options->account, FILES_ENTRY_COST + item->whole.length);
}

static int say_saved(struct receiver *receiver, const struct files_pending *item)
{
	const struct files_bytes name = files_text(item->path);

	if (item->error < 0 && item->kind != FILES_FOLDER)
		files_report_count(receiver->options->report, item->kind, -1);
	if (item->error < 0)
		return files_receiver_say(receiver, item->id, FILES_FAILED, &name, files_reason(item->error));
	if (item->unchanged)
		receiver->options->report->unchanged++;
	return item->kind == FILES_FOLDER ? 0 : files_receiver_say(receiver, item->id, item->unchanged ? FILES_UNCHANGED : FILES_OK, &name, "");
}

static int commit(struct receiver *receiver)
{
	struct files_batch *batch = &receiver->batch;
	int ret = 0;

	if (batch->count == 0)
		return 0;
	/* Another thread saves it, since nobody knows how long a disk takes. Meanwhile the sender gets signs of life. */
	if (!receiver->crew)
		ret = files_crew_new(&receiver->crew);
	if (ret == 0)
		ret = files_batch_commit(batch, receiver->crew, live, receiver->channel);
	for (size_t i = 0; i < batch->count && ret == 0; i++) {
		give_back(receiver, &batch->items[i]);
		ret = say_saved(receiver, &batch->items[i]);
	}
	files_batch_clear(batch);
	return ret == 0 ? files_channel_flush(receiver->channel) : ret;
}

int files_receiver_finish(struct receiver *receiver, const struct files_pending *pending)
{
	int ret = files_batch_has_room(&receiver->batch, pending->kind == FILES_FOLDER ? "" : pending->path, pending->whole.length) ? 0 : commit(receiver);

	if (ret == 0) {
		files_batch_add(&receiver->batch, pending);
	} else {
		struct files_pending lost = *pending;

		files_pending_free(&lost);
	}
	return ret;
}

static int open_partial(struct receiver *receiver, struct files_pending *pending, bool make, int64_t *size)
{
	int ret = files_partial_open(pending->folder, pending->partial, make, &pending->fd, size);

	/* The same name a second time in one copy: the first one has its content, and waits for its name. */
	if (ret != -EBUSY || receiver->batch.count == 0)
		return ret;
	ret = commit(receiver);
	return ret < 0 ? ret : files_partial_open(pending->folder, pending->partial, make, &pending->fd, size);
}

int files_receiver_open(struct receiver *receiver, struct files_pending *pending, bool make, int64_t *size)
{
	int ret = open_partial(receiver, pending, make, size);

	for (int waited = 0; ret == -EBUSY && waited < FILES_BUSY_MS; waited += FILES_BUSY_TURN_MS) {
		const struct timespec turn = {.tv_nsec = FILES_BUSY_TURN_MS * 1000000L};

		ret = files_channel_live(receiver->channel);
		if (ret < 0)
			return ret;
		nanosleep(&turn, NULL);
		ret = open_partial(receiver, pending, make, size);
	}
	return ret;
}

int files_receiver_take(struct receiver *receiver, uint64_t bytes)
{
	return files_account_take(receiver->options->account, receiver->options->quota, bytes);
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static int take_frame(struct receiver *receiver, const struct files_frame *frame)
{
	struct files_report *report = receiver->options->report;

	switch (frame->type) {
	case FILES_ENTRY:
	case FILES_WHOLE: return files_receiver_entry(receiver, frame);
	case FILES_LEAVE: return files_receiver_leave(receiver, frame);
	case FILES_START: return files_receiver_start(receiver, frame);
	case FILES_DATA: return files_receiver_data(receiver, frame);
	case FILES_END: return files_receiver_end(receiver, frame);
	case FILES_SKIPPED:
		if (files_receiver_keep(receiver, &frame->name, false, frame->kind == FILES_LEFT_OUT) < 0)
			return -ENOMEM;
		files_report_entry(report, frame->kind == FILES_LEFT_OUT ? FILES_LEFT_OUT : FILES_FAILED, &frame->name, &frame->text);
		return 0;
	case FILES_TOTAL:
		report->total_bytes = frame->size;
		report->total_files = frame->count;
		return 0;
	case FILES_EXCLUDE:
		if (!receiver->options->takes_excludes || receiver->next_id > 0)
			return -EPROTO;
		return files_excludes_add(receiver->options->excludes, &frame->name);
	case FILES_FINISH:
		receiver->over = true;
		return receiver->count == 0 ? files_receiver_end_removal(receiver) : -EPROTO;
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

/* A file system that has no disk to wait for. */
static bool is_in_memory(int root)
{
	struct statfs status;

	return fstatfs(root, &status) == 0 && (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

int files_receive(struct files_channel *channel, const struct files_receiver_options *options)
{
	struct receiver *receiver = calloc(1, sizeof *receiver);
	int root = options->root < 0 ? -1 : fcntl(options->root, F_DUPFD_CLOEXEC, 0), ret = -ENOMEM;

	if (receiver && (root >= 0 || options->root < 0)) {
		receiver->channel = channel;
		receiver->options = options;
		receiver->buffer = malloc(FILES_DATA_MAX);
		receiver->batch.bytes = malloc(FILES_BATCH_BYTES);
		receiver->batch.account = options->account;
		receiver->batch.durable = !options->no_sync && !is_in_memory(root);
		ret = receiver->buffer && receiver->batch.bytes ? files_target_new(root, receiver->batch.durable, &receiver->target) : -ENOMEM;
	}
	if (ret == 0) {
		ret = files_receiver_begin_removal(receiver);
		if (ret == 0)
			ret = receive_all(receiver);
		files_batch_clear(&receiver->batch);
		for (size_t i = 0; i < receiver->count; i++)
			files_pending_free(&receiver->announced[(receiver->first + i) % FILES_WINDOW].pending);
	} else if (root >= 0) {
		close(root);
	}
	if (receiver) {
		files_target_free(&receiver->target);
		files_deletion_free(&receiver->deletion);
		free(receiver->blocked);
		files_crew_free(&receiver->crew);
		free(receiver->batch.bytes);
		free(receiver->buffer);
	}
	free(receiver);
	return ret;
}
