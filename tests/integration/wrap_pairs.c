/* SPDX-License-Identifier: Apache-2.0 */
/* A verbs program for the tests of `securdma wrap`: it does to queue pairs what lines on its standard input say, in any order, and answers
 * each with a line. It connects as programs do that know nothing of PSNs.
 * usage: wrap_pairs [--lookup] DEVICE GID-INDEX     --lookup: all functions by dlvsym(3) in a handle of libibverbs, as NCCL does */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef ibv_query_port
#undef ibv_reg_mr

enum { PAIRS = 4096, ROOM = 64 };

static struct {
	struct ibv_device **(*get_device_list)(int *);
	struct ibv_context *(*open_device)(struct ibv_device *);
	int (*close_device)(struct ibv_context *);
	struct ibv_pd *(*alloc_pd)(struct ibv_context *);
	struct ibv_mr *(*reg_mr)(struct ibv_pd *, void *, size_t, int);
	struct ibv_cq *(*create_cq)(struct ibv_context *, int, void *, struct ibv_comp_channel *, int);
	struct ibv_qp *(*create_qp)(struct ibv_pd *, struct ibv_qp_init_attr *);
	int (*modify_qp)(struct ibv_qp *, struct ibv_qp_attr *, int);
	int (*query_qp)(struct ibv_qp *, struct ibv_qp_attr *, int, struct ibv_qp_init_attr *);
	int (*destroy_qp)(struct ibv_qp *);
	struct ibv_ah *(*create_ah)(struct ibv_pd *, struct ibv_ah_attr *);
	int (*destroy_ah)(struct ibv_ah *);
	int (*query_gid)(struct ibv_context *, uint8_t, int, union ibv_gid *);
} verbs;

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static char memory[2 * ROOM];
static int gid_index;
static struct ibv_qp *pairs[PAIRS];

static void look_up(void)
{
	void *handle = dlopen("libibverbs.so.1", RTLD_NOW);

#define FIND(name) \
	if (!(*(void **)&verbs.name = dlvsym(handle, "ibv_" #name, "IBVERBS_1.1"))) \
		exit(3)
	if (!handle)
		exit(3);
	FIND(get_device_list); FIND(open_device); FIND(close_device); FIND(alloc_pd); FIND(reg_mr); FIND(create_cq); FIND(create_qp);
	FIND(modify_qp); FIND(query_qp); FIND(destroy_qp); FIND(create_ah); FIND(destroy_ah); FIND(query_gid);
}

static void link_in(void)
{
#define TAKE(name) verbs.name = ibv_##name
	TAKE(get_device_list); TAKE(open_device); TAKE(close_device); TAKE(alloc_pd); TAKE(reg_mr); TAKE(create_cq); TAKE(create_qp);
	TAKE(modify_qp); TAKE(query_qp); TAKE(destroy_qp); TAKE(create_ah); TAKE(destroy_ah); TAKE(query_gid);
}

static struct ibv_qp *create(const char *type)
{
	struct ibv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .qp_type = strcmp(type, "uc") == 0 ? IBV_QPT_UC : strcmp(type, "ud") == 0 ? IBV_QPT_UD : IBV_QPT_RC,
					.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};

	return verbs.create_qp(pd, &attr);
}

static int init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE};

	return verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (qp->qp_type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

static int rtr(struct ibv_qp *qp, uint32_t qpn, const union ibv_gid *gid, uint32_t psn)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qpn, .rq_psn = psn, .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				   .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = *gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}}};

	return verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			       (qp->qp_type == IBV_QPT_RC ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0));
}

static int rts(struct ibv_qp *qp, uint32_t psn)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS, .sq_psn = psn, .timeout = 14, .retry_cnt = 6, .rnr_retry = 6, .max_rd_atomic = 1};

	return verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
			       (qp->qp_type == IBV_QPT_RC ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0));
}

