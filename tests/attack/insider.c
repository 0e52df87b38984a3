/* SPDX-License-Identifier: Apache-2.0 */
/* The queue pair of a client with code of its own: it does on it what no library would let it do. The exchange over TLS is
 * insider_client.py's, which tells the numbers.
 *
 * insider ADDRESS [--deaf]     --deaf: posts no receives
 * Commands on standard input: connect QPN PSN GID; text TEXT (what is sent and written from now on); send COUNT LENGTH IMM (hexadecimal;
 * "-": without immediate data); write RKEY VA LENGTH; read RKEY VA LENGTH; add RKEY VA (atomic); vanish (destroys the
 * queue pair). Numbers are decimal. Events on standard output, each a line of JSON: made, connected, done or broken for each command
 * that posts, message. */
#include "victim.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 2 << 20, MOST = 60, SHOWN = 256 };

static struct victim victim = {.mtu = 1024, .clients = 1, .region_size = 4096, .random_psn = true};
static uint8_t *room;
static struct ibv_mr *room_mr;
static unsigned waiting; /* requests not completed */

static void say_made(const struct end *end)
{
	printf("{\"event\": \"made\", \"qpn\": %u, \"psn\": %u}\n", end->own.qpn, end->own.psn);
}

static void open_all(const char *address, bool deaf)
{
	struct end *end = &victim.end[0];
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};

	victim.address = address;
	victim_open(&victim);
	victim_make(&victim, 0);
	victim_renew(&victim, 0);
	if (deaf) {
		/* RESET takes the receives back. */
		if (ibv_modify_qp(end->qp, &attr, IBV_QP_STATE) != 0)
			victim_die("ibv_modify_qp");
		attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT, .port_num = 1};
		if (ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0)
			victim_die("ibv_modify_qp");
	}
	room = calloc(1, ROOM);
	room_mr = room ? ibv_reg_mr(end->pd, room, ROOM, IBV_ACCESS_LOCAL_WRITE) : NULL;
	if (!room_mr)
		victim_die("memory");
	say_made(end);
}

static void connect_to(struct end *end, const char *line)
{
	char gid[33];

	if (sscanf(line, "connect %u %u %32s", &end->peer.qpn, &end->peer.psn, gid) != 3)
		victim_die(line);
	for (int i = 0; i < 16; i++)
		sscanf(gid + 2 * i, "%2hhx", &end->peer.gid.raw[i]);
	victim_connect(&victim, 0);
	printf("{\"event\": \"connected\"}\n");
}

/* `count` of the same, in one list. */
static void post(struct end *end, const struct ibv_send_wr *model, uint32_t length, unsigned count)
{
	struct ibv_sge sge = {(uintptr_t)room, length, room_mr->lkey};
	struct ibv_send_wr wr[MOST], *bad;

	if (count == 0 || count > MOST || length > ROOM) {
		errno = EINVAL;
		victim_die("count or length");
	}
	for (unsigned i = 0; i < count; i++) {
		wr[i] = *model;
		wr[i].wr_id = SEND_ID;
		wr[i].sg_list = &sge;
		wr[i].num_sge = length > 0;
		wr[i].send_flags = IBV_SEND_SIGNALED;
		wr[i].next = i + 1 < count ? &wr[i + 1] : NULL;
	}
	if (ibv_post_send(end->qp, wr, &bad) != 0)
		victim_die("ibv_post_send");
	waiting = count;
}

static void command(char *line)
{
	struct end *end = &victim.end[0];
	struct ibv_send_wr wr = {0};
	unsigned long long address = 0;
	unsigned count, length, rkey = 0;
	char imm[16];

	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "connect ", 8)) {
		connect_to(end, line);
	} else if (!strncmp(line, "text ", 5)) {
		snprintf((char *)room, SHOWN, "%.*s", SHOWN - 1, line + 5);
	} else if (sscanf(line, "send %u %u %15s", &count, &length, imm) == 3) {
		wr.opcode = imm[0] == '-' ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
		wr.imm_data = htobe32((uint32_t)strtoul(imm, NULL, 16));
		post(end, &wr, length, count);
	} else if (sscanf(line, "write %u %llu %u", &rkey, &address, &length) == 3 ||
		   sscanf(line, "read %u %llu %u", &rkey, &address, &length) == 3) {
		wr.opcode = line[0] == 'w' ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
		wr.wr.rdma.rkey = rkey;
		wr.wr.rdma.remote_addr = address;
		post(end, &wr, length, 1);
	} else if (sscanf(line, "add %u %llu", &rkey, &address) == 2) {
		wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
		wr.wr.atomic.rkey = rkey;
		wr.wr.atomic.remote_addr = address;
		wr.wr.atomic.compare_add = 1;
		post(end, &wr, 8, 1);
	} else if (!strcmp(line, "vanish")) {
		if (ibv_destroy_qp(end->qp) != 0)
			victim_die("ibv_destroy_qp");
		end->broken = true;
	} else {
		errno = EINVAL;
		victim_die(line);
	}
}

static void say_bytes(const char *event, const uint8_t *bytes, unsigned length)
{
	printf("{\"event\": \"%s\", \"length\": %u, \"bytes\": \"", event, length);
	for (unsigned i = 0; i < length && i < SHOWN; i++)
		printf("%02x", bytes[i]);
	printf("\"}\n");
}

static void completed(struct end *end, const struct ibv_wc *wc)
{
	if (wc->wr_id < SEND_ID) {
		if (wc->status == IBV_WC_SUCCESS)
			say_bytes("message", end->buffers + wc->wr_id * MESSAGE, wc->byte_len);
		if (wc->status == IBV_WC_SUCCESS && !end->broken)
			victim_receive(end, (uint32_t)wc->wr_id);
		return;
	}
	if (wc->status != IBV_WC_SUCCESS && waiting > 0) {
		printf("{\"event\": \"broken\", \"status\": \"%s\"}\n", ibv_wc_status_str(wc->status));
		waiting = 0;
	} else if (waiting > 0 && --waiting == 0) {
		say_bytes("done", room, wc->opcode == IBV_WC_RDMA_READ ? wc->byte_len : 0);
	}
}

int main(int argc, char **argv)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	char line[1024];
	struct ibv_wc wc;

	if (argc < 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	open_all(argv[1], argc > 2 && !strcmp(argv[2], "--deaf"));
	for (;;) {
		while (ibv_poll_cq(victim.cq, 1, &wc) > 0)
			completed(&victim.end[0], &wc);
		if (poll(&input, 1, waiting > 0 ? 0 : 1) <= 0)
			continue;
		if (!fgets(line, sizeof line, stdin))
			return 0;
		command(line);
	}
}
