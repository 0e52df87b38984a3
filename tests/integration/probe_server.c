/* SPDX-License-Identifier: Apache-2.0 */
/* One worker, several clients: none may hold up another. */
#include "probe.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 512, FIRST_CREDITS = 4, STUFFED = 200 };

/*
 * Sends messages until the server takes no more: it owes echoes that nobody collects. Returns how many. It takes more than there are
 * credits at first, however long it has to wait for a processor.
 */
static unsigned stuff(struct rig *rig, struct srdma_conn *conn)
{
	uint64_t quiet_since = clock_ms();
	char data[SIZE];
	unsigned sent = 0;

	while (sent < STUFFED && clock_ms() - quiet_since < (sent > FIRST_CREDITS ? 300u : 15000u) * (unsigned)rig->scale) {
		fill(data, sizeof data, sent);
		int ret = srdma_conn_send(conn, data, sizeof data, 0);
		CHECK(ret == 0 || ret == -EAGAIN);
		if (ret == 0) {
			sent++;
			quiet_since = clock_ms();
		}
	}
	CHECK(sent > FIRST_CREDITS && sent < STUFFED);
	return sent;
}

static void echo(struct srdma_conn *conn, unsigned seed, int timeout_ms)
{
	char data[SIZE], answer[SIZE + SRDMA_ECHO_OVERHEAD];
	size_t length;

	fill(data, sizeof data, seed);
	EXPECT(srdma_conn_send(conn, data, sizeof data, timeout_ms), 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &length, timeout_ms), 0);
	EXPECT(length, sizeof answer);
	CHECK(is_filled(answer + SRDMA_ECHO_OVERHEAD, SIZE, seed));
}

static void collect(struct rig *rig, struct srdma_conn *conn, unsigned count)
{
	char answer[SIZE + SRDMA_ECHO_OVERHEAD];
	size_t length;

	for (unsigned i = 0; i < count; i++) {
		EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &length, 15000 * rig->scale), 0);
		EXPECT(length, sizeof answer);
		CHECK(is_filled(answer + SRDMA_ECHO_OVERHEAD, SIZE, i));
	}
}

/* A client that does not read what it asked for waits alone, and gets all of it once it reads. */
void mode_stuffed(struct rig *rig, char **args)
{
	struct srdma_conn *stuffed, *other;
	unsigned count;

	rig->server_options.workers = 1;
	rig->client_options.depth = FIRST_CREDITS;
	rig_serve(rig);
	stuffed = rig_connect(rig);
	other = rig_connect(rig);
	count = stuff(rig, stuffed);
	for (unsigned i = 0; i < 200; i++)
		echo(other, i, 5000 * rig->scale);
	collect(rig, stuffed, count);
	echo(stuffed, 7, 5000 * rig->scale);
	fact(rig, "stuffed", count);
	rig_leave(&stuffed);
	rig_leave(&other);
	rig_stop(rig, 0);
}

/* The same client, when it never reads: it is told, and loses its place. */
void mode_never_reads(struct rig *rig, char **args)
{
	struct srdma_server_status status;
	struct srdma_conn *stuffed, *other;
	uint64_t until = clock_ms() + 15000 * (unsigned)rig->scale;
	unsigned i = 0;

	rig->server_options.workers = 1;
	rig->server_conn.timeout_ms = 1000 * rig->scale;
	rig->server_options.drain_timeout_ms = 500 * rig->scale;
	rig->client_options.depth = FIRST_CREDITS;
	rig_serve(rig);
	stuffed = rig_connect(rig);
	other = rig_connect(rig);
	stuff(rig, stuffed);
	do {
		echo(other, i++, 5000 * rig->scale);
		srdma_server_get_status(rig->server, &status);
	} while (status.clients == 2 && clock_ms() < until);
	EXPECT(status.clients, 1);
	echo(other, 77, 5000 * rig->scale);
	EXPECT(srdma_conn_disconnect(other, NULL, -1), 0);
	srdma_conn_free(&stuffed);
	srdma_conn_free(&other);
	rig_stop(rig, 0);
}

