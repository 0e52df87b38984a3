/* SPDX-License-Identifier: Apache-2.0 */
/* One-sided access: bounds, rights, buffers, the client's own region, and what another client may not touch. */
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REGION_SIZE 65536

/* ---- rights ---------------------------------------------------------------------------------------------------- */

static void check_bounds(struct srdma_conn *conn, bool write)
{
	static char data[REGION_SIZE + 1];
	int (*const access)(struct srdma_conn *, void *, size_t, uint64_t, int) = srdma_conn_read;
	const struct {
		size_t length;
		uint64_t offset;
	} outside[] = {{1, REGION_SIZE}, {2, REGION_SIZE - 1}, {REGION_SIZE + 1, 0}, {1, UINT64_MAX}, {REGION_SIZE, UINT64_MAX},
		       {0, REGION_SIZE + 1}};

	for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
		EXPECT(write ? srdma_conn_write(conn, data, outside[i].length, outside[i].offset, -1)
			     : access(conn, data, outside[i].length, outside[i].offset, -1),
		       -ERANGE);
}

static void check_write_and_read(struct srdma_conn *conn)
{
	static const struct {
		size_t length;
		uint64_t offset;
	} parts[] = {{REGION_SIZE, 0}, {1, 0}, {1, REGION_SIZE - 1}, {5000, 1234}, {0, 0}, {0, REGION_SIZE}, {7, 4093}};
	static char data[REGION_SIZE], got[REGION_SIZE];

	for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
		fill(data, parts[i].length, i);
		EXPECT(srdma_conn_write(conn, data, parts[i].length, parts[i].offset, -1), 0);
		EXPECT(srdma_conn_read(conn, got, parts[i].length, parts[i].offset, -1), 0);
		CHECK(memcmp(data, got, parts[i].length) == 0);
	}
}

/* What is not allowed is found before anything is posted: the connection goes on. */
void mode_rights(struct rig *rig, char **args)
{
	bool absent = strcmp(args[0], "absent") == 0, write = strchr(args[0], 'w'), read = strchr(args[0], 'r');
	struct srdma_conn *conn;
	uint64_t address;
	uint32_t rkey;
	size_t size, n;
	char data[64] = "x";

	rig->server_options.conn.region_size = absent ? 0 : REGION_SIZE;
	rig->server_options.conn.region_access =
		(write ? IBV_ACCESS_REMOTE_WRITE : 0u) | (read ? IBV_ACCESS_REMOTE_READ : 0u);
	rig_serve(rig);
	conn = rig_connect(rig);
	/* A sealed region has no rkey. */
	EXPECT(srdma_conn_peer_region(conn, &address, &rkey, &size),
	       absent || rig->client_options.seal != SRDMA_SEAL_OFF ? -ENXIO : 0);
	EXPECT(srdma_conn_write(conn, data, 1, 0, -1), absent ? -ENXIO : write ? 0 : -EACCES);
	EXPECT(srdma_conn_read(conn, data, 1, 0, -1), absent ? -ENXIO : read ? 0 : -EACCES);
	if (write)
		check_bounds(conn, true);
	if (read)
		check_bounds(conn, false);
	if (write && read)
		check_write_and_read(conn);
	EXPECT(srdma_conn_send(conn, "x", 1, -1), 0);
	EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	srdma_conn_delete(&conn);
	rig_stop(rig, 0);
}

/* ---- posted requests ------------------------------------------------------------------------------------------- */

