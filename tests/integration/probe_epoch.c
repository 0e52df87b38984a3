/* SPDX-License-Identifier: Apache-2.0 */
/* New PSNs and queue pairs under load, on request, by count and time, and after a queue pair was killed: no message is lost, doubled
 * or out of order, and no byte of the region is wrong. And the region taken back. */
#include "probe.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define REGION_SIZE 262144
#define SLOTS       64
#define DIARY       64

static void kill_queue_pair(struct srdma_conn *conn)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	EXPECT(ibv_modify_qp(srdma_conn_qp(conn), &attr, IBV_QP_STATE), 0);
}

/* The epochs of one end, as it saw them. */
struct diary {
	struct srdma_conn_info epochs[DIARY]; /* each as it was seen last */
	unsigned count;
};

static void note(struct diary *diary, const struct srdma_conn *conn)
{
	struct srdma_conn_info info;

	srdma_conn_get_info(conn, &info);
	if (diary->count == 0 || diary->epochs[diary->count - 1].epoch != info.epoch) {
		if (diary->count == DIARY)
			return;
		diary->count++;
	} else if (diary->epochs[diary->count - 1].psn != info.psn) {
		return; /* the next one, which has no number yet */
	}
	diary->epochs[diary->count - 1] = info;
}

/* A list of lists: number, QPN, PSN, PSNs used, the peer's QPN. */
static void fact_diary(struct rig *rig, const char *name, const struct diary *diary)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < diary->count; i++) {
		const struct srdma_conn_info *e = &diary->epochs[i];

		CHECK(json_array_append_new(list, json_pack("[I, I, I, I, I]", (json_int_t)e->epoch, (json_int_t)e->qpn, (json_int_t)e->psn,
							    (json_int_t)e->epoch_psns, (json_int_t)e->peer_qpn)) == 0);
	}
	CHECK(json_object_set_new(rig->facts, name, list) == 0);
}

struct service {
	unsigned kill_every; /* messages; 0: never */
	unsigned expected;
	uint32_t epoch, recoveries;
	char seal[32];
	struct diary diary;
};

static int serve(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct service *service = client_arg;
	unsigned number;
	int ret;

	CHECK(length >= sizeof number);
	memcpy(&number, data, sizeof number);
	EXPECT(number, service->expected);
	ret = srdma_conn_send(conn, data, length, 0);
	if (ret != 0)
		return ret;
	service->expected++;
	note(&service->diary, conn);
	if (service->kill_every && service->expected % service->kill_every == 0)
		kill_queue_pair(conn);
	return 0;
}

static int greet(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct rig *rig = arg;

	*client_arg = rig->scratch;
	return 0;
}

static void part(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct service *service = client_arg;
	struct srdma_conn_info info;

	EXPECT(status, 0);
	srdma_conn_get_info(conn, &info);
	service->epoch = info.epoch;
	service->recoveries = info.recoveries;
	memcpy(service->seal, info.seal, sizeof service->seal);
}

static size_t length_of(unsigned number)
{
	return sizeof number + number * 37 % 1500;
}

static void send_numbered(struct srdma_conn *conn, unsigned number)
{
	char data[2048];

	fill(data, length_of(number), number);
	memcpy(data, &number, sizeof number);
	EXPECT(srdma_conn_send(conn, data, length_of(number), -1), 0);
}

static void receive_numbered(struct srdma_conn *conn, unsigned number)
{
	char data[2048], expected[2048];
	size_t n;

	EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
	EXPECT(n, length_of(number));
	fill(expected, n, number);
	memcpy(expected, &number, sizeof number);
	CHECK(memcmp(data, expected, n) == 0);
}

static void write_and_read(struct srdma_conn *conn, unsigned number)
{
	static char data[REGION_SIZE], got[REGION_SIZE];
	size_t length = 1 + (size_t)number * 977 % (REGION_SIZE - 1);

	fill(data, length, number);
	EXPECT(srdma_conn_write(conn, data, length, 0, -1), 0);
	EXPECT(srdma_conn_read(conn, got, length, 0, -1), 0);
	CHECK(memcmp(data, got, length) == 0);
}

/* Many written at once, with a renewal among them. */
static void post_many(struct srdma_conn *conn, struct srdma_buffer *out, struct srdma_buffer *in, unsigned seed, bool killing)
{
	const size_t piece = REGION_SIZE / SLOTS;
	uint64_t cookies[SLOTS];
	unsigned posted = 0, done = 0;

	fill(srdma_buffer_data(out), REGION_SIZE, seed);
	memset(srdma_buffer_data(in), 0, REGION_SIZE);
	while (done < 2 * SLOTS) {
		int ret = -EAGAIN;

		if (posted < SLOTS)
			ret = srdma_conn_post_write(conn, out, posted * piece, piece, posted * piece, posted);
		else if (posted < 2 * SLOTS)
			ret = srdma_conn_post_read(conn, in, (posted - SLOTS) * piece, piece, (posted - SLOTS) * piece, posted);
		CHECK(ret == 0 || ret == -EAGAIN);
		posted += ret == 0;
		if (ret == 0 && posted % 29 == 0) {
			if (killing)
				kill_queue_pair(conn);
			else
				EXPECT(srdma_conn_renew(conn), 0);
		}
		if (ret == 0)
			continue;
		ret = srdma_conn_complete(conn, cookies, SLOTS, -1);
		CHECK(ret >= 0);
		for (int i = 0; i < ret; i++)
			EXPECT(cookies[i], done++);
	}
	CHECK(memcmp(srdma_buffer_data(out), srdma_buffer_data(in), REGION_SIZE) == 0);
}

