/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include "list.h"
#include "receiver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct host {
	struct files_channel *channel;
	const struct files_area *area;
	struct files_report *report;
	struct files_host_result *result;
	uint32_t flags;
	int root; /* of the area */
};

static int refuse(struct host *host, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct host *host, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(host->result->reason, sizeof host->result->reason, format, args);
	va_end(args);
	return error;
}

static int live(void *arg)
{
	return files_channel_live(arg);
}

static int welcome(struct host *host)
{
	const struct files_frame frame = {.type = FILES_WELCOME, .version = FILES_VERSION};
	int ret = files_channel_put(host->channel, &frame);

	return ret == 0 ? files_channel_flush(host->channel) : ret;
}

/* ---- to the server --------------------------------------------------------------------------------------------- */

/* The folder that the client names, which is made if it is missing. Its descriptor, or an error; -ENOENT, in a dry run: it is missing. */
static int open_target(struct host *host)
{
	const struct files_bytes path = files_text(host->result->path);
	bool dry_run = host->flags & FILES_DRY_RUN;
	struct files_target *target = NULL;
	struct files_folder *folder = NULL;
	unsigned made = 0;
	int root = fcntl(host->root, F_DUPFD_CLOEXEC, 0), fd = -1, ret = -ENOMEM;

	if (root >= 0)
		ret = files_target_new(root, !(host->flags & FILES_NO_SYNC), &target);
	if (ret == 0) {
		files_target_set_mode(target, 0777);
		ret = files_target_folder(target, &path, !dry_run, &folder, &made);
	} else if (root >= 0) {
		close(root);
	}
	if (ret == 0)
		fd = fcntl(folder->fd, F_DUPFD_CLOEXEC, 0);
	if (ret == 0 && fd < 0)
		ret = -errno;
	files_folder_unref(&folder);
	files_target_free(&target);
	if (ret == -EINVAL)
		return refuse(host, ret, "the path of the folder must be relative, without '.' and '..'");
	if (ret < 0 && !(ret == -ENOENT && dry_run))
		return refuse(host, ret, "the folder cannot be used: %s", strerror(-ret));
	return ret < 0 ? ret : fd;
}

static int check_rights(struct host *host)
{
	unsigned rights = host->area->rights;

	if (!(rights & FILES_MAY_WRITE))
		return refuse(host, -EACCES, "this server does not let you write files");
	if ((host->flags & FILES_DELETE) && !(rights & FILES_MAY_DELETE))
		return refuse(host, -EACCES, "this server does not let you delete files: your rights lack the letter d");
	return 0;
}

static int take_files(struct host *host)
{
	struct files_excludes excludes = {.count = 0};
	struct files_receiver_options options = {
		.report = host->report,
		.quota = host->area->quota,
		.no_sync = host->flags & FILES_NO_SYNC,
		.checksum = host->flags & FILES_CHECKSUM,
		.deletes = host->flags & FILES_DELETE,
		.dry_run = host->flags & FILES_DRY_RUN,
		.excludes = &excludes,
		.takes_excludes = true,
		.partial_days = host->area->partial_days,
	};
	int ret = check_rights(host);

	if (ret < 0)
		return ret;
	options.root = open_target(host);
	if (options.root < 0 && !(options.root == -ENOENT && options.dry_run))
		return options.root;
	ret = welcome(host);
	if (ret == 0 && host->area->quota > 0 && !options.dry_run)
		ret = files_account_open(host->root, host->area->partial_days, live, host->channel, &options.account);
	if (ret == 0)
		ret = files_receive(host->channel, &options);
	files_account_close(&options.account);
	files_excludes_clear(&excludes);
	if (options.root >= 0)
		close(options.root);
	return ret;
}

/* ---- from the server ------------------------------------------------------------------------------------------- */

static int take_paths(struct host *host, struct files_list *list, struct files_excludes *excludes)
{
	struct files_frame frame;
	int ret;

	for (;;) {
		ret = files_channel_next(host->channel, true, &frame);
		if (ret < 0 || frame.type == FILES_FINISH)
			return ret;
		if (frame.type == FILES_EXCLUDE && list->count == 0) {
			ret = files_excludes_add(excludes, &frame.name);
			if (ret < 0)
				return ret;
			continue;
		}
		if (frame.type != FILES_PATH)
			return -EPROTO;
		if (frame.name.length > 0 && !files_name_is_safe(&frame.name))
			return refuse(host, -EINVAL, "a path must be relative, without '.' and '..'");
		ret = files_list_add(list, &frame.name);
		if (ret == -E2BIG)
			return refuse(host, ret, "more than %d paths in one copy", FILES_LIST_MAX);
		if (ret < 0)
			return ret;
		if (list->count == 1)
			snprintf(host->result->path, sizeof host->result->path, "%s", list->paths[0]);
	}
}