/* ---- a program that takes its time ----------------------------------------------------------------------------- */

static struct {
	atomic_bool open;
	_Atomic(struct srdma_conn *) conn;
	atomic_uint asked;
} gate;

static int when_open(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	atomic_store(&gate.conn, conn);
	atomic_fetch_add(&gate.asked, 1);
	if (length > 0 && *(const char *)data == 'w' && !atomic_load(&gate.open))
		return -EAGAIN;
	return srdma_conn_send(conn, data, length, 0);
}

/* A message that the program does not take now comes again when the program says so, and holds up nobody. */
void mode_not_now(struct rig *rig, char **args)
{
	struct srdma_conn *waiting, *other;
	char answer[8];
	size_t length;

	rig->server_options.workers = 1;
	rig->server_options.on_message = when_open;
	rig_serve(rig);
	waiting = rig_connect(rig);
	other = rig_connect(rig);
	EXPECT(srdma_conn_send(waiting, "w1", 2, -1), 0);
	while (atomic_load(&gate.asked) == 0)
		pause_ms(1);
	struct srdma_conn *held = atomic_load(&gate.conn);
	EXPECT(srdma_conn_recv(waiting, answer, sizeof answer, &length, 100), -ETIMEDOUT);
	for (unsigned i = 0; i < 50; i++) {
		EXPECT(srdma_conn_send(other, "x", 1, -1), 0);
		EXPECT(srdma_conn_recv(other, answer, sizeof answer, &length, 5000 * rig->scale), 0);
	}
	/* It was not asked over and over meanwhile. */
	CHECK(atomic_load(&gate.asked) < 50 + 10);
	atomic_store(&gate.open, true);
	srdma_conn_wake(held);
	EXPECT(srdma_conn_recv(waiting, answer, sizeof answer, &length, 5000 * rig->scale), 0);
	CHECK(length == 2 && memcmp(answer, "w1", 2) == 0);
	rig_leave(&waiting);
	rig_leave(&other);
	rig_stop(rig, 0);
}

/* ---- handlers that block --------------------------------------------------------------------------------------- */

static int echo_blocking(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	return srdma_conn_send(conn, data, length, -1);
}

/* Two clients of one worker whose handlers wait for room: each waits for its own, and events of the other are not lost. */
void mode_blocking_handlers(struct rig *rig, char **args)
{
	enum { ROUNDS = 300 };
	struct srdma_conn *conns[2];
	unsigned sent[2] = {0}, got[2] = {0};
	char data[SIZE];
	size_t length;

	rig->server_options.workers = 1;
	rig->server_options.on_message = echo_blocking;
	rig->client_options.depth = 2;
	rig_serve(rig);
	for (unsigned i = 0; i < 2; i++)
		conns[i] = rig_connect(rig);
	while (got[0] < ROUNDS || got[1] < ROUNDS) {
		for (unsigned i = 0; i < 2; i++) {
			fill(data, sizeof data, sent[i]);
			if (sent[i] < ROUNDS && srdma_conn_send(conns[i], data, sizeof data, 0) == 0)
				sent[i]++;
			if (srdma_conn_recv(conns[i], data, sizeof data, &length, 0) == 0)
				CHECK(length == sizeof data && is_filled(data, length, got[i]++));
		}
	}
	for (unsigned i = 0; i < 2; i++)
		rig_leave(&conns[i]);
	rig_stop(rig, 0);
}

/* ---- a server that speaks first -------------------------------------------------------------------------------- */

enum { FIRST_WORDS = 500 };

/* A client of the server below, which has a message of its own to send and a write to make. */
struct spoken {
	unsigned words;
	struct srdma_buffer *buffer;
	unsigned completions;
};

static _Atomic(struct srdma_conn *) spoken_to;

static int speak_first(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct spoken *spoken = calloc(1, sizeof *spoken);
	int ret;

	(void)arg;
	CHECK(spoken);
	*client_arg = spoken;
	ret = srdma_buffer_new(conn, NULL, SIZE, &spoken->buffer);
	srdma_conn_wake(conn);
	return ret;
}

