/* SPDX-License-Identifier: Apache-2.0 */
/* Many connected queue pairs in one process: each sends its neighbour a message of its own, which is verified. Prints
 * JSON: what a queue pair with queues of the given depth costs in resident memory.
 * usage: many_qps [DEVICE [COUNT [DEPTH]]] (uroce0, 10000, 1) */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <infiniband/verbs.h>

enum { SIZE = 64, BATCH = 128 };

static const double limit_seconds = 120;

struct world {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	union ibv_gid gid;
	uint32_t count;
	uint32_t depth; /* of each queue */
	struct ibv_qp **qp;
	uint8_t *sent; /* [count][SIZE] */
	uint8_t *received;
};

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("many_qps: ", stderr);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double resident(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long size, pages;

	if (!file || fscanf(file, "%lu %lu", &size, &pages) != 2)
		die("/proc/self/statm: %m");
	fclose(file);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void open_world(struct world *w, const char *device)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);

	for (int i = 0; list && i < count; i++) {
		if (!strcmp(ibv_get_device_name(list[i]), device))
			w->context = ibv_open_device(list[i]);
	}
	if (!w->context)
		die("no device %s", device);
	ibv_free_device_list(list);
	size_t bytes = 2 * (size_t)w->count * SIZE;

	/* All of it touched now, so that it is not taken for a queue pair's. */
	w->sent = malloc(bytes);
	w->qp = malloc(w->count * sizeof(struct ibv_qp *));
	if (!w->sent || !w->qp)
		die("no memory");
	memset(w->sent, 1, bytes);
	memset(w->qp, 1, w->count * sizeof(struct ibv_qp *));
	w->received = w->sent + bytes / 2;
	w->pd = ibv_alloc_pd(w->context);
	w->cq = w->pd ? ibv_create_cq(w->context, 4 * BATCH, NULL, NULL, 0) : NULL;
	w->mr = w->pd ? ibv_reg_mr(w->pd, w->sent, bytes, IBV_ACCESS_LOCAL_WRITE) : NULL;
	if (!w->cq || !w->mr || ibv_query_gid(w->context, 1, 0, &w->gid))
		die("PD, CQ, MR or GID: %m");
}

static struct ibv_qp *create(struct world *w)
{
	struct ibv_qp_init_attr init = {
		.send_cq = w->cq,
		.recv_cq = w->cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = w->depth, .max_recv_wr = w->depth, .max_send_sge = 1, .max_recv_sge = 1}};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
				   .port_num = 1,
				   .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ};
	struct ibv_qp *qp = ibv_create_qp(w->pd, &init);

	if (!qp)
		die("ibv_create_qp: %m");
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		die("modify to INIT failed");
	return qp;
}

static void connect_to(struct world *w, struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = peer,
		.rq_psn = 5,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = w->gid, .sgid_index = 0, .hop_limit = 64}}};

	if (ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		die("modify to RTR failed");
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
				    .sq_psn = 5,
				    .timeout = 14,
				    .retry_cnt = 7,
				    .rnr_retry = 7,
				    .max_rd_atomic = 1};
	if (ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				  IBV_QP_MAX_QP_RD_ATOMIC))
		die("modify to RTS failed");
}

static void post(struct world *w, uint32_t i)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(w->received + (size_t)i * SIZE), .length = SIZE, .lkey = w->mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1}, *bad_receive;
	struct ibv_send_wr send = {.sg_list = &sge,
				   .num_sge = 1,
				   .opcode = IBV_WR_SEND,
				   .send_flags = IBV_SEND_SIGNALED},
			   *bad_send;

	if (ibv_post_recv(w->qp[i ^ 1], &receive, &bad_receive))
		die("ibv_post_recv failed");
	sge.addr = (uintptr_t)(w->sent + (size_t)i * SIZE);
	memcpy(w->sent + (size_t)i * SIZE, &i, sizeof i);
	if (ibv_post_send(w->qp[i], &send, &bad_send))
		die("ibv_post_send failed");
}

/* Each sends one message, a batch at a time: all stay connected throughout. */
static void exchange(struct world *w)
{
	double end = seconds() + limit_seconds;

	memset(w->received, 0, (size_t)w->count * SIZE);
	for (uint32_t first = 0; first < w->count; first += BATCH) {
		uint32_t last = first + BATCH < w->count ? first + BATCH : w->count;
		uint32_t left = 2 * (last - first);

		for (uint32_t i = first; i < last; i++)
			post(w, i);
		while (left) {
			struct ibv_wc wc[16];
			int n = ibv_poll_cq(w->cq, 16, wc);

			if (n < 0 || seconds() > end)
				die("%u completions are missing", left);
			for (int k = 0; k < n; k++) {
				if (wc[k].status != IBV_WC_SUCCESS)
					die("completion: %s", ibv_wc_status_str(wc[k].status));
			}
			left -= (uint32_t)n;
		}
	}
	for (uint32_t i = 0; i < w->count; i++) {
		if (memcmp(w->received + (size_t)i * SIZE, w->sent + (size_t)i * SIZE, SIZE))
			die("the message of queue pair %u did not arrive whole", i);
	}
}

static double measure(struct world *w, double *took)
{
	double before = resident(), began = seconds();

	for (uint32_t i = 0; i < w->count; i++)
		w->qp[i] = create(w);
	for (uint32_t i = 0; i < w->count; i++)
		connect_to(w, w->qp[i], w->qp[i ^ 1]->qp_num);
	*took = seconds() - began;
	exchange(w);
	double cost = (resident() - before) / w->count;

	for (uint32_t i = 0; i < w->count; i++) {
		if (ibv_destroy_qp(w->qp[i]))
			die("ibv_destroy_qp failed");
	}
	return cost;
}

int main(int argc, char **argv)
{
	struct world w = {.count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) & ~1u : 10000,
			  .depth = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1};
	double took;

	if (!w.count || !w.depth)
		die("usage: many_qps [DEVICE [COUNT [DEPTH]]]");
	open_world(&w, argc > 1 ? argv[1] : "uroce0");
	double cost = measure(&w, &took);

	printf("{\"qps\": %u, \"verified\": %u, \"depth\": %u, \"bytes_per_qp\": %.0f, \"connect_us\": %.1f}\n",
	       w.count, w.count, w.depth, cost, took / w.count * 1e6);
	if (ibv_dereg_mr(w.mr) || ibv_destroy_cq(w.cq) || ibv_dealloc_pd(w.pd) || ibv_close_device(w.context))
		die("closing failed");
	free(w.sent);
	free(w.qp);
	return 0;
}