static int send_total(struct host *host, struct files_list *list)
{
	struct files_frame frame = {.type = FILES_TOTAL};
	int ret;

	if (!(host->flags & FILES_WANT_TOTAL))
		return 0;
	ret = files_list_total(list, live, host->channel, &frame.size, &frame.count);
	return ret < 0 ? ret : files_channel_put(host->channel, &frame);
}

static int give_files(struct host *host)
{
	struct files_excludes excludes = {.count = 0};
	struct files_list list = {.recursive = host->flags & FILES_RECURSIVE, .excludes = &excludes};
	const struct files_source source = {.next = files_list_next,
					    .arg = &list,
					    .deletes = host->flags & FILES_DELETE,
					    .dry_run = host->flags & FILES_DRY_RUN,
					    .asks = host->flags & FILES_CHECKSUM};
	int root, ret;

	if (!(host->area->rights & FILES_MAY_READ))
		return refuse(host, -EACCES, "this server does not let you read files");
	ret = welcome(host);
	if (ret == 0)
		ret = take_paths(host, &list, &excludes);
	root = ret == 0 ? fcntl(host->root, F_DUPFD_CLOEXEC, 0) : -1;
	if (ret == 0)
		ret = root < 0 ? -errno : files_target_new(root, false, &list.target);
	if (ret < 0 && root >= 0)
		close(root);
	if (ret == 0)
		ret = send_total(host, &list);
	if (ret == 0)
		ret = files_send(host->channel, &source, host->report);
	files_list_clear(&list);
	files_target_free(&list.target);
	files_excludes_clear(&excludes);
	return ret;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static int take_hello(struct host *host)
{
	struct files_frame frame;
	int ret = files_channel_next(host->channel, true, &frame);

	if (ret < 0)
		return ret;
	if (frame.type != FILES_HELLO)
		return -EPROTO;
	if (frame.version != FILES_VERSION)
		return refuse(host, -EPROTO, "this server copies files by version %d of the protocol, and the client by %u", FILES_VERSION, frame.version);
	host->flags = frame.flags;
	host->result->operation = frame.kind;
	snprintf(host->result->path, sizeof host->result->path, "%.*s", (int)frame.name.length, frame.name.length ? (const char *)frame.name.at : "");
	host->root = open(host->area->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (host->root < 0)
		return refuse(host, -errno, "the server's folder cannot be used: %s", strerror(errno));
	return frame.kind == FILES_PUT ? take_files(host) : give_files(host);
}

static const char *sentence(int error)
{
	switch (-error) {
	case EPROTO: return "the client broke the protocol of copying files";
	case EBADMSG: return "a checksum was wrong: something changed the bytes on their way";
	case ETIMEDOUT: return "the client was silent for too long";
	case ECONNRESET: return "the client ended the copy before it was over";
	default: return strerror(-error);
	}
}

int files_host_run(const struct files_transport *transport, const uint8_t key[FILES_KEY_SIZE], const struct files_area *area,
		   struct files_report *report, struct files_host_result *result)
{
	struct host host = {.area = area, .report = report, .result = result, .root = -1};
	struct files_frame failure = {.type = FILES_FAILURE};
	int ret = files_channel_new(transport, key, false, area->timeout_ms, &host.channel);

	if (ret == 0)
		ret = take_hello(&host);
	if (ret < 0 && !result->reason[0])
		refuse(&host, ret, "%s", ret == -ECONNABORTED ? report->failure : sentence(ret));
	if (ret < 0 && host.channel && ret != -ECONNABORTED && ret != -ECONNRESET) {
		failure.text = files_text(result->reason);
		if (files_channel_put(host.channel, &failure) == 0)
			files_channel_flush(host.channel);
	}
	if (host.root >= 0)
		close(host.root);
	files_channel_free(&host.channel);
	return ret;
}