void mode_renew(struct rig *rig, char **args)
{
	bool asked = !strcmp(args[0], "asked"), client = !strcmp(args[0], "client") || !strcmp(args[0], "both");
	bool timed = !strcmp(args[0], "time");
	unsigned count = (unsigned)atoi(args[1]), every = count / 7;
	static struct service service;
	static struct diary diary;
	struct srdma_buffer *out, *in;
	struct srdma_conn_info info;
	struct srdma_conn *conn;

	service.kill_every = !strcmp(args[0], "server") || !strcmp(args[0], "both") ? count / 5 : 0;
	rig->scratch = &service;
	rig->server_options.on_connect = greet;
	rig->server_options.on_message = serve;
	rig->server_options.on_disconnect = part;
	rig->server_conn.region_size = REGION_SIZE;
	rig->server_conn.recoveries = rig->client_options.recoveries = 1000;
	if (!strcmp(args[0], "count"))
		rig->server_conn.epoch_psns = rig->client_options.epoch_psns = SRDMA_EPOCH_PSNS_MIN;
	if (timed) {
		rig->client_options.epoch_ms = 100;
		count = UINT_MAX; /* until there were some epochs, whatever the speed of the machine */
	}
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_buffer_new(conn, NULL, REGION_SIZE, &out), 0);
	EXPECT(srdma_buffer_new(conn, NULL, REGION_SIZE, &in), 0);
	for (unsigned sent = 0, received = 0; received < count;) {
		for (; sent < count && sent - received < 8; sent++)
			send_numbered(conn, sent);
		receive_numbered(conn, received++);
		note(&diary, conn);
		srdma_conn_get_info(conn, &info);
		if (timed && info.epoch >= 3 && count > sent)
			count = sent;
		if (received % every == every - 1) {
			if (asked)
				EXPECT(srdma_conn_renew(conn), 0);
			if (client)
				kill_queue_pair(conn);
			write_and_read(conn, received);
		}
	}
	if (asked || client)
		for (unsigned i = 0; i < 10; i++)
			post_many(conn, out, in, i, client);
	srdma_buffer_free(&out);
	srdma_buffer_free(&in);
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	srdma_conn_get_info(conn, &info);
	srdma_conn_free(&conn);
	rig_stop(rig, 0);
	EXPECT(service.expected, count);
	fact(rig, "epoch", info.epoch);
	fact(rig, "recoveries", info.recoveries);
	fact(rig, "peer_epoch", service.epoch);
	fact(rig, "peer_recoveries", service.recoveries);
	fact(rig, "pause_max_us", info.pause_max_us);
	fact_text(rig, "seal", info.seal);
	fact_text(rig, "peer_seal", service.seal);
	fact_diary(rig, "epochs", &diary);
	fact_diary(rig, "peer_epochs", &service.diary);
}

/* ---- more records than one key is for ---------------------------------------------------------------------------- */

/* Of probe-wrapped alone. */
uint64_t records_sealed(void) __attribute__((weak));

/* Takes the next number, and says nothing. */
static int count_messages(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct service *service = client_arg;
	unsigned number;

	CHECK(length == sizeof number);
	memcpy(&number, data, sizeof number);
	EXPECT(number, service->expected++);
	return 0;
}

/* All in one direction, as fast as they go. */
void mode_stream(struct rig *rig, char **args)
{
	unsigned count = (unsigned)atoi(args[0]), every = count / 5 + 1;
	static struct service service;
	struct srdma_conn_info info;
	struct srdma_conn *conn;

	rig->scratch = &service;
	rig->server_options.on_connect = greet;
	rig->server_options.on_message = count_messages;
	rig->server_options.on_disconnect = part;
	rig->server_conn.depth = rig->client_options.depth = 64;
	rig_serve(rig);
	conn = rig_connect(rig);
	for (unsigned i = 0; i < count; i++) {
		EXPECT(srdma_conn_send(conn, &i, sizeof i, -1), 0);
		if (i % every == every - 1)
			EXPECT(srdma_conn_renew(conn), 0);
	}
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	srdma_conn_get_info(conn, &info);
	CHECK(records_sealed != NULL);
	fact(rig, "records", (long long)records_sealed());
	srdma_conn_free(&conn);
	rig_stop(rig, 0);
	EXPECT(service.expected, count);
	fact(rig, "epoch", info.epoch);
}

/* ---- the count of PSNs ----------------------------------------------------------------------------------------- */