void mode_posted(struct rig *rig, char **args)
{
	struct srdma_buffer *out, *in;
	struct srdma_conn *conn;
	uint64_t cookies[64];
	static char memory[8192];
	int got = 0, ret;

	(void)args;
	rig->client_options.rdma_depth = 4;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_complete(conn, cookies, 1, 0), -EINVAL);
	EXPECT(srdma_buffer_new(conn, NULL, sizeof memory, &out), 0);
	EXPECT(srdma_buffer_new(conn, memory, sizeof memory, &in), 0);
	CHECK(srdma_buffer_data(in) == memory);
	CHECK(is_filled(srdma_buffer_data(out), 0, 0) && ((char *)srdma_buffer_data(out))[8191] == 0);
	fill(srdma_buffer_data(out), sizeof memory, 5);
	EXPECT(srdma_conn_post_write(conn, out, 1, sizeof memory, 0, 1), -ERANGE);
	EXPECT(srdma_conn_post_write(conn, out, 0, 1, REGION_SIZE, 1), -ERANGE);
	for (uint64_t i = 0; i < 4; i++)
		EXPECT(srdma_conn_post_write(conn, out, 2048 * i, 2048, 2048 * i, 100 + i), 0);
	EXPECT(srdma_conn_post_write(conn, out, 0, 1, 0, 1), -EAGAIN);
	while (got < 4) {
		ret = srdma_conn_complete(conn, cookies + got, 64 - got, -1);
		CHECK(ret > 0);
		got += ret;
	}
	for (uint64_t i = 0; i < 4; i++)
		EXPECT(cookies[i], 100 + i);
	EXPECT(srdma_conn_post_read(conn, in, 0, sizeof memory, 0, 7), 0);
	EXPECT(srdma_conn_complete(conn, cookies, 64, -1), 1);
	EXPECT(cookies[0], 7);
	CHECK(is_filled(memory, sizeof memory, 5));
	srdma_buffer_delete(&in);
	srdma_buffer_delete(&out);
	CHECK(in == NULL);
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	srdma_conn_delete(&conn);
	rig_stop(rig, 0);
}

/* ---- the client's region --------------------------------------------------------------------------------------- */

static int write_to_client(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg,
			   void *arg)
{
	char back[64];

	(void)reason;
	(void)client_arg;
	(void)arg;
	CHECK(length <= sizeof back);
	EXPECT(srdma_conn_write(conn, data, length, 100, -1), 0);
	EXPECT(srdma_conn_read(conn, back, length, 100, -1), 0);
	EXPECT(memcmp(back, data, length), 0);
	EXPECT(srdma_conn_write(conn, data, 1, 4096, -1), -ERANGE);
	return srdma_conn_send(conn, back, length, -1);
}

void mode_client_region(struct rig *rig, char **args)
{
	struct srdma_conn *conn;
	const char *region;
	char data[64];
	size_t n;

	(void)args;
	rig->server_options.handlers.on_message = write_to_client;
	rig->client_options.region_size = 4096;
	rig_serve(rig);
	conn = rig_connect(rig);
	region = srdma_conn_region(conn);
	CHECK(region && region[0] == 0 && region[4095] == 0);
	EXPECT(srdma_conn_send(conn, "to the client", 13, -1), 0);
	EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
	CHECK(n == 13 && memcmp(region + 100, "to the client", 13) == 0 && region[99] == 0 && region[113] == 0);
	EXPECT(srdma_conn_disconnect(conn, NULL, -1), 0);
	srdma_conn_delete(&conn);
	rig_stop(rig, 0);
}

/* ---- isolation ------------------------------------------------------------------------------------------------- */

