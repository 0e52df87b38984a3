/* SPDX-License-Identifier: Apache-2.0 */
/* What a program needs that connects two queue pairs of the first device with each other. */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct end {
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_qp_cap cap;
};
static struct ibv_context *device;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static union ibv_gid gid;
static char *buffer;
static int retry_cnt = 3;

static inline void must(int good, const char *what)
{
	if (!good) {
		printf("%s: %s\n", what, strerror(errno));
		exit(2);
	}
}

static inline void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	must(list && list[0], "device list");
	must((device = ibv_open_device(list[0])) != NULL, "open");
	must((pd = ibv_alloc_pd(device)) != NULL, "pd");
	must((buffer = aligned_alloc(4096, 65536)) != NULL, "buffer");
	memset(buffer, 0, 65536);
	must((mr = ibv_reg_mr(pd, buffer, 65536, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)) != NULL, "mr");
	must(!ibv_query_gid(device, 1, 1, &gid), "gid");
}

static inline void create(struct end *end, unsigned int depth)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {depth, depth, 1, 1, 0}};

	must((end->channel = ibv_create_comp_channel(device)) != NULL, "channel");
	fcntl(end->channel->fd, F_SETFL, O_NONBLOCK);
	must((end->cq = ibv_create_cq(device, 256, NULL, end->channel, 0)) != NULL, "cq");
	init.send_cq = init.recv_cq = end->cq;
	must((end->qp = ibv_create_qp(pd, &init)) != NULL, "qp");
	end->cap = init.cap;
}

static inline void to_init(struct end *end)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};

	must(!ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
}

static inline void to_rtr(struct end *end, const struct end *peer)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp->qp_num, .rq_psn = 7,
		.max_dest_rd_atomic = 1, .min_rnr_timer = 1,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = 1, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC;

	must(!ibv_modify_qp(end->qp, &attr, mask | IBV_QP_MIN_RNR_TIMER), "RTR");
}

static inline void to_rts(struct end *end)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = (unsigned char)retry_cnt, .rnr_retry = 6, .sq_psn = 7, .max_rd_atomic = 1,
	};
	int mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

	must(!ibv_modify_qp(end->qp, &attr, mask), "RTS");
}

static inline void connect_ends(struct end *a, struct end *b, unsigned int depth)
{
	create(a, depth), create(b, depth);
	to_init(a), to_init(b);
	to_rtr(a, b), to_rtr(b, a);
	to_rts(a), to_rts(b);
}

static inline int post_send(struct end *end, enum ibv_wr_opcode opcode, unsigned int flags, unsigned int length, unsigned int rkey)
{
	struct ibv_sge sge = {(uintptr_t)buffer, length, mr->lkey};
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = flags, .wr.rdma = {(uintptr_t)buffer + 8192, rkey},
	}, *bad;

	return ibv_post_send(end->qp, &wr, &bad);
}

static inline int post_recv(struct end *end, unsigned int length)
{
	struct ibv_sge sge = {(uintptr_t)buffer + 4096, length, mr->lkey};
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;

	return ibv_post_recv(end->qp, &wr, &bad);
}

/* The status of the next completion, or -1 after so many milliseconds. */
static inline int next_status(struct end *end, int ms)
{
	struct ibv_wc wc;

	for (; ms >= 0; ms--, usleep(1000))
		if (ibv_poll_cq(end->cq, 1, &wc) > 0)
			return (int)wc.status;
	return -1;
}

static inline const char *text(int status)
{
	return status < 0 ? "none" : ibv_wc_status_str((enum ibv_wc_status)status);
}
