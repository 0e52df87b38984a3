/* SPDX-License-Identifier: Apache-2.0 */
/* Links: what survives the loss of a connection, and what a program learns about its messages. */
#include "probe.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 100000 };

/* How often the server's program was given each number. */
static atomic_uchar delivered[MOST];
static atomic_ulong last_delivered;

static int on_number(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	uint64_t number;

	CHECK(length == sizeof number);
	memcpy(&number, data, sizeof number);
	CHECK(number > 0 && number < MOST);
	atomic_fetch_add(&delivered[number], 1);
	atomic_store(&last_delivered, number);
	return 0;
}

static struct srdma_link *open_link(struct rig *rig, int reconnect_ms)
{
	const struct srdma_endpoint endpoint = {sizeof endpoint, rig->host, rig->port};
	struct srdma_link_options options;
	struct srdma_link *link;

	srdma_link_options_init(&options);
	options.conn = &rig->client_options;
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	options.reconnect_ms = reconnect_ms;
	options.pause_min_ms = 10;
	options.pause_max_ms = 200;
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), 0);
	return link;
}

/* ---- each message at most once --------------------------------------------------------------------------------- */

static uint64_t client_of(struct srdma_link *link)
{
	struct srdma_conn_info info;

	srdma_conn_get_info(srdma_link_conn(link), &info);
	return info.client_id;
}

/* Ways to lose a connection. `in_order`: the server said what it had taken. */
static void lose(struct rig *rig, struct srdma_link *link, unsigned way)
{
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};

	switch (way) {
	case 0: EXPECT(srdma_server_kick(rig->server, client_of(link), "come again"), 0); break;
	case 1: EXPECT(ibv_modify_qp(srdma_conn_qp(srdma_link_conn(link)), &error, IBV_QP_STATE), 0); break;
	default:
		srdma_server_stop(&rig->server);
		EXPECT(srdma_server_start(&rig->server_options, rig->server_tls, rig->device, &rig->server), 0);
		break;
	}
}

struct tally {
	uint64_t from; /* the first number of the connection */
	uint64_t doubtful, doubtful_taken;
};

/* What the link says of a loss must be what the server's program saw. */
static void judge(struct srdma_link *link, struct tally *tally, bool in_order)
{
	struct srdma_link_loss loss;

	srdma_link_get_loss(link, &loss);
	CHECK(loss.error != 0 && loss.text[0] && loss.attempts > 0);
	CHECK(loss.acknowledged >= tally->from - 1 && loss.acknowledged <= loss.sent);
	for (uint64_t n = tally->from; n <= loss.acknowledged; n++)
		EXPECT(atomic_load(&delivered[n]), 1);
	for (uint64_t n = loss.acknowledged + 1; n <= loss.sent; n++) {
		CHECK(atomic_load(&delivered[n]) <= 1);
		/* A server that disconnects returns all credits first. */
		if (in_order)
			EXPECT(atomic_load(&delivered[n]), 0);
		tally->doubtful++;
		tally->doubtful_taken += atomic_load(&delivered[n]);
	}
	tally->from = loss.sent + 1;
}

