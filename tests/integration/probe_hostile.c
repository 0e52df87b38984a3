/* SPDX-License-Identifier: Apache-2.0 */
/* Of probe-wrapped alone: a peer that has good credentials, and the library's own inside, but answers reads as it likes. */
#include "conn.h"
#include "probe.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LENGTH = 4096, LONG = 2000, LETTER = 'L', READS = 40 };

struct hostile {
	struct rig *rig;
	struct srdma_conn *conn;
	struct srdma_region staging;
	bool asked;        /* the victim's read has come */
	unsigned unheard;  /* records that it has not acknowledged */
	const atomic_bool *left; /* the victim has its memory back */
};

/* ---- the peer -------------------------------------------------------------------------------------------------- */

static int note_record(void *arg, const void *data, uint32_t length)
{
	struct hostile *hostile = arg;
	struct srdma_sealed_header headers[SRDMA_SEALED_BATCH];

	CHECK(srdma_sealed_decode(data, length, headers) > 0);
	if (headers[0].type == SRDMA_SEALED_READ)
		hostile->asked = true;
	else if (headers[0].type == SRDMA_SEALED_ACK)
		hostile->unheard -= headers[0].length;
	return 0;
}

/* From here on no record of the victim's is executed. */
static void take_over(struct hostile *hostile, struct rig *rig, struct srdma_conn *conn)
{
	*hostile = (struct hostile){.rig = rig, .conn = conn};
	EXPECT(srdma_region_new(conn->pd, SRDMA_SEALED_RING, IBV_ACCESS_REMOTE_READ, &hostile->staging), 0);
	conn->queues.on_control = note_record;
	conn->queues.arg = hostile;
}

static void let_go(struct hostile *hostile)
{
	/* The queue pair first: what it may still read goes after it. */
	srdma_qp_release(&hostile->conn->qp);
	srdma_region_release(&hostile->staging);
	srdma_conn_free(&hostile->conn);
}

static bool is_asked(const struct hostile *hostile)
{
	return hostile->asked;
}

static bool is_asked_or_left(const struct hostile *hostile)
{
	return hostile->asked || *hostile->left;
}

static bool can_speak(const struct hostile *hostile)
{
	return srdma_queues_can_control(&hostile->conn->queues) && hostile->unheard < SRDMA_SEALED_RECORDS;
}

static bool is_left(const struct hostile *hostile)
{
	return *hostile->left;
}

static bool is_over(const struct hostile *hostile)
{
	return hostile->conn->status != 0 || hostile->conn->closing.finished;
}

/* Also when either end is through with the connection. */
static void go_on_until(struct hostile *hostile, bool (*condition)(const struct hostile *))
{
	uint64_t deadline = clock_ms() + 15000 * (unsigned)hostile->rig->scale;

	/* The victim's call may be over, and nobody there to hear of anything. */
	while (!condition(hostile) && !(hostile->left && is_left(hostile)) && !is_over(hostile) && clock_ms() < deadline)
		srdma_conn_progress(hostile->conn, true);
}

static void say(struct hostile *hostile, const void *bytes, uint32_t length)
{
	go_on_until(hostile, can_speak);
	if (is_over(hostile))
		return;
	hostile->unheard++;
	srdma_queues_send_control(&hostile->conn->queues, bytes, length);
}

/* An answer of no bytes, and the whole of it behind, each to be fetched by a read of its own. */
static void answer_last(struct hostile *hostile)
{
	struct srdma_sealed_header headers[] = {
		{.type = SRDMA_SEALED_ANSWER, .rkey = hostile->staging.mr->rkey, .address = 0},
		{.type = SRDMA_SEALED_ANSWER, .rkey = hostile->staging.mr->rkey, .address = 1 << 20, .length = LENGTH},
	};
	uint8_t bytes[2 * SRDMA_SEALED_HEADER], *at = bytes;
	char data[LENGTH];

	memset(data, LETTER, sizeof data);
	for (unsigned i = 0; i < 2; i++, at += SRDMA_SEALED_HEADER) {
		srdma_sealed_encode(at, &headers[i]);
		EXPECT(srdma_sealer_seal(hostile->conn->sealed_rdma.sealer, at, SRDMA_SEALED_HEADER, data, headers[i].length,
					 (char *)hostile->staging.address + headers[i].address), 0);
	}
	say(hostile, bytes, sizeof bytes);
}

