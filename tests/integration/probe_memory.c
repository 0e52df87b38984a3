/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: regions with names, requests of several pieces, notices. */
#include "probe_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct srdma_memory *memory_registered(struct rig *rig, void *data, size_t size, unsigned access)
{
	struct srdma_memory *memory;

	EXPECT(srdma_memory_register(rig->device, data, size, access, &memory), 0);
	return memory;
}

void memory_agree(struct rig *rig)
{
	rig->client_options.named_regions = rig->server_conn.named_regions = true;
}

void memory_post(struct srdma_conn *conn, struct srdma_request *request, enum srdma_request_kind kind, uint32_t region, uint64_t offset,
		 const struct srdma_piece *pieces, size_t count)
{
	uint64_t cookie = 0;
	int ret;

	srdma_request_init(request);
	request->kind = kind;
	request->region = region;
	request->offset = offset;
	request->pieces = pieces;
	request->piece_count = count;
	request->cookie = 77;
	/* A renewal may be under way. */
	while ((ret = srdma_conn_post(conn, request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	EXPECT(cookie, 77);
}

struct srdma_piece memory_piece(struct srdma_memory *memory, uint64_t offset, uint64_t length)
{
	struct srdma_piece piece;

	srdma_piece_init(&piece);
	piece.memory = memory;
	piece.offset = offset;
	piece.length = length;
	return piece;
}

void memory_write_and_read(struct rig *rig, struct srdma_conn *conn, const struct srdma_peer_region *region, unsigned round)
{
	static char out[MEMORY_SIZE], in[MEMORY_SIZE];
	struct srdma_memory *from = memory_registered(rig, out, MEMORY_SIZE, 0);
	struct srdma_memory *to = memory_registered(rig, in, MEMORY_SIZE, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece pieces[4];
	struct srdma_request request;

	fill(out, MEMORY_SIZE, round);
	memset(in, 0, sizeof in);
	/* In pieces of another order here than there. */
	pieces[0] = memory_piece(from, 30000, 20000);
	pieces[1] = memory_piece(from, 0, 1);
	pieces[2] = memory_piece(from, 7, 0);
	pieces[3] = memory_piece(from, 1, 9999);
	memory_post(conn, &request, SRDMA_REQUEST_WRITE, region->id, 17, pieces, 4);
	pieces[0] = memory_piece(to, 50000, 5);
	pieces[1] = memory_piece(to, 0, 19995);
	pieces[2] = memory_piece(to, 20000, 10000);
	memory_post(conn, &request, SRDMA_REQUEST_READ, region->id, 17, pieces, 3);
	CHECK(memcmp(in + 50000, out + 30000, 5) == 0 && memcmp(in, out + 30005, 19995) == 0);
	CHECK(memcmp(in + 20000, out, 10000) == 0 && in[19995] == 0 && in[30000] == 0);
	memory_post(conn, &request, SRDMA_REQUEST_WRITE, region->id, region->length, NULL, 0);
	EXPECT(srdma_conn_forget(conn, from), 0);
	srdma_memory_unref(&from);
	srdma_memory_unref(&to); /* the connection lets go of it by itself */
}

/* ---- use ------------------------------------------------------------------------------------------------------- */

/* Offers three regions of one memory and answers each message with what the message says. */
static void *offer_and_echo(void *arg)
{
	struct offering *o = arg;
	char message[64];
	size_t n;

	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, MEMORY_SIZE, REMOTE_ALL, "all", &o->ids[0]), 0);
	EXPECT(srdma_conn_offer(o->conn, o->memory, 100, 5000, IBV_ACCESS_REMOTE_READ, "part", &o->ids[1]), 0);
	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, 64, IBV_ACCESS_REMOTE_WRITE, NULL, &o->ids[2]), 0);
	while ((o->status = srdma_conn_recv(o->conn, message, sizeof message, &n, -1)) == 0 || o->status == -ENOMSG) {
		struct srdma_notice notice;

		if (o->status == -ENOMSG) {
			EXPECT(srdma_conn_recv_notice(o->conn, &notice, 0), 0);
			memcpy(message, &notice.value, 4);
			memcpy(message + 4, &notice.length, 8);
			memcpy(message + 12, o->data, 8); /* as it is at this moment */
			n = 20;
		} else if (message[0] == 'w') {
			EXPECT(srdma_conn_withdraw(o->conn, o->ids[1]), 0);
		}
		if (srdma_conn_send(o->conn, message, n, -1) != 0)
			break;
	}
	return NULL;
}

