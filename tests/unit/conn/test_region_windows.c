/* SPDX-License-Identifier: Apache-2.0 */
/* When the peer learns of a region that has a memory window, and what becomes of one that is withdrawn while its window is being bound. The test
 * is the device and the TLS channel. */
#include "test.h"

#include "conn.h"
#include "log.h"

#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

enum { SIZE = 4096, BINDS = 256, FRAMES = 256 };

static struct rig {
	struct srdma_conn conn;
	struct srdma_memory memory;
	struct ibv_context context;
	struct ibv_pd pd;
	struct ibv_qp verbs;
	struct ibv_cq send_cq, recv_cq;
	uint64_t binds[BINDS]; /* ids of those posted */
	uint32_t rkeys[BINDS]; /* and the keys */
	unsigned posted, done, taken; /* of them */
	enum ibv_wc_status status;
	bool quick; /* a bind completes as soon as it is posted */
	unsigned windows, regions; /* that exist */
	unsigned windows_made;
	uint8_t frames[FRAMES][SRDMA_FRAME_MAX];
	unsigned sent;
} rig;

static uint8_t data[SIZE];

/* ---- the device ------------------------------------------------------------------------------------------------ */

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return 0;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	assert_int_equal(wr->opcode, IBV_WR_BIND_MW);
	assert_true(wr->send_flags & IBV_SEND_SIGNALED);
	assert_null(wr->next);
	assert_true(rig.posted < BINDS);
	/* The address, within its page, is all that the peer learns of it. */
	assert_int_equal(wr->bind_mw.bind_info.addr, ((uintptr_t)data + 512) % (uintptr_t)sysconf(_SC_PAGESIZE));
	assert_int_equal(wr->bind_mw.bind_info.length, 1024);
	assert_int_equal(wr->bind_mw.bind_info.mw_access_flags, IBV_ACCESS_REMOTE_READ);
	rig.rkeys[rig.posted] = wr->bind_mw.rkey;
	rig.binds[rig.posted++] = wr->wr_id;
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
	int n = 0;

	while (cq == &rig.send_cq && n < most && rig.taken < (rig.quick ? rig.posted : rig.done))
		wc[n++] = (struct ibv_wc){.wr_id = rig.binds[rig.taken++], .status = rig.status, .opcode = IBV_WC_BIND_MW, .qp_num = rig.verbs.qp_num};
	return n;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	return 0;
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct ibv_mw *mw = calloc(1, sizeof *mw);

	assert_non_null(mw);
	assert_int_equal(type, IBV_MW_TYPE_2);
	mw->context = &rig.context;
	mw->pd = pd;
	mw->rkey = ++rig.windows_made << 8 | 0xff;
	rig.windows++;
	return mw;
}

static int dealloc_mw(struct ibv_mw *mw)
{
	rig.windows--;
	free(mw);
	return 0;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *address, size_t length, uint64_t iova)
{
	struct ibv_mr *mr = calloc(1, sizeof *mr);

	assert_non_null(mr);
	*mr = (struct ibv_mr){.context = &rig.context, .pd = pd, .addr = address, .length = length, .rkey = 0x4d52, .lkey = 1};
	rig.regions++;
	return mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
	return reg_mr(pd, address, length, (uintptr_t)address);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
	return reg_mr(pd, address, length, iova);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, unsigned access)
{
	return reg_mr(pd, address, length, iova);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	rig.regions--;
	free(mr);
	return 0;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	return 0;
}

bool __wrap_srdma_device_has_windows(const struct srdma_device *device)
{
	return true;
}

struct ibv_context *__wrap_srdma_device_context(const struct srdma_device *device)
{
	return &rig.context;
}

const struct ibv_device_attr *__wrap_srdma_device_attr(const struct srdma_device *device)
{
	static const struct ibv_device_attr attr = {0};

	return &attr;
}

/* ---- the TLS channel ------------------------------------------------------------------------------------------- */

int __wrap_srdma_outbox_send(struct srdma_tls *tls, struct srdma_outbox *outbox, const uint8_t *frame, size_t length)
{
	assert_true(rig.sent < FRAMES);
	memcpy(rig.frames[rig.sent++], frame, length);
	return 0;
}

int __wrap_srdma_control_receive(struct srdma_tls *tls, struct srdma_inbox *inbox, unsigned *reads)
{
	return -EAGAIN;
}

int __wrap_srdma_outbox_flush(struct srdma_tls *tls, struct srdma_outbox *outbox)
{
	return 0;
}

bool __wrap_srdma_tls_read_needs_room(const struct srdma_tls *tls)
{
	return false;
}

