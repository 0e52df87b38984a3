/* SPDX-License-Identifier: Apache-2.0 */
#include "copy_session.h"

#include "cli.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Bytes in one turn, so that other clients of the worker get theirs. */
#define TURN ((size_t)1 << 20)
#define GIVE_BACK ((size_t)256 << 10)
#define STACK_SIZE ((size_t)1 << 20)

static void free_session(struct copy_session *session)
{
	srdma_stream_free(&session->stream);
	pthread_mutex_destroy(&session->mutex);
	pthread_cond_destroy(&session->changed);
	free(session->out.bytes);
	free(session->area.folder);
	OPENSSL_cleanse(session->key, sizeof session->key);
	free(session);
}

static void unref(struct copy_session *session)
{
	unsigned left;

	pthread_mutex_lock(&session->mutex);
	left = --session->refs;
	pthread_mutex_unlock(&session->mutex);
	if (left == 0)
		free_session(session);
}

int copy_session_new(struct srdma_conn *conn, const uint8_t key[FILES_KEY_SIZE], const struct files_area *area,
		     void (*forget)(struct copy_session *session, void *arg), void *arg, struct copy_session **out)
{
	struct copy_session *session = calloc(1, sizeof *session);
	struct srdma_conn_info info;
	pthread_condattr_t attributes;
	int ret = -ENOMEM;

	if (!session)
		return ret;
	srdma_conn_get_info(conn, &info);
	session->client_id = info.client_id;
	session->is_sealed = info.seal[0] != '\0';
	memcpy(session->name, info.peer_name, sizeof session->name);
	memcpy(session->key, key, sizeof session->key);
	session->forget = forget;
	session->arg = arg;
	session->conn = conn;
	session->refs = 1;
	session->out_waits = true;
	pthread_mutex_init(&session->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&session->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	session->area = *area;
	session->area.folder = strdup(area->folder);
	session->out.bytes = malloc(FILES_RING_SIZE);
	if (session->area.folder && session->out.bytes)
		ret = srdma_stream_new(conn, NULL, &session->stream);
	if (ret < 0)
		free_session(session);
	else
		*out = session;
	return ret;
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

/* The mutex is held, so the connection does not go meanwhile. */
static void wake_worker(struct copy_session *session, bool *waits)
{
	if (*waits && session->conn)
		srdma_conn_wake(session->conn);
	*waits = false;
}

/* What was read goes back to the stream in such pieces, and when there is nothing more to read. The mutex is held. */
static void give_back(struct copy_session *session)
{
	struct copy_window *in = &session->in;
	bool wanted = !in->is_due && (in->read == in->end || in->read - in->start >= GIVE_BACK);

	in->is_due = in->is_due || wanted;
	wake_worker(session, &wanted);
}

static ssize_t thread_read(void *arg, void *data, size_t size)
{
	struct copy_session *session = arg;
	struct copy_window *in = &session->in;
	const uint8_t *at;
	size_t held;
	ssize_t end = -EAGAIN;

	pthread_mutex_lock(&session->mutex);
	held = in->end - in->read;
	at = in->at + (in->read - in->start);
	if (held == 0 && session->ended)
		end = 0;
	else if (held == 0 && !session->conn)
		end = -ECONNRESET;
	in->is_copied = held > 0;
	pthread_mutex_unlock(&session->mutex);
	if (held == 0)
		return end;
	if (held > size)
		held = size;
	memcpy(data, at, held);
	pthread_mutex_lock(&session->mutex);
	in->is_copied = false;
	in->read += held;
	give_back(session);
	/* The worker waits if the connection goes at this moment. */
	if (!session->conn)
		pthread_cond_signal(&session->changed);
	pthread_mutex_unlock(&session->mutex);
	return (ssize_t)held;
}

static ssize_t thread_write(void *arg, const void *data, size_t size)
{
	struct copy_session *session = arg;
	struct files_ring *ring = &session->out;
	bool is_gone;
	size_t room;
	uint8_t *at;

	pthread_mutex_lock(&session->mutex);
	room = files_ring_room(ring, &at);
	is_gone = !session->conn;
	pthread_mutex_unlock(&session->mutex);
	if (is_gone)
		return -ECONNRESET;
	if (room == 0)
		return -EAGAIN;
	if (room > size)
		room = size;
	memcpy(at, data, room);
	pthread_mutex_lock(&session->mutex);
	ring->written += room;
	wake_worker(session, &session->out_waits);
	pthread_mutex_unlock(&session->mutex);
	return (ssize_t)room;
}

static bool is_ready(struct copy_session *session, bool to_read, bool to_write)
{
	const struct copy_window *in = &session->in;
	const struct files_ring *out = &session->out;

	if (!session->conn)
		return true;
	return (to_read && (session->ended || in->end > in->read)) || (to_write && out->written - out->read < FILES_RING_SIZE);
}

static int thread_wait(void *arg, bool to_read, bool to_write, int timeout_ms)
{
	struct copy_session *session = arg;
	struct timespec until;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&session->mutex);
	while (!is_ready(session, to_read, to_write) && ret == 0)
		ret = pthread_cond_timedwait(&session->changed, &session->mutex, &until);
	ret = is_ready(session, to_read, to_write) ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&session->mutex);
	return ret;
}

