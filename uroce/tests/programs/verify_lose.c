/* SPDX-License-Identifier: Apache-2.0 */
/* The other end is lost: work that is posted then must end with IBV_WC_RETRY_EXC_ERR, in the time that the timeout and
 * the retry count give, and what is posted behind it be flushed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "verify.h"

int lose_as_server(struct end *end)
{
	if (end->plan->lose == LOSE_KILL || end->plan->lose == LOSE_DEAD)
		raise(SIGKILL);
	if (end->plan->lose == LOSE_STOP)
		raise(SIGSTOP);
	wire_wait_end(end->fd); /* mute: the device was told to lose everything */
	return 0;
}

/* Until the process is stopped, as /proc shows it. */
static void wait_stopped(int pid)
{
	char path[64], line[512];

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	while (deadline_left()) {
		FILE *file = fopen(path, "re");
		bool stopped = false;

		if (!file)
			fail(EXIT_BAD_DATA, "no process %d", pid);
		if (fgets(line, sizeof line, file)) {
			char *end_of_name = strrchr(line, ')');

			stopped = end_of_name && end_of_name[1] && end_of_name[2] == 'T';
		}
		fclose(file);
		if (stopped)
			return;
		usleep(1000);
	}
	fail(EXIT_DEADLINE, "the other end did not stop");
}

static void post_two(struct end *end, uint32_t qp)
{
	for (uint32_t slot = 0; slot < 2; slot++) {
		struct ibv_sge sge = {.addr = (uintptr_t)end->source, .length = 8, .lkey = end->source_mr->lkey};
		struct ibv_send_wr *bad,
			wr = {
				.wr_id = (uint64_t)qp << 32 | slot,
				.sg_list = &sge,
				.num_sge = 1,
				.opcode = IBV_WR_RDMA_WRITE,
				.send_flags = IBV_SEND_SIGNALED,
				.wr.rdma = {.remote_addr = end->remote_address, .rkey = end->remote_rkey},
			};

		if (ibv_post_send(end->qp[qp], &wr, &bad))
			fail(EXIT_BAD_DATA, "ibv_post_send failed");
	}
}

static void expect_error_state(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) || attr.qp_state != IBV_QPS_ERR)
		fail(EXIT_BAD_DATA, "after retry exceeded the state is %d, not ERR", (int)attr.qp_state);
}

/* From now on with the plan's timeout and retries, which a queue pair takes while its send queue is drained. */
static void lose_patience(struct end *end, uint32_t qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD,
				   .timeout = (uint8_t)end->plan->timeout,
				   .retry_cnt = (uint8_t)end->plan->retry};
	int error = ibv_modify_qp(end->qp[qp], &attr, IBV_QP_STATE);

	if (!error)
		error = ibv_modify_qp(end->qp[qp], &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT);
	attr.qp_state = IBV_QPS_RTS;
	if (!error)
		error = ibv_modify_qp(end->qp[qp], &attr, IBV_QP_STATE);
	if (error)
		fail(EXIT_BAD_DATA, "another timeout: %s", strerror(error));
}

int lose_as_client(struct end *end)
{
	const struct plan *plan = end->plan;
	/* Specification 9.7.6.1.3: the timer takes at least the interval and at most four of it; a busy machine more.
	 */
	double interval = 4.096e-3 * (double)(1ull << plan->timeout) * (plan->retry + 1);
	double least = interval, most = 4 * interval + 3000;
	if (plan->lose == LOSE_DEAD) {
		/* The device knows. */
		least = 0;
		most = 3000;
	}
	uint32_t *seen = calloc(plan->qps, sizeof *seen);
	uint32_t left = 2 * plan->qps;
	double last = 0;

	if (!seen)
		fail(EXIT_USAGE, "no memory");
	if (plan->lose == LOSE_KILL || plan->lose == LOSE_DEAD)
		wire_wait_end(end->fd);
	if (plan->lose == LOSE_STOP)
		wait_stopped(end->remote_pid);
	for (uint32_t i = 0; i < plan->qps; i++)
		lose_patience(end, i);
	uint64_t began = now_ns();

	for (uint32_t i = 0; i < plan->qps; i++)
		post_two(end, i);
	deadline_start();
	while (left) {
		struct ibv_wc wc;
		int n = end_poll(end, &wc, 1);
		double elapsed = (double)(now_ns() - began) / 1e6;

		if (n == 0 && (elapsed > most || !deadline_left()))
			fail(EXIT_DEADLINE, "no completion after %.0f ms; at most %.0f were allowed", elapsed, most);
		if (n == 0)
			continue;
		uint32_t qp = (uint32_t)(wc.wr_id >> 32);
		enum ibv_wc_status wanted = seen[qp]++ ? IBV_WC_WR_FLUSH_ERR : IBV_WC_RETRY_EXC_ERR;

		if (wc.status != wanted)
			fail(EXIT_BAD_DATA, "completion %u of queue pair %u: %s instead of %s", seen[qp], qp,
			     ibv_wc_status_str(wc.status), ibv_wc_status_str(wanted));
		if (elapsed < least)
			fail(EXIT_BAD_DATA, "gave up after %.1f ms; at least %.1f were asked for", elapsed, least);
		expect_error_state(end->qp[qp]);
		last = elapsed;
		left--;
	}
	printf("lost: retry exceeded on %u queue pairs after %.1f ms (allowed: %.1f to %.1f)\n", plan->qps, last, least,
	       most);
	free(seen);
	return 0;
}