int __wrap_srdma_tls_fd(const struct srdma_tls *tls)
{
	return -1;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static int begin(void **state)
{
	const struct srdma_queues_shape shape = {.message_size = 64, .depth = 2, .rdma_depth = 2, .binds = true, .pieces = 1};
	struct srdma_conn *conn = &rig.conn;

	memset(&rig, 0, sizeof rig);
	rig.context.ops = (struct ibv_context_ops){.poll_cq = poll_cq, .req_notify_cq = req_notify_cq, .post_send = post_send,
						   .post_recv = post_recv, .alloc_mw = alloc_mw, .dealloc_mw = dealloc_mw};
	rig.pd.context = rig.verbs.context = rig.send_cq.context = rig.recv_cq.context = &rig.context;
	rig.verbs.qp_num = 17;
	rig.verbs.send_cq = &rig.send_cq;
	conn->pd = &rig.pd;
	conn->qp = (struct srdma_qp){.verbs = &rig.verbs, .max_inline = 32};
	conn->send_cq = &rig.send_cq;
	conn->recv_cq = &rig.recv_cq;
	conn->wake_fd = conn->wait_fd = -1;
	srdma_conn_options_init(&conn->options);
	assert_int_equal(srdma_watch_open(&conn->watch), 0);
	assert_int_equal(srdma_queues_new(&conn->queues, &rig.pd, &conn->qp, &rig.send_cq, &rig.recv_cq, &shape), 0);
	srdma_queues_agree(&conn->queues, 64, 2, 1024);
	assert_int_equal(srdma_regions_start(conn), 0);
	conn->control_more = false;
	rig.regions = 0; /* beside the queues' own */
	rig.memory = (struct srdma_memory){.source = {.address = data, .fd = -1, .length = SIZE}, .access = IBV_ACCESS_REMOTE_READ, .owners = 2};
	pthread_mutex_init(&rig.memory.mutex, NULL);
	return 0;
}

static int end(void **state)
{
	assert_int_equal(srdma_regions_unbind(&rig.conn), 0);
	srdma_regions_release(&rig.conn);
	assert_int_equal(rig.windows, 0);
	assert_int_equal(rig.regions, 0);
	srdma_queues_release(&rig.conn.queues);
	srdma_watch_close(&rig.conn.watch);
	pthread_mutex_destroy(&rig.memory.mutex);
	return 0;
}

static uint32_t offer(const char *name)
{
	uint32_t id = 0;

	assert_int_equal(srdma_conn_offer(&rig.conn, &rig.memory, 512, 1024, IBV_ACCESS_REMOTE_READ, name, &id), 0);
	return id;
}

static void complete_binds(void)
{
	rig.done = rig.posted;
	srdma_conn_progress_binds(&rig.conn);
}

/* That the frame of this number offers this region by this rkey. */
static void expect_offer(unsigned number, uint32_t id, uint32_t rkey)
{
	struct srdma_region_offer told;
	struct srdma_frame_header header;

	assert_true(number < rig.sent);
	assert_int_equal(srdma_frame_header_decode(rig.frames[number], &header), 0);
	assert_int_equal(header.type, SRDMA_FRAME_REGION_OFFER);
	assert_int_equal(srdma_region_offer_decode(rig.frames[number] + SRDMA_FRAME_HEADER, header.length, &told), 0);
	assert_int_equal(told.id, id);
	assert_int_equal(told.rkey, rkey);
}

TEST(peer_learns_of_a_region_when_its_window_is_bound, .setup_func = begin, .teardown_func = end)
{
	uint32_t id = offer("x");

	assert_int_equal(rig.posted, 1);
	srdma_conn_progress_binds(&rig.conn);
	assert_int_equal(rig.sent, 0);
	complete_binds();
	assert_int_equal(rig.sent, 1);
	expect_offer(0, id, rig.rkeys[0]);
	assert_int_not_equal(rig.rkeys[0], 0x4d52);
	/* On a device that is quick, within the call. */
	rig.quick = true;
	id = offer("y");
	assert_int_equal(rig.sent, 2);
	expect_offer(1, id, rig.rkeys[1]);
}

TEST(name_of_a_region_whose_window_is_being_bound_is_taken, .setup_func = begin, .teardown_func = end)
{
	uint32_t id;

	offer("x");
	assert_int_equal(srdma_conn_offer(&rig.conn, &rig.memory, 0, 8, IBV_ACCESS_REMOTE_READ, "x", &id), -EEXIST);
	assert_int_equal(rig.posted, 1);
}

TEST(region_that_is_withdrawn_while_its_window_is_being_bound_goes_afterwards, .setup_func = begin, .teardown_func = end)
{
	uint32_t id = offer("x"), other;

	assert_int_equal(srdma_conn_withdraw(&rig.conn, id), 0);
	assert_int_equal(srdma_conn_withdraw(&rig.conn, id), -ENXIO);
	/* The device still has both. */
	assert_int_equal(rig.windows, 1);
	assert_int_equal(rig.regions, 1);
	assert_int_equal(srdma_conn_forget(&rig.conn, &rig.memory), -EBUSY);
	assert_text_says(srdma_error_text(), "still binding");
	other = offer("x");
	assert_int_not_equal(other, id);
	complete_binds();
	/* The peer never hears of it. */
	assert_int_equal(rig.sent, 1);
	expect_offer(0, other, rig.rkeys[1]);
	assert_int_equal(rig.windows, 1);
	assert_int_equal(rig.regions, 1);
	assert_int_equal(srdma_conn_forget(&rig.conn, &rig.memory), 0);
	assert_int_equal(rig.windows, 0);
	assert_int_equal(rig.regions, 0);
	assert_null(rig.conn.leases);
}

TEST(no_more_regions_than_there_is_room_for_are_bound_at_once, .setup_func = begin, .teardown_func = end)
{
	uint32_t ids[SRDMA_REGIONS_MAX], id;

	for (unsigned i = 0; i < SRDMA_REGIONS_MAX; i++)
		ids[i] = offer(NULL);
	assert_int_equal(rig.posted, SRDMA_REGIONS_MAX);
	/* Those that are withdrawn count until the device has let go of them. */
	for (unsigned i = 0; i < SRDMA_REGIONS_MAX; i++)
		assert_int_equal(srdma_conn_withdraw(&rig.conn, ids[i]), 0);
	assert_int_equal(srdma_conn_offer(&rig.conn, &rig.memory, 0, 8, IBV_ACCESS_REMOTE_READ, NULL, &id), -ENOSPC);
	complete_binds();
	assert_int_equal(rig.windows, 0);
	offer(NULL);
	assert_int_equal(rig.posted, SRDMA_REGIONS_MAX + 1);
}

TEST(renewal_binds_anew_and_tells_the_keys_that_the_peer_knows, .setup_func = begin, .teardown_func = end)
{
	uint32_t told[3], binding, dropped;
	struct srdma_region_key keys[SRDMA_REGIONS_MAX];
	struct srdma_frame_header header;
	size_t count = 0;

	rig.conn.regions->last_id = 65533; /* the ids begin again during this */
	for (unsigned i = 0; i < 3; i++)
		told[i] = offer(NULL);
	complete_binds();
	assert_int_equal(rig.sent, 3);
	assert_int_equal(srdma_conn_withdraw(&rig.conn, told[1]), 0);
	binding = offer("binding");
	dropped = offer("dropped");
	assert_int_equal(srdma_conn_withdraw(&rig.conn, dropped), 0);
	rig.sent = 0;

	/* As epoch.c does. The old queue pair's binds are lost. */
	srdma_queues_stop(&rig.conn.queues);
	assert_int_equal(srdma_queues_settle(&rig.conn.queues, 0, 0), 0);
	assert_int_equal(srdma_regions_unbind(&rig.conn), 0);
	assert_int_equal(rig.windows, 0);
	assert_int_equal(srdma_queues_restart(&rig.conn.queues), 0);
	rig.posted = rig.done = rig.taken = 0;
	rig.quick = true;
	assert_int_equal(srdma_regions_bind_again(&rig.conn), 0);
	assert_int_equal(rig.posted, 3);
	assert_int_equal(srdma_regions_send_keys(&rig.conn), 0);
	assert_int_equal(srdma_queues_resume(&rig.conn.queues), 0);
	assert_int_equal(rig.posted, 3);
	assert_int_equal(rig.conn.queues.op_ring.count, 0);

	assert_int_equal(rig.sent, 1);
	assert_int_equal(srdma_frame_header_decode(rig.frames[0], &header), 0);
	assert_int_equal(header.type, SRDMA_FRAME_REGION_KEYS);
	assert_int_equal(srdma_region_keys_decode(rig.frames[0] + SRDMA_FRAME_HEADER, header.length, keys, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(keys[0].id, told[2]);
	assert_int_equal(keys[1].id, told[0]);
	for (size_t i = 0; i < 2; i++)
		assert_true(keys[i].rkey == rig.rkeys[0] || keys[i].rkey == rig.rkeys[1] || keys[i].rkey == rig.rkeys[2]);
	/* Only then the peer is told of the one that it did not know. */
	srdma_conn_progress_binds(&rig.conn);
	assert_int_equal(rig.sent, 2);
	assert_int_equal(rig.frames[1][3], SRDMA_FRAME_REGION_OFFER);
	assert_int_equal(rig.frames[1][SRDMA_FRAME_HEADER] << 8 | rig.frames[1][SRDMA_FRAME_HEADER + 1], binding);
	assert_int_equal(rig.windows, 3);
}

TEST(bind_that_fails_ends_the_connection, .setup_func = begin, .teardown_func = end)
{
	uint32_t id;

	rig.status = IBV_WC_MW_BIND_ERR;
	rig.quick = true;
	assert_int_equal(srdma_conn_offer(&rig.conn, &rig.memory, 512, 1024, IBV_ACCESS_REMOTE_READ, "x", &id), SRDMA_EVERBS);
	assert_text_says(srdma_error_text(), "the bind of a memory window failed");
	assert_int_equal(rig.sent, 0);
}

RUN_TESTS(NULL, NULL)
