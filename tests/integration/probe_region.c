/* SPDX-License-Identifier: Apache-2.0 */
/* One-sided access: bounds, rights, buffers, the client's own region, and what another client may not touch. */
#include "probe.h"

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
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

	rig->server_conn.region_size = absent ? 0 : REGION_SIZE;
	rig->server_conn.region_access =
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
	rig_leave(&conn);
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

	rig->client_options.rdma_depth = 4;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_complete(conn, cookies, 1, 0), 0);
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
	srdma_buffer_free(&in);
	srdma_buffer_free(&out);
	CHECK(in == NULL);
	rig_leave(&conn);
	rig_stop(rig, 0);
}

/* ---- a server that stops --------------------------------------------------------------------------------------- */

enum { STOPPED_SIZE = 8192 };

static bool is_stopped(const char *stat)
{
	FILE *file = fopen(stat, "r");
	char state = 0;

	/* The name, in brackets, may have anything in it but is one of ours. */
	CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
	fclose(file);
	return state == 'T';
}

/* Each of its threads: the signal has been sent when kill returns, and no more. */
static void stop_process(struct rig *rig, pid_t pid)
{
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	char pattern[64];
	glob_t threads;
	size_t stopped;

	EXPECT(kill(pid, SIGSTOP), 0);
	snprintf(pattern, sizeof pattern, "/proc/%d/task/*/stat", (int)pid);
	do {
		EXPECT(glob(pattern, 0, NULL, &threads), 0);
		stopped = 0;
		while (stopped < threads.gl_pathc && is_stopped(threads.gl_pathv[stopped]))
			stopped++;
		bool all = stopped == threads.gl_pathc;

		globfree(&threads);
		if (all)
			return;
	} while (clock_ms() < deadline);
	CHECK(false);
}

/* The server's device answers when the server goes on: then the memory has been the program's again for long. */
static void give_up(struct rig *rig, struct srdma_conn *conn, pid_t server, bool posted)
{
	static char memory[STOPPED_SIZE];
	struct srdma_buffer *buffer;
	uint64_t cookie;

	fill(memory, sizeof memory, 1);
	EXPECT(srdma_conn_write(conn, memory, sizeof memory, 0, -1), 0);
	stop_process(rig, server);
	if (posted) {
		EXPECT(srdma_buffer_new(conn, memory, sizeof memory, &buffer), 0);
		EXPECT(srdma_conn_post_read(conn, buffer, 0, sizeof memory, 0, 7), 0);
		CHECK(srdma_conn_complete(conn, &cookie, 1, 200 * rig->scale) < 0);
		srdma_buffer_free(&buffer);
	} else {
		CHECK(srdma_conn_read(conn, memory, sizeof memory, 0, 200 * rig->scale) < 0);
	}
	fill(memory, sizeof memory, 2);
	EXPECT(kill(server, SIGCONT), 0);
	/* What would still come comes now, to whoever is in a call and to the device. */
	srdma_conn_wait(conn, 300 * rig->scale);
	pause_ms(300 * rig->scale);
	CHECK(is_filled(memory, sizeof memory, 2));
	CHECK(srdma_conn_send(conn, "x", 1, 0) < 0);
}

void mode_stopped(struct rig *rig, char **args)
{
	struct srdma_conn *conn;

	snprintf(rig->port, sizeof rig->port, "%s", args[0]);
	for (int posted = 0; posted < 2; posted++) {
		conn = rig_connect(rig);
		give_up(rig, conn, (pid_t)atoi(args[1]), posted);
		srdma_conn_free(&conn);
	}
}

/* ---- the client's region --------------------------------------------------------------------------------------- */

static int write_to_client(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg,
			   void *arg)
{
	char back[64];

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

	rig->server_options.on_message = write_to_client;
	rig->client_options.region_size = 4096;
	rig_serve(rig);
	conn = rig_connect(rig);
	region = srdma_conn_region(conn);
	CHECK(region && region[0] == 0 && region[4095] == 0);
	EXPECT(srdma_conn_send(conn, "to the client", 13, -1), 0);
	EXPECT(srdma_conn_recv(conn, data, sizeof data, &n, -1), 0);
	CHECK(n == 13 && memcmp(region + 100, "to the client", 13) == 0 && region[99] == 0 && region[113] == 0);
	rig_leave(&conn);
	rig_stop(rig, 0);
}

/* ---- isolation ------------------------------------------------------------------------------------------------- */

enum ibv_wc_status post_by_hand(struct rig *rig, struct ibv_qp *qp, struct ibv_pd *pd, enum ibv_wr_opcode opcode, uint64_t address,
				uint32_t rkey, bool *unread)
{
	static char data[64];
	struct ibv_mr *mr = ibv_reg_mr(pd, data, sizeof data, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_sge sge = {.addr = (uintptr_t)data, .length = sizeof data};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcode,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = {.remote_addr = address, .rkey = rkey},
	}, *bad;
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	struct ibv_wc wc;
	int n;

	CHECK(mr != NULL);
	memset(data, 0, sizeof data);
	strcpy(data, "trespasser");
	sge.lkey = mr->lkey;
	EXPECT(ibv_post_send(qp, &wr, &bad), 0);
	while ((n = ibv_poll_cq(qp->send_cq, 1, &wc)) == 0 && clock_ms() < deadline)
		;
	EXPECT(n, 1);
	EXPECT(ibv_dereg_mr(mr), 0);
	if (unread)
		*unread = strcmp(data, "trespasser") == 0 && data[sizeof data - 1] == 0;
	return wc.status;
}

/* On B's queue pair with A's rkey, `offset` into A's region. */
static enum ibv_wc_status trespass(struct rig *rig, struct srdma_conn *a, struct srdma_conn *b, enum ibv_wr_opcode opcode,
				   uint64_t offset)
{
	uint64_t address;
	uint32_t rkey;
	size_t size;

	EXPECT(srdma_conn_peer_region(a, &address, &rkey, &size), 0);
	return post_by_hand(rig, srdma_conn_qp(b), srdma_conn_pd(b), opcode, address + offset, rkey, NULL);
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

/* A's region can't be written or read by B, which only gets a remote access error; A does not notice. */
void mode_isolation(struct rig *rig, char **args)
{
	static const enum ibv_wr_opcode opcodes[] = {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
	struct srdma_conn *a, *b;
	uint64_t address;
	uint32_t rkey_a, rkey_b;
	size_t size;
	char data[16];

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
		srdma_conn_free(&b);
		rig_wait_clients(rig, 1);
		check_alive(a, "the region of A");
	}
	rig_leave(&a);
	rig_stop(rig, 0);
}

/* ---- what a name may ------------------------------------------------------------------------------------------- */

static void expect_rights(struct srdma_conn *conn, size_t size, unsigned access)
{
	struct srdma_conn_info info;
	char byte = 0;

	srdma_conn_get_info(conn, &info);
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
	srdma_conn_free(&conn);
	rig_wait_clients(rig, 1);
}

/* The client's name has a small region that it may read; when the limits change, connected clients keep what they have. */
void mode_identity_region(struct rig *rig, char **args)
{
	enum { SIZE = 8192, RW = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE };
	struct srdma_identity identity;
	struct srdma_server_limits *limits = &rig->server_limits;
	struct srdma_server_status status;
	struct srdma_conn *old, *fresh;

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
	srdma_server_get_status(rig->server, &status);
	EXPECT(status.max_clients, 10);

	rig_leave(&old);
	rig_leave(&fresh);
	rig_stop(rig, 0);
}
