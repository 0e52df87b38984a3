/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that are cancelled while they use the device, and children that are forked while others list and open it. It knows nothing
 * of uroce. usage: moments: prints "all right" last. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <infiniband/verbs.h>

enum { LIMIT_S = 100, CHILD_LIMIT_S = 30, CANCELLED = 20, FORKS = 60, LENGTH = 4096, QPS = 2 };

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "moments: %s failed\n", what);
	exit(1);
}

/* ---- a queue pair that is connected to itself ---- */

struct loop {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	uint8_t memory[LENGTH];
};

static void connect_to_itself(struct loop *loop)
{
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
	struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR,
				  .path_mtu = IBV_MTU_1024,
				  .dest_qp_num = loop->qp->qp_num,
				  .max_dest_rd_atomic = 1,
				  .min_rnr_timer = 12,
				  .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 64}}};
	struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};

	if (ibv_query_gid(loop->context, 1, 0, &rtr.ah_attr.grh.dgid) ||
	    ibv_modify_qp(loop->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(loop->qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(loop->qp, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
						  IBV_QP_MAX_QP_RD_ATOMIC))
		die("ibv_modify_qp");
}

static void open_loop(struct loop *loop)
{
	int count = 0;
	struct ibv_device **list = ibv_get_device_list(&count);

	/* The last one: uroce's comes after those of the kernel. */
	loop->context = count > 0 ? ibv_open_device(list[count - 1]) : NULL;
	loop->pd = loop->context ? ibv_alloc_pd(loop->context) : NULL;
	loop->cq = loop->pd ? ibv_create_cq(loop->context, 8, NULL, NULL, 0) : NULL;
	struct ibv_qp_init_attr init = {.send_cq = loop->cq,
					.recv_cq = loop->cq,
					.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
	loop->qp = loop->cq ? ibv_create_qp(loop->pd, &init) : NULL;
	loop->mr = loop->qp ? ibv_reg_mr(loop->pd, loop->memory, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE) : NULL;
	if (!loop->mr)
		die("ibv_reg_mr");
	ibv_free_device_list(list);
	connect_to_itself(loop);
}

static void write_once(struct loop *loop)
{
	struct ibv_sge sge = {.addr = (uintptr_t)loop->memory, .length = LENGTH / 2, .lkey = loop->mr->lkey};
	struct ibv_send_wr write = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED}, *bad;
	struct ibv_wc wc;
	int got;

	write.wr.rdma.remote_addr = (uintptr_t)loop->memory + LENGTH / 2;
	write.wr.rdma.rkey = loop->mr->rkey;
	if (ibv_post_send(loop->qp, &write, &bad))
		die("ibv_post_send");
	while ((got = ibv_poll_cq(loop->cq, 1, &wc)) == 0)
		;
	if (got < 0 || wc.status != IBV_WC_SUCCESS)
		die("a WRITE");
}

static void close_loop(struct loop *loop)
{
	if (ibv_destroy_qp(loop->qp) || ibv_destroy_cq(loop->cq) || ibv_dereg_mr(loop->mr) || ibv_dealloc_pd(loop->pd) ||
	    ibv_close_device(loop->context))
		die("ibv_close_device");
}

/* ---- the moments ---- */

static atomic_bool over;

/* Cancelled between two writes alone: no verb that it calls is a cancellation point. */
__attribute__((noreturn)) static void *write_until_cancelled(void *arg)
{
	for (;;) {
		for (int i = 0; i < 200; i++)
			write_once(arg);
		pthread_testcancel();
	}
}

static void threads_are_cancelled(void)
{
	static struct loop loop, another;

	open_loop(&loop);
	for (int i = 0; i < CANCELLED; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, write_until_cancelled, &loop))
			die("pthread_create");
		nanosleep(&(struct timespec){.tv_nsec = 1000000 + i * 7919}, NULL);
		if (pthread_cancel(thread) || pthread_join(thread, NULL))
			die("pthread_cancel");
		/* Every lock is free, and nothing is left in the queue. */
		write_once(&loop);
		open_loop(&another);
		write_once(&another);
		close_loop(&another);
	}
	close_loop(&loop);
	printf("threads are cancelled\n");
}

static void *list_and_open(void *arg)
{
	static _Thread_local struct loop loop;

	while (!over) {
		open_loop(&loop);
		close_loop(&loop);
		for (int i = 0; i < 8; i++)
			ibv_free_device_list(ibv_get_device_list(NULL));
	}
	return arg;
}

static void children_are_forked(void)
{
	static struct loop loop;
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, list_and_open, NULL))
			die("pthread_create");
	for (int i = 0; i < FORKS; i++) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			alarm(CHILD_LIMIT_S);
			open_loop(&loop);
			write_once(&loop);
			_exit(0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			die("a forked child");
	}
	over = true;
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("children are forked\n");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(LIMIT_S);
	threads_are_cancelled();
	children_are_forked();
	printf("all right\n");
	return 0;
}
