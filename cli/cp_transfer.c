/* SPDX-License-Identifier: Apache-2.0 */
#include "cp.h"

#include "cli.h"
#include "files/receiver.h"
#include "files/sender.h"
#include "files/stale.h"
#include "interrupt.h"
#include "securdma_stream.h"
#include "serve_files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* For the stream: of the ring that the peer writes to, and for what this end writes. */
#define REGION_SIZE ((size_t)4 << 20)
#define BUFFER_SIZE ((size_t)2 << 20)
#define DISCONNECT_MS 5000
/* Between two looks for a signal. */
#define LOOK_MS 100

struct transfer {
	struct cp *cp;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_conn *conn;
	struct srdma_stream *stream;
	struct files_channel *channel;
	uint8_t private_data[sizeof SERVE_FILES_WORD + FILES_KEY_SIZE];
	int folder; /* that files go to; -1 */
};

/* ---- the stream ------------------------------------------------------------------------------------------------ */

/* Reads to `in`, or writes what `out` has, as much as the pace allows now. */
static ssize_t move_bytes(struct transfer *transfer, void *in, const void *out, size_t size)
{
	size_t allowed = pace_allow(&transfer->cp->pace, size);
	ssize_t count;

	if (interrupt_signal())
		return -EINTR;
	if (allowed == 0)
		return -EAGAIN;
	count = in ? srdma_stream_read(transfer->stream, in, allowed, 0) : srdma_stream_write(transfer->stream, out, allowed, 0);
	if (count > 0)
		pace_take(&transfer->cp->pace, (size_t)count);
	return count;
}

static ssize_t read_stream(void *arg, void *data, size_t size)
{
	return move_bytes(arg, data, NULL, size);
}

static ssize_t write_stream(void *arg, const void *data, size_t size)
{
	return move_bytes(arg, NULL, data, size);
}

/* In short turns, since a signal ends no wait of the library's. */
static int wait_stream(void *arg, bool to_read, bool to_write, int timeout_ms)
{
	struct transfer *transfer = arg;
	short events = (short)((to_read ? POLLIN : 0) | (to_write ? POLLOUT : 0));
	int pause = pace_wait_ms(&transfer->cp->pace), ret, turn;

	/* The next call finds out what may go on. */
	if (pause > 0)
		return poll(NULL, 0, pause < LOOK_MS ? pause : LOOK_MS) < 0 && errno != EINTR ? -errno : 0;
	do {
		if (interrupt_signal())
			return -EINTR;
		turn = timeout_ms < LOOK_MS ? timeout_ms : LOOK_MS;
		timeout_ms -= turn;
		ret = srdma_stream_wait(transfer->stream, events, turn);
	} while ((ret == -ETIMEDOUT || ret == -EAGAIN) && timeout_ms > 0);
	return ret > 0 ? 0 : ret;
}

/* ---- what failed ----------------------------------------------------------------------------------------------- */

static int keep(struct cp *cp, int error, const char *what, const char *text)
{
	cp->error = error;
	snprintf(cp->error_text, sizeof cp->error_text, "%s: %s", what, text);
	progress_clear(&cp->progress);
	return cli_failed(cli_exit_code(error), "%s", cp->error_text);
}

static int fail(struct cp *cp, int error, const char *what)
{
	return keep(cp, error, what, srdma_error_text());
}

