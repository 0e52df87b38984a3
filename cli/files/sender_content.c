/* SPDX-License-Identifier: Apache-2.0 */
#include "sender_state.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <unistd.h>

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
			ret = files_sender_take_frames(sender, false);
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
			files_sender_say(sender, FILES_FAILED, item->path, why);
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

int files_send_file(struct sender *sender, const struct item *item)
{
	if (is_same(sender, item)) {
		sender->report->unchanged++;
		files_report_moved(sender->report, 0, (uint64_t)item->status.st_size);
		return send_end(sender, item, FILES_UNCHANGED);
	}
	if (!sender->source->dry_run)
		return send_content(sender, item);
	files_report_moved(sender->report, (uint64_t)item->status.st_size, 0);
	files_sender_say(sender, FILES_OK, item->path, FILES_NEW);
	return send_end(sender, item, FILES_OK);
}

/* ---- whole files ----------------------------------------------------------------------------------------------- */

bool files_is_whole(const struct stat *status)
{
	/* A hole would be filled. Where file systems keep a little content beside the attributes, it has no blocks either. */
	return status->st_size <= FILES_WHOLE_MAX && (status->st_size <= 4096 || (int64_t)status->st_blocks * 512 >= status->st_size);
}

int files_send_whole(struct sender *sender, const struct item *item)
{
	struct files_frame frame = {
		.type = FILES_WHOLE,
		.id = sender->next_id + FILES_REGULAR,
		.mode = item->status.st_mode & 0777,
		.mtime = item->status.st_mtim.tv_sec,
		.mtime_ns = (uint32_t)item->status.st_mtim.tv_nsec,
		.name = files_text(item->path),
	};
	/* One byte more, if it has grown. */
	ssize_t count = pread(item->fd, sender->buffer, (size_t)item->status.st_size + 1, 0);
	const char *why = count < 0 ? strerror(errno) : count != item->status.st_size ? "it changed while it was copied; copy it again" : check_unchanged(item);
	int ret;

	if (why) {
		files_report_count(sender->report, FILES_REGULAR, -1);
		return files_sender_skip(sender, FILES_FAILED, item->path, why);
	}
	sender->next_id += FILES_ID_STEP;
	frame.data = (struct files_bytes){sender->buffer, (size_t)count};
	ret = files_channel_put(sender->channel, &frame);
	sender->expected++;
	files_report_moved(sender->report, (uint64_t)count, 0);
	return ret;
}