/* More words than there is room for, from where it had stopped. Then, at each wake-up, a write to the client's region. */
static int go_on_speaking(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct spoken *spoken = client_arg;
	int ret;

	(void)reason;
	(void)arg;
	for (; spoken->words < FIRST_WORDS; spoken->words++) {
		ret = srdma_conn_send(conn, &spoken->words, sizeof spoken->words, 0);
		if (ret != 0)
			return ret;
	}
	if (spoken->words == FIRST_WORDS) {
		spoken->words++;
		atomic_store(&spoken_to, conn);
		return 0;
	}
	fill(srdma_buffer_data(spoken->buffer), SIZE, spoken->completions);
	return srdma_conn_post_write(conn, spoken->buffer, 0, SIZE, 0, 100 + spoken->completions);
}

static int written(struct srdma_conn *conn, uint64_t cookie, char *reason, void *client_arg, void *arg)
{
	struct spoken *spoken = client_arg;

	(void)reason;
	(void)arg;
	EXPECT(cookie, 100 + spoken->completions);
	int ret = srdma_conn_send(conn, "written", 7, 0);
	spoken->completions += ret == 0;
	return ret;
}

static void stop_speaking(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct spoken *spoken = client_arg;

	(void)conn;
	(void)status;
	(void)arg;
	srdma_buffer_free(&spoken->buffer);
	free(spoken);
}

static void hear(struct rig *rig, struct srdma_conn *conn, const void *words, size_t size)
{
	char heard[64];
	size_t length;

	EXPECT(srdma_conn_recv(conn, heard, sizeof heard, &length, 15000 * rig->scale), 0);
	CHECK(length == size && memcmp(heard, words, size) == 0);
}

/* It sends without being asked, goes on when there is room, and writes to the client's region without waiting for it. A client that
 * sleeps, in whose region a sealed write therefore waits, holds up no other client of the worker. */
void mode_speaks_first(struct rig *rig, char **args)
{
	struct srdma_conn *asleep, *conn, *held;

	(void)args;
	rig->server_options.workers = 1;
	rig->server_options.on_connect = speak_first;
	rig->server_options.on_wake = go_on_speaking;
	rig->server_options.on_complete = written;
	rig->server_options.on_disconnect = stop_speaking;
	rig->client_options.region_size = SIZE;
	rig_serve(rig);
	asleep = rig_connect(rig);
	for (unsigned i = 0; i < FIRST_WORDS; i++)
		hear(rig, asleep, &i, sizeof i);
	while (!(held = atomic_exchange(&spoken_to, NULL)))
		pause_ms(1);
	srdma_conn_wake(held);
	conn = rig_connect(rig);
	for (unsigned i = 0; i < FIRST_WORDS; i++)
		hear(rig, conn, &i, sizeof i);
	while (!(held = atomic_exchange(&spoken_to, NULL)))
		pause_ms(1);
	for (unsigned i = 0; i < 20; i++) {
		srdma_conn_wake(held);
		hear(rig, conn, "written", 7);
		CHECK(is_filled(srdma_conn_region(conn), SIZE, i));
	}
	hear(rig, asleep, "written", 7);
	CHECK(is_filled(srdma_conn_region(asleep), SIZE, 0));
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	EXPECT(srdma_conn_disconnect(asleep, NULL, -1), 0);
	srdma_conn_free(&conn);
	srdma_conn_free(&asleep);
	rig_stop(rig, 0);
}

/* ---- a program that answers more than there is room for ----------------------------------------------------------- */

enum { QUESTIONS = 5, ANSWERS = 50, CONTROLS = 3 * SRDMA_CONTROL_DEPTH };

/* What the program owes a client. It begins nothing anew, and asks for no call that would find nothing to do. */
struct talker {
	unsigned questions, owed, said;
	unsigned controls, control_calls, wake_calls;
};

static struct talker talkers[2];
static atomic_uint talker_count;