/* With a path MTU that no device has: the device refuses what the agent has granted. */
static int bad_rtr(struct ibv_qp *qp, uint32_t qpn, const union ibv_gid *gid)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR, .path_mtu = 77, .dest_qp_num = qpn, .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				   .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = *gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}}};

	return verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			       IBV_QP_MIN_RNR_TIMER);
}

static int to_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};

	return verbs.modify_qp(qp, &attr, IBV_QP_STATE);
}

static void own_gid(union ibv_gid *gid)
{
	if (verbs.query_gid(context, 1, gid_index, gid) != 0)
		exit(3);
}

/* ---- many at once, both ends in this process ---- */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

struct part {
	pthread_t thread;
	unsigned first, count;
	int error;
	double *times; /* of each call of modify_qp */
	unsigned timed;
};

#define TIMED(part, call) \
	do { \
		double start_ = now(); \
		int error_ = call; \
		(part)->times[(part)->timed++] = now() - start_; \
		if (error_ != 0) \
			(part)->error = error_; \
	} while (0)

static void *connect_part(void *arg)
{
	struct part *part = arg;
	union ibv_gid gid;

	own_gid(&gid);
	for (unsigned i = part->first; i < part->first + part->count; i++) {
		pairs[i] = create("rc");
		if (!pairs[i])
			exit(3);
		TIMED(part, init(pairs[i]));
	}
	for (unsigned i = part->first; i < part->first + part->count; i++) {
		TIMED(part, rtr(pairs[i], pairs[i ^ 1]->qp_num, &gid, 0));
		TIMED(part, rts(pairs[i], 0));
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

/* "many COUNT THREADS": answers with the time of it all, the 99th percentile of one call of modify_qp, and how many PSNs are 0 or do not match. */
static void many(unsigned count, unsigned threads)
{
	struct part parts[8] = {{0}};
	double *times = calloc((size_t)count * 3, sizeof *times), start = now(), took;
	unsigned wrong = 0, timed = 0;
	int error = 0;

	for (unsigned i = 0; i < threads; i++) {
		parts[i] = (struct part){.first = count / threads * i, .count = count / threads, .times = times + count / threads * i * 3};
		pthread_create(&parts[i].thread, NULL, connect_part, &parts[i]);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(parts[i].thread, NULL);
		error = parts[i].error ? parts[i].error : error;
		timed += parts[i].timed;
	}
	took = now() - start;
	for (unsigned i = 0; i < count; i++) {
		struct ibv_qp_attr own = {0}, peer = {0};
		struct ibv_qp_init_attr attr;

		verbs.query_qp(pairs[i], &own, IBV_QP_SQ_PSN | IBV_QP_RQ_PSN, &attr);
		verbs.query_qp(pairs[i ^ 1], &peer, IBV_QP_SQ_PSN | IBV_QP_RQ_PSN, &attr);
		wrong += own.sq_psn == 0 || own.sq_psn != peer.rq_psn;
	}
	for (unsigned i = 0; i < count; i++) {
		verbs.destroy_qp(pairs[i]);
		pairs[i] = NULL;
	}
	qsort(times, timed, sizeof *times, compare);
	printf("%d %.6f %.6f %u\n", error, took, times[timed * 99 / 100], wrong);
	free(times);
}

struct attempt {
	pthread_t thread;
	struct ibv_qp *qp;
	uint32_t qpn;
	union ibv_gid gid;
	int error;
};

static void *attempt(void *arg)
{
	struct attempt *attempt = arg;

	attempt->error = rtr(attempt->qp, attempt->qpn, &attempt->gid, 0);
	return NULL;
}

/* "abandon AT QPN GID MS": destroys a queue pair so long after another thread began to connect it. Both results. */
static void abandon(unsigned at, uint32_t qpn, const union ibv_gid *gid, unsigned ms)
{
	struct attempt one = {.qp = pairs[at], .qpn = qpn, .gid = *gid};
	int destroyed;

	pthread_create(&one.thread, NULL, attempt, &one);
	usleep(ms * 1000);
	destroyed = verbs.destroy_qp(pairs[at]);
	pairs[at] = NULL;
	pthread_join(one.thread, NULL);
	printf("%d %d\n", destroyed, one.error);
}

/* "forks COUNT": forks while another thread connects. How many children could not make a queue pair of their own, and the other's error. */
static void forks(unsigned count)
{
	struct part part = {.first = PAIRS / 2, .count = 1000, .times = calloc(3000, sizeof *part.times)};
	unsigned failed = 0;
	int status;

	fflush(stdout);
	pthread_create(&part.thread, NULL, connect_part, &part);
	for (unsigned i = 0; i < count; i++) {
		pid_t child = fork();

		if (child == 0) {
			struct ibv_qp *qp = create("rc");

			_exit(!qp || init(qp) != 0);
		}
		failed += waitpid(child, &status, 0) != child || status != 0;
	}
	pthread_join(part.thread, NULL);
	free(part.times);
	printf("%u %d\n", failed, part.error);
}

/* ---- one at a time ---- */

static void answer(int error)
{
	printf("%d\n", error);
}

static void parse_gid(const char *text, union ibv_gid *gid)
{
	char mapped[64];

	snprintf(mapped, sizeof mapped, "%s%s", strchr(text, ':') ? "" : "::ffff:", text);
	if (inet_pton(AF_INET6, mapped, gid->raw) != 1)
		exit(3);
}

static void query(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {0};
	struct ibv_qp_init_attr ignored;

	verbs.query_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_RQ_PSN | IBV_QP_DEST_QPN, &ignored);
	printf("%d %u %u %u\n", attr.qp_state, attr.sq_psn, attr.rq_psn, attr.dest_qp_num);
}

/* An address handle: 0 or errno. */
static int address(const char *text)
{
	struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = (uint8_t)gid_index, .hop_limit = 64}};
	struct ibv_ah *ah;

	parse_gid(text, &attr.grh.dgid);
	ah = verbs.create_ah(pd, &attr);
	return ah ? verbs.destroy_ah(ah) : errno;
}