void mode_link_once(struct rig *rig, char **args)
{
	unsigned rounds = (unsigned)atoi(args[0]), losses = 0;
	struct tally tally = {.from = 1};
	struct srdma_link_info info;
	struct srdma_link *link;
	uint64_t number, next = 1;

	rig->server_options.on_message = on_number;
	rig->server_options.drain_timeout_ms = 200 * rig->scale; /* nobody answers the one that stops */
	rig->client_options.timeout_ms = 15000 * rig->scale;
	rig->client_options.recoveries = rig->server_conn.recoveries = 0; /* a killed queue pair is a loss */
	rig_serve(rig);
	rig->server_options.port = rig->port; /* for the next ones */
	link = open_link(rig, 20000 * rig->scale);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned way = round % 3, before = losses;

		for (unsigned i = 0; losses == before && i < 5000; i++) {
			int ret = srdma_link_send(link, &next, sizeof next, -1, &number);

			if (i == 50 + round * 7)
				lose(rig, link, way);
			if (ret == SRDMA_ERECONNECTED) {
				losses++;
				/* What the old connection's worker may still be at. */
				pause_ms(50 * rig->scale);
				judge(link, &tally, way == 0);
				continue;
			}
			EXPECT(ret, 0);
			EXPECT(number, next);
			next++;
			CHECK(next < MOST);
		}
		EXPECT(losses, before + 1);
	}
	EXPECT(srdma_link_disconnect(link, NULL, -1), 0);
	srdma_link_get_info(link, &info);
	EXPECT(info.sent, next - 1);
	EXPECT(info.acknowledged, next - 1);
	EXPECT(info.connections, rounds + 1);
	EXPECT(info.in_doubt, tally.doubtful);
	CHECK(!info.connected);
	EXPECT(srdma_link_send(link, &next, sizeof next, -1, NULL), SRDMA_ECLOSED);
	srdma_link_free(&link);
	CHECK(link == NULL);
	srdma_link_free(&link);
	rig_stop(rig, 0);
	for (uint64_t n = tally.from; n < next; n++)
		EXPECT(atomic_load(&delivered[n]), 1);
	fact(rig, "losses", losses);
	fact(rig, "sent", (long long)info.sent);
	fact(rig, "in_doubt", (long long)tally.doubtful);
	fact(rig, "of_these_delivered", (long long)tally.doubtful_taken);
}

/* ---- what came before the loss --------------------------------------------------------------------------------- */

static int greet(struct srdma_conn *conn, void **client_arg, void *arg)
{
	for (unsigned i = 0; i < 5; i++) {
		char data[100];

		fill(data, sizeof data, i);
		EXPECT(srdma_conn_send(conn, data, sizeof data, 0), 0);
	}
	return 0;
}

static void expect_greetings(struct srdma_link *link, int timeout_ms)
{
	char data[100];
	size_t length;

	for (unsigned i = 0; i < 5; i++) {
		/* A buffer that is too small takes nothing away. */
		EXPECT(srdma_link_recv(link, data, 10, &length, timeout_ms), -EMSGSIZE);
		EXPECT(length, sizeof data);
		EXPECT(srdma_link_recv(link, data, sizeof data, &length, timeout_ms), 0);
		CHECK(length == sizeof data && is_filled(data, sizeof data, i));
	}
}

void mode_link_kept(struct rig *rig, char **args)
{
	int timeout = 15000 * rig->scale;
	struct srdma_link_loss loss;
	struct srdma_link *link;
	char data[100];
	size_t length;

	rig->server_options.on_connect = greet;
	rig_serve(rig);
	link = open_link(rig, timeout);
	srdma_link_get_loss(link, &loss);
	EXPECT(loss.error, 0);
	EXPECT(srdma_link_reconnect(link), 0); /* nothing is lost */
	EXPECT(srdma_link_wait(link, timeout), 0);
	pause_ms(50 * rig->scale);

	/* Told by a send: what had come comes next, and once. */
	EXPECT(srdma_server_kick(rig->server, client_of(link), NULL), 0);
	while (srdma_link_send(link, "x", 1, timeout, NULL) == 0)
		pause_ms(1);
	srdma_link_get_loss(link, &loss);
	EXPECT(loss.kept, 5);
	EXPECT(loss.error, SRDMA_ECLOSED);
	expect_greetings(link, 0);
	expect_greetings(link, timeout); /* of the new connection */

	/* Told by a receive: after what had come. */
	EXPECT(srdma_server_kick(rig->server, client_of(link), NULL), 0);
	EXPECT(srdma_link_recv(link, data, sizeof data, &length, timeout), SRDMA_ERECONNECTED);
	EXPECT(srdma_link_wait(link, timeout), 0);
	EXPECT(srdma_server_kick(rig->server, client_of(link), NULL), 0);
	pause_ms(100 * rig->scale);
	expect_greetings(link, timeout);
	EXPECT(srdma_link_recv(link, data, sizeof data, &length, timeout), SRDMA_ERECONNECTED);
	expect_greetings(link, timeout);
	EXPECT(srdma_link_disconnect(link, NULL, -1), 0);
	srdma_link_free(&link);
	rig_stop(rig, 0);
}