static int meet(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct talker *talker = &talkers[atomic_fetch_add(&talker_count, 1)];

	(void)arg;
	*client_arg = talker;
	/* It speaks first, and more than there is room for, unless the client is quick. */
	talker->owed = ANSWERS;
	for (; talker->said < ANSWERS; talker->said++)
		if (srdma_conn_send(conn, &talker->said, sizeof talker->said, 0) != 0)
			break;
	CHECK(talker > talkers || talker->said < ANSWERS);
	srdma_conn_wake(conn);
	return 0;
}

/* It takes the question, says what there is room for, and leaves the rest to on_wake. */
static int be_asked(struct srdma_conn *conn, const void *question, size_t length, char *reason, void *client_arg, void *arg)
{
	struct talker *talker = client_arg;

	(void)reason;
	(void)arg;
	EXPECT(length, sizeof talker->questions);
	CHECK(memcmp(question, &talker->questions, length) == 0);
	/* No question before the answers to the one before are given. */
	EXPECT(talker->said, talker->owed);
	talker->questions++;
	talker->owed += ANSWERS;
	for (; talker->said < talker->owed; talker->said++)
		if (srdma_conn_send(conn, &talker->said, sizeof talker->said, 0) != 0)
			break;
	srdma_conn_wake(conn);
	return 0;
}

static int go_on_answering(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct talker *talker = client_arg;
	int ret = 0;

	(void)reason;
	(void)arg;
	talker->wake_calls++;
	for (; ret == 0 && talker->said < talker->owed; talker->said += ret == 0)
		ret = srdma_conn_send(conn, &talker->said, sizeof talker->said, 0);
	return ret;
}

/* One control message is answered by many, in a handler that the library calls again until all are sent. */
static int answer_control(struct srdma_conn *conn, const void *message, size_t length, char *reason, void *client_arg, void *arg)
{
	struct talker *talker = client_arg;
	int ret = 0;

	(void)message;
	(void)reason;
	(void)arg;
	EXPECT(length, 1);
	talker->control_calls++;
	for (; ret == 0 && talker->controls < CONTROLS; talker->controls += ret == 0)
		ret = srdma_conn_control_send(conn, &talker->controls, sizeof talker->controls, 0);
	return ret;
}

static void hear_all(struct rig *rig, struct srdma_conn *conn, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		hear(rig, conn, &i, sizeof i);
}

/* Nothing is said twice or asked over and over, and a client that does not read holds up no other. */
void mode_not_again(struct rig *rig, char **args)
{
	struct srdma_conn *asleep, *conn;
	char control[SRDMA_CONTROL_MESSAGE_MAX];
	size_t length;

	(void)args;
	rig->server_options.workers = 1;
	rig->server_options.on_connect = meet;
	rig->server_options.on_message = be_asked;
	rig->server_options.on_wake = go_on_answering;
	rig->server_options.on_control = answer_control;
	rig->server_conn.control_messages = rig->client_options.control_messages = true;
	rig_serve(rig);
	asleep = rig_connect(rig);
	for (unsigned i = 0; i < QUESTIONS; i++)
		EXPECT(srdma_conn_send(asleep, &i, sizeof i, 15000 * rig->scale), 0);
	EXPECT(srdma_conn_control_send(asleep, "?", 1, 15000 * rig->scale), 0);
	conn = rig_connect(rig);
	hear_all(rig, conn, 0, ANSWERS);
	for (unsigned i = 0; i < QUESTIONS; i++) {
		EXPECT(srdma_conn_send(conn, &i, sizeof i, 15000 * rig->scale), 0);
		hear_all(rig, conn, (i + 1) * ANSWERS, (i + 2) * ANSWERS);
	}
	pause_ms(200);
	hear_all(rig, asleep, 0, (QUESTIONS + 1) * ANSWERS);
	for (unsigned i = 0; i < CONTROLS; i++) {
		EXPECT(srdma_conn_control_recv(asleep, control, sizeof control, &length, 15000 * rig->scale), 0);
		CHECK(length == sizeof i && memcmp(control, &i, length) == 0);
	}
	rig_leave(&conn);
	rig_leave(&asleep);
	rig_stop(rig, 0);
	for (unsigned i = 0; i < 2; i++) {
		EXPECT(talkers[i].questions, QUESTIONS);
		EXPECT(talkers[i].said, (QUESTIONS + 1) * ANSWERS);
		/* At most once for each credit that comes back. */
		CHECK(talkers[i].wake_calls <= 2 * (QUESTIONS + 1) * ANSWERS);
		CHECK(talkers[i].control_calls <= 2 * CONTROLS);
	}
	/* Of the one that sleeps, which may be either. */
	EXPECT(talkers[0].controls + talkers[1].controls, CONTROLS);
}

