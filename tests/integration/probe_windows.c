/* SPDX-License-Identifier: Apache-2.0 */
/* Memory windows: where an rkey works, and for how long. */
#include "probe.h"
#include "securdma_memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { REMOTE_ALL = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ, PART = 512, SIZE = PART * SRDMA_REGIONS_MAX };

/* Of probe-wrapped alone, which sees the inside: the rkey of the memory region itself, and that of a region with a name. */
uint32_t region_mr_rkey(const struct srdma_conn *conn) __attribute__((weak));
uint32_t named_mr_rkey(const struct srdma_conn *conn, uint32_t id) __attribute__((weak));

/* A queue pair of the connection's protection domain, in INIT. */
static struct ibv_qp *another_queue_pair(struct srdma_conn *conn, struct ibv_cq **cq)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};
	struct ibv_qp_attr attr, like;
	struct ibv_qp_init_attr unused;
	struct ibv_qp *qp;

	*cq = ibv_create_cq(srdma_conn_pd(conn)->context, 8, NULL, NULL, 0);
	CHECK(*cq != NULL);
	init.send_cq = init.recv_cq = *cq;
	qp = ibv_create_qp(srdma_conn_pd(conn), &init);
	CHECK(qp != NULL);
	EXPECT(ibv_query_qp(srdma_conn_qp(conn), &like, IBV_QP_PORT, &unused), 0);
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT,
				    .port_num = like.port_num,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ};
	EXPECT(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), 0);
	return qp;
}

/* To RTS, to the queue pair `peer` at the other end of the connection. */
static void connect_by_hand(struct srdma_conn *conn, struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_init_attr unused;
	struct ibv_qp_attr attr, own;
	struct srdma_conn_info info;

	srdma_conn_get_info(conn, &info);
	EXPECT(ibv_query_qp(qp, &own, IBV_QP_PORT, &unused), 0);
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_256,
		.dest_qp_num = peer,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 1,
		.ah_attr = {.is_global = 1,
			    .port_num = own.port_num,
			    .grh = {.dgid = info.peer_gid, .sgid_index = info.gid_index, .hop_limit = 64}},
	};
	EXPECT(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), 0);
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
	EXPECT(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
						IBV_QP_MAX_QP_RD_ATOMIC), 0);
}