/* ---- the policy ------------------------------------------------------------------------------------------------ */

static void *wake_soon(void *arg)
{
	pause_ms(100);
	srdma_link_wake(arg);
	return NULL;
}

static void expect_woken(struct srdma_link *link, int (*call)(struct srdma_link *))
{
	uint64_t start = clock_ms();
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, wake_soon, link) == 0);
	EXPECT(call(link), -EINTR);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(clock_ms() - start < 10000);
}

static int wait_long(struct srdma_link *link)
{
	return srdma_link_wait(link, 60000);
}

void mode_link_policy(struct rig *rig, char **args)
{
	const struct srdma_endpoint endpoint = {sizeof endpoint, rig->host, rig->port};
	struct srdma_link_options options;
	struct srdma_link *link = NULL, *patient;
	struct srdma_link_loss loss;
	uint64_t start;
	int ret;

	/* What can't be. */
	srdma_link_options_init(&options);
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), -EINVAL);
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	rig->client_options.raw = true;
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), -EINVAL);
	rig->client_options.raw = false;
	options.pause_max_ms = 1;
	EXPECT(srdma_link_connect(&options, rig->client_tls, rig->device, &link), -EINVAL);

	rig->server_options.drain_timeout_ms = 200 * rig->scale;
	rig_serve(rig);
	/* None by policy: the loss is final, and the connection stays to be looked at. */
	link = open_link(rig, 0);
	patient = open_link(rig, 60000);
	expect_woken(patient, wait_long);
	EXPECT(srdma_server_kick(rig->server, client_of(link), NULL), 0);
	EXPECT(srdma_link_wait(link, 5000 * rig->scale), SRDMA_ECLOSED);
	EXPECT(srdma_link_reconnect(link), SRDMA_ECLOSED);
	CHECK(srdma_link_conn(link) != NULL);
	srdma_link_free(&link);

	/* Nobody is there: a pause can be ended, 0 ms never wait, and the time of the policy is kept. */
	rig_stop(rig, 1); /* `patient` does not look */
	do {
		ret = srdma_link_send(patient, "x", 1, 0, NULL);
		CHECK(ret == 0 || ret == -EAGAIN);
		srdma_link_get_loss(patient, &loss);
	} while (loss.error == 0);
	CHECK(loss.error == SRDMA_ECLOSED || loss.error == SRDMA_ELOST);
	expect_woken(patient, srdma_link_reconnect);
	CHECK(srdma_link_conn(patient) == NULL);
	EXPECT(srdma_link_send(patient, "x", 1, 0, NULL), -EAGAIN);
	expect_woken(patient, wait_long);
	srdma_link_free(&patient);

	rig->server_options.port = rig->port;
	rig_serve(rig);
	link = open_link(rig, 1000);
	rig_stop(rig, 1);
	start = clock_ms();
	EXPECT(srdma_link_wait(link, 60000), -ECONNREFUSED);
	CHECK(clock_ms() - start >= 300 && clock_ms() - start < 1000u + 5000u * (unsigned)rig->scale);
	/* And the next call tries again. */
	rig_serve(rig);
	EXPECT(srdma_link_send(link, "x", 1, -1, NULL), SRDMA_ERECONNECTED);
	EXPECT(srdma_link_send(link, "x", 1, -1, NULL), 0);
	EXPECT(srdma_link_disconnect(link, NULL, -1), 0);
	srdma_link_free(&link);
	rig_stop(rig, 0);
}
