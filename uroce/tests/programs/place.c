/* SPDX-License-Identifier: Apache-2.0 */
/* place: ATOMIC WRITE and, where verbs.h has it, FLUSH between two ends, with the data read back, and what is wrong refused. Plain
 * libibverbs: it runs on any RDMA device that has them. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verify.h"

enum { MEMORY = 1 << 15, DATA_AT = 64, ROUNDS = 60, EXIT_CANNOT = 77 };
enum { GOOD, ATOMIC_KEY, ATOMIC_ODD, FLUSH_KEY, QPS }; /* queue pairs: one for each way to be wrong */

#ifdef HAVE_IBV_WR_FLUSH
enum { ACCESS_FLUSH = IBV_ACCESS_FLUSH_GLOBAL, OPS_FLUSH = IBV_QP_EX_WITH_FLUSH };
#else
enum { ACCESS_FLUSH = 0, OPS_FLUSH = 0 };
#endif
enum { ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | ACCESS_FLUSH };

static const char *device_name;
static int gid_index;
static bool lossy; /* a refusal is sent once: lost, it ends in retries, as on any device */

static struct {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp[QPS];
	struct ibv_mr *mr;
	_Alignas(4096) uint8_t memory[MEMORY];
} my;

static struct {
	uint8_t gid[16];
	uint32_t qpn[QPS];
	uint32_t rkey;
	uint64_t address;
} mine, theirs;

/* ---- what verify_wire.c needs ---- */

void fail(int status, const char *format, ...)
{
	va_list arguments;

	fputs("place: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(status);
}

/* ---- objects ---- */

static void must(bool good, const char *what)
{
	if (!good)
		fail(EXIT_USAGE, "%s: %m", what);
}

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int i = 0; list && list[i] && !my.context; i++)
		if (!device_name || !strcmp(ibv_get_device_name(list[i]), device_name))
			my.context = ibv_open_device(list[i]);
	must(my.context, "cannot open the RDMA device");
	ibv_free_device_list(list);

	struct ibv_device_attr_ex attr;
	must(!ibv_query_device_ex(my.context, NULL, &attr), "ibv_query_device_ex");
	/* IB_UVERBS_DEVICE_ATOMIC_WRITE and _FLUSH_GLOBAL: no verbs.h has them. */
	bool atomic_write = attr.device_cap_flags_ex >> 40 & 1, flush = attr.device_cap_flags_ex >> 38 & 1;
	if (!atomic_write || (ACCESS_FLUSH && !flush))
		fail(EXIT_CANNOT, "the device has no %s", atomic_write ? "FLUSH" : "ATOMIC WRITE");
}

static struct ibv_qp *create_qp(void)
{
	struct ibv_qp_init_attr_ex init = {
		.send_cq = my.cq,
		.recv_cq = my.cq,
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 8, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = my.pd,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_WRITE | OPS_FLUSH,
	};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ACCESS};
	struct ibv_qp *qp = ibv_create_qp_ex(my.context, &init);

	must(qp, "ibv_create_qp_ex");
	errno = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	must(!errno, "modify to INIT");
	return qp;
}

static void open_all(void)
{
	union ibv_gid gid;

	open_device();
	my.pd = ibv_alloc_pd(my.context);
	must(my.pd, "PD");
	my.cq = ibv_create_cq(my.context, 8 * QPS, NULL, NULL, 0);
	must(my.cq, "CQ");
	my.mr = ibv_reg_mr(my.pd, my.memory, MEMORY, ACCESS);
	must(my.mr, "ibv_reg_mr");
	must(!ibv_query_gid(my.context, 1, gid_index, &gid), "GID");
	memcpy(mine.gid, gid.raw, 16);
	mine.rkey = my.mr->rkey;
	mine.address = (uintptr_t)my.memory;
	for (int i = 0; i < QPS; i++) {
		my.qp[i] = create_qp();
		mine.qpn[i] = my.qp[i]->qp_num;
	}
}