/* ---- writes and reads in a sleeping client's region ------------------------------------------------------------------ */

/* More than may be in flight, from a function that must not wait: the library calls it again when there is room. */
struct poster {
	struct srdma_buffer *buffer;
	unsigned posted, completed, calls;
};

enum { POSTS = 200, POST_SIZE = 8192 };

static int get_ready_to_post(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct poster *poster = calloc(1, sizeof *poster);

	(void)arg;
	CHECK(poster != NULL);
	*client_arg = poster;
	return srdma_buffer_new(conn, NULL, POST_SIZE, &poster->buffer);
}

static int post_more(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct poster *poster = client_arg;
	int ret = 0;

	(void)reason;
	(void)arg;
	poster->calls++;
	for (; ret == 0 && poster->posted < POSTS; poster->posted += ret == 0)
		ret = (poster->posted % 2 ? srdma_conn_post_write : srdma_conn_post_read)(conn, poster->buffer, 0, POST_SIZE, 0, poster->posted);
	return ret;
}

/* The message 'p' begins it; another one is echoed. */
static int post_or_echo(struct srdma_conn *conn, const void *message, size_t length, char *reason, void *client_arg, void *arg)
{
	(void)reason;
	(void)client_arg;
	(void)arg;
	if (*(const char *)message != 'p')
		return srdma_conn_send(conn, message, length, 0);
	srdma_conn_wake(conn);
	return 0;
}

static int count_completion(struct srdma_conn *conn, uint64_t cookie, char *reason, void *client_arg, void *arg)
{
	struct poster *poster = client_arg;

	(void)reason;
	(void)arg;
	EXPECT(cookie, poster->completed);
	if (poster->completed + 1 == POSTS) {
		int ret = srdma_conn_send(conn, "done", 4, 0);

		if (ret != 0)
			return ret;
	}
	poster->completed++;
	return 0;
}

static void end_posting(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct poster *poster = client_arg;

	(void)conn;
	(void)status;
	(void)arg;
	/* Each completion makes room once. */
	CHECK(poster->calls <= 2 * POSTS);
	srdma_buffer_free(&poster->buffer);
	free(poster);
}

/* Sealed, such a write or read waits for the client's program, which sleeps. The other client of the worker is served meanwhile. */
void mode_posts_to_the_sleeping(struct rig *rig, char **args)
{
	struct srdma_conn *asleep, *other;
	uint64_t start;

	(void)args;
	rig->server_options.workers = 1;
	rig->server_options.on_connect = get_ready_to_post;
	rig->server_options.on_message = post_or_echo;
	rig->server_options.on_wake = post_more;
	rig->server_options.on_complete = count_completion;
	rig->server_options.on_disconnect = end_posting;
	rig->client_options.region_size = POST_SIZE;
	rig_serve(rig);
	asleep = rig_connect(rig);
	other = rig_connect(rig);
	EXPECT(srdma_conn_send(asleep, "p", 1, 15000 * rig->scale), 0);
	start = clock_ms();
	for (unsigned i = 0; i < 100; i++) {
		EXPECT(srdma_conn_send(other, "x", 1, 15000 * rig->scale), 0);
		hear(rig, other, "x", 1);
	}
	fact(rig, "echoes_ms", (long long)(clock_ms() - start));
	hear(rig, asleep, "done", 4);
	rig_leave(&other);
	rig_leave(&asleep);
	rig_stop(rig, 0);
}

/* ---- handlers that wait for a sleeping client --------------------------------------------------------------------- */

