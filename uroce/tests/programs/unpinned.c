/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory that goes while it is registered: operations on it fail, the program goes on, and signals that are its own
 * still reach it. usage: unpinned [late]: prints a line for each case, and "all right" last. late: the device does not see the
 * program's calls of sigaction and the like, and may take a moment to notice. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <infiniband/verbs.h>

enum { LENGTH = 65536, LIMIT_S = 120 };

static const int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
static struct ibv_context *context;
static struct ibv_pd *pd;
static union ibv_gid gid;
static bool late;
static uint8_t good[LENGTH];
static struct ibv_mr *good_mr;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "unpinned: %s failed\n", what);
	exit(1);
}

/* ---- memory that goes ---- */

enum way { UNMAPPED, READ_ONLY, TRUNCATED, WAYS };
static const char *const way_name[] = { "unmapped", "made read-only", "truncated" };

struct region {
	uint8_t *memory;
	int fd;
	struct ibv_mr *mr;
};

static void make_region(struct region *region, enum way way)
{
	region->fd = way == TRUNCATED ? memfd_create("unpinned", MFD_CLOEXEC) : -1;
	if (way == TRUNCATED && (region->fd < 0 || ftruncate(region->fd, LENGTH) != 0))
		die("memfd_create");
	region->memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, way == TRUNCATED ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
			      region->fd, 0);
	if (region->memory == MAP_FAILED)
		die("mmap");
	region->mr = ibv_reg_mr(pd, region->memory, LENGTH, rights);
	if (!region->mr)
		die("ibv_reg_mr");
}

static void take_away(const struct region *region, enum way way)
{
	int error = way == UNMAPPED    ? munmap(region->memory, LENGTH)
		    : way == READ_ONLY ? mprotect(region->memory, LENGTH, PROT_READ)
				       : ftruncate(region->fd, 0);
	if (error != 0)
		die(way_name[way]);
}

static void end_region(struct region *region, enum way way)
{
	if (ibv_dereg_mr(region->mr))
		die("ibv_dereg_mr");
	if (way != UNMAPPED)
		munmap(region->memory, LENGTH);
	if (region->fd >= 0)
		close(region->fd);
}

/* ---- a connection within this process ---- */

struct pair {
	struct ibv_cq *cq[2];
	struct ibv_qp *qp[2];
};

static void connect_to(struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = (unsigned)rights};
	struct ibv_qp_attr rtr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_4096,
		.dest_qp_num = peer,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .hop_limit = 64}}};
	struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4};

	if (ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(qp, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					    IBV_QP_MAX_QP_RD_ATOMIC))
		die("ibv_modify_qp");
}

static void make_pair(struct pair *pair)
{
	for (int i = 0; i < 2; i++) {
		pair->cq[i] = ibv_create_cq(context, 8, NULL, NULL, 0);
		struct ibv_qp_init_attr init = {
			.send_cq = pair->cq[i],
			.recv_cq = pair->cq[i],
			.qp_type = IBV_QPT_RC,
			.cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};
		pair->qp[i] = pair->cq[i] ? ibv_create_qp(pd, &init) : NULL;
		if (!pair->qp[i])
			die("ibv_create_qp");
	}
	connect_to(pair->qp[0], pair->qp[1]->qp_num);
	connect_to(pair->qp[1], pair->qp[0]->qp_num);
}

static void end_pair(struct pair *pair)
{
	for (int i = 0; i < 2; i++)
		if (ibv_destroy_qp(pair->qp[i]) || ibv_destroy_cq(pair->cq[i]))
			die("ibv_destroy_qp");
}

static enum ibv_wc_status completion(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	int n;

	do {
		n = ibv_poll_cq(cq, 1, &wc);
	} while (n == 0);
	if (n < 0)
		die("ibv_poll_cq");
	return wc.status;
}

/* ---- the cases ---- */

struct operation {
	const char *name;
	enum ibv_wr_opcode opcode;
	uint32_t length;
	bool from_good;     /* the region that goes is the peer's; else that of the poster */
	bool only_reads;    /* the region, so that a read-only one will do */
	enum ibv_wc_status sender;
	int receiver; /* -1: it has no completion */
};

static const struct operation operations[] = {
	{"a WRITE to it", IBV_WR_RDMA_WRITE, LENGTH, true, false, IBV_WC_REM_ACCESS_ERR, -1},
	{"a short WRITE to it", IBV_WR_RDMA_WRITE, 8, true, false, IBV_WC_REM_ACCESS_ERR, -1},
	{"a READ of it", IBV_WR_RDMA_READ, LENGTH, true, true, IBV_WC_REM_ACCESS_ERR, -1},
	{"a short READ of it", IBV_WR_RDMA_READ, 8, true, true, IBV_WC_REM_ACCESS_ERR, -1},
	{"an atomic on it", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, true, false, IBV_WC_REM_ACCESS_ERR, -1},
	{"a compare and swap on it", IBV_WR_ATOMIC_CMP_AND_SWP, 8, true, false, IBV_WC_REM_ACCESS_ERR, -1},
	{"a SEND into it", IBV_WR_SEND, LENGTH, true, false, IBV_WC_REM_OP_ERR, IBV_WC_LOC_PROT_ERR},
	{"a SEND from it", IBV_WR_SEND, LENGTH, false, true, IBV_WC_LOC_PROT_ERR, -1},
	{"a short SEND from it", IBV_WR_SEND, 8, false, true, IBV_WC_LOC_PROT_ERR, -1},
	{"a WRITE from it", IBV_WR_RDMA_WRITE, LENGTH, false, true, IBV_WC_LOC_PROT_ERR, -1},
	{"a READ into it", IBV_WR_RDMA_READ, LENGTH, false, false, IBV_WC_LOC_PROT_ERR, -1},
	{"the result of an atomic into it", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, false, false, IBV_WC_LOC_PROT_ERR, -1},
};

