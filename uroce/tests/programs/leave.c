/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that end right after their last completion, or right after their last post, in every way in which the C library lets them.
 * A device has acknowledged what was received, and sends what was posted: the peer must see no error. It knows nothing of uroce.
 * usage: leave exit|quick_exit|_exit|_Exit [ROUNDS]: prints "all right" last. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/verbs.h>

enum { LIMIT_S = 50, LENGTH = 64, SENDS = 3, ROUNDS = 8 };

static const char *how;

struct name {
	union ibv_gid gid;
	uint32_t qpn;
};

struct end {
	int fd; /* to the other end */
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	struct name mine, theirs;
	uint8_t memory[LENGTH];
};

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "leave: %s failed\n", what);
	_exit(1);
}

/* ---- connecting ---- */

static void exchange(const struct end *end, const void *mine, void *theirs, size_t length)
{
	if (send(end->fd, mine, length, MSG_NOSIGNAL) != (ssize_t)length ||
	    recv(end->fd, theirs, length, MSG_WAITALL) != (ssize_t)length)
		die("the exchange with the other end");
}

static void both_are_here(const struct end *end)
{
	char mine = 'x', theirs;

	exchange(end, &mine, &theirs, 1);
}

static void create(struct end *end)
{
	int count = 0;
	struct ibv_device **list = ibv_get_device_list(&count);
	/* The last one: uroce's comes after those of the kernel. */
	struct ibv_context *context = count > 0 ? ibv_open_device(list[count - 1]) : NULL;
	struct ibv_pd *pd = context ? ibv_alloc_pd(context) : NULL;

	end->cq = pd ? ibv_create_cq(context, 16, NULL, NULL, 0) : NULL;
	end->mr = end->cq ? ibv_reg_mr(pd, end->memory, LENGTH, IBV_ACCESS_LOCAL_WRITE) : NULL;
	struct ibv_qp_init_attr init = {.send_cq = end->cq,
					.recv_cq = end->cq,
					.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};
	end->qp = end->mr ? ibv_create_qp(pd, &init) : NULL;
	if (!end->qp || ibv_query_gid(context, 1, 0, &end->mine.gid))
		die("ibv_create_qp");
	end->mine.qpn = end->qp->qp_num;
	ibv_free_device_list(list);
}

/* A second, five times: much longer than a busy machine keeps a program that polls from running. */
static void connect_ends(struct end *end)
{
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1};
	struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 4, .rnr_retry = 6, .max_rd_atomic = 1};

	exchange(end, &end->mine, &end->theirs, sizeof end->mine);
	struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR,
				  .path_mtu = IBV_MTU_1024,
				  .dest_qp_num = end->theirs.qpn,
				  .max_dest_rd_atomic = 1,
				  .min_rnr_timer = 12,
				  .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = end->theirs.gid, .hop_limit = 64}}};

	if (ibv_modify_qp(end->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(end->qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						 IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(end->qp, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
						 IBV_QP_MAX_QP_RD_ATOMIC))
		die("ibv_modify_qp");
}

/* ---- the end of a program ---- */

static void post_receive(struct end *end)
{
	struct ibv_sge sge = {.addr = (uintptr_t)end->memory, .length = LENGTH, .lkey = end->mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1}, *bad;

	if (ibv_post_recv(end->qp, &receive, &bad))
		die("ibv_post_recv");
}

static void post_send(struct end *end, unsigned flags)
{
	struct ibv_sge sge = {.addr = (uintptr_t)end->memory, .length = LENGTH, .lkey = end->mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags}, *bad;

	if (ibv_post_send(end->qp, &wr, &bad))
		die("ibv_post_send");
}

static void await(struct end *end, const char *what)
{
	struct ibv_wc wc;
	int got;

	while ((got = ibv_poll_cq(end->cq, 1, &wc)) == 0)
		;
	if (got == 1 && wc.status == IBV_WC_SUCCESS)
		return;
	fprintf(stderr, "leave: %s: %s\n", what, got == 1 ? ibv_wc_status_str(wc.status) : "ibv_poll_cq failed");
	_exit(1);
}

static int leave(void)
{
	if (!strcmp(how, "exit"))
		exit(0);
	if (!strcmp(how, "quick_exit"))
		quick_exit(0);
	if (!strcmp(how, "_exit"))
		_exit(0);
	if (!strcmp(how, "_Exit"))
		_Exit(0);
	return 0;
}

/* Its last act is to receive, and the peer awaits the acknowledgement. */
static int leave_after_receive(struct end *end)
{
	post_receive(end);
	both_are_here(end);
	await(end, "the receive of the program that ends");
	return leave();
}

static int stay_and_send(struct end *end)
{
	both_are_here(end);
	post_send(end, IBV_SEND_SIGNALED);
	await(end, "a SEND to a program that ends when it has it");
	return 0;
}

/* Its last act is to post. */
static int leave_after_post(struct end *end)
{
	both_are_here(end);
	for (int i = 0; i < SENDS; i++)
		post_send(end, 0);
	return leave();
}

static int stay_and_receive(struct end *end)
{
	for (int i = 0; i < SENDS; i++)
		post_receive(end);
	both_are_here(end);
	for (int i = 0; i < SENDS; i++)
		await(end, "a receive of what a program posted that has ended");
	return 0;
}

/* ---- both programs ---- */

typedef int act(struct end *end);

static pid_t start(act *act_of, int fd, int other)
{
	static struct end end;
	pid_t child = fork();

	if (child != 0)
		return child;
	alarm(LIMIT_S);
	close(other);
	end.fd = fd;
	create(&end);
	connect_ends(&end);
	exit(act_of(&end));
}

static void round_of(act *leaver, act *stayer)
{
	int fd[2], status[2];
	pid_t child[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		die("socketpair");
	child[0] = start(leaver, fd[0], fd[1]);
	child[1] = start(stayer, fd[1], fd[0]);
	close(fd[0]);
	close(fd[1]);
	for (int i = 0; i < 2; i++)
		if (child[i] < 0 || waitpid(child[i], &status[i], 0) != child[i])
			die("fork");
	if (status[0] || status[1])
		die(leaver == leave_after_receive ? "leaving after a receive" : "leaving after a post");
}

int main(int count, char **words)
{
	how = count > 1 ? words[1] : "exit";
	for (int i = count > 2 ? atoi(words[2]) : ROUNDS; i > 0; i--) {
		round_of(leave_after_receive, stay_and_send);
		round_of(leave_after_post, stay_and_receive);
	}
	printf("all right\n");
	return 0;
}