#define TEXT(name, value)   {sizeof(struct srdma_log_field), name, value, 0}
#define NUMBER(name, value) {sizeof(struct srdma_log_field), name, NULL, (int64_t)(value)}

static void log_copy(const struct copy_session *session, const struct files_report *report, const struct files_host_result *result, int ret)
{
	const char *what = result->operation == FILES_PUT ? "to" : "from";
	char path[4 * 200 + 1], text[1600];
	const struct srdma_log_field fields[] = {
		NUMBER("client_id", session->client_id), TEXT("peer", session->name),      TEXT("direction", what),
		TEXT("path", path),                      NUMBER("files", report->files),   NUMBER("failed", report->failed),
		NUMBER("bytes", report->bytes),          TEXT("reason", result->reason),
	};
	const struct srdma_log_field *pointers[sizeof fields / sizeof *fields];
	struct srdma_log_record record = {
		.size = sizeof record,
		.level = ret == 0 ? SRDMA_LOG_INFO : SRDMA_LOG_WARN,
		.event = ret == 0 ? "client.copied" : "client.copy_failed",
		.security = ret == -EACCES || ret == -EPROTO || ret == -EBADMSG,
		.fields = pointers,
		.field_count = sizeof fields / sizeof *fields,
		.text = text,
	};

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		pointers[i] = &fields[i];
	cli_escape(result->path, strnlen(result->path, 200), path, sizeof path);
	snprintf(text, sizeof text, "client %llu (%s) copied %s '%s': %llu file%s, %llu not copied, %llu bytes%s%s",
		 (unsigned long long)session->client_id, session->name, what, path, (unsigned long long)report->files, CLI_S(report->files),
		 (unsigned long long)report->failed, (unsigned long long)report->bytes, ret < 0 ? "; ended early: " : "", result->reason);
	cli_log_record(&record);
}

static void *run(void *arg)
{
	struct copy_session *session = arg;
	const struct files_transport transport = {thread_read, thread_write, thread_wait, session, session->is_sealed};
	struct files_report report = {0};
	struct files_host_result result = {0};
	int ret = files_host_run(&transport, session->key, &session->area, &report, &result);

	log_copy(session, &report, &result, ret);
	pthread_mutex_lock(&session->mutex);
	session->finished = true;
	session->out_waits = true;
	wake_worker(session, &session->out_waits);
	pthread_mutex_unlock(&session->mutex);
	session->forget(session, session->arg);
	unref(session);
	return NULL;
}

