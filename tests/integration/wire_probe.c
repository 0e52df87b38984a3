/* SPDX-License-Identifier: Apache-2.0 */
/* One end for test_encryption.py: asks agent/encryption.h about a path, and sends over it. It reads commands, a line each, and answers each
 * with a line:
 *   check DEVICE OWN PEER [NETDEV]  DEVICE: sockets, rxe, hardware  -> RESULT "encrypted by" or "why not"
 *   send OWN PEER TEXT              an RC queue pair of its own sends the text to one that nobody has -> sent */
#include "encryption.h"

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct ibv_context *device;
static struct ibv_pd *pd;

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "wire_probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void read_gid(const char *text, uint8_t gid[16])
{
	memset(gid, 0, 16);
	if (inet_pton(AF_INET6, text, gid) == 1)
		return;
	gid[10] = gid[11] = 0xff;
	must(inet_pton(AF_INET, text, gid + 12) == 1, text);
}

static void check(const char *kind, const char *own_text, const char *peer_text, const char *netdev)
{
	enum encryption_device type = strcmp(kind, "rxe") == 0 ? ENCRYPTION_RXE : strcmp(kind, "hardware") == 0 ? ENCRYPTION_HARDWARE : ENCRYPTION_SOCKETS;
	char what[ENCRYPTION_WHAT], why[ENCRYPTION_WHY];
	uint8_t own[16], peer[16];
	int ret;

	read_gid(own_text, own);
	read_gid(peer_text, peer);
	encryption_forget();
	ret = encryption_check(own, peer, netdev[0] ? netdev : NULL, type, what, why);
	printf("%s %s\n", ret == 0 ? "0" : ret == -EACCES ? "EACCES" : ret == -EPERM ? "EPERM" : ret == -EAGAIN ? "EAGAIN" : "EINVAL", ret == 0 ? what : why);
}

/* The index of a GID among those of the device. -1: it has no such one. */
static int find_gid(const uint8_t wanted[16])
{
	union ibv_gid gid;

	for (int i = 0; i < 64; i++)
		if (ibv_query_gid(device, 1, i, &gid) == 0 && memcmp(gid.raw, wanted, 16) == 0)
			return i;
	return -1;
}

static void open_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	must(list != NULL, "devices");
	for (struct ibv_device **one = list; *one && !device; one++)
		if (!name || strcmp(ibv_get_device_name(*one), name) == 0)
			device = ibv_open_device(*one);
	must(device != NULL, "open");
	must((pd = ibv_alloc_pd(device)) != NULL, "pd");
}

static int connect_pair(struct ibv_qp *qp, int index, const uint8_t peer[16])
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};

	must(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0, "INIT");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = 0x123, .rq_psn = 7, .max_dest_rd_atomic = 1, .min_rnr_timer = 1,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = (uint8_t)index, .hop_limit = 64}},
	};
	memcpy(attr.ah_attr.grh.dgid.raw, peer, 16);
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
					     IBV_QP_MIN_RNR_TIMER) != 0)
		return -errno;
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 6, .rnr_retry = 6, .sq_psn = 7, .max_rd_atomic = 1};
	must(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) == 0, "RTS");
	return 0;
}

/* The packet leaves at once. It is repeated after 67 ms, which only a busy machine comes to. */
static void send_text(const char *own_text, const char *peer_text, const char *text)
{
	static char buffer[256];
	struct ibv_cq *cq = ibv_create_cq(device, 4, NULL, NULL, 0);
	struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {4, 4, 1, 1, 0}};
	struct ibv_qp *qp = cq ? ibv_create_qp(pd, &init) : NULL;
	struct ibv_mr *mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_sge sge = {(uintptr_t)buffer, sizeof buffer, mr ? mr->lkey : 0};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad;
	uint8_t own[16], peer[16];
	struct ibv_wc wc;
	int index, ret;

	must(qp && mr, "objects");
	snprintf(buffer, sizeof buffer, "%s", text);
	read_gid(own_text, own);
	read_gid(peer_text, peer);
	index = find_gid(own);
	ret = index < 0 ? -ENOENT : connect_pair(qp, index, peer);
	if (ret == 0) {
		must(ibv_post_send(qp, &wr, &bad) == 0, "post");
		for (int i = 0; i < 40 && ibv_poll_cq(cq, 1, &wc) == 0; i++)
			usleep(1000);
	}
	ibv_destroy_qp(qp);
	ibv_dereg_mr(mr);
	ibv_destroy_cq(cq);
	printf("%s\n", ret == 0 ? "sent" : strerror(-ret));
}

int main(int argc, char **argv)
{
	char line[512], kind[16], own[64], peer[64], rest[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	open_device(argc > 1 ? argv[1] : NULL);
	printf("ready\n");
	while (fgets(line, sizeof line, stdin)) {
		rest[0] = '\0';
		if (sscanf(line, "check %15s %63s %63s %15s", kind, own, peer, rest) >= 3)
			check(kind, own, peer, rest);
		else if (sscanf(line, "send %63s %63s %255s", own, peer, rest) == 3)
			send_text(own, peer, rest);
		else
			printf("unknown command\n");
	}
	return 0;
}