static void connect_qp(int i)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = theirs.qpn[i], .rq_psn = 1, .max_dest_rd_atomic = 4,
		.min_rnr_timer = 1,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = (uint8_t)gid_index, .hop_limit = 64}},
	};
	memcpy(attr.ah_attr.grh.dgid.raw, theirs.gid, 16);
	errno = ibv_modify_qp(my.qp[i], &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
							IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	must(!errno, "modify to RTR");
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = 1, .timeout = 17, .retry_cnt = 6, .rnr_retry = 6, .max_rd_atomic = 4};
	errno = ibv_modify_qp(my.qp[i], &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
							IBV_QP_MAX_QP_RD_ATOMIC);
	must(!errno, "modify to RTS");
}

/* ---- work ---- */

static void expect(enum ibv_wc_status status, int opcode, uint64_t id)
{
	struct ibv_wc wc = {0};
	int n;

	while (!(n = ibv_poll_cq(my.cq, 1, &wc)))
		if (!deadline_left())
			fail(EXIT_DEADLINE, "request %llu does not complete", (unsigned long long)id);
	if (n < 0 || wc.status != status || wc.wr_id != id || (status == IBV_WC_SUCCESS && (int)wc.opcode != opcode))
		fail(EXIT_BAD_DATA, "request %llu: status %s, opcode %d; expected request %llu: %s, %d", (unsigned long long)wc.wr_id,
		     ibv_wc_status_str(wc.status), wc.opcode, (unsigned long long)id, ibv_wc_status_str(status), opcode);
}

static struct ibv_qp_ex *begin(int qp, uint64_t id)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(my.qp[qp]);

	must(ex, "ibv_qp_to_qp_ex");
	ibv_wr_start(ex);
	ex->wr_id = id;
	ex->wr_flags = IBV_SEND_SIGNALED;
	return ex;
}

static void end(struct ibv_qp_ex *ex)
{
	errno = ibv_wr_complete(ex);
	must(!errno, "ibv_wr_complete");
}

static void atomic_write(int qp, uint64_t id, uint32_t rkey, uint64_t at, uint64_t value)
{
	struct ibv_qp_ex *ex = begin(qp, id);

	ibv_wr_atomic_write(ex, rkey, theirs.address + at, &value);
	end(ex);
}

#ifdef HAVE_IBV_WR_FLUSH
static void flush(int qp, uint64_t id, uint32_t rkey, uint64_t at, size_t length, bool all)
{
	struct ibv_qp_ex *ex = begin(qp, id);

	ibv_wr_flush(ex, rkey, theirs.address + at, length, IBV_FLUSH_GLOBAL, all ? IBV_FLUSH_MR : IBV_FLUSH_RANGE);
	end(ex);
}
#endif

static size_t length_of(uint64_t round)
{
	return round * 337 % (MEMORY / 2);
}

static uint8_t byte_of(uint64_t round, size_t at)
{
	return (uint8_t)(round * 7 + at * 13);
}

static void check(const uint8_t *memory, uint64_t round, const char *where)
{
	uint64_t word;

	memcpy(&word, memory, sizeof word);
	if (word != round * UINT64_C(0x0102030405060708))
		fail(EXIT_BAD_DATA, "round %llu: wrong word %s", (unsigned long long)round, where);
	for (size_t i = 0; i < length_of(round); i++)
		if (memory[DATA_AT + i] != byte_of(round, i))
			fail(EXIT_BAD_DATA, "round %llu: byte %zu is wrong %s", (unsigned long long)round, i, where);
}