/* What the protocol found, in words; the library's errors have their own. */
static int fail_copy(struct transfer *transfer, int error)
{
	struct cp *cp = transfer->cp;

	switch (error) {
	case -ECONNABORTED: return keep(cp, error, "the server ended the copy", cp->report.failure), CLI_EXIT_FAILED;
	case -EPROTO: return keep(cp, SRDMA_EPROTOCOL, "copy", "the server broke the protocol of copying files");
	case -EBADMSG: return keep(cp, SRDMA_EPROTOCOL, "copy", "a checksum was wrong: something changed the bytes on their way");
	case -ETIMEDOUT: return keep(cp, error, "copy", "timed out waiting for the server; run the command again to go on from here");
	case -ECONNRESET: return keep(cp, SRDMA_ELOST, "copy", "the server ended the stream before the copy was over");
	case -ENOMEM: return keep(cp, error, "copy", "out of memory");
	case -EINTR: return keep(cp, error, "copy", "interrupted by a signal; run the command again to go on from here");
	default: return fail(cp, error, "copy");
	}
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static int make_key(struct transfer *transfer)
{
	memcpy(transfer->private_data, SERVE_FILES_WORD, sizeof SERVE_FILES_WORD);
	if (RAND_bytes(transfer->private_data + sizeof SERVE_FILES_WORD, FILES_KEY_SIZE) == 1)
		return CLI_EXIT_OK;
	return keep(transfer->cp, SRDMA_ERANDOM, "copy", "the random generator failed");
}

/* As srdma_conn_connect(), which a signal does not end. */
static int connect_until_signal(struct transfer *transfer, const struct srdma_conn_options *options)
{
	const struct settings *settings = &transfer->cp->settings;
	struct srdma_connect *connect = NULL;
	int ret = srdma_conn_connect_start(settings->host, settings->port, transfer->context, transfer->device, options, &connect);

	if (ret < 0)
		return fail(transfer->cp, ret, "connect");
	while ((ret = srdma_connect_step(connect, &transfer->conn)) == -EAGAIN && !interrupt_signal()) {
		struct pollfd fd = {.fd = srdma_connect_fd(connect), .events = POLLIN};

		poll(&fd, 1, LOOK_MS);
	}
	if (ret == -EAGAIN)
		ret = fail_copy(transfer, -EINTR);
	else if (ret < 0)
		ret = fail(transfer->cp, ret, "connect");
	srdma_connect_free(&connect);
	return ret;
}

static int connect_server(struct transfer *transfer)
{
	struct cp *cp = transfer->cp;
	struct settings *settings = &cp->settings;
	struct srdma_conn_options conn;
	struct srdma_stream_options stream;
	struct srdma_qp_options qp;
	struct srdma_conn_info info;
	int ret = credentials_client(settings, &transfer->context);

	if (ret < 0) {
		fail(cp, ret, "client credentials");
		return CLI_EXIT_USAGE;
	}
	ret = srdma_device_open(&settings->device, &transfer->device);
	if (ret < 0) {
		fail(cp, ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	settings_conn_options(settings, &conn, &qp);
	/* A configuration that other commands share may offer no region, and a stream needs one. */
	if (conn.region_size < REGION_SIZE)
		conn.region_size = REGION_SIZE;
	conn.region_access = IBV_ACCESS_REMOTE_WRITE;
	conn.private_data = transfer->private_data;
	conn.private_data_size = sizeof transfer->private_data;
	ret = connect_until_signal(transfer, &conn);
	if (ret != CLI_EXIT_OK)
		return ret;
	srdma_conn_get_info(transfer->conn, &info);
	snprintf(cp->seal, sizeof cp->seal, "%s", info.seal);
	srdma_stream_options_init(&stream);
	stream.buffer_size = BUFFER_SIZE;
	ret = srdma_stream_new(transfer->conn, &stream, &transfer->stream);
	return ret < 0 ? fail(cp, ret, "stream") : CLI_EXIT_OK;
}

static int open_channel(struct transfer *transfer)
{
	const struct files_transport transport = {read_stream, write_stream, wait_stream, transfer, transfer->cp->seal[0] != '\0'};
	int ret = files_channel_new(&transport, transfer->private_data + sizeof SERVE_FILES_WORD, true, transfer->cp->settings.conn.timeout_ms,
				    &transfer->channel);

	return ret < 0 ? fail_copy(transfer, ret) : CLI_EXIT_OK;
}

/* ---- copying --------------------------------------------------------------------------------------------------- */

/* Whether an entry is below one of the names that were asked for: a server must not add others. */
static bool expects(void *arg, const struct files_bytes *path)
{
	const struct files_list *list = arg;
	const uint8_t *slash = memchr(path->at, '/', path->length);
	size_t length = slash ? (size_t)(slash - path->at) : path->length;
	char name[256];

	for (size_t i = 0; i < list->count; i++) {
		files_list_name(list->paths[i], name, sizeof name);
		if (name[0] == '\0' || (strlen(name) == length && memcmp(name, path->at, length) == 0))
			return true;
	}
	return false;
}

static int say_hello(struct transfer *transfer)
{
	const struct cp *cp = transfer->cp;
	struct files_frame hello = {
		.type = FILES_HELLO,
		.version = FILES_VERSION,
		.kind = cp->fetch ? FILES_GET : FILES_PUT,
		.flags = (cp->recursive ? FILES_RECURSIVE : 0) | (cp->progress.form != PROGRESS_NONE ? FILES_WANT_TOTAL : 0) |
			 (cp->no_sync ? FILES_NO_SYNC : 0) | (cp->checksum ? FILES_CHECKSUM : 0) | (cp->deletes ? FILES_DELETE : 0) |
			 (cp->dry_run ? FILES_DRY_RUN : 0),
		.name = files_text(cp->fetch ? "" : cp->target),
	};
	struct files_frame answer = {0};
	int ret = files_channel_put(transfer->channel, &hello);

	if (ret == 0)
		ret = files_channel_flush(transfer->channel);
	if (ret == 0)
		ret = files_channel_next(transfer->channel, true, &answer);
	if (ret < 0)
		return ret;
	if (answer.type == FILES_FAILURE)
		return files_report_failure(&transfer->cp->report, &answer.text);
	return answer.type == FILES_WELCOME ? 0 : answer.type == 0 ? -ECONNRESET : -EPROTO;
}

static int send_excludes(struct transfer *transfer)
{
	const struct files_excludes *excludes = &transfer->cp->excludes;
	int ret = 0;

	for (size_t i = 0; i < excludes->count && ret == 0; i++) {
		const struct files_frame pattern = {.type = FILES_EXCLUDE, .name = files_text(excludes->patterns[i])};

		ret = files_channel_put(transfer->channel, &pattern);
	}
	return ret;
}

static int fetch(struct transfer *transfer)
{
	struct cp *cp = transfer->cp;
	const struct files_receiver_options options = {
		.root = transfer->folder,
		.no_sync = cp->no_sync,
		.expects = expects,
		.arg = &cp->list,
		.report = &cp->report,
		.checksum = cp->checksum,
		.dry_run = cp->dry_run,
		.deletes = cp->deletes,
		.excludes = &cp->excludes,
		.partial_days = FILES_PARTIAL_DAYS,
	};
	const struct files_frame finish = {.type = FILES_FINISH};
	int ret = send_excludes(transfer);

	for (size_t i = 0; i < cp->list.count && ret == 0; i++) {
		const struct files_frame path = {.type = FILES_PATH, .name = files_text(cp->list.paths[i])};

		ret = files_channel_put(transfer->channel, &path);
	}
	if (ret == 0)
		ret = files_channel_put(transfer->channel, &finish);
	if (ret == 0)
		ret = files_channel_flush(transfer->channel);
	return ret == 0 ? files_receive(transfer->channel, &options) : ret;
}

static int live(void *arg)
{
	return files_channel_live(arg);
}

static int send_files(struct transfer *transfer)
{
	struct cp *cp = transfer->cp;
	const struct files_source source = {.next = files_list_next, .arg = &cp->list, .deletes = cp->deletes, .dry_run = cp->dry_run, .asks = cp->checksum};
	int ret = cp->deletes ? send_excludes(transfer) : 0;

	if (ret == 0 && cp->progress.form != PROGRESS_NONE)
		ret = files_list_total(&cp->list, live, transfer->channel, &cp->report.total_bytes, &cp->report.total_files);
	return ret == 0 ? files_send(transfer->channel, &source, &cp->report) : ret;
}

/* Both ends have said that all is done. The disconnect is only courtesy: the copy is on the disk, whatever becomes of it. */
static void end(struct transfer *transfer)
{
	if (interrupt_signal())
		return;
	if (srdma_stream_shutdown(transfer->stream) == 0)
		srdma_stream_flush(transfer->stream, DISCONNECT_MS);
	srdma_conn_disconnect(transfer->conn, NULL, DISCONNECT_MS);
}

static int open_folder(struct transfer *transfer)
{
	const char *path = transfer->cp->target;

	if (!transfer->cp->dry_run && mkdir(path, 0777) != 0 && errno != EEXIST)
		return keep(transfer->cp, -errno, path, strerror(errno)), CLI_EXIT_FAILED;
	transfer->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (transfer->folder < 0 && !(transfer->cp->dry_run && errno == ENOENT))
		return keep(transfer->cp, -errno, path, strerror(errno)), CLI_EXIT_FAILED;
	return CLI_EXIT_OK;
}

int cp_transfer(struct cp *cp)
{
	struct transfer transfer = {.cp = cp, .folder = -1};
	int code = cp->fetch ? open_folder(&transfer) : CLI_EXIT_OK, ret;

	if (code == CLI_EXIT_OK)
		code = make_key(&transfer);
	if (code == CLI_EXIT_OK)
		code = connect_server(&transfer);
	if (code == CLI_EXIT_OK)
		code = open_channel(&transfer);
	if (code == CLI_EXIT_OK) {
		cp->started = cli_now_ms();
		ret = say_hello(&transfer);
		if (ret == 0)
			ret = cp->fetch ? fetch(&transfer) : send_files(&transfer);
		cp->ended = cli_now_ms();
		if (ret < 0)
			code = fail_copy(&transfer, ret);
		end(&transfer);
	}
	files_channel_free(&transfer.channel);
	srdma_stream_free(&transfer.stream);
	srdma_conn_free(&transfer.conn);
	srdma_device_unref(&transfer.device);
	srdma_tls_context_unref(&transfer.context);
	OPENSSL_cleanse(transfer.private_data, sizeof transfer.private_data);
	if (transfer.folder >= 0)
		close(transfer.folder);
	/* What the signal cut may have failed in other words. */
	return code != CLI_EXIT_OK && interrupt_signal() ? 128 + interrupt_signal() : code;
}