static void begin(struct rig *rig, struct offering *o, struct srdma_conn **client)
{
	static char data[MEMORY_SIZE] __attribute__((aligned(8)));

	memory_agree(rig);
	*o = (struct offering){.rig = rig, .data = data};
	rig_pair(rig, client, &o->conn);
	o->memory = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	EXPECT(pthread_create(&o->thread, NULL, offer_and_echo, o), 0);
}

static void end(struct offering *o, struct srdma_conn **client)
{
	rig_leave(client);
	EXPECT(pthread_join(o->thread, NULL), 0);
	EXPECT(o->status, SRDMA_ECLOSED);
	srdma_conn_free(&o->conn);
	srdma_memory_unref(&o->memory);
}

/* A notice comes after the bytes of its write, and in order with messages. */
static void check_notice(struct rig *rig, struct srdma_conn *conn, const struct srdma_peer_region *region, uint32_t value)
{
	char out[8], answer[64];
	struct srdma_memory *from = memory_registered(rig, out, sizeof out, 0);
	struct srdma_piece piece = memory_piece(from, 0, sizeof out);
	struct srdma_request request;
	uint64_t length, cookie;
	size_t n;
	int ret;

	fill(out, sizeof out, value);
	EXPECT(srdma_conn_send(conn, "before", 6, -1), 0);
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_WRITE_NOTIFY;
	request.region = region->id;
	request.pieces = &piece;
	request.piece_count = 1;
	request.notice = value;
	while ((ret = srdma_conn_post(conn, &request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_send(conn, "after", 5, -1), 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	CHECK(n == 6 && memcmp(answer, "before", 6) == 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	memcpy(&length, answer + 4, 8);
	CHECK(n == 20 && memcmp(answer, &value, 4) == 0 && length == 8 && memcmp(answer + 12, out, 8) == 0);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	CHECK(n == 5 && memcmp(answer, "after", 5) == 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	EXPECT(srdma_conn_forget(conn, from), 0);
	srdma_memory_unref(&from);
}

/* As often as it takes for the given number of renewals. */
void mode_memory_use(struct rig *rig, char **args)
{
	unsigned wanted = (unsigned)atoi(args[0]);
	struct offering o;
	struct srdma_conn *conn;
	struct srdma_peer_region all, part, other;
	struct srdma_conn_info info;
	struct srdma_memory *memory;
	struct srdma_request request;
	struct srdma_piece piece;
	uint64_t changes = 0;
	static char in[MEMORY_SIZE];
	char answer[64];
	unsigned round = 0;
	size_t n;

	begin(rig, &o, &conn);
	EXPECT(srdma_conn_find_region(conn, "part", -1, &part), 0);
	EXPECT(srdma_conn_find_region(conn, "all", -1, &all), 0);
	while (srdma_conn_region_at(conn, 2, &other) != 0)
		EXPECT(srdma_conn_wait_regions(conn, &changes, -1), 0);
	CHECK(other.name[0] == 0 && other.length == 64 && other.access == IBV_ACCESS_REMOTE_WRITE);
	EXPECT(srdma_conn_region_at(conn, 0, &other), 0);
	CHECK(other.id == all.id && part.length == 5000);
	do {
		memory_write_and_read(rig, conn, &all, ++round);
		check_notice(rig, conn, &all, round * 0x01010101u);
		srdma_conn_get_info(conn, &info);
	} while (info.epoch < wanted || round < 3);

	/* The part is a part of the same memory, and only to be read. */
	memory = memory_registered(rig, in, MEMORY_SIZE, IBV_ACCESS_LOCAL_WRITE);
	piece = memory_piece(memory, 0, 5000);
	memory_post(conn, &request, SRDMA_REQUEST_READ, part.id, 0, &piece, 1);
	CHECK(memcmp(in, o.data + 100, 5000) == 0);
	EXPECT((request.kind = SRDMA_REQUEST_WRITE, srdma_conn_post(conn, &request)), -EACCES);
	changes = 3;
	EXPECT(srdma_conn_send(conn, "withdraw", 8, -1), 0);
	EXPECT(srdma_conn_wait_regions(conn, &changes, -1), 0);
	EXPECT(srdma_conn_get_region(conn, part.id, &other), -ENXIO);
	EXPECT((request.kind = SRDMA_REQUEST_READ, srdma_conn_post(conn, &request)), -ENXIO);
	EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &n, -1), 0);
	check_notice(rig, conn, &all, 5);
	EXPECT(srdma_conn_forget(conn, memory), 0);
	srdma_memory_unref(&memory);
	fact(rig, "epochs", info.epoch);
	end(&o, &conn);
}

/* ---- the end of a memory --------------------------------------------------------------------------------------- */

static void note_release(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

/* The program's references go first: the connection lets go as soon as it can, and the peer loses the region. */
void mode_memory_release(struct rig *rig, char **args)
{
	static char data[MEMORY_SIZE];
	struct srdma_conn *client, *accepted;
	struct srdma_memory *memory = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL), *more;
	struct srdma_peer_region region;
	atomic_int released = 0;
	uint64_t changes = 1, deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	uint32_t id;

	(void)args;
	memory_agree(rig);
	srdma_memory_on_release(memory, note_release, &released);
	more = srdma_memory_ref(memory);
	srdma_memory_unref(&more);
	EXPECT(released, 0);
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(accepted, memory, 0, MEMORY_SIZE, REMOTE_ALL, "x", &id), 0);
	EXPECT(srdma_conn_find_region(client, "x", -1, &region), 0);
	srdma_memory_unref(&memory);
	EXPECT(released, 0);
	while (!released && clock_ms() < deadline)
		EXPECT(srdma_conn_find_region(accepted, "none", 5, &region), -ETIMEDOUT);
	EXPECT(released, 1);
	EXPECT(srdma_conn_wait_regions(client, &changes, -1), 0);
	EXPECT(srdma_conn_get_region(client, id, &region), -ENXIO);
	/* Or with the connection. */
	memory = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	srdma_memory_on_release(memory, note_release, &released);
	EXPECT(srdma_conn_offer(accepted, memory, 0, MEMORY_SIZE, REMOTE_ALL, "y", &id), 0);
	srdma_memory_unref(&memory);
	srdma_conn_free(&accepted);
	EXPECT(released, 2);
	srdma_conn_free(&client);
}

/* ---- withdrawn in use ------------------------------------------------------------------------------------------ */

static void *offer_and_withdraw(void *arg)
{
	struct offering *o = arg;
	struct srdma_peer_region region;

	EXPECT(srdma_conn_offer(o->conn, o->memory, 0, MEMORY_SIZE, REMOTE_ALL, "x", &o->ids[0]), 0);
	/* Until the writes are under way. */
	while (!o->over && o->status == 0) {
		int ret = srdma_conn_find_region(o->conn, "none", 1, &region);

		o->status = ret == -ETIMEDOUT ? 0 : ret;
	}
	if (o->status == 0)
		o->status = srdma_conn_withdraw(o->conn, o->ids[0]);
	/* Whatever came is in place: from here on nothing changes any more. */
	memset(o->data, 0, MEMORY_SIZE);
	while (o->status == 0 || o->status == -ETIMEDOUT)
		o->status = srdma_conn_find_region(o->conn, "none", 100, &region);
	for (size_t i = 0; i < MEMORY_SIZE; i++)
		CHECK(o->data[i] == 0);
	srdma_conn_free(&o->conn); /* which tells the peer */
	return NULL;
}

void mode_memory_withdraw(struct rig *rig, char **args)
{
	static char data[MEMORY_SIZE], out[MEMORY_SIZE];
	struct offering o = {.rig = rig, .data = data};
	struct srdma_conn *conn;
	struct srdma_memory *memory = memory_registered(rig, out, MEMORY_SIZE, 0);
	struct srdma_peer_region region;
	struct srdma_request request;
	struct srdma_piece piece = memory_piece(memory, 0, MEMORY_SIZE);
	uint64_t cookies[16];
	int ret = 0;

	(void)args;
	memory_agree(rig);
	memset(out, 'x', sizeof out);
	rig_pair(rig, &conn, &o.conn);
	o.memory = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	EXPECT(pthread_create(&o.thread, NULL, offer_and_withdraw, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "x", -1, &region), 0);
	srdma_request_init(&request);
	request.region = region.id;
	request.pieces = &piece;
	request.piece_count = 1;
	/* The region goes at some moment: either a post says so, or what was under way ends the connection. */
	for (unsigned i = 0; ret >= 0 || ret == -EAGAIN; i++) {
		ret = srdma_conn_post(conn, &request);
		if (i == 20)
			atomic_store(&o.over, true);
		if (ret == -EAGAIN)
			ret = srdma_conn_complete(conn, cookies, 16, 5000 * rig->scale);
	}
	fact(rig, "error", ret);
	srdma_conn_free(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_memory_unref(&o.memory);
	srdma_memory_unref(&memory);
}

/* ---- raw connections ------------------------------------------------------------------------------------------- */

void mode_memory_raw(struct rig *rig, char **args)
{
	static char data[MEMORY_SIZE], out[64] = "by a work request of my own";
	struct srdma_conn *client, *accepted;
	struct srdma_memory *there = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	struct srdma_memory *here = memory_registered(rig, out, sizeof out, 0);
	struct srdma_peer_region region;
	struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .num_sge = 1}, *bad;
	struct ibv_sge sge = {.length = sizeof out};
	struct srdma_request request;
	struct ibv_wc wc;
	uint32_t id;
	int n;

	(void)args;
	memory_agree(rig);
	rig->client_options.raw = rig->server_conn.raw = true;
	rig->server_conn.region_size = 0;
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_offer(accepted, there, 1000, 500, REMOTE_ALL, "raw", &id), 0);
	EXPECT(srdma_conn_find_region(client, "raw", -1, &region), 0);
	EXPECT(srdma_conn_local_memory(client, here, &sge.addr, &sge.lkey), 0);
	srdma_request_init(&request);
	EXPECT(srdma_conn_post(client, &request), -EOPNOTSUPP);
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = region.address + 17;
	wr.wr.rdma.rkey = region.rkey;
	EXPECT(ibv_post_send(srdma_conn_qp(client), &wr, &bad), 0);
	while ((n = ibv_poll_cq(srdma_conn_send_cq(client), 1, &wc)) == 0)
		;
	CHECK(n == 1 && wc.status == IBV_WC_SUCCESS && strcmp(data + 1017, out) == 0);
	/* Beyond the region is beyond the key. */
	wr.wr.rdma.remote_addr = region.address + 500 - sizeof out + 1;
	EXPECT(ibv_post_send(srdma_conn_qp(client), &wr, &bad), 0);
	while ((n = ibv_poll_cq(srdma_conn_send_cq(client), 1, &wc)) == 0)
		;
	CHECK(n == 1 && wc.status == IBV_WC_REM_ACCESS_ERR);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
}
