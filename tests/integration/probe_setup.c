/* SPDX-License-Identifier: Apache-2.0 */
/* The bring-up: what the queue pairs were told, raw connections, and what the program's handlers say. */
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PSN_MASK 0xffffffu

/* ---- psn ------------------------------------------------------------------------------------------------------- */

static void check_start(struct srdma_conn *conn)
{
	struct srdma_conn_info info;
	enum ibv_qp_state state;
	uint32_t rq_psn, sq_psn;

	srdma_conn_get_info(conn, &info);
	EXPECT(srdma_conn_query_qp(conn, &state, &rq_psn, &sq_psn), 0);
	EXPECT(state, IBV_QPS_RTS);
	EXPECT(rq_psn, info.peer_psn);
	EXPECT(sq_psn, info.psn);
	EXPECT(srdma_conn_qp(conn)->qp_num, info.qpn);
}

static void send_between(struct srdma_conn *from, struct srdma_conn *to, size_t length)
{
	static char data[4096], got[4096];
	size_t n;

	fill(data, length, (unsigned)length);
	EXPECT(srdma_conn_send(from, data, length, -1), 0);
	EXPECT(srdma_conn_recv(to, got, sizeof got, &n, -1), 0);
	EXPECT(n, length);
	CHECK(is_filled(got, n, (unsigned)length));
}

static uint32_t packets(const struct srdma_conn_info *info, size_t length)
{
	return length ? (uint32_t)((length + info->path_mtu - 1) / info->path_mtu) : 1;
}

/* What the device says of both queue pairs right after the set-up is what crossed TLS; then it moves by the packets sent. */
void mode_psn(struct rig *rig, char **args)
{
	struct srdma_conn *client, *server;
	struct srdma_conn_info c, s;
	struct srdma_conn_timing timing;
	uint32_t rq, sq;

	rig_pair(rig, &client, &server);
	check_start(client);
	check_start(server);
	srdma_conn_get_info(client, &c);
	srdma_conn_get_info(server, &s);
	EXPECT(c.psn, s.peer_psn);
	EXPECT(c.peer_psn, s.psn);
	EXPECT(c.qpn, s.peer_qpn);
	EXPECT(c.peer_qpn, s.qpn);
	EXPECT(memcmp(&c.gid, &s.peer_gid, 16), 0);
	EXPECT(memcmp(&c.peer_gid, &s.gid, 16), 0);
	EXPECT(c.path_mtu, s.path_mtu);
	CHECK(c.psn <= PSN_MASK && s.psn <= PSN_MASK);
	srdma_conn_get_timing(client, &timing);
	CHECK(timing.total >= timing.tcp + timing.tls + timing.qp && timing.tls > 0 && timing.psn <= timing.qp);
	CHECK(strcmp(s.peer_name, "client one") == 0 && strcmp(c.tls_version, "TLSv1.3") == 0);

	uint32_t moved = packets(&c, 3000) + packets(&c, 0);
	send_between(client, server, 3000);
	send_between(client, server, 0);
	EXPECT(srdma_conn_query_qp(server, NULL, &rq, &sq), 0);
	EXPECT(rq, (c.psn + moved) & PSN_MASK);
	EXPECT(sq, s.psn);
	send_between(server, client, 1);
	EXPECT(srdma_conn_query_qp(client, NULL, &rq, &sq), 0);
	EXPECT(rq, (s.psn + 1) & PSN_MASK);
	EXPECT(sq, (c.psn + moved) & PSN_MASK);
	fact(rig, "psn", c.psn);
	fact(rig, "peer_psn", c.peer_psn);
	fact(rig, "moved", moved);
	srdma_conn_free(&client);
	srdma_conn_free(&server);
	CHECK(client == NULL && server == NULL);
	srdma_conn_free(&client);
}

/* ---- raw ------------------------------------------------------------------------------------------------------- */

static void await_completion(struct ibv_cq *cq, enum ibv_wc_opcode opcode, struct rig *rig)
{
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	struct ibv_wc wc;
	int n;

	while ((n = ibv_poll_cq(cq, 1, &wc)) == 0 && clock_ms() < deadline)
		;
	EXPECT(n, 1);
	EXPECT(wc.status, IBV_WC_SUCCESS);
	EXPECT(wc.opcode, opcode);
}