static void post(struct pair *pair, const struct operation *op, struct ibv_mr *local, struct ibv_mr *remote)
{
	struct ibv_sge to = {.addr = (uintptr_t)remote->addr, .length = LENGTH, .lkey = remote->lkey};
	struct ibv_sge from = {.addr = (uintptr_t)local->addr, .length = op->length, .lkey = local->lkey};
	struct ibv_recv_wr receive = {.sg_list = &to, .num_sge = 1}, *bad_receive;
	struct ibv_send_wr send = {.sg_list = &from, .num_sge = 1, .opcode = op->opcode, .send_flags = IBV_SEND_SIGNALED}, *bad_send;

	if (op->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP) {
		send.wr.atomic.remote_addr = (uintptr_t)remote->addr;
		send.wr.atomic.rkey = remote->rkey;
	} else {
		send.wr.rdma.remote_addr = (uintptr_t)remote->addr;
		send.wr.rdma.rkey = remote->rkey;
	}
	if (ibv_post_recv(pair->qp[1], &receive, &bad_receive) || ibv_post_send(pair->qp[0], &send, &bad_send))
		die("posting");
}

static void try(const struct operation *op, enum way way)
{
	struct region region;
	struct pair pair;

	make_region(&region, way);
	make_pair(&pair);
	struct ibv_mr *local = op->from_good ? good_mr : region.mr, *remote = op->from_good ? region.mr : good_mr;
	take_away(&region, way);
	post(&pair, op, local, remote);
	enum ibv_wc_status sender = completion(pair.cq[0]);
	if (sender != op->sender) {
		fprintf(stderr, "unpinned: %s, %s: %s\n", op->name, way_name[way], ibv_wc_status_str(sender));
		exit(1);
	}
	if (op->receiver >= 0 && completion(pair.cq[1]) != (enum ibv_wc_status)op->receiver)
		die("the status of the receiver");
	printf("%s, %s: %s\n", op->name, way_name[way], ibv_wc_status_str(sender));
	end_pair(&pair);
	end_region(&region, way);
}

static void *try_all(void *arg)
{
	for (enum way way = 0; way < WAYS; way++)
		for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
			if (way != READ_ONLY || !operations[i].only_reads)
				try(&operations[i], way);
	return arg;
}

/* ---- addresses that no memory can have ---- */

/* On demand all of the address space is a region; a peer may name any address of it. */
static void anywhere(uint64_t address)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, NULL, SIZE_MAX, rights | IBV_ACCESS_ON_DEMAND);
	if (!mr)
		die("ibv_reg_mr of everything");
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
		struct pair pair;
		const struct operation *op = &operations[i];
		struct ibv_mr nowhere = *mr;
		nowhere.addr = (void *)(uintptr_t)address;
		make_pair(&pair);
		post(&pair, op, op->from_good ? good_mr : &nowhere, op->from_good ? &nowhere : good_mr);
		enum ibv_wc_status sender = completion(pair.cq[0]);
		if (sender != op->sender || (op->receiver >= 0 && completion(pair.cq[1]) != (enum ibv_wc_status)op->receiver)) {
			fprintf(stderr, "unpinned: %s at %llx: %s\n", op->name, (unsigned long long)address, ibv_wc_status_str(sender));
			exit(1);
		}
		end_pair(&pair);
	}
	if (ibv_dereg_mr(mr))
		die("ibv_dereg_mr of everything");
	printf("all operations at %llx fail\n", (unsigned long long)address);
}

/* ---- the program's own signals ---- */

static sigjmp_buf back;

static void jump(int signal)
{
	siglongjmp(back, signal);
}

/* Faults where nothing is. */
static void fault(void)
{
	uint8_t *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*(volatile uint8_t *)nowhere = 1;
}

/* The device's handlers were there first, and stay in front of the one that has just been installed. */
static void device_is_in_front(void)
{
	if (late)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	try(&operations[1], UNMAPPED);
	if (sigsetjmp(back, 1) == 0) {
		fault();
		die("a fault");
	}
}

