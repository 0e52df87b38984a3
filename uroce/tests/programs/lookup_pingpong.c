/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lookup.h"

enum { SIZE = 256, ROUNDS = 200, DEADLINE = 40 /* seconds */ };

/* What each end tells the other. Both are on this machine. */
struct end {
	union ibv_gid gid;
	uint32_t qpn;
	uint32_t psn;
};

struct side {
	const struct functions *verbs;
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	unsigned char memory[2 * SIZE]; /* out, in */
	int peer;
};

#define CHECK(condition, what) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "lookup: %s: %s\n", what, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

/* Listens, or tries to connect until the deadline. */
static int meet(const char *port, const char *host)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = host ? 0 : AI_PASSIVE}, *found;
	CHECK(getaddrinfo(host, port, &hints, &found) == 0, "getaddrinfo");
	int fd = socket(found->ai_family, SOCK_STREAM, 0), one = 1;

	CHECK(fd >= 0, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (host) {
		CHECK(connect(fd, found->ai_addr, found->ai_addrlen) == 0, "connect");
		freeaddrinfo(found);
		return fd;
	}
	CHECK(bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0, "listen");
	freeaddrinfo(found);
	int peer = accept(fd, NULL, NULL);
	CHECK(peer >= 0, "accept");
	close(fd);
	return peer;
}

static struct ibv_device *find_device(const struct functions *verbs, struct ibv_device **list, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(verbs->ibv_get_device_name(list[i]), "uroce0") == 0)
			return list[i];
	fprintf(stderr, "lookup: no device uroce0 among %d\n", count);
	exit(1);
}

static void make(struct side *s)
{
	const struct functions *v = s->verbs;
	int count;
	struct ibv_device **list = v->ibv_get_device_list(&count);
	struct ibv_device_attr attr;

	CHECK(list, "ibv_get_device_list");
	s->context = v->ibv_open_device(find_device(v, list, count));
	CHECK(s->context, "ibv_open_device");
	v->ibv_free_device_list(list);
	CHECK(v->ibv_query_device(s->context, &attr) == 0 && attr.max_qp > 0, "ibv_query_device");
	s->pd = v->ibv_alloc_pd(s->context);
	CHECK(s->pd, "ibv_alloc_pd");
	CHECK(!v->ibv_reg_dmabuf_mr(s->pd, 0, SIZE, 0, -1, IBV_ACCESS_LOCAL_WRITE) && errno == EBADF, "ibv_reg_dmabuf_mr");
	s->mr = v->ibv_reg_mr_iova2(s->pd, s->memory, sizeof s->memory, (uintptr_t)s->memory, IBV_ACCESS_LOCAL_WRITE);
	CHECK(s->mr, "ibv_reg_mr_iova2");
	s->cq = v->ibv_create_cq(s->context, 8, NULL, NULL, 0);
	CHECK(s->cq, "ibv_create_cq");
	struct ibv_qp_init_attr init = {.send_cq = s->cq, .recv_cq = s->cq, .qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 2, .max_recv_wr = 2, .max_send_sge = 1, .max_recv_sge = 1}};
	s->qp = v->ibv_create_qp(s->pd, &init);
	CHECK(s->qp, "ibv_create_qp");
	struct ibv_ece ece;
	CHECK(v->ibv_query_ece(s->qp, &ece) == EOPNOTSUPP, "ibv_query_ece");
}

static void modify(struct side *s, struct ibv_qp_attr attr, int mask)
{
	CHECK(s->verbs->ibv_modify_qp(s->qp, &attr, mask) == 0, "ibv_modify_qp");
}

static void receive(struct side *s)
{
	struct ibv_sge sge = {(uintptr_t)s->memory + SIZE, SIZE, s->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1}, *bad;

	CHECK(ibv_post_recv(s->qp, &wr, &bad) == 0, "ibv_post_recv");
}

static void connect_ends(struct side *s)
{
	struct end own = {.qpn = s->qp->qp_num, .psn = s->qp->qp_num & 0xfff}, peer;

	CHECK(s->verbs->ibv_query_gid(s->context, 1, 0, &own.gid) == 0, "ibv_query_gid");
	modify(s, (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT, .port_num = 1},
	       IBV_QP_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX | IBV_QP_ACCESS_FLAGS);
	receive(s);
	CHECK(send(s->peer, &own, sizeof own, 0) == sizeof own && recv(s->peer, &peer, sizeof peer, MSG_WAITALL) == sizeof peer,
	      "the exchange");
	modify(s,
	       (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer.qpn, .rq_psn = peer.psn,
				    .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				    .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = peer.gid, .hop_limit = 64}}},
	       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
		       IBV_QP_MIN_RNR_TIMER);
	modify(s,
	       (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = own.psn, .timeout = 17, .retry_cnt = 7, .rnr_retry = 7,
				    .max_rd_atomic = 1},
	       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

/* Until `count` requests are complete. */
static void await(struct side *s, int count)
{
	time_t end = time(NULL) + DEADLINE;
	struct ibv_wc wc;

	while (count > 0) {
		int n = ibv_poll_cq(s->cq, 1, &wc);
		CHECK(n >= 0 && time(NULL) < end, "a completion");
		if (n == 0)
			continue;
		if (wc.status != IBV_WC_SUCCESS) {
			fprintf(stderr, "lookup: completion: %s\n", s->verbs->ibv_wc_status_str(wc.status));
			exit(1);
		}
		count--;
	}
}

static void say(struct side *s, int round)
{
	struct ibv_sge sge = {(uintptr_t)s->memory, SIZE, s->mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad;

	memset(s->memory, round, SIZE);
	CHECK(ibv_post_send(s->qp, &wr, &bad) == 0, "ibv_post_send");
}

static void hear(const struct side *s, int round)
{
	for (int i = SIZE; i < 2 * SIZE; i++) {
		if (s->memory[i] != (unsigned char)round) {
			fprintf(stderr, "lookup: message %d: byte %d is %d\n", round, i - SIZE, s->memory[i]);
			exit(1);
		}
	}
}

static void destroy(struct side *s)
{
	const struct functions *v = s->verbs;

	CHECK(v->ibv_destroy_qp(s->qp) == 0 && v->ibv_destroy_cq(s->cq) == 0 && v->ibv_dereg_mr(s->mr) == 0 &&
		      v->ibv_dealloc_pd(s->pd) == 0 && v->ibv_close_device(s->context) == 0,
	      "the end");
	close(s->peer);
}

void pingpong(const struct functions *verbs, const char *port, const char *host)
{
	static struct side side;
	struct side *s = &side;

	s->verbs = verbs;
	CHECK(verbs->ibv_fork_init() == 0, "ibv_fork_init");
	make(s);
	s->peer = meet(port, host);
	connect_ends(s);
	/* The client speaks first; each answers what it has heard. */
	for (int round = 0; round < ROUNDS; round++) {
		if (host)
			say(s, round);
		await(s, host ? 2 : 1);
		hear(s, round);
		if (round + 1 < ROUNDS)
			receive(s);
		if (!host) {
			say(s, round);
			await(s, 1);
		}
	}
	destroy(s);
}