/* New PSNs, or a new queue pair, between the victim's question and the answers. */
static void change(struct hostile *hostile, const char *how)
{
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	uint64_t deadline = clock_ms() + 15000 * (unsigned)hostile->rig->scale;
	struct srdma_conn_info info;

	if (strcmp(how, "plain") == 0)
		return;
	if (strcmp(how, "renewed") == 0)
		EXPECT(srdma_conn_renew(hostile->conn), 0);
	else
		EXPECT(ibv_modify_qp(srdma_conn_qp(hostile->conn), &error, IBV_QP_STATE), 0);
	do {
		srdma_conn_progress(hostile->conn, true);
		srdma_conn_get_info(hostile->conn, &info);
	} while (info.epoch == 0 && !is_over(hostile) && clock_ms() < deadline);
	CHECK(info.epoch > 0);
}

/* As many chunks of no bytes as make the victim's count full but for one; and then one more, with all the bytes behind it. Until the
 * victim has had enough. */
static void answer_with_nothing(struct hostile *hostile, const char *how)
{
	const struct srdma_sealed_header nothing = {.type = SRDMA_SEALED_ANSWER, .within = true};
	uint8_t bytes[SRDMA_SEALED_HEADER];

	srdma_sealed_encode(bytes, &nothing);
	go_on_until(hostile, is_asked);
	CHECK(hostile->asked);
	change(hostile, how);
	while (hostile->asked && !is_over(hostile) && !is_left(hostile)) {
		hostile->asked = false;
		for (unsigned i = 1; i < LENGTH && !is_over(hostile) && !is_left(hostile); i++)
			say(hostile, bytes, sizeof bytes);
		answer_last(hostile);
		go_on_until(hostile, is_asked_or_left);
	}
}

/* ---- the victim ------------------------------------------------------------------------------------------------ */

static char *lend_page(void)
{
	char *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	return page;
}

/* Whatever touches it now ends the program. */
static void take_page_back(char *page)
{
	EXPECT(mprotect(page, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE), 0);
}

static bool is_all(const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (data[i] != LETTER)
			return false;
	return true;
}

struct victim {
	struct rig *rig;
	int status;
	bool wrong;       /* a read was said to be complete that was not */
	atomic_bool done;
};

/* As long as all is well. */
static void read_and_leave(struct victim *victim, struct srdma_conn *conn)
{
	for (unsigned i = 0; i < READS && victim->status == 0 && !victim->wrong; i++) {
		char *page = lend_page();

		victim->status = srdma_conn_read(conn, page, LENGTH, 0, 15000 * victim->rig->scale);
		victim->wrong = victim->status == 0 && !is_all(page, LENGTH);
		take_page_back(page);
	}
	victim->done = true;
}

static void *read_as_client(void *arg)
{
	struct victim *victim = arg;
	struct srdma_conn *conn = victim->rig->scratch;

	read_and_leave(victim, conn);
	/* What would still come comes now. */
	srdma_conn_wait(conn, 300);
	return NULL;
}

static int read_as_server(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct rig *rig = arg;

	read_and_leave(rig->scratch, conn);
	return 0;
}

static void of_a_client(struct rig *rig, struct victim *victim, const char *how)
{
	struct srdma_conn *client, *accepted;
	struct hostile hostile;
	pthread_t thread;

	rig->server_conn.region_size = 4096;
	rig_pair(rig, &client, &accepted);
	take_over(&hostile, rig, accepted);
	hostile.left = &victim->done;
	rig->scratch = client;
	CHECK(pthread_create(&thread, NULL, read_as_client, victim) == 0);
	answer_with_nothing(&hostile, how);
	CHECK(pthread_join(thread, NULL) == 0);
	srdma_conn_free(&client);
	let_go(&hostile);
}

static void of_a_server(struct rig *rig, struct victim *victim, const char *how)
{
	struct hostile hostile;

	rig->server_options.on_message = read_as_server;
	rig->client_options.region_size = 4096;
	rig->scratch = victim;
	rig_serve(rig);
	take_over(&hostile, rig, rig_connect(rig));
	hostile.left = &victim->done;
	EXPECT(srdma_conn_send(hostile.conn, "read from me", 12, -1), 0);
	answer_with_nothing(&hostile, how);
	rig_wait_clients(rig, 0);
	let_go(&hostile);
	rig_stop(rig, 0);
}

void mode_hostile_nothing(struct rig *rig, char **args)
{
	struct victim victim = {.rig = rig};

	rig->client_options.seal = rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
	if (strcmp(args[0], "client") == 0)
		of_a_client(rig, &victim, args[1]);
	else
		of_a_server(rig, &victim, args[1]);
	CHECK(victim.done);
	fact(rig, "status", victim.status);
	fact(rig, "wrong", victim.wrong);
}