/* The region's rkey on another queue pair of the same protection domain, which stops nobody there: the window does. */
void mode_window(struct rig *rig, char **args)
{
	enum ibv_wr_opcode opcode = strcmp(args[0], "write") == 0 ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
	static char other[64];
	struct srdma_conn *ends[2];
	struct ibv_device_attr device;
	struct ibv_qp *qps[2];
	struct ibv_cq *cqs[2];
	struct ibv_mr *mr;
	uint64_t address;
	uint32_t rkey;
	size_t size;
	char got[64];
	bool unread;

	rig->server_conn.region_size = 4096;
	rig_pair(rig, &ends[0], &ends[1]);
	EXPECT(ibv_query_device(srdma_conn_pd(ends[1])->context, &device), 0);
	fact(rig, "windows", (device.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0);
	fact(rig, "rxe", device.vendor_id == 0xffffff && strcmp(device.fw_ver, "0.0.0") == 0);
	EXPECT(srdma_conn_peer_region(ends[0], &address, &rkey, &size), 0);
	CHECK(region_mr_rkey != NULL);
	fact(rig, "rkey_of_region", region_mr_rkey(ends[1]));
	fact(rig, "rkey_of_peer", rkey);
	for (int i = 0; i < 2; i++)
		qps[i] = another_queue_pair(ends[i], &cqs[i]);
	connect_by_hand(ends[0], qps[0], qps[1]->qp_num);
	connect_by_hand(ends[1], qps[1], qps[0]->qp_num);
	/* It is a good one: other memory of the domain is to be had. */
	mr = ibv_reg_mr(srdma_conn_pd(ends[1]), other, sizeof other,
			IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	CHECK(mr != NULL);
	EXPECT(post_by_hand(rig, qps[0], srdma_conn_pd(ends[0]), opcode, (uintptr_t)other, mr->rkey, &unread), IBV_WC_SUCCESS);
	CHECK(opcode == IBV_WR_RDMA_READ ? !unread : strcmp(other, "trespasser") == 0);
	/* The rkey is a good one, too, where it belongs. */
	EXPECT(srdma_conn_write(ends[0], "mine", 5, 0, -1), 0);
	fact(rig, "status", post_by_hand(rig, qps[0], srdma_conn_pd(ends[0]), opcode, address, rkey, &unread));
	fact(rig, "unread", unread);
	fact(rig, "unchanged", memcmp(srdma_conn_region(ends[1]), "mine", 5) == 0);
	EXPECT(srdma_conn_read(ends[0], got, 5, 0, -1), 0);
	for (int i = 0; i < 2; i++) {
		EXPECT(ibv_destroy_qp(qps[i]), 0);
		EXPECT(ibv_destroy_cq(cqs[i]), 0);
	}
	EXPECT(ibv_dereg_mr(mr), 0);
	srdma_conn_free(&ends[0]);
	srdma_conn_free(&ends[1]);
}

/* ---- regions with names ---------------------------------------------------------------------------------------- */

/* An end that offers all regions that it may, each a part of one memory, and its peer that knows them. */
struct named {
	struct srdma_conn *client, *accepted;
	char data[SIZE];
	struct srdma_memory *memory, *source;
	char out[PART];
	uint32_t ids[SRDMA_REGIONS_MAX];
	struct srdma_peer_region regions[SRDMA_REGIONS_MAX];
};

static void look_up(struct named *n)
{
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		EXPECT(srdma_conn_get_region(n->client, n->ids[i], &n->regions[i]), 0);
		for (size_t k = 0; k < i; k++)
			CHECK(n->regions[i].rkey != n->regions[k].rkey);
	}
}

static void offer_all(struct rig *rig, struct named *n)
{
	struct srdma_peer_region region;
	enum ibv_qp_state state;
	uint32_t received, before, after;
	char name[16];

	rig->client_options.named_regions = rig->server_conn.named_regions = true;
	rig->server_conn.region_size = 0;
	rig_pair(rig, &n->client, &n->accepted);
	EXPECT(srdma_memory_register(rig->device, n->data, SIZE, REMOTE_ALL, &n->memory), 0);
	EXPECT(srdma_memory_register(rig->device, n->out, PART, 0, &n->source), 0);
	EXPECT(srdma_conn_query_qp(n->accepted, &state, &received, &before), 0);
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		snprintf(name, sizeof name, "r%zu", i);
		EXPECT(srdma_conn_offer(n->accepted, n->memory, i * PART, PART, REMOTE_ALL, name, &n->ids[i]), 0);
	}
	EXPECT(srdma_conn_find_region(n->client, name, -1, &region), 0);
	/* A bind is no packet. */
	EXPECT(srdma_conn_query_qp(n->accepted, &state, &received, &after), 0);
	EXPECT(after, before);
	look_up(n);
	CHECK(named_mr_rkey != NULL);
	fact(rig, "windows", n->regions[0].rkey != named_mr_rkey(n->accepted, n->ids[0]));
}

/* Into each region, by the library's own requests. */
static void write_all(struct named *n, unsigned round)
{
	struct srdma_request request;
	struct srdma_piece piece;
	uint64_t cookie;

	srdma_piece_init(&piece);
	piece.memory = n->source;
	piece.length = PART;
	srdma_request_init(&request);
	request.pieces = &piece;
	request.piece_count = 1;
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
		fill(n->out, PART, round + (unsigned)i);
		request.region = n->ids[i];
		EXPECT(srdma_conn_post(n->client, &request), 0);
		EXPECT(srdma_conn_complete(n->client, &cookie, 1, -1), 1);
	}
	for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++)
		CHECK(is_filled(n->data + i * PART, PART, round + (unsigned)i));
}

static void renew_named(struct rig *rig, struct named *n, unsigned wanted)
{
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	struct srdma_peer_region none;
	struct srdma_conn_info info;

	EXPECT(srdma_conn_renew(n->client), 0);
	do {
		EXPECT(srdma_conn_find_region(n->accepted, "none", 1, &none), -ETIMEDOUT);
		EXPECT(srdma_conn_find_region(n->client, "none", 1, &none), -ETIMEDOUT);
		srdma_conn_get_info(n->client, &info);
	} while (info.epoch < wanted && clock_ms() < deadline);
	EXPECT(info.epoch, wanted);
}