static void post_send(struct srdma_conn *conn, struct ibv_mr *mr, enum ibv_wr_opcode opcode, size_t length)
{
	struct ibv_sge sge = {.addr = (uintptr_t)mr->addr, .length = (uint32_t)length, .lkey = mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
	size_t size;

	if (opcode == IBV_WR_RDMA_WRITE) {
		EXPECT(srdma_conn_peer_region(conn, &wr.wr.rdma.remote_addr, &wr.wr.rdma.rkey, &size), 0);
		CHECK(size >= length);
	}
	EXPECT(ibv_post_send(srdma_conn_qp(conn), &wr, &bad), 0);
}

/* Only the secure bring-up; everything on the queue pair is done here by hand. */
void mode_raw(struct rig *rig, char **args)
{
	static char outgoing[4096], incoming[4096];
	struct srdma_conn *client, *server;
	struct srdma_conn_info info;
	struct ibv_recv_wr wr = {.num_sge = 1}, *bad;
	struct ibv_sge sge;
	size_t n;

	rig->client_options.raw = rig->server_conn.raw = true;
	rig->server_conn.region_size = 8192;
	rig_pair(rig, &client, &server);
	check_start(client);
	check_start(server);
	CHECK(srdma_conn_pd(client) && srdma_conn_send_cq(client) && srdma_conn_recv_cq(client) && srdma_conn_comp_channel(client));
	CHECK(srdma_conn_pd(client) != srdma_conn_pd(server));
	EXPECT(srdma_conn_send(client, "x", 1, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_recv(client, incoming, 1, &n, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_write(client, "x", 1, 0, 100), -EOPNOTSUPP);

	struct ibv_mr *from = ibv_reg_mr(srdma_conn_pd(client), outgoing, sizeof outgoing, 0);
	struct ibv_mr *to = ibv_reg_mr(srdma_conn_pd(server), incoming, sizeof incoming, IBV_ACCESS_LOCAL_WRITE);
	CHECK(from && to);
	sge = (struct ibv_sge){.addr = (uintptr_t)incoming, .length = sizeof incoming, .lkey = to->lkey};
	wr.sg_list = &sge;
	EXPECT(ibv_post_recv(srdma_conn_qp(server), &wr, &bad), 0);
	fill(outgoing, sizeof outgoing, 1);
	post_send(client, from, IBV_WR_SEND, 3000);
	await_completion(srdma_conn_recv_cq(server), IBV_WC_RECV, rig);
	await_completion(srdma_conn_send_cq(client), IBV_WC_SEND, rig);
	CHECK(is_filled(incoming, 3000, 1));
	fill(outgoing, sizeof outgoing, 2);
	post_send(client, from, IBV_WR_RDMA_WRITE, sizeof outgoing);
	await_completion(srdma_conn_send_cq(client), IBV_WC_RDMA_WRITE, rig);
	CHECK(is_filled(srdma_conn_region(server), sizeof outgoing, 2));
	EXPECT(ibv_dereg_mr(from), 0);
	EXPECT(ibv_dereg_mr(to), 0);

	/* The TLS channel still tells of the end: the descriptor becomes readable. */
	srdma_conn_get_info(server, &info);
	EXPECT(info.message_size, 0);
	struct pollfd fd = {.fd = srdma_conn_fd(server), .events = POLLIN};
	EXPECT(poll(&fd, 1, 0), 0);
	srdma_conn_free(&client);
	EXPECT(poll(&fd, 1, 15000 * rig->scale), 1);
	EXPECT(srdma_conn_wait(server, 15000 * rig->scale), SRDMA_ELOST);
	srdma_conn_free(&server);
	fact(rig, "raw", 1);
}

/* ---- handlers -------------------------------------------------------------------------------------------------- */

static int refuse(struct srdma_conn *conn, void **client_arg, void *arg)
{
	return -EPERM;
}

/* A client that on_connect does not want is disconnected in order, and told. */
void mode_refuse(struct rig *rig, char **args)
{
	struct srdma_conn_info info;
	struct srdma_conn *conn;
	char buffer[64];
	size_t n;

	rig->server_options.on_connect = refuse;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_recv(conn, buffer, sizeof buffer, &n, -1), SRDMA_ECLOSED);
	EXPECT(srdma_conn_send(conn, "x", 1, -1), SRDMA_ECLOSED);
	srdma_conn_get_info(conn, &info);
	fact_text(rig, "close_reason", info.close_reason);
	rig_leave(&conn);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
}

static int object(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	if (length < 4 || memcmp(data, "bad!", 4) != 0)
		return srdma_conn_send(conn, data, length, -1);
	snprintf(reason, 128, "I do not like '%.*s'", (int)length, (const char *)data);
	return -EBADMSG;
}

/* The reason of on_message reaches the client, after the messages that were sent before. */
void mode_handler_error(struct rig *rig, char **args)
{
	struct srdma_conn_info info;
	struct srdma_conn *conn;
	char buffer[64];
	size_t n;

	rig->server_options.on_message = object;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_send(conn, "one", 3, -1), 0);
	EXPECT(srdma_conn_send(conn, "two", 3, -1), 0);
	EXPECT(srdma_conn_send(conn, "bad!", 4, -1), 0);
	EXPECT(srdma_conn_recv(conn, buffer, sizeof buffer, &n, -1), 0);
	CHECK(n == 3 && memcmp(buffer, "one", 3) == 0);
	EXPECT(srdma_conn_recv(conn, buffer, sizeof buffer, &n, -1), 0);
	CHECK(n == 3 && memcmp(buffer, "two", 3) == 0);
	EXPECT(srdma_conn_recv(conn, buffer, sizeof buffer, &n, -1), SRDMA_ECLOSED);
	CHECK(strstr(srdma_error_text(), "I do not like 'bad!'"));
	srdma_conn_get_info(conn, &info);
	fact_text(rig, "close_reason", info.close_reason);
	rig_leave(&conn);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
}

struct visits {
	atomic_int connects, messages, disconnects, status;
	int client_arg;
};

static int visit_connect(struct srdma_conn *conn, void **client_arg, void *arg)
{
	struct visits *visits = arg;

	CHECK(srdma_conn_region(conn) != NULL);
	visits->connects++;
	*client_arg = &visits->client_arg;
	return 0;
}

static int visit_message(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct visits *visits = arg;

	CHECK(client_arg == &visits->client_arg && visits->disconnects == 0);
	visits->messages++;
	return srdma_conn_send(conn, &length, sizeof length, -1);
}

static void visit_disconnect(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct visits *visits = arg;

	CHECK(client_arg == &visits->client_arg);
	visits->status = status;
	visits->disconnects++;
}

static void count_info(const struct srdma_conn_info *info, void *arg)
{
	/* The message itself is counted once the handler has returned, which may be a moment after its reply. */
	CHECK(info->client_id > 0 && strcmp(info->peer_name, "client one") == 0 && info->messages_sent == 1);
	*(int *)arg += 1;
}

/* Each handler is called, in order, with the client's own argument; the end is told as it was. */
static void visit_once(struct rig *rig, bool lost)
{
	struct visits visits = {0};
	struct srdma_conn *conn;
	size_t reply, n;
	int seen = 0;

	rig->server_options.arg = &visits;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_send(conn, "abcde", 5, -1), 0);
	EXPECT(srdma_conn_recv(conn, &reply, sizeof reply, &n, -1), 0);
	EXPECT(reply, 5);
	srdma_server_each(rig->server, count_info, &seen);
	EXPECT(seen, 1);
	if (!lost)
		EXPECT(srdma_conn_disconnect(conn, "done", -1), 0);
	srdma_conn_free(&conn);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
	EXPECT(visits.connects, 1);
	EXPECT(visits.messages, 1);
	EXPECT(visits.disconnects, 1);
	EXPECT(visits.status, lost ? SRDMA_ELOST : 0);
}

void mode_event_order(struct rig *rig, char **args)
{
	rig->server_options.on_connect = visit_connect;
	rig->server_options.on_message = visit_message;
	rig->server_options.on_disconnect = visit_disconnect;
	visit_once(rig, false);
	visit_once(rig, true);
}