/* ---- an answer with the loss ----------------------------------------------------------------------------------- */

static atomic_bool enough;

static void answer_and_hang_up(struct hostile *hostile, unsigned number)
{
	struct srdma_sealed_header header = {.type = SRDMA_SEALED_ANSWER, .within = true, .length = LONG};
	uint8_t bytes[SRDMA_SEALED_HEADER + LONG];
	uint64_t until;

	srdma_sealed_encode(bytes, &header);
	memset(bytes + SRDMA_SEALED_HEADER, LETTER, LONG);
	go_on_until(hostile, is_asked);
	if (!hostile->asked)
		return;
	if (number % 2)
		shutdown(srdma_tls_fd(hostile->conn->tls), SHUT_RDWR);
	srdma_queues_send_control(&hostile->conn->queues, bytes, sizeof bytes);
	shutdown(srdma_tls_fd(hostile->conn->tls), SHUT_RDWR);
	/* Until it has arrived; the queue pair goes later than the channel. */
	until = clock_ms() + 200;
	while (hostile->conn->queues.op_ring.count > 0 && clock_ms() < until)
		srdma_queues_poll(&hostile->conn->queues);
}

static void *hang_up_on_everybody(void *arg)
{
	struct srdma_listener *listener;
	struct rig *rig = arg;
	struct srdma_conn *conn;
	struct hostile hostile;
	unsigned number = 0;
	int socket;

	EXPECT(srdma_listener_listen(NULL, rig->port, &listener), 0);
	while (!enough) {
		socket = srdma_listener_accept(listener, 100);
		if (socket < 0)
			continue;
		if (srdma_conn_accept(socket, rig->server_tls, rig->device, &rig->server_conn, NULL, NULL, &conn) != 0)
			continue;
		take_over(&hostile, rig, conn);
		answer_and_hang_up(&hostile, number++);
		let_go(&hostile);
	}
	srdma_listener_free(&listener);
	return NULL;
}

/* For clients of other programs, until standard input ends. */
void mode_hostile_serve(struct rig *rig, char **args)
{
	pthread_t thread;

	snprintf(rig->port, sizeof rig->port, "%s", args[0]);
	rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
	rig->server_conn.region_size = 4096;
	CHECK(pthread_create(&thread, NULL, hang_up_on_everybody, rig) == 0);
	while (getchar() != EOF)
		;
	enough = true;
	CHECK(pthread_join(thread, NULL) == 0);
}

/* The caller has its memory back when the link looks for what else had come. */
static void lose_a_read(struct rig *rig, struct srdma_link *link, long long *answered)
{
	char *page = lend_page(), text[64];
	size_t length;
	int ret = srdma_conn_read(srdma_link_conn(link), page, LONG, 0, 15000 * rig->scale);

	if (ret == 0) {
		CHECK(is_all(page, LONG));
		++*answered;
	}
	take_page_back(page);
	EXPECT(srdma_link_recv(link, text, sizeof text, &length, 15000 * rig->scale), SRDMA_ERECONNECTED);
}

void mode_hostile_late(struct rig *rig, char **args)
{
	int tries = atoi(args[0]);
	const struct srdma_endpoint endpoint = {sizeof endpoint, rig->host, rig->port};
	struct srdma_link_options options;
	struct srdma_listener *listener;
	struct srdma_link *link;
	long long answered = 0;
	pthread_t thread;

	/* A port that is free. One that the kernel gives could be a connection's by the time the server comes back to it. */
	do {
		snprintf(rig->port, sizeof rig->port, "%ld", 20000 + (getpid() + random()) % 12000);
	} while (srdma_listener_listen(NULL, rig->port, &listener) != 0);
	srdma_listener_free(&listener);
	rig->client_options.seal = rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
	rig->server_conn.region_size = 4096;
	srdma_link_options_init(&options);
	options.conn = &rig->client_options;
	rig->client_options.spin = 0; /* it sleeps, and finds both */
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	options.connect_ms = options.reconnect_ms = 15000 * rig->scale;
	options.pause_min_ms = options.pause_max_ms = 1;
	CHECK(pthread_create(&thread, NULL, hang_up_on_everybody, rig) == 0);
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), 0);
	for (int i = 0; i < tries; i++)
		lose_a_read(rig, link, &answered);
	enough = true;
	srdma_link_free(&link);
	CHECK(pthread_join(thread, NULL) == 0);
	fact(rig, "tries", tries);
	fact(rig, "answered", answered);
}