int copy_session_start(struct copy_session *session)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int ret;

	session->refs++;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	ret = -pthread_create(&thread, &attributes, run, session);
	pthread_attr_destroy(&attributes);
	if (ret < 0) {
		session->forget(session, session->arg);
		free_session(session);
	}
	return ret;
}

/* ---- the worker ------------------------------------------------------------------------------------------------ */

/* Gives back to the stream what the thread has read. Returns whether the thread wants more. */
static bool take_back(struct copy_session *session, int *ret)
{
	struct copy_window *in = &session->in;
	size_t read;
	bool wanted;

	pthread_mutex_lock(&session->mutex);
	read = in->read - in->start;
	if (read > 0)
		in->at += read;
	in->start = in->read;
	in->is_due = false;
	wanted = !session->ended && !session->finished;
	pthread_mutex_unlock(&session->mutex);
	*ret = read > 0 ? srdma_stream_consume(session->stream, read) : 0;
	return wanted && *ret == 0;
}

/* From the client to the thread. Returns 0 or an error. */
static int pump_in(struct copy_session *session)
{
	struct copy_window *in = &session->in;
	const void *at;
	ssize_t count;
	int ret;

	if (!take_back(session, &ret))
		return ret;
	count = srdma_stream_peek(session->stream, &at, 0);
	if (count < 0)
		return count == -EAGAIN ? 0 : (int)count;
	pthread_mutex_lock(&session->mutex);
	if (count > 0)
		in->at = at;
	in->end = in->start + (size_t)count;
	session->ended = count == 0;
	pthread_cond_signal(&session->changed);
	pthread_mutex_unlock(&session->mutex);
	return 0;
}

static int pump_out(struct copy_session *session)
{
	struct files_ring *ring = &session->out;

	for (size_t moved = 0; moved < TURN;) {
		const uint8_t *at;
		size_t held;
		ssize_t count;
		bool finished;

		pthread_mutex_lock(&session->mutex);
		held = files_ring_held(ring, &at);
		finished = session->finished;
		session->out_waits = held == 0;
		pthread_mutex_unlock(&session->mutex);
		if (held == 0) {
			if (!finished || session->shut_down)
				return 0;
			session->shut_down = true;
			return srdma_stream_shutdown(session->stream);
		}
		count = srdma_stream_write(session->stream, at, held, 0);
		if (count < 0)
			return count == -EAGAIN ? 0 : (int)count;
		pthread_mutex_lock(&session->mutex);
		ring->read += (size_t)count;
		pthread_cond_signal(&session->changed);
		pthread_mutex_unlock(&session->mutex);
		moved += (size_t)count;
	}
	return 1;
}

static int pump(struct copy_session *session, char *reason)
{
	int in = pump_in(session), out = in < 0 ? 0 : pump_out(session);
	int ret = in < 0 ? in : out;

	if (ret < 0)
		snprintf(reason, 128, "the stream of the copy failed: %s", srdma_strerror(ret));
	return ret < 0 ? ret : out > 0 ? -EAGAIN : 0;
}

int copy_session_stream(void *client, struct srdma_stream *stream, char *reason)
{
	(void)stream;
	return pump(client, reason);
}

int copy_session_wake(void *client, char *reason)
{
	struct copy_session *session = client;
	int ret = pump(session, reason);

	if (ret != -EAGAIN)
		return ret;
	/* No call has declined, so the server would not know when to call again. */
	srdma_conn_wake(session->conn);
	return 0;
}

void copy_session_disconnect(void *client)
{
	struct copy_session *session = client;

	pthread_mutex_lock(&session->mutex);
	session->conn = NULL;
	/* A piece of the ring, which goes with the connection. */
	while (session->in.is_copied)
		pthread_cond_wait(&session->changed, &session->mutex);
	session->in.end = session->in.read;
	pthread_cond_signal(&session->changed);
	pthread_mutex_unlock(&session->mutex);
	srdma_stream_free(&session->stream);
	unref(session);
}