/* Posts by hand on B's queue pair with A's rkey, `offset` into A's region, which the checks of the library would never do. */
static enum ibv_wc_status trespass(struct rig *rig, struct srdma_conn *a, struct srdma_conn *b, enum ibv_wr_opcode opcode,
				   uint64_t offset)
{
	static char data[64] = "trespasser";
	struct ibv_mr *mr = ibv_reg_mr(srdma_conn_pd(b), data, sizeof data, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_sge sge = {.addr = (uintptr_t)data, .length = sizeof data};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	struct ibv_wc wc;
	size_t size;
	int n;

	CHECK(mr != NULL);
	sge.lkey = mr->lkey;
	EXPECT(srdma_conn_peer_region(a, &wr.wr.rdma.remote_addr, &wr.wr.rdma.rkey, &size), 0);
	wr.wr.rdma.remote_addr += offset;
	EXPECT(ibv_post_send(srdma_conn_qp(b), &wr, &bad), 0);
	while ((n = ibv_poll_cq(srdma_conn_send_cq(b), 1, &wc)) == 0 && clock_ms() < deadline)
		;
	EXPECT(n, 1);
	EXPECT(ibv_dereg_mr(mr), 0);
	return wc.status;
}

static void check_alive(struct srdma_conn *conn, const char *text)
{
	char data[64];
	size_t n, length = strlen(text);

	EXPECT(srdma_conn_write(conn, text, length, 0, -1), 0);
	EXPECT(srdma_conn_read(conn, data, length, 0, -1), 0);
	EXPECT(memcmp(data, text, length), 0);
	EXPECT(srdma_conn_send(conn, text, length, -1), 0);
	EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
	EXPECT(n, length + SRDMA_ECHO_OVERHEAD);
}

/* A's region can't be written or read by B, who only gets a remote access error; A does not notice. */
void mode_isolation(struct rig *rig, char **args)
{
	static const enum ibv_wr_opcode opcodes[] = {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
	struct srdma_conn *a, *b;
	uint64_t address;
	uint32_t rkey_a, rkey_b;
	size_t size;
	char data[16];

	(void)args;
	rig_serve(rig);
	a = rig_connect(rig);
	check_alive(a, "the region of A");
	for (size_t i = 0; i < 2; i++) {
		b = rig_connect(rig);
		EXPECT(srdma_conn_peer_region(a, &address, &rkey_a, &size), 0);
		EXPECT(srdma_conn_peer_region(b, &address, &rkey_b, &size), 0);
		CHECK(rkey_a != rkey_b);
		EXPECT(trespass(rig, a, b, opcodes[i], 0), IBV_WC_REM_ACCESS_ERR);
		EXPECT(srdma_conn_read(a, data, 15, 0, -1), 0);
		EXPECT(memcmp(data, "the region of A", 15), 0);
		srdma_conn_delete(&b);
		rig_wait_clients(rig, 1);
		check_alive(a, "the region of A");
	}
	EXPECT(srdma_conn_disconnect(a, NULL, -1), 0);
	srdma_conn_delete(&a);
	rig_stop(rig, 0);
}

/* ---- what a name may ------------------------------------------------------------------------------------------- */

static void expect_rights(struct srdma_conn *conn, size_t size, unsigned access)
{
	struct srdma_conn_info info;
	char byte = 0;

	srdma_conn_info(conn, &info);
	EXPECT(info.peer_region_size, size);
	EXPECT(info.peer_region_access, access);
	EXPECT(srdma_conn_read(conn, &byte, 1, size - 1, -1), 0);
	EXPECT(srdma_conn_read(conn, &byte, 1, size, -1), -ERANGE);
	EXPECT(srdma_conn_write(conn, "x", 1, 0, -1), access & IBV_ACCESS_REMOTE_WRITE ? 0 : -EACCES);
}

/* What the library would not post, the server's device refuses: the client is lost, and nobody else. */
static void expect_refusal(struct rig *rig, enum ibv_wr_opcode opcode, uint64_t offset)
{
	struct srdma_conn *conn = rig_connect(rig);

	enum ibv_wc_status status = trespass(rig, conn, conn, opcode, offset);

	/* A queue pair that has no right at all to write finds the request itself invalid. */
	CHECK(status == IBV_WC_REM_ACCESS_ERR || (opcode == IBV_WR_RDMA_WRITE && status == IBV_WC_REM_INV_REQ_ERR));
	srdma_conn_delete(&conn);
	rig_wait_clients(rig, 1);
}

/* The client's name has a small region that it may read; when the limits change, those who are connected keep what they have. */
void mode_identity_region(struct rig *rig, char **args)
{
	enum { SIZE = 8192, RW = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE };
	struct srdma_identity identity;
	struct srdma_server_limits *limits = &rig->server_options.limits;
	struct srdma_server_status status;
	struct srdma_conn *old, *fresh;

	(void)args;
	srdma_identity_init(&identity);
	identity.name = "client one";
	identity.region_size = SIZE;
	identity.region_access = IBV_ACCESS_REMOTE_READ;
	limits->identities = &identity;
	limits->identity_count = 1;
	rig_serve(rig);
	old = rig_connect(rig);
	expect_rights(old, SIZE, IBV_ACCESS_REMOTE_READ);
	expect_refusal(rig, IBV_WR_RDMA_WRITE, 0);
	expect_refusal(rig, IBV_WR_RDMA_READ, SIZE);
	expect_refusal(rig, IBV_WR_RDMA_READ, SIZE - 1);

	identity.name = "client two";
	EXPECT(srdma_server_set_limits(rig->server, limits), 0);
	fresh = rig_connect(rig);
	expect_rights(fresh, 65536, RW);
	expect_rights(old, SIZE, IBV_ACCESS_REMOTE_READ);

	/* All of it or nothing. */
	identity.message_size = 1;
	limits->max_clients = 1;
	EXPECT(srdma_server_set_limits(rig->server, limits), -EINVAL);
	srdma_server_status(rig->server, &status);
	EXPECT(status.max_clients, 10);

	EXPECT(srdma_conn_disconnect(old, NULL, -1), 0);
	EXPECT(srdma_conn_disconnect(fresh, NULL, -1), 0);
	srdma_conn_delete(&old);
	srdma_conn_delete(&fresh);
	rig_stop(rig, 0);
}