/* A WRITE, a FLUSH of it, a word behind it; then all is read back. */
static void round_of(uint64_t round)
{
	size_t length = length_of(round);

	for (size_t i = 0; i < length; i++)
		my.memory[DATA_AT + i] = byte_of(round, i);
	struct ibv_qp_ex *ex = begin(GOOD, 1);
	ibv_wr_rdma_write(ex, theirs.rkey, theirs.address + DATA_AT);
	ibv_wr_set_sge(ex, my.mr->lkey, (uintptr_t)my.memory + DATA_AT, (uint32_t)length);
	end(ex);
#ifdef HAVE_IBV_WR_FLUSH
	flush(GOOD, 2, theirs.rkey, DATA_AT, length, round % 2);
#endif
	atomic_write(GOOD, 3, theirs.rkey, 0, round * UINT64_C(0x0102030405060708));
	expect(IBV_WC_SUCCESS, IBV_WC_RDMA_WRITE, 1);
#ifdef HAVE_IBV_WR_FLUSH
	expect(IBV_WC_SUCCESS, IBV_WC_FLUSH, 2);
#endif
	expect(IBV_WC_SUCCESS, IBV_WC_ATOMIC_WRITE, 3);
	memset(my.memory, 0, MEMORY);
	ex = begin(GOOD, 4);
	ibv_wr_rdma_read(ex, theirs.rkey, theirs.address);
	ibv_wr_set_sge(ex, my.mr->lkey, (uintptr_t)my.memory, (uint32_t)(DATA_AT + length));
	end(ex);
	expect(IBV_WC_SUCCESS, IBV_WC_RDMA_READ, 4);
	check(my.memory, round, "as read");
}

static void be_client(int fd)
{
	for (uint64_t round = 1; round <= ROUNDS; round++)
		round_of(round);
	if (lossy) {
		wire_barrier(fd, ROUNDS);
		return;
	}
	atomic_write(ATOMIC_KEY, 5, theirs.rkey ^ 1, 8, 1);
	expect(IBV_WC_REM_ACCESS_ERR, 0, 5);
	atomic_write(ATOMIC_ODD, 6, theirs.rkey, 12, 1);
	expect(IBV_WC_REM_INV_REQ_ERR, 0, 6);
#ifdef HAVE_IBV_WR_FLUSH
	flush(FLUSH_KEY, 7, theirs.rkey ^ 1, 0, 8, false);
	expect(IBV_WC_REM_ACCESS_ERR, 0, 7);
#endif
	wire_barrier(fd, ROUNDS);
}

/* ---- the program ---- */

static const char *options(int count, char **words, const char **port)
{
	static const struct option known[] = {{"device", 1, NULL, 'd'}, {"gid", 1, NULL, 'g'}, {"port", 1, NULL, 'p'},
					      {"deadline", 1, NULL, 't'}, {"lossy", 0, NULL, 'l'}, {0}};
	for (int c; (c = getopt_long(count, words, "d:g:p:t:l", known, NULL)) != -1;) {
		switch (c) {
		case 'd': device_name = optarg; break;
		case 'g': gid_index = atoi(optarg); break;
		case 'p': *port = optarg; break;
		case 't': deadline_seconds = (unsigned)atoi(optarg); break;
		case 'l': lossy = true; break;
		default: fail(EXIT_USAGE, "usage: place [--device NAME] [--gid N] [--port N] [--deadline SECONDS] [--lossy] [HOST]");
		}
	}
	return optind < count ? words[optind] : NULL;
}

int main(int count, char **words)
{
	deadline_seconds = 40;
	const char *port = "18620", *host = options(count, words, &port);

	deadline_start();
	open_all();
	int fd = host ? wire_connect(host, port) : wire_accept(wire_listen(port));
	wire_send(fd, &mine, sizeof mine);
	wire_receive(fd, &theirs, sizeof theirs);
	for (int i = 0; i < QPS; i++)
		connect_qp(i);
	wire_barrier(fd, 0);
	if (host) {
		be_client(fd);
	} else {
		wire_barrier(fd, ROUNDS);
		check(my.memory, ROUNDS, "in memory");
	}
	wire_barrier(fd, ROUNDS + 1);
	printf("placed: %d words%s\n", ROUNDS, ACCESS_FLUSH ? ", and as many flushes" : "");
	for (int i = 0; i < QPS; i++)
		must(!ibv_destroy_qp(my.qp[i]), "ibv_destroy_qp");
	must(!ibv_dereg_mr(my.mr) && !ibv_destroy_cq(my.cq) && !ibv_dealloc_pd(my.pd) && !ibv_close_device(my.context), "closing");
	return 0;
}
