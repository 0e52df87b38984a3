/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver_state.h"
#include "stale.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Of an entry that has gone, or would go. */
static int on_deleted(void *arg, const char *path, int error)
{
	struct receiver *receiver = arg;
	struct files_report *report = receiver->options->report;
	struct files_frame frame = {.type = FILES_REMOVED, .kind = error < 0 ? FILES_FAILED : FILES_OK, .name = files_text(path), .text = files_text("")};
	char text[160];
	int ret;

	if (error < 0) {
		snprintf(text, sizeof text, "cannot delete it: %s", strerror(-error));
		frame.text = files_text(text);
		files_report_entry(report, FILES_FAILED, &frame.name, &frame.text);
	} else {
		files_report_removed(report, &frame.name);
	}
	ret = frame.name.length > 0 ? files_channel_put(receiver->channel, &frame) : 0;
	return ret == 0 ? files_channel_live(receiver->channel) : ret;
}

int files_receiver_begin_removal(struct receiver *receiver)
{
	const struct files_receiver_options *options = receiver->options;
	const struct files_deletion_options deletion = {
		.excludes = options->excludes, .account = options->account, .dry_run = options->dry_run, .deleted = on_deleted, .arg = receiver};

	return options->deletes ? files_deletion_new(&deletion, &receiver->deletion) : 0;
}

int files_receiver_keep(struct receiver *receiver, const struct files_bytes *path, bool is_folder, bool whole)
{
	if (!receiver->deletion)
		return 0;
	if (!whole)
		files_deletion_stop(receiver->deletion);
	return files_deletion_keep(receiver->deletion, path, is_folder);
}

int files_receiver_clear_folder(struct receiver *receiver, const struct files_bytes *path, int folder)
{
	if (folder >= 0 && !receiver->options->dry_run)
		files_stale_sweep(folder, receiver->options->partial_days, receiver->options->account);
	return receiver->deletion ? files_deletion_leave(receiver->deletion, path, folder) : 0;
}

int files_receiver_end_removal(struct receiver *receiver)
{
	static const char reason[] = "not everything was deleted that the other end does not have: it could not tell all that it has";
	struct files_frame frame = {.type = FILES_REMOVED, .kind = FILES_LEFT_OUT, .name = files_text("."), .text = files_text(reason)};
	struct files_folder *folder = NULL;
	const struct files_bytes path = files_text("");
	unsigned made = 0;

	/* The target's own partial files; it has no frame that leaves it. */
	if (!receiver->options->dry_run && files_target_folder(receiver->target, &path, false, &folder, &made) == 0)
		files_stale_sweep(folder->fd, receiver->options->partial_days, receiver->options->account);
	files_folder_unref(&folder);
	if (!receiver->deletion || !files_deletion_has_stopped(receiver->deletion))
		return 0;
	files_report_entry(receiver->options->report, FILES_LEFT_OUT, &frame.name, &frame.text);
	return files_channel_put(receiver->channel, &frame);
}