/* What the rkey of the region at `index` lets a work request of no library do; facts "status" and "unchanged". */
static void probe_stale(struct rig *rig, struct named *n, struct ibv_qp *qp, size_t index, const struct srdma_peer_region *stale)
{
	char before[PART];

	memcpy(before, n->data + index * PART, PART);
	fact(rig, "status", post_by_hand(rig, qp, srdma_conn_pd(n->client), IBV_WR_RDMA_WRITE, stale->address, stale->rkey, NULL));
	fact(rig, "unchanged", memcmp(n->data + index * PART, before, PART) == 0);
}

static void try_other_queue_pair(struct rig *rig, struct named *n)
{
	struct ibv_cq *cqs[2];
	struct ibv_qp *qps[2] = {another_queue_pair(n->client, &cqs[0]), another_queue_pair(n->accepted, &cqs[1])};

	connect_by_hand(n->client, qps[0], qps[1]->qp_num);
	connect_by_hand(n->accepted, qps[1], qps[0]->qp_num);
	probe_stale(rig, n, qps[0], 7, &n->regions[7]);
	for (int i = 0; i < 2; i++) {
		EXPECT(ibv_destroy_qp(qps[i]), 0);
		EXPECT(ibv_destroy_cq(cqs[i]), 0);
	}
	write_all(n, 300);
}

static void try_after_renewals(struct rig *rig, struct named *n)
{
	struct srdma_peer_region before[SRDMA_REGIONS_MAX];
	unsigned changed = 0;

	for (unsigned round = 1; round <= 2; round++) {
		memcpy(before, n->regions, sizeof before);
		renew_named(rig, n, round);
		look_up(n);
		for (size_t i = 0; i < SRDMA_REGIONS_MAX; i++) {
			changed += n->regions[i].rkey != before[i].rkey;
			CHECK(n->regions[i].address == before[i].address && strcmp(n->regions[i].name, before[i].name) == 0);
		}
		write_all(n, round * 400);
	}
	fact(rig, "changed", changed);
	probe_stale(rig, n, srdma_conn_qp(n->client), 7, &before[7]);
}

/* WHAT: another queue pair of the same protection domains uses the rkey; or the connection's own does, after the region was withdrawn, or
 * after a renewal. */
void mode_named_windows(struct rig *rig, char **args)
{
	static struct named n;

	offer_all(rig, &n);
	write_all(&n, 100);
	if (strcmp(args[0], "other") == 0) {
		try_other_queue_pair(rig, &n);
	} else if (strcmp(args[0], "withdrawn") == 0) {
		EXPECT(srdma_conn_withdraw(n.accepted, n.ids[7]), 0);
		probe_stale(rig, &n, srdma_conn_qp(n.client), 7, &n.regions[7]);
	} else {
		try_after_renewals(rig, &n);
	}
	srdma_conn_free(&n.client);
	srdma_conn_free(&n.accepted);
	srdma_memory_unref(&n.memory);
	srdma_memory_unref(&n.source);
}

/* ---- under load ------------------------------------------------------------------------------------------------ */

enum { LOADED = 8, DEEP = 8, CHUNK = 4096 };

struct load {
	struct srdma_conn *conn;
	struct srdma_memory *memory;
	atomic_bool over;
	atomic_uint churned;
};