/* What the library counts is what the device has used. */
static void compare_count(struct srdma_conn *conn)
{
	struct srdma_conn_info info;
	uint32_t sq_psn;

	srdma_conn_get_info(conn, &info);
	EXPECT(srdma_conn_query_qp(conn, NULL, NULL, &sq_psn), 0);
	EXPECT((sq_psn - info.psn) & 0xffffff, info.epoch_psns & 0xffffff);
}

void mode_psn_count(struct rig *rig, char **args)
{
	struct srdma_conn *conn;
	struct srdma_conn_info info;
	static char data[65536];
	size_t n;

	rig->server_conn.region_size = sizeof data;
	rig->server_conn.message_size = rig->client_options.message_size = 16384;
	rig_serve(rig);
	conn = rig_connect(rig);
	for (size_t length = 0; length <= 9000; length = length * 3 + 1) {
		EXPECT(srdma_conn_send(conn, data, length, -1), 0);
		EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
		compare_count(conn);
		EXPECT(srdma_conn_write(conn, data, length, 0, -1), 0);
		compare_count(conn);
		EXPECT(srdma_conn_read(conn, data, length * 7, 0, -1), 0);
		compare_count(conn);
	}
	EXPECT(srdma_conn_write(conn, data, sizeof data, 0, -1), 0);
	compare_count(conn);
	srdma_conn_get_info(conn, &info);
	CHECK(info.epoch_psns > 30);
	rig_leave(&conn);
	rig_stop(rig, 0);
}

/* ---- the region taken back ------------------------------------------------------------------------------------- */

/* The peer hears of it, and asks no more. */
static void expect_no_region(struct rig *rig, struct srdma_conn *conn)
{
	uint64_t deadline = clock_ms() + 10000u * (unsigned)rig->scale;
	char got[64];
	int ret;

	do {
		srdma_conn_wait(conn, 50);
		ret = srdma_conn_read(conn, got, sizeof got, 0, 50);
	} while (ret != -ENXIO && ret != SRDMA_EVERBS && clock_ms() < deadline);
	EXPECT(ret, -ENXIO);
}

/* told: a peer that keeps to what it hears; write, read: one that kept the rkey, and posts with it by hand. */
void mode_withdraw(struct rig *rig, char **args)
{
	bool told = !strcmp(args[0], "told"), sealed = rig->client_options.seal != SRDMA_SEAL_OFF, unread = true;
	struct srdma_conn *ends[2];
	char data[64] = "before", got[64];
	uint64_t address = 0;
	uint32_t rkey = 0;
	size_t size;

	rig->server_conn.region_size = 4096;
	/* What fails is to stay failed. */
	if (!told)
		rig->server_conn.recoveries = rig->client_options.recoveries = 0;
	rig_pair(rig, &ends[0], &ends[1]);
	EXPECT(srdma_conn_withdraw_region(ends[0]), -ENXIO);
	if (!sealed) {
		EXPECT(srdma_conn_write(ends[0], data, sizeof data, 0, -1), 0);
		EXPECT(srdma_conn_peer_region(ends[0], &address, &rkey, &size), 0);
		CHECK(told || post_by_hand(rig, srdma_conn_qp(ends[0]), srdma_conn_pd(ends[0]), IBV_WR_RDMA_READ, address, rkey, &unread) ==
				      IBV_WC_SUCCESS);
	}
	EXPECT(srdma_conn_withdraw_region(ends[1]), 0);
	EXPECT(srdma_conn_withdraw_region(ends[1]), -ENXIO);
	memcpy(srdma_conn_region(ends[1]), "mine", 5);
	if (told) {
		expect_no_region(rig, ends[0]);
		EXPECT(srdma_conn_send(ends[0], "x", 1, -1), 0);
		EXPECT(srdma_conn_recv(ends[1], got, sizeof got, &size, -1), 0);
	} else {
		CHECK(!unread); /* just now the rkey was good */
		EXPECT(post_by_hand(rig, srdma_conn_qp(ends[0]), srdma_conn_pd(ends[0]),
				    !strcmp(args[0], "write") ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ, address, rkey, &unread),
		       IBV_WC_REM_ACCESS_ERR);
		CHECK(unread);
	}
	CHECK(memcmp(srdma_conn_region(ends[1]), "mine", 5) == 0);
	srdma_conn_free(&ends[0]);
	srdma_conn_free(&ends[1]);
}

/* ---- never downgraded ------------------------------------------------------------------------------------------ */

void mode_seal_differs(struct rig *rig, char **args)
{
	bool client = !strcmp(args[0], "client");
	struct srdma_conn *conn;
	struct srdma_reject reject;

	rig->client_options.seal = client ? SRDMA_SEAL_REQUIRED : SRDMA_SEAL_OFF;
	rig->server_conn.seal = client ? SRDMA_SEAL_OFF : SRDMA_SEAL_REQUIRED;
	rig_serve(rig);
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn),
	       SRDMA_EREJECTED);
	srdma_reject_last(&reject);
	EXPECT(reject.reason, SRDMA_REJECT_FEATURE);
	fact_text(rig, "text", reject.text);
	rig_stop(rig, 0);
}