static int post(struct ibv_qp *qp, bool receive)
{
	struct ibv_sge sge = {.addr = (uintptr_t)memory + (receive ? ROOM : 0), .length = ROOM, .lkey = mr->lkey};
	struct ibv_recv_wr recv = {.sg_list = &sge, .num_sge = 1}, *bad_recv;
	struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad_send;

	return receive ? ibv_post_recv(qp, &recv, &bad_recv) : ibv_post_send(qp, &send, &bad_send);
}

/* Of the next completion: the status, or -1 when none comes within so many milliseconds. */
static int poll_one(int timeout_ms)
{
	double until = now() + timeout_ms / 1e3;
	struct ibv_wc wc;

	do
		if (ibv_poll_cq(cq, 1, &wc) == 1)
			return (int)wc.status;
	while (now() < until);
	return -1;
}

/* A child makes a queue pair of its own, and tries the parent's. */
static void in_child(struct ibv_qp *inherited, const char *gid_text)
{
	int status;

	fflush(stdout);
	if (fork() == 0) {
		struct ibv_qp *qp = create("rc");
		union ibv_gid gid;
		int own = qp ? init(qp) : errno, others;

		parse_gid(gid_text, &gid);
		others = rtr(inherited, 0x123, &gid, 0);
		printf("%d %d\n", own, others);
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
}

/* By a thread that has ended when this returns. */
static void *create_one(void *type)
{
	return create(type);
}

static struct ibv_qp *create_in_thread(char *type)
{
	pthread_t thread;
	void *made = NULL;

	if (pthread_create(&thread, NULL, create_one, type) != 0 || pthread_join(thread, &made) != 0)
		exit(3);
	return made;
}

static bool obey(char *line)
{
	char word[16] = "", text[64] = "";
	unsigned at = 0, a = 0, b = 0;
	union ibv_gid gid;

	if (sscanf(line, "%15s", word) != 1)
		return true;
	if (strcmp(word, "create") == 0 && sscanf(line, "%*s %u %63s", &at, text) == 2) {
		pairs[at] = create(text);
		printf("%u\n", pairs[at] ? pairs[at]->qp_num : 0);
	} else if (strcmp(word, "thread") == 0 && sscanf(line, "%*s %u %63s", &at, text) == 2) {
		pairs[at] = create_in_thread(text);
		printf("%u\n", pairs[at] ? pairs[at]->qp_num : 0);
	} else if (strcmp(word, "init") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		answer(init(pairs[at]));
	} else if (strcmp(word, "rtr") == 0 && sscanf(line, "%*s %u %u %63s %u", &at, &a, text, &b) == 4) {
		parse_gid(text, &gid);
		answer(rtr(pairs[at], a, &gid, b));
	} else if (strcmp(word, "badrtr") == 0 && sscanf(line, "%*s %u %u %63s", &at, &a, text) == 3) {
		parse_gid(text, &gid);
		answer(bad_rtr(pairs[at], a, &gid));
	} else if (strcmp(word, "abandon") == 0 && sscanf(line, "%*s %u %u %63s %u", &at, &a, text, &b) == 4) {
		parse_gid(text, &gid);
		abandon(at, a, &gid, b);
	} else if (strcmp(word, "rts") == 0 && sscanf(line, "%*s %u %u", &at, &a) == 2) {
		answer(rts(pairs[at], a));
	} else if (strcmp(word, "reset") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		answer(to_state(pairs[at], IBV_QPS_RESET));
	} else if (strcmp(word, "query") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		query(pairs[at]);
	} else if (strcmp(word, "destroy") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		answer(verbs.destroy_qp(pairs[at]));
	} else if (strcmp(word, "address") == 0 && sscanf(line, "%*s %63s", text) == 1) {
		answer(address(text));
	} else if (strcmp(word, "receive") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		answer(post(pairs[at], true));
	} else if (strcmp(word, "send") == 0 && sscanf(line, "%*s %u", &at) == 1) {
		answer(post(pairs[at], false));
	} else if (strcmp(word, "poll") == 0 && sscanf(line, "%*s %u", &a) == 1) {
		answer(poll_one((int)a));
	} else if (strcmp(word, "many") == 0 && sscanf(line, "%*s %u %u", &a, &b) == 2) {
		many(a, b);
	} else if (strcmp(word, "forks") == 0 && sscanf(line, "%*s %u", &a) == 1) {
		forks(a);
	} else if (strcmp(word, "child") == 0 && sscanf(line, "%*s %u %63s", &at, text) == 2) {
		in_child(pairs[at], text);
	} else if (strcmp(word, "closefds") == 0) {
		for (int fd = 900; fd < 1000; fd++)
			close(fd);
		answer(0);
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	bool lookup = argc > 1 && strcmp(argv[1], "--lookup") == 0;
	struct ibv_device **list;
	char line[256];

	if (argc != 3 + lookup)
		return 2;
	(lookup ? look_up : link_in)();
	gid_index = atoi(argv[2 + lookup]);
	list = verbs.get_device_list(NULL);
	while (*list && strcmp((*list)->name, argv[1 + lookup]) != 0)
		list++;
	context = *list ? verbs.open_device(*list) : NULL;
	pd = context ? verbs.alloc_pd(context) : NULL;
	cq = context ? verbs.create_cq(context, 1024, NULL, NULL, 0) : NULL;
	mr = pd ? verbs.reg_mr(pd, memory, sizeof memory, IBV_ACCESS_LOCAL_WRITE) : NULL;
	if (!cq || !mr)
		return 3;
	setlinebuf(stdout);
	puts("ready");
	while (fgets(line, sizeof line, stdin))
		if (!obey(line))
			return 2;
	return 0;
}