static void own_fault_reaches_own_handler(void)
{
	struct sigaction mine = {.sa_handler = jump}, before;

	if (sigaction(SIGSEGV, NULL, &before) || (!late && before.sa_handler != SIG_DFL))
		die("sigaction, which knows a handler that is not the program's");
	for (int i = 0; i < (late ? 50 : 1000); i++) {
		if (sigaction(SIGSEGV, &mine, NULL) || sigaction(SIGBUS, &mine, NULL))
			die("sigaction");
		device_is_in_front();
	}
	if (late)
		return;
	if (signal(SIGSEGV, SIG_DFL) != jump || signal(SIGBUS, SIG_DFL) != jump || signal(SIGBUS, SIG_DFL) != SIG_DFL)
		die("signal");
	printf("a fault of the program's own reaches its handler\n");
}

/* What older programs call: none of these is declared everywhere. */
typedef void handler(int);
handler *older_sigset(int signal, handler *wanted) __asm__("sigset");
handler *older_ssignal(int signal, handler *wanted) __asm__("ssignal");
handler *older_bsd_signal(int signal, handler *wanted) __asm__("bsd_signal");
handler *older_sysv_signal(int signal, handler *wanted) __asm__("__sysv_signal");
int older_sigignore(int signal) __asm__("sigignore");
int older_siginterrupt(int signal, int wanted) __asm__("siginterrupt");
int older_sighold(int signal) __asm__("sighold");

static void older_functions_install_handlers(void)
{
	static const struct {
		const char *name;
		handler *(*install)(int, handler *);
	} older[] = {{"signal", signal}, {"sigset", older_sigset}, {"ssignal", older_ssignal}, {"bsd_signal", older_bsd_signal},
		     {"__sysv_signal", older_sysv_signal}};
	struct sigaction now;

	for (size_t i = 0; i < sizeof older / sizeof *older; i++) {
		for (int j = 0; j < 50; j++) {
			if (older[i].install(SIGSEGV, jump) == SIG_ERR || older[i].install(SIGBUS, jump) == SIG_ERR)
				die(older[i].name);
			device_is_in_front();
		}
		if (signal(SIGSEGV, SIG_DFL) == SIG_ERR || signal(SIGBUS, SIG_DFL) == SIG_ERR)
			die("signal");
	}
	if (older_sigset(SIGBUS, jump) != SIG_DFL || older_siginterrupt(SIGBUS, 0) || sigaction(SIGBUS, NULL, &now) ||
	    (!late && (now.sa_handler != jump || !(now.sa_flags & SA_RESTART))))
		die("siginterrupt");
	if (older_sigset(SIGBUS, SIG_HOLD) != jump || older_sigset(SIGBUS, SIG_IGN) != SIG_HOLD || older_sigset(SIGBUS, jump) != SIG_IGN ||
	    older_sigignore(SIGBUS) || older_sigset(SIGBUS, SIG_DFL) != SIG_IGN)
		die("sigset");
	if (!late && (older_sighold(SIGSEGV) || older_sighold(SIGBUS)))
		die("sighold");
	try(&operations[1], TRUNCATED);
	try(&operations[1], UNMAPPED);
	printf("so it is with a handler that an older function has installed\n");
}

static void own_fault_ends_the_program(void)
{
	int status;
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		fault();
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
		die("dying of a fault");
	printf("a fault of the program's own ends it\n");
}

static void in_a_thread_that_blocks_all_signals(void)
{
	sigset_t all, before;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, try_all, NULL) || pthread_join(thread, NULL))
		die("pthread_create");
	if (late)
		goto end;
	/* Also one that has called verbs before. */
	try(&operations[1], UNMAPPED);
	sigprocmask(SIG_SETMASK, &before, NULL);
	sigprocmask(SIG_BLOCK, &all, NULL);
	try(&operations[0], UNMAPPED);
end:
	sigprocmask(SIG_SETMASK, &before, NULL);
	printf("the same in a thread that blocks all signals\n");
}

int main(int argc, char **argv)
{
	int count = 0;
	late = argc > 1 && !strcmp(argv[1], "late");
	struct ibv_device **list = ibv_get_device_list(&count);

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(LIMIT_S);
	/* The last one: uroce's comes after those of the kernel. */
	context = count > 0 ? ibv_open_device(list[count - 1]) : NULL;
	pd = context ? ibv_alloc_pd(context) : NULL;
	good_mr = pd ? ibv_reg_mr(pd, good, LENGTH, rights) : NULL;
	if (!good_mr || ibv_query_gid(context, 1, 0, &gid))
		die("ibv_reg_mr");
	ibv_free_device_list(list);
	try_all(NULL);
	anywhere(0);
	anywhere(UINT64_C(1) << 63);          /* of neither half of the address space */
	anywhere(UINT64_C(0xffffffff80000000)); /* of the kernel */
	own_fault_ends_the_program();
	own_fault_reaches_own_handler();
	older_functions_install_handlers();
	in_a_thread_that_blocks_all_signals();
	if (ibv_dereg_mr(good_mr) || ibv_dealloc_pd(pd) || ibv_close_device(context))
		die("ibv_close_device");
	printf("all right\n");
	return 0;
}
