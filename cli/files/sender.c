/* SPDX-License-Identifier: Apache-2.0 */
#include "sender.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY 32
/* Of an entry's number, the rest is its kind; so the answer tells it. 0: the end of a folder. */
#define ID_STEP    4

/* A file that was announced, or the end of a folder, which must not overtake the files in it. */
struct item {
	bool is_file, answered;
	uint64_t id;
	int fd;
	struct stat status;
	char *path;
	unsigned verdict;
	uint64_t size, step; /* of the peer's partial file; bytes of it that one checksum is for */
	uint8_t tags[FILES_RUNGS_MAX][FILES_TAG_SIZE];
	size_t tag_count;
	char text[256]; /* why the peer refuses it */
};

struct sender {
	struct files_channel *channel;
	const struct files_source *source;
	struct files_report *report;
	struct item items[FILES_WINDOW];
	size_t first, count;
	uint64_t next_id;
	uint64_t expected, done; /* entries that the peer is to say FILES_DONE of */
	uint64_t failed_id;      /* the last one that it said failed */
	uint64_t given_up_id;    /* the last file that failed here; 0 */
	bool has_failed, over, said_finish, finished;
	uint8_t *buffer; /* to compare with */
};

static struct item *item_at(struct sender *sender, size_t index)
{
	return &sender->items[(sender->first + index) % FILES_WINDOW];
}

static void say(struct sender *sender, enum files_result result, const char *path, const char *text)
{
	struct files_bytes name = files_text(path), why = files_text(text);

	files_report_entry(sender->report, result, &name, &why);
}