/* Goes on offering and withdrawing one region beside the others. */
static void *offer_and_churn(void *arg)
{
	struct load *load = arg;
	struct srdma_peer_region none;
	uint32_t id;
	char name[16];
	int ret = -ETIMEDOUT;

	for (unsigned i = 0; i < LOADED; i++) {
		snprintf(name, sizeof name, "r%u", i);
		EXPECT(srdma_conn_offer(load->conn, load->memory, i * CHUNK, CHUNK, REMOTE_ALL, name, &id), 0);
	}
	while (ret == -ETIMEDOUT) {
		ret = srdma_conn_offer(load->conn, load->memory, 0, CHUNK, IBV_ACCESS_REMOTE_READ, "churn", &id);
		/* The peer confirms withdrawals when it can. */
		if (ret == 0 && atomic_fetch_add(&load->churned, 1) % 2 == 0)
			srdma_conn_find_region(load->conn, "none", 1, &none);
		if (ret == 0)
			ret = srdma_conn_withdraw(load->conn, id);
		if (ret == 0 || ret == -ENOSPC)
			ret = srdma_conn_find_region(load->conn, "none", 1, &none);
	}
	EXPECT(ret, SRDMA_ECLOSED);
	srdma_conn_free(&load->conn);
	return NULL;
}

static unsigned collect(struct srdma_conn *conn, unsigned under_way, unsigned most)
{
	uint64_t cookies[DEEP];

	while (under_way > most) {
		int n = srdma_conn_complete(conn, cookies, DEEP, -1);

		CHECK(n > 0);
		under_way -= (unsigned)n;
	}
	return under_way;
}

/* Writes to regions of the peer's while queue pairs are renewed, and fail, all the time: each write goes to where its region is, by the rkey
 * of that moment. */
void mode_named_load(struct rig *rig, char **args)
{
	static char data[LOADED * CHUNK], out[DEEP * CHUNK];
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	struct load load = {0};
	struct srdma_peer_region regions[LOADED];
	struct srdma_memory *source;
	struct srdma_conn *conn;
	struct srdma_conn_info info = {0};
	struct srdma_request request;
	struct srdma_piece piece;
	unsigned under_way = 0, posted = 0, wanted = (unsigned)atoi(args[0]);
	pthread_t thread;
	char name[16];

	rig->client_options.named_regions = rig->server_conn.named_regions = true;
	rig->server_conn.region_size = 0;
	rig->server_conn.recoveries = rig->client_options.recoveries = 1000;
	rig_pair(rig, &conn, &load.conn);
	EXPECT(srdma_memory_register(rig->device, data, sizeof data, REMOTE_ALL, &load.memory), 0);
	EXPECT(srdma_memory_register(rig->device, out, sizeof out, 0, &source), 0);
	EXPECT(pthread_create(&thread, NULL, offer_and_churn, &load), 0);
	for (unsigned i = 0; i < LOADED; i++) {
		snprintf(name, sizeof name, "r%u", i);
		EXPECT(srdma_conn_find_region(conn, name, -1, &regions[i]), 0);
	}
	srdma_piece_init(&piece);
	piece.memory = source;
	piece.length = CHUNK;
	srdma_request_init(&request);
	request.pieces = &piece;
	request.piece_count = 1;
	while (info.epoch < wanted || info.recoveries < wanted / 4 || posted % LOADED != 0) {
		int ret;

		/* Each slot of `out` belongs to one region; its last write is over before it is filled again. */
		under_way = collect(conn, under_way, DEEP - 1);
		fill(out + posted % DEEP * CHUNK, CHUNK, posted / LOADED * LOADED + posted % LOADED);
		piece.offset = posted % DEEP * CHUNK;
		request.region = regions[posted % LOADED].id;
		while ((ret = srdma_conn_post(conn, &request)) == -EAGAIN)
			srdma_conn_wait(conn, 10);
		EXPECT(ret, 0);
		under_way++;
		posted++;
		if (posted % 97 == 0)
			EXPECT(srdma_conn_renew(conn), 0);
		if (posted % 389 == 0)
			EXPECT(ibv_modify_qp(srdma_conn_qp(conn), &error, IBV_QP_STATE), 0);
		srdma_conn_get_info(conn, &info);
	}
	collect(conn, under_way, 0);
	for (unsigned i = 0; i < LOADED; i++)
		CHECK(is_filled(data + i * CHUNK, CHUNK, posted - LOADED + i));
	fact(rig, "epochs", info.epoch);
	fact(rig, "recoveries", info.recoveries);
	rig_leave(&conn);
	EXPECT(pthread_join(thread, NULL), 0);
	fact(rig, "churned", load.churned);
	srdma_memory_unref(&load.memory);
	srdma_memory_unref(&source);
}
