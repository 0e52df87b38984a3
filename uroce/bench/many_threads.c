/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that each create, connect, use and destroy queue pairs of their own, all at once: how throughput scales.
 * usage: many_threads THREADS [SECONDS [POLLERS]]: POLLERS more threads poll empty completion queues all the time. Prints JSON:
 * pairs of queue pairs made and destroyed, and messages verified, a second; the least pairs that any thread made. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <infiniband/verbs.h>

enum { MESSAGES = 16, SIZE = 64, MOST = 4096 };

static struct ibv_context *context;
static struct ibv_pd *pd;
static union ibv_gid gid;
static atomic_bool over;

struct worker {
	pthread_t thread;
	unsigned long pairs;
	unsigned long messages;
	uint64_t memory[2][SIZE / sizeof(uint64_t)];
};

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "many_threads: %s failed\n", what);
	exit(1);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1};
	struct ibv_qp_attr rtr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = peer,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .hop_limit = 64}}};
	struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 20, .retry_cnt = 7, .rnr_retry = 7};

	if (ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(qp, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					    IBV_QP_MAX_QP_RD_ATOMIC))
		die("ibv_modify_qp");
}

static void send_one(struct worker *w, struct ibv_qp **qp, struct ibv_cq *cq, uint32_t lkey)
{
	struct ibv_sge to = {.addr = (uintptr_t)w->memory[1], .length = SIZE, .lkey = lkey};
	struct ibv_sge from = {.addr = (uintptr_t)w->memory[0], .length = SIZE, .lkey = lkey};
	struct ibv_recv_wr receive = {.sg_list = &to, .num_sge = 1}, *bad_receive;
	struct ibv_send_wr send = {.sg_list = &from, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad_send;

	w->memory[0][0] = w->messages + 1;
	if (ibv_post_recv(qp[1], &receive, &bad_receive) || ibv_post_send(qp[0], &send, &bad_send))
		die("posting");
	for (int left = 2; left > 0;) {
		struct ibv_wc wc[2];
		int n = ibv_poll_cq(cq, 2, wc);
		for (int i = 0; i < n; i++)
			if (wc[i].status != IBV_WC_SUCCESS)
				die(ibv_wc_status_str(wc[i].status));
		left -= n < 0 ? 0 : n;
	}
	if (w->memory[1][0] != w->memory[0][0])
		die("a message");
	w->messages++;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct ibv_cq *cq = ibv_create_cq(context, 4, NULL, NULL, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, w->memory, sizeof w->memory, IBV_ACCESS_LOCAL_WRITE);

	if (!cq || !mr)
		die("ibv_reg_mr");
	/* Each at least once, so that a thread that is never served keeps the program from ending. */
	do {
		struct ibv_qp_init_attr init = {
			.send_cq = cq,
			.recv_cq = cq,
			.qp_type = IBV_QPT_RC,
			.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
		struct ibv_qp *qp[2] = {ibv_create_qp(pd, &init), ibv_create_qp(pd, &init)};
		if (!qp[0] || !qp[1])
			die("ibv_create_qp");
		connect_to(qp[0], qp[1]->qp_num);
		connect_to(qp[1], qp[0]->qp_num);
		for (int i = 0; i < MESSAGES; i++)
			send_one(w, qp, cq, mr->lkey);
		if (ibv_destroy_qp(qp[0]) || ibv_destroy_qp(qp[1]))
			die("ibv_destroy_qp");
		w->pairs++;
	} while (!atomic_load(&over));
	if (ibv_dereg_mr(mr) || ibv_destroy_cq(cq))
		die("ibv_destroy_cq");
	return NULL;
}

static void *poll_for_nothing(void *arg)
{
	struct ibv_cq *cq = ibv_create_cq(context, 4, NULL, NULL, 0);
	struct ibv_wc wc;

	(void)arg;
	if (!cq)
		die("ibv_create_cq");
	while (!atomic_load(&over))
		if (ibv_poll_cq(cq, 1, &wc) != 0)
			die("ibv_poll_cq");
	if (ibv_destroy_cq(cq))
		die("ibv_destroy_cq");
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 0, pairs = 0, messages = 0, least = ~0ul;
	double limit = argc > 2 ? strtod(argv[2], NULL) : 2;
	unsigned long pollers = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	int count = 0;

	if (threads == 0 || threads > MOST || pollers > MOST) {
		fprintf(stderr, "usage: many_threads THREADS [SECONDS [POLLERS]]\n");
		return 2;
	}
	struct worker *worker = calloc(threads + pollers, sizeof *worker);
	struct ibv_device **list = ibv_get_device_list(&count);
	/* The last one: uroce's comes after those of the kernel. */
	context = worker && count > 0 ? ibv_open_device(list[count - 1]) : NULL;
	pd = context ? ibv_alloc_pd(context) : NULL;
	if (!pd || ibv_query_gid(context, 1, 0, &gid))
		die("ibv_open_device");
	ibv_free_device_list(list);
	double began = seconds();
	for (unsigned long i = 0; i < threads + pollers; i++)
		if (pthread_create(&worker[i].thread, NULL, i < threads ? work : poll_for_nothing, &worker[i]))
			die("pthread_create");
	while (seconds() - began < limit)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	atomic_store(&over, true);
	for (unsigned long i = threads; i < threads + pollers; i++)
		pthread_join(worker[i].thread, NULL);
	for (unsigned long i = 0; i < threads; i++) {
		pthread_join(worker[i].thread, NULL);
		pairs += worker[i].pairs;
		messages += worker[i].messages;
		least = worker[i].pairs < least ? worker[i].pairs : least;
	}
	double took = seconds() - began;
	printf("{\"threads\": %lu, \"seconds\": %.2f, \"pairs_s\": %.0f, \"messages_s\": %.0f, \"least_pairs\": %lu}\n", threads, took,
	       (double)pairs / took, (double)messages / took, least);
	if (ibv_dealloc_pd(pd) || ibv_close_device(context))
		die("ibv_close_device");
	free(worker);
	return 0;
}