/* Of this end's own; the peer hears of it, too, since it may be the one with a user. */
static int skip(struct sender *sender, enum files_result result, const char *path, const char *text)
{
	struct files_frame frame = {.type = FILES_SKIPPED, .kind = result, .name = files_text(path), .text = files_text(text)};

	say(sender, result, path, text);
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
	/* Both ends may have met a failure of the same file at the same time. */
	if (frame->kind == FILES_FAILED && sender->given_up_id != 0 && frame->id == sender->given_up_id)
		return 0;
	if (frame->kind != FILES_OK)
		files_report_count(sender->report, (unsigned)(frame->id % ID_STEP), -1);
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

/* All that has come; `wait`: at least one. */
static int take_frames(struct sender *sender, bool wait)
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

/* ---- contents -------------------------------------------------------------------------------------------------- */

/* Whether `length` bytes at `offset` have the checksum. Returns 1 or 0, or a negative error. */
static int compare_part(struct sender *sender, const struct item *item, uint32_t part, uint64_t offset, uint64_t length)
{
	struct files_mac *mac = files_channel_mac(sender->channel);
	uint8_t tag[FILES_TAG_SIZE];
	ssize_t count;
	int ret;

	for (uint64_t at = 0; at < length; at += (uint64_t)count) {
		size_t step = length - at < FILES_DATA_MAX ? (size_t)(length - at) : FILES_DATA_MAX;

		count = pread(item->fd, sender->buffer, step, (off_t)(offset + at));
		if (count <= 0)
			return count < 0 ? -errno : 0;
		if (at == 0)
			files_mac_begin(mac, FILES_MAC_PART, part, item->id);
		files_mac_add(mac, sender->buffer, (size_t)count);
		ret = files_channel_live(sender->channel);
		if (ret < 0)
			return ret;
	}
	ret = files_mac_end(mac, tag);
	return ret < 0 ? ret : CRYPTO_memcmp(tag, item->tags[part], sizeof tag) == 0;
}

/* How much of the file the peer has already: up to the first part that differs. */
static int64_t compare(struct sender *sender, const struct item *item)
{
	uint64_t same = 0, size = (uint64_t)item->status.st_size;

	if (item->step == 0 || item->size > size || (item->size + item->step - 1) / item->step != item->tag_count)
		return 0;
	for (uint32_t part = 0; part < item->tag_count; part++) {
		uint64_t length = item->size - same < item->step ? item->size - same : item->step;
		int ret = compare_part(sender, item, part, same, length);

		if (ret != 1)
			return ret < 0 ? ret : (int64_t)same;
		same += length;
	}
	return (int64_t)same;
}

/* From `at` on: where data begins and ends. Without holes, or where the file system does not tell, all is data. */
static void find_data(const struct item *item, off_t at, off_t *begin, off_t *end)
{
	if ((int64_t)item->status.st_blocks * 512 >= item->status.st_size) {
		*begin = at;
		*end = item->status.st_size;
		return;
	}
	*begin = lseek(item->fd, at, SEEK_DATA);
	if (*begin < 0 && errno == ENXIO) {
		*begin = *end = item->status.st_size;
		return;
	}
	*end = *begin < 0 ? -1 : lseek(item->fd, *begin, SEEK_HOLE);
	if (*begin < 0)
		*begin = at;
	if (*end < 0 || *end > item->status.st_size)
		*end = item->status.st_size;
	if (*begin > item->status.st_size)
		*begin = item->status.st_size;
}

static bool is_refused(const struct sender *sender, const struct item *item)
{
	return sender->has_failed && sender->failed_id == item->id;
}

/* Sends [at, end). *why: this end's failure, which ends the file and not the copy. */
static int send_data(struct sender *sender, const struct item *item, off_t at, off_t end, const char **why)
{
	while (at < end && !is_refused(sender, item)) {
		struct files_frame frame = {.type = FILES_DATA, .size = (uint64_t)at};
		size_t step = end - at < FILES_DATA_MAX ? (size_t)(end - at) : FILES_DATA_MAX;
		uint8_t *data;
		ssize_t count;
		int ret = files_channel_room(sender->channel, &data);

		if (ret < 0)
			return ret;
		count = pread(item->fd, data, step, at);
		if (count <= 0) {
			*why = count < 0 ? strerror(errno) : "it became shorter while it was copied; copy it again";
			return 0;
		}
		frame.data = (struct files_bytes){data, (size_t)count};
		ret = files_channel_put(sender->channel, &frame);
		at += count;
		if (ret == 0 && at < end)
			ret = take_frames(sender, false);
		if (ret < 0)
			return ret;
		files_report_moved(sender->report, (uint64_t)count, 0);
	}
	return 0;
}

static int send_extents(struct sender *sender, const struct item *item, off_t at, const char **why)
{
	off_t begin, end;
	int ret = 0;

	while (at < item->status.st_size && ret == 0 && !*why && !is_refused(sender, item)) {
		find_data(item, at, &begin, &end);
		files_report_moved(sender->report, 0, (uint64_t)(begin - at));
		ret = begin < end ? send_data(sender, item, begin, end, why) : 0;
		at = end > begin ? end : item->status.st_size;
	}
	return ret;
}

static const char *check_unchanged(const struct item *item)
{
	struct stat now;

	if (fstat(item->fd, &now) != 0)
		return strerror(errno);
	if (now.st_size != item->status.st_size || now.st_mtim.tv_sec != item->status.st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != item->status.st_mtim.tv_nsec)
		return "it changed while it was copied; copy it again";
	return NULL;
}

static int send_content(struct sender *sender, const struct item *item)
{
	struct files_frame start = {.type = FILES_START, .id = item->id};
	struct files_frame end = {.type = FILES_END, .id = item->id, .kind = FILES_OK, .size = (uint64_t)item->status.st_size};
	int64_t offset = item->verdict == FILES_PARTIAL ? compare(sender, item) : 0;
	const char *why = offset < 0 ? strerror((int)-offset) : NULL;
	int ret = 0;

	if (!why) {
		start.size = (uint64_t)offset;
		files_report_moved(sender->report, 0, (uint64_t)offset);
		ret = files_channel_put(sender->channel, &start);
		if (ret == 0)
			ret = send_extents(sender, item, (off_t)offset, &why);
		if (ret == 0 && !why)
			why = check_unchanged(item);
	}
	if (ret < 0)
		return ret;
	if (why) {
		end.kind = FILES_FAILED;
		end.text = files_text(why);
		if (!is_refused(sender, item)) {
			sender->given_up_id = item->id;
			files_report_count(sender->report, FILES_REGULAR, -1);
			say(sender, FILES_FAILED, item->path, why);
		}
	} else {
		sender->expected++;
	}
	return files_channel_put(sender->channel, &end);
}

/* The file is at the peer under its name, as far as sums of its content tell. */
static bool is_same(struct sender *sender, const struct item *item)
{
	return item->verdict == FILES_COMPARE && item->size == (uint64_t)item->status.st_size && compare(sender, item) == item->status.st_size &&
	       !check_unchanged(item);
}

static int send_end(struct sender *sender, const struct item *item, enum files_result result)
{
	const struct files_frame end = {.type = FILES_END, .id = item->id, .kind = result, .size = (uint64_t)item->status.st_size};

	return files_channel_put(sender->channel, &end);
}

/* A file that the peer wants, or would want. */
static int send_file(struct sender *sender, const struct item *item)
{
	if (is_same(sender, item)) {
		sender->report->unchanged++;
		files_report_moved(sender->report, 0, (uint64_t)item->status.st_size);
		return send_end(sender, item, FILES_SAME);
	}
	if (!sender->source->dry_run)
		return send_content(sender, item);
	files_report_moved(sender->report, (uint64_t)item->status.st_size, 0);
	say(sender, FILES_OK, item->path, FILES_NEW);
	return send_end(sender, item, FILES_OK);
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

	if (!item->is_file) {
		ret = files_channel_put(sender->channel, &leave);
	} else if (item->verdict == FILES_HAVE) {
		sender->report->unchanged++;
		files_report_moved(sender->report, 0, (uint64_t)item->status.st_size);
	} else if (item->verdict == FILES_REFUSED) {
		files_report_count(sender->report, FILES_REGULAR, -1);
		say(sender, FILES_FAILED, item->path, item->text);
	} else {
		ret = send_file(sender, item);
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
		return skip(sender, found.kind == FILES_FOUND_FAILED ? FILES_FAILED : FILES_LEFT_OUT, found.path, found.text);
	if (found.path[0] == '\0' && (found.kind != FILES_FOUND_LEAVE || !sender->source->deletes)) /* the folder whose content alone is wanted */
		return 0;
	ret = 0;
	if (found.kind == FILES_FOUND_FILE || found.kind == FILES_FOUND_LEAVE)
		ret = queue_item(sender, &found, sender->next_id + kind_of(&found));
	if (ret == 0 && found.kind != FILES_FOUND_LEAVE)
		ret = announce(sender, &found, sender->next_id + kind_of(&found));
	sender->next_id += ID_STEP;
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
		ret = ++turn % LOOK_EVERY == 0 ? take_frames(sender, false) : 0;
		if (ret < 0)
			break;
		if (!sender->over && sender->count < FILES_WINDOW) {
			ret = send_next(sender);
		} else if (item && (!item->is_file || item->answered)) {
			ret = send_item(sender);
		} else {
			ret = files_channel_flush(sender->channel);
			if (ret == 0)
				ret = take_frames(sender, true);
		}
	}
	if (ret == 0)
		ret = files_channel_put(sender->channel, &finish);
	sender->said_finish = true;
	if (ret == 0)
		ret = files_channel_flush(sender->channel);
	while (ret == 0 && !sender->finished)
		ret = take_frames(sender, true);
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
	if (ret < 0 && ret != -ECONNABORTED && !report->failure[0] && take_frames(sender, false) == -ECONNABORTED)
		ret = -ECONNABORTED;
	while (sender->count > 0)
		drop_item(sender);
	free(sender->buffer);
	free(sender);
	return ret;
}