enum { WAITS_MS = 60000, TOO_MANY = 64 };

/* The message says what to wait in; anything else is echoed. Each wait ends when the client wakes up. */
static int wait_for_client(struct srdma_conn *conn, const void *message, size_t length, char *reason, void *client_arg, void *arg)
{
	static const char words[SIZE];
	char data[SIZE];
	int ret = 0;

	(void)reason;
	(void)client_arg;
	(void)arg;
	switch (*(const char *)message) {
	case 'w': ret = srdma_conn_write(conn, words, sizeof words, 0, WAITS_MS); break;
	case 'r': ret = srdma_conn_read(conn, data, sizeof data, 0, WAITS_MS); break;
	case 'c':
		for (int i = 0; ret == 0 && i < TOO_MANY; i++)
			ret = srdma_conn_control_send(conn, words, 1, WAITS_MS);
		break;
	case 's':
		for (int i = 0; ret == 0 && i < TOO_MANY; i++)
			ret = srdma_conn_send(conn, words, sizeof words, WAITS_MS);
		break;
	default: break;
	}
	return ret == 0 ? srdma_conn_send(conn, message, length, WAITS_MS) : ret;
}

static int ignore_control(struct srdma_conn *conn, const void *message, size_t length, char *reason, void *client_arg, void *arg)
{
	return 0;
}

/* One worker, and clients that sleep while it waits for each of them in another call: the client that is awake is served. */
void mode_waits_for_the_sleeping(struct rig *rig, char **args)
{
	static const char calls[] = "wrcs";
	struct srdma_conn *asleep[4], *awake;
	char data[SIZE];
	uint64_t start;
	size_t length;

	rig->server_options.workers = 1;
	rig->server_options.drain_timeout_ms = 300 * rig->scale;
	rig->server_options.on_message = wait_for_client;
	rig->server_options.on_control = ignore_control;
	rig->server_conn.control_messages = rig->client_options.control_messages = true;
	rig->client_options.region_size = SIZE;
	rig->client_options.epoch_psns = 0;
	rig_serve(rig);
	for (unsigned i = 0; i < 4; i++) {
		asleep[i] = rig_connect(rig);
		EXPECT(srdma_conn_send(asleep[i], &calls[i], 1, 15000 * rig->scale), 0);
	}
	awake = rig_connect(rig);
	start = clock_ms();
	for (unsigned i = 0; i < 300; i++) {
		EXPECT(srdma_conn_send(awake, "x", 1, 15000 * rig->scale), 0);
		hear(rig, awake, "x", 1);
	}
	fact(rig, "echoes_ms", (long long)(clock_ms() - start));
	CHECK(clock_ms() - start < WAITS_MS / 2);
	for (unsigned i = 0; i < 4; i++) {
		/* The answer comes behind what the handler has sent. */
		for (int n = 0; calls[i] == 'c' && n < TOO_MANY; n++)
			EXPECT(srdma_conn_control_recv(asleep[i], data, sizeof data, &length, 15000 * rig->scale), 0);
		for (int n = 0; calls[i] == 's' && n < TOO_MANY; n++)
			EXPECT(srdma_conn_recv(asleep[i], data, sizeof data, &length, 15000 * rig->scale), 0);
		hear(rig, asleep[i], &calls[i], 1);
		EXPECT(srdma_conn_send(awake, "x", 1, 15000 * rig->scale), 0);
		hear(rig, awake, "x", 1);
	}
	/* All go on as before. */
	for (unsigned i = 0; i < 4; i++) {
		EXPECT(srdma_conn_send(asleep[i], "x", 1, 15000 * rig->scale), 0);
		hear(rig, asleep[i], "x", 1);
		rig_leave(&asleep[i]);
	}
	/* A stop of the server ends such a wait. */
	EXPECT(srdma_conn_send(awake, "s", 1, 15000 * rig->scale), 0);
	pause_ms(100);
	start = clock_ms();
	rig_stop(rig, 1);
	CHECK(clock_ms() - start < WAITS_MS / 2);
	srdma_conn_free(&awake);
}
