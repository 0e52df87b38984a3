/* SPDX-License-Identifier: Apache-2.0 */
/* 8-byte READs, one at a time, from a process that does something else. Prints JSON: the median and the 99th percentile in
 * microseconds.
 * usage: one_sided PERIOD [COUNT [DEVICE]]
 * PERIOD: microseconds between two looks of the target into its empty completion queue; 0: it only polls; -1: it never does. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <infiniband/verbs.h>

enum { LIMIT_SECONDS = 60 };

/* What an end tells the other. */
struct hello {
	union ibv_gid gid;
	uint32_t qpn;
	uint32_t rkey;
	uint64_t address;
};

struct end {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qp;
	struct hello mine;
	struct hello peer;
	uint64_t word;
};

static void die(const char *what) __attribute__((noreturn));
static void die(const char *what)
{
	fprintf(stderr, "one_sided: %s: %m\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void open_end(struct end *end, const char *device)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);

	for (int i = 0; list && i < count; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			end->context = ibv_open_device(list[i]);
	if (!end->context)
		die("no such device");
	ibv_free_device_list(list);
	end->pd = ibv_alloc_pd(end->context);
	end->cq = ibv_create_cq(end->context, 16, NULL, NULL, 0);
	end->mr = end->pd ? ibv_reg_mr(end->pd, &end->word, sizeof end->word, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) : NULL;
	if (!end->cq || !end->mr || ibv_query_gid(end->context, 1, 0, &end->mine.gid))
		die("PD, CQ, MR or GID");
	struct ibv_qp_init_attr init = {.send_cq = end->cq,
					.recv_cq = end->cq,
					.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
	end->qp = ibv_create_qp(end->pd, &init);
	if (!end->qp)
		die("ibv_create_qp");
	end->mine.qpn = end->qp->qp_num;
	end->mine.rkey = end->mr->rkey;
	end->mine.address = (uintptr_t)&end->word;
}

static void connect_end(struct end *end, int fd)
{
	if (write(fd, &end->mine, sizeof end->mine) != sizeof end->mine || read(fd, &end->peer, sizeof end->peer) != sizeof end->peer)
		die("exchange");
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_READ};
	struct ibv_qp_attr ready = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = end->peer.qpn,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = end->peer.gid, .hop_limit = 64}}};
	struct ibv_qp_attr send = {.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 6, .rnr_retry = 6, .max_rd_atomic = 1};
	if (ibv_modify_qp(end->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(end->qp, &ready,
			  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				  IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(end->qp, &send,
			  IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				  IBV_QP_MAX_QP_RD_ATOMIC))
		die("ibv_modify_qp");
	/* Neither goes on before the other is ready. */
	char byte = 0;
	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		die("exchange");
}

static void be_target(struct end *end, long period)
{
	struct ibv_wc wc;
	struct timespec pause = {.tv_sec = period / 1000000, .tv_nsec = period % 1000000 * 1000};

	while (period >= 0) {
		if (ibv_poll_cq(end->cq, 1, &wc) != 0)
			die("a completion of nothing");
		if (period > 0)
			nanosleep(&pause, NULL);
	}
	for (;;)
		pause.tv_sec = sleep(LIMIT_SECONDS);
}

static double read_once(struct end *end)
{
	uint64_t into = 0, begin = now_ns();
	struct ibv_mr *mr = end->mr;
	struct ibv_sge sge = {.addr = (uintptr_t)&end->word, .length = sizeof into, .lkey = mr->lkey};
	struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1}, *bad;
	struct ibv_wc wc;

	wr.wr.rdma.remote_addr = end->peer.address;
	wr.wr.rdma.rkey = end->peer.rkey;
	if (ibv_post_send(end->qp, &wr, &bad))
		die("ibv_post_send");
	while (ibv_poll_cq(end->cq, 1, &wc) == 0)
		if (now_ns() - begin > (uint64_t)LIMIT_SECONDS * 1000000000)
			die("no completion");
	if (wc.status != IBV_WC_SUCCESS)
		die(ibv_wc_status_str(wc.status));
	return (double)(now_ns() - begin) / 1000;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
	long period = argc > 1 ? atol(argv[1]) : 0;
	size_t count = argc > 2 ? (size_t)atol(argv[2]) : 1000;
	const char *device = argc > 3 ? argv[3] : "uroce0";
	static struct end end;
	double *us = calloc(count, sizeof *us);
	int fds[2];

	if (count == 0 || !us || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		die("usage: one_sided PERIOD [COUNT [DEVICE]]");
	pid_t target = fork();
	if (target < 0)
		die("fork");
	if (target == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		open_end(&end, device);
		connect_end(&end, fds[1]);
		be_target(&end, period);
	}
	open_end(&end, device);
	connect_end(&end, fds[0]);
	for (size_t i = 0; i < count; i++)
		us[i] = read_once(&end);
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
	qsort(us, count, sizeof *us, compare);
	printf("{\"median_us\": %.2f, \"p99_us\": %.2f}\n", us[count / 2], us[count * 99 / 100]);
	free(us);
	return 0;
}
