/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: servers that offer it, and peers of another make. */
#include "probe_memory.h"

#include <errno.h>
#include <string.h>

static struct srdma_memory *served;

static int offer_to_client(struct srdma_conn *conn, void **client_arg, void *arg)
{
	uint32_t id;

	(void)client_arg;
	(void)arg;
	return srdma_conn_offer(conn, served, 0, MEMORY_SIZE, REMOTE_ALL, "served", &id);
}

static int answer_notice(struct srdma_conn *conn, const struct srdma_notice *notice, char *reason, void *client_arg, void *arg)
{
	(void)client_arg;
	(void)arg;
	if (notice->value == 13) {
		strcpy(reason, "an unlucky number");
		return -EPERM;
	}
	return srdma_conn_send(conn, &notice->value, 4, 0);
}

static int count_regions(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct srdma_peer_region region;
	char found = srdma_conn_find_region(conn, "client's", 0, &region) == 0;

	(void)reason;
	(void)client_arg;
	(void)arg;
	return srdma_conn_send(conn, &found, 1, 0);
}

static void notify(struct srdma_conn *conn, uint32_t region, uint32_t value)
{
	struct srdma_request request;

	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_WRITE_NOTIFY;
	request.region = region;
	request.notice = value;
	EXPECT(srdma_conn_post(conn, &request), 0);
}

void mode_memory_server(struct rig *rig, char **args)
{
	static char data[MEMORY_SIZE], own[64];
	struct srdma_memory *memory = memory_registered(rig, own, sizeof own, IBV_ACCESS_REMOTE_READ);
	struct srdma_conn *conn[3];
	struct srdma_peer_region region;
	struct srdma_conn_info info;
	uint32_t value, id;
	char found;
	size_t n;

	(void)args;
	memory_agree(rig);
	served = memory_registered(rig, data, MEMORY_SIZE, REMOTE_ALL);
	rig->server_options.on_connect = offer_to_client;
	rig->server_options.on_notice = answer_notice;
	rig->server_options.on_regions = count_regions;
	rig_serve(rig);
	for (int i = 0; i < 3; i++) {
		conn[i] = rig_connect(rig);
		EXPECT(srdma_conn_find_region(conn[i], "served", -1, &region), 0);
		memory_write_and_read(rig, conn[i], &region, (unsigned)i);
		notify(conn[i], region.id, 7);
		EXPECT(srdma_conn_recv(conn[i], &value, 4, &n, -1), 0);
		EXPECT(value, 7);
		EXPECT(srdma_conn_offer(conn[i], memory, 0, sizeof own, IBV_ACCESS_REMOTE_READ, "client's", &id), 0);
		EXPECT(srdma_conn_recv(conn[i], &found, 1, &n, -1), 0);
		EXPECT(found, 1);
		EXPECT(srdma_conn_withdraw(conn[i], id), 0);
		EXPECT(srdma_conn_recv(conn[i], &found, 1, &n, -1), 0);
		EXPECT(found, 0);
	}
	notify(conn[0], region.id, 13);
	EXPECT(srdma_conn_recv(conn[0], &value, 4, &n, -1), SRDMA_ECLOSED);
	srdma_conn_get_info(conn[0], &info);
	fact_text(rig, "close_reason", info.close_reason);
	for (int i = 0; i < 3; i++)
		rig_leave(&conn[i]);
	srdma_memory_unref(&memory);
	rig_stop(rig, 0);
	srdma_memory_unref(&served);
}

/* ---- a peer of another make ------------------------------------------------------------------------------------ */

/* Offers a region, and tells what ended the connection. */
void mode_memory_accept(struct rig *rig, char **args)
{
	static char data[4096];
	struct srdma_memory *memory = memory_registered(rig, data, sizeof data, IBV_ACCESS_REMOTE_READ);
	struct srdma_conn *conn;
	struct srdma_peer_region region;
	uint32_t id;
	int ret;

	rig->server_conn.named_regions = true;
	rig->server_conn.region_size = 0;
	conn = rig_accept(rig, args[0]);
	EXPECT(srdma_conn_offer(conn, memory, 0, sizeof data, IBV_ACCESS_REMOTE_READ, "offered", &id), 0);
	do {
		srdma_conn_wait(conn, 100);
		ret = srdma_conn_withdraw_region(conn);
	} while (ret == -ENXIO);
	fact_text(rig, "error", srdma_error_text());
	EXPECT(srdma_conn_find_region(conn, "none", 0, &region), ret);
	srdma_conn_free(&conn);
	srdma_memory_unref(&memory);
}

/* Connects, offers a region, and leaves. */
void mode_memory_connect(struct rig *rig, char **args)
{
	static char data[4096];
	struct srdma_memory *memory = memory_registered(rig, data, sizeof data, IBV_ACCESS_REMOTE_READ);
	struct srdma_conn *conn;
	uint32_t id;

	rig->client_options.named_regions = true;
	EXPECT(srdma_conn_connect(rig->host, args[0], rig->client_tls, rig->device, &rig->client_options, &conn), 0);
	EXPECT(srdma_conn_offer(conn, memory, 0, sizeof data, IBV_ACCESS_REMOTE_READ, "offered", &id), 0);
	rig_leave(&conn);
	srdma_memory_unref(&memory);
}
