/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs among others, and through the states of their lives: shared receives, draining, dead peers, windows. */
#include "sim.h"

static struct sim_node *na, *nb;
static struct sim_end a, b;

static void begin(const struct sim_options *options)
{
	sim_start(1);
	na = sim_node();
	nb = sim_node();
	na->wire.delay = nb->wire.delay = 2 * US;
	sim_pair(&a, na, &b, nb, options);
}

static void finish(void)
{
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

static void both_sides_hear_of_a_refused_request(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	sim_write(&a, 1, 0, 100, &b, 0);
	sim_write(&a, 2, 0, 3000, &b, b.size - 2999);
	sim_write(&a, 3, 0, 100, &b, 0);
	sim_recv(&b, 9, 0, 10);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	sim_expect(a.scq, 2, IBV_WC_REM_ACCESS_ERR);
	sim_expect(a.scq, 3, IBV_WC_WR_FLUSH_ERR);
	sim_expect(b.rcq, 9, IBV_WC_WR_FLUSH_ERR);
	assert_int_equal(sim_state(&a), IBV_QPS_ERR);
	assert_int_equal(sim_state(&b), IBV_QPS_ERR);
	assert_true(sim_event(nb, IBV_EVENT_QP_ACCESS_ERR, b.qp));
	finish();
}

/* Answers that were due come out before the refusal, though it came in with them. */
static void what_was_done_before_a_refused_request_is_still_answered(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	sim_fill(b.memory, 10000, 4);
	sim_read(&a, 1, 20000, 10000, &b, 0);
	sim_write(&a, 2, 0, 100, &b, 20000);
	struct ibv_send_wr wr = {.wr_id = 3, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.rkey = b.mr->lkey;
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
	sim_post(&a, &wr, 40000, 8);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	sim_expect(a.scq, 2, IBV_WC_SUCCESS);
	sim_expect(a.scq, 3, IBV_WC_REM_ACCESS_ERR);
	assert_true(sim_filled(a.memory + 20000, 10000, 4));
	finish();
}

/* The refusal is not lost because the link had no room at that moment. */
static void a_refusal_goes_out_when_the_link_is_ready_again(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	nb->blocked = true;
	struct ibv_send_wr wr = {.wr_id = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.rkey = b.mr->rkey ^ 1;
	sim_post(&a, &wr, 0, 8);
	sim_pass(100 * US);
	nb->blocked = false;
	sim_run(10 * SECOND);
	sim_expect(a.scq, 1, IBV_WC_REM_ACCESS_ERR);
	finish();
}

static void a_shared_receive_queue_feeds_all_its_queue_pairs(void **state)
{
	(void)state;
	enum { PAIRS = 10, EACH = 8 };
	static struct sim_end from[PAIRS], to[PAIRS];
	static uint8_t memory[PAIRS * EACH * 256];
	struct sim_options options = sim_defaults();
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = PAIRS * EACH, .max_sge = 1}};
	options.memory = 4096;
	sim_start(5);
	na = sim_node();
	nb = sim_node();
	na->wire = nb->wire = (struct sim_wire){.loss = 0.05, .delay = 5 * US, .loss_cap = 3};
	struct ibv_srq *srq = srq_create(nb->pd, &attr);
	assert_non_null(srq);
	struct ibv_mr *mr = mr_reg(nb->pd, memory, sizeof memory, (uintptr_t)memory, IBV_ACCESS_LOCAL_WRITE);
	for (unsigned i = 0; i < PAIRS; i++) {
		struct sim_options shared = options;
		shared.srq = srq;
		sim_open(&from[i], na, &options);
		sim_open(&to[i], nb, &shared);
		sim_connect(&from[i], &nb->gid, to[i].qp->qp_num);
		sim_connect(&to[i], &na->gid, from[i].qp->qp_num);
	}
	for (uint64_t i = 0; i < PAIRS * EACH; i++) {
		struct ibv_sge sge = {(uintptr_t)memory + i * 256, 256, mr->lkey};
		struct ibv_recv_wr *bad, wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1};
		assert_int_equal(srq_post_recv(srq, &wr, &bad), 0);
	}
	struct ibv_srq_attr limit = {.srq_limit = 3};
	assert_int_equal(srq_modify(srq, &limit, IBV_SRQ_LIMIT), 0);
	for (uint64_t n = 0; n < EACH; n++) {
		for (unsigned i = 0; i < PAIRS; i++) {
			sim_fill(from[i].memory + n * 100, 100, i * 100 + n);
			sim_send(&from[i], n, n * 100, 100);
		}
		if (n == EACH - 2) {
			sim_run(10 * SECOND);
			assert_false(sim_event(nb, IBV_EVENT_SRQ_LIMIT_REACHED, srq));
		}
	}
	assert_true(sim_run(10 * SECOND));
	assert_true(sim_event(nb, IBV_EVENT_SRQ_LIMIT_REACHED, srq));
	for (unsigned i = 0; i < PAIRS; i++) {
		assert_int_equal(sim_count(from[i].scq), EACH);
		struct ibv_wc wc;
		for (uint64_t n = 0; n < EACH; n++) {
			assert_int_equal(cq_poll(to[i].rcq, 1, &wc), 1);
			assert_int_equal(wc.qp_num, to[i].qp->qp_num);
			assert_true(sim_filled(memory + wc.wr_id * 256, 100, i * 100 + n));
		}
	}
	/* Empty now: told to wait, and served when one is posted. */
	sim_send(&from[0], 99, 0, 100);
	sim_pass(30 * MS);
	sim_expect_none(from[0].scq);
	assert_true(nb->counters.rnr_sent > 0);
	struct ibv_sge sge = {(uintptr_t)memory, 256, mr->lkey};
	struct ibv_recv_wr *bad, wr = {.wr_id = 7, .sg_list = &sge, .num_sge = 1};
	assert_int_equal(srq_post_recv(srq, &wr, &bad), 0);
	assert_true(sim_run(10 * SECOND));
	sim_expect(to[0].rcq, 7, IBV_WC_SUCCESS);
	/* An error of one queue pair leaves the shared receives alone. */
	assert_int_equal(srq_post_recv(srq, &wr, &bad), 0);
	assert_int_equal(sim_modify(&to[0], IBV_QPS_ERR), 0);
	assert_true(sim_event(nb, IBV_EVENT_QP_LAST_WQE_REACHED, to[0].qp));
	sim_expect_none(to[0].rcq);
	sim_send(&from[1], 98, 0, 100);
	assert_true(sim_run(10 * SECOND));
	sim_expect(to[1].rcq, 7, IBV_WC_SUCCESS);
	for (unsigned i = 0; i < PAIRS; i++) {
		sim_close(&from[i]);
		sim_close(&to[i]);
	}
	assert_int_equal(srq_destroy(srq), 0);
	assert_int_equal(mr_dereg(mr), 0);
	sim_stop();
}

static void draining_finishes_what_was_begun_and_tells_when_it_is_done(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};
	begin(&options);
	na->wire.loss = 0.1;
	na->wire.loss_cap = 3;
	for (uint64_t i = 0; i < 10; i++)
		sim_write(&a, i, 0, 20000, &b, 0);
	sim_pass(3 * US);
	assert_int_equal(qp_modify(a.qp, &attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
	assert_false(sim_event(na, IBV_EVENT_SQ_DRAINED, a.qp));
	sim_write(&a, 50, 0, 100, &b, 30000);
	assert_true(sim_run(10 * SECOND));
	assert_true(sim_event(na, IBV_EVENT_SQ_DRAINED, a.qp));
	assert_int_equal(sim_state(&a), IBV_QPS_SQD);
	unsigned done = sim_count(a.scq);
	assert_uint_in_range(done, 1, 10);
	/* It still answers its peer. */
	sim_write(&b, 60, 0, 100, &a, 0);
	assert_true(sim_run(10 * SECOND));
	sim_expect(b.scq, 60, IBV_WC_SUCCESS);
	sim_expect_none(a.scq);
	/* And goes on where it stopped. */
	assert_int_equal(sim_modify(&a, IBV_QPS_RTS), 0);
	assert_true(sim_run(10 * SECOND));
	assert_int_equal(done + sim_count(a.scq), 11);
	finish();
}

static void draining_when_nothing_is_outstanding_is_told_at_once(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};
	begin(&options);
	assert_int_equal(qp_modify(a.qp, &attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
	assert_true(sim_run(SECOND));
	assert_true(sim_event(na, IBV_EVENT_SQ_DRAINED, a.qp));
	finish();
}

static void a_dead_peer_does_not_hinder_others(void **state)
{
	(void)state;
	enum { DEAD = 20 };
	static struct sim_end from[DEAD], to[DEAD];
	struct sim_options options = sim_defaults();
	begin(&options);
	struct sim_node *gone = sim_node();
	for (unsigned i = 0; i < DEAD; i++)
		sim_pair(&from[i], na, &to[i], gone, &options);
	gone->dead = true;
	na->wire.bytes_per_second = SECOND;
	na->wire.queue = 100000;
	for (uint64_t n = 0; n < 20; n++)
		for (unsigned i = 0; i < DEAD; i++)
			sim_write(&from[i], n, 0, 500000, &to[i], 0);
	/* 4 MB over a wire of 1 GB/s shared at worst by turns: the windows of the dead are soon full. */
	for (uint64_t i = 0; i < 40; i++)
		sim_write(&a, i, 0, 100000, &b, 0);
	uint64_t start = sim_now();
	while (sim_now() - start < 60 * MS)
		sim_pass(MS);
	assert_int_equal(sim_count(a.scq), 40);
	sim_run(100 * SECOND);
	for (unsigned i = 0; i < DEAD; i++) {
		sim_expect(from[i].scq, 0, IBV_WC_RETRY_EXC_ERR);
		for (uint64_t n = 1; n < 20; n++)
			sim_expect(from[i].scq, n, IBV_WC_WR_FLUSH_ERR);
		sim_close(&from[i]);
		sim_close(&to[i]);
	}
	finish();
}

/* Two queue pairs with endless work share the wire about evenly. */
static void busy_queue_pairs_share_the_wire(void **state)
{
	(void)state;
	struct sim_end c, d;
	struct sim_options options = sim_defaults();
	options.mtu = IBV_MTU_4096;
	begin(&options);
	sim_pair(&c, na, &d, nb, &options);
	na->wire.bytes_per_second = nb->wire.bytes_per_second = SECOND;
	na->wire.queue = nb->wire.queue = 100000;
	for (uint64_t i = 0; i < 60; i++)
		sim_write(&a, i, 0, 1 << 20, &b, 0);
	for (uint64_t i = 0; i < 60; i++)
		sim_write(&c, i, 0, 1 << 20, &d, 0);
	sim_pass(40 * MS);
	unsigned first = sim_count(a.scq), second = sim_count(c.scq);
	assert_uint_in_range(first + second, 34, 40);
	assert_uint_in_range(first, second * 2 / 3, second * 3 / 2);
	assert_true(sim_run(SECOND));
	sim_count(a.scq);
	sim_count(c.scq);
	sim_close(&c);
	sim_close(&d);
	finish();
}

static void a_thousand_queue_pairs_all_get_through(void **state)
{
	(void)state;
	enum { PAIRS = 1000 };
	struct sim_end *from = calloc(PAIRS, sizeof *from), *to = calloc(PAIRS, sizeof *to);
	struct sim_options options = sim_defaults();
	options.memory = 8192;
	options.depth = 4;
	options.sges = 1;
	options.timeout = 12;
	sim_start(9);
	na = sim_node();
	nb = sim_node();
	na->wire = nb->wire = (struct sim_wire){
		.loss = 0.01, .delay = 10 * US, .loss_cap = 3, .bytes_per_second = 5 * SECOND, .queue = 1000000};
	for (unsigned i = 0; i < PAIRS; i++) {
		sim_pair(&from[i], na, &to[i], nb, &options);
		sim_recv(&to[i], i, 4096, 4096);
		sim_fill(from[i].memory, 3000, i);
		sim_send(&from[i], i, 0, 3000);
		sim_write(&to[i], i, 8000, 8, &from[i], 8000);
	}
	assert_true(sim_run(100 * SECOND));
	for (unsigned i = 0; i < PAIRS; i++) {
		sim_expect(from[i].scq, i, IBV_WC_SUCCESS);
		sim_expect(to[i].scq, i, IBV_WC_SUCCESS);
		sim_expect(to[i].rcq, i, IBV_WC_SUCCESS);
		assert_true(sim_filled(to[i].memory + 4096, 3000, i));
		sim_close(&from[i]);
		sim_close(&to[i]);
	}
	sim_stop();
	free(from);
	free(to);
}

static void queue_pairs_may_go_at_any_moment_of_a_transfer(void **state)
{
	(void)state;
	for (uint64_t moment = 0; moment < 60; moment++) {
		struct sim_options options = sim_defaults();
		begin(&options);
		na->wire.jitter = nb->wire.jitter = US;
		nb->wire.bytes_per_second = na->wire.bytes_per_second = SECOND;
		nb->wire.queue = na->wire.queue = 5000;
		for (uint64_t i = 0; i < 4; i++) {
			sim_recv(&b, i, 0, 20000);
			sim_read(&a, i, 0, 20000, &b, 0);
			sim_send(&a, i, 0, 20000);
			sim_write(&b, i, 0, 20000, &a, 30000);
		}
		sim_pass(moment * 3 * US);
		struct sim_end *gone = moment % 2 ? &a : &b;
		if (moment % 4 < 2) {
			assert_int_equal(qp_destroy(gone->qp), 0);
			gone->qp = NULL;
			sim_expect_none(gone->scq);
			sim_expect_none(gone->rcq);
		} else {
			assert_int_equal(sim_modify(gone, IBV_QPS_RESET), 0);
		}
		assert_true(sim_run(10 * SECOND)); /* the other comes to rest, through its retries */
		finish();
	}
}

static void a_receive_that_is_posted_late_is_found_by_the_retry(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	for (uint64_t i = 0; i < 3; i++)
		sim_send(&a, i, 0, 3000);
	sim_pass(5 * MS);
	sim_expect_none(a.scq);
	for (uint64_t i = 0; i < 3; i++)
		sim_recv(&b, i, 0, 3000);
	assert_true(sim_run(SECOND));
	assert_int_equal(sim_count(a.scq), 3);
	assert_int_equal(sim_count(b.rcq), 3);
	finish();
}

/* ---- windows ---- */

static uint32_t bind(struct ibv_mw *mw, size_t at, size_t length, int access)
{
	struct ibv_send_wr wr = {.wr_id = 500, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED};
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
		.mr = b.mr, .addr = (uintptr_t)b.memory + at, .length = length, .mw_access_flags = (unsigned)access};
	sim_post(&b, &wr, 0, 0);
	assert_true(sim_run(SECOND));
	sim_expect(b.scq, 500, IBV_WC_SUCCESS);
	return wr.bind_mw.rkey;
}

static void write_by_key(uint64_t id, uint32_t rkey, size_t at, uint32_t length)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory + at;
	wr.wr.rdma.rkey = rkey;
	sim_post(&a, &wr, 0, length);
	assert_true(sim_run(SECOND));
}

static void a_window_opens_its_part_alone_and_is_shut_by_the_peer(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 4; kind++) {
		struct sim_options options = sim_defaults();
		begin(&options);
		struct ibv_mw *mw = mw_alloc(nb->pd, IBV_MW_TYPE_2);
		assert_non_null(mw);
		uint32_t rkey = bind(mw, 1000, 100, kind == 3 ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE);
		sim_fill(a.memory, 200, 8);
		if (kind != 3) {
			write_by_key(1, rkey, 1000, 100);
			sim_expect(a.scq, 1, IBV_WC_SUCCESS);
			assert_true(sim_filled(b.memory + 1000, 100, 8));
		}
		memset(b.memory, 0, 2000);
		if (kind == 0) { /* send with invalidate */
			struct ibv_send_wr wr = {.wr_id = 2,
						 .opcode = IBV_WR_SEND_WITH_INV,
						 .invalidate_rkey = rkey,
						 .send_flags = IBV_SEND_SIGNALED};
			sim_recv(&b, 3, 5000, 100);
			sim_post(&a, &wr, 0, 10);
			assert_true(sim_run(SECOND));
			sim_expect(a.scq, 2, IBV_WC_SUCCESS);
			struct ibv_wc wc = sim_expect(b.rcq, 3, IBV_WC_SUCCESS);
			assert_true(wc.wc_flags & IBV_WC_WITH_INV);
			assert_int_equal(wc.invalidated_rkey, rkey);
		} else if (kind == 1) { /* by its owner */
			struct ibv_send_wr wr = {.wr_id = 2,
						 .opcode = IBV_WR_LOCAL_INV,
						 .invalidate_rkey = rkey,
						 .send_flags = IBV_SEND_SIGNALED};
			sim_post(&b, &wr, 0, 0);
			assert_true(sim_run(SECOND));
			assert_int_equal(sim_expect(b.scq, 2, IBV_WC_SUCCESS).opcode, IBV_WC_LOCAL_INV);
		}
		/* kind 2: past its end; 3: a right that it does not give */
		write_by_key(4, rkey, 1000, kind == 2 ? 101 : 100);
		sim_expect(a.scq, 4, IBV_WC_REM_ACCESS_ERR);
		for (size_t i = 900; i < 1200; i++)
			assert_int_equal(b.memory[i], 0);
		assert_int_equal(qp_destroy(b.qp), 0);
		b.qp = NULL;
		assert_int_equal(mw_dealloc(mw), 0);
		finish();
	}
}

static void invalidating_a_key_that_is_no_window_is_refused(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	struct ibv_send_wr wr = {.wr_id = 1,
				 .opcode = IBV_WR_SEND_WITH_INV,
				 .invalidate_rkey = b.mr->rkey,
				 .send_flags = IBV_SEND_SIGNALED};
	sim_recv(&b, 1, 0, 100);
	sim_post(&a, &wr, 0, 10);
	assert_true(sim_run(SECOND));
	struct ibv_wc wc = {0};
	assert_int_equal(cq_poll(a.scq, 1, &wc), 1);
	assert_true(wc.status == IBV_WC_REM_ACCESS_ERR || wc.status == IBV_WC_REM_OP_ERR ||
		    wc.status == IBV_WC_REM_INV_REQ_ERR);
	assert_int_equal(sim_state(&b), IBV_QPS_ERR);
	finish();
}

static void a_window_of_one_queue_pair_is_closed_to_another(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	struct sim_end c, d;
	begin(&options);
	sim_pair(&c, na, &d, nb, &options);
	struct ibv_mw *mw = mw_alloc(nb->pd, IBV_MW_TYPE_2);
	uint32_t rkey = bind(mw, 0, 100, IBV_ACCESS_REMOTE_WRITE);
	struct ibv_send_wr wr = {.wr_id = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
	wr.wr.rdma.rkey = rkey;
	sim_post(&c, &wr, 0, 10);
	assert_true(sim_run(SECOND));
	sim_expect(c.scq, 1, IBV_WC_REM_ACCESS_ERR);
	write_by_key(2, rkey, 0, 10);
	sim_expect(a.scq, 2, IBV_WC_SUCCESS);
	sim_close(&c);
	sim_close(&d);
	assert_int_equal(mw_dealloc(mw), 0);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_sides_hear_of_a_refused_request),
		cmocka_unit_test(what_was_done_before_a_refused_request_is_still_answered),
		cmocka_unit_test(a_refusal_goes_out_when_the_link_is_ready_again),
		cmocka_unit_test(a_shared_receive_queue_feeds_all_its_queue_pairs),
		cmocka_unit_test(draining_finishes_what_was_begun_and_tells_when_it_is_done),
		cmocka_unit_test(draining_when_nothing_is_outstanding_is_told_at_once),
		cmocka_unit_test(a_dead_peer_does_not_hinder_others),
		cmocka_unit_test(busy_queue_pairs_share_the_wire),
		cmocka_unit_test(a_thousand_queue_pairs_all_get_through),
		cmocka_unit_test(queue_pairs_may_go_at_any_moment_of_a_transfer),
		cmocka_unit_test(a_receive_that_is_posted_late_is_found_by_the_retry),
		cmocka_unit_test(a_window_opens_its_part_alone_and_is_shut_by_the_peer),
		cmocka_unit_test(invalidating_a_key_that_is_no_window_is_refused),
		cmocka_unit_test(a_window_of_one_queue_pair_is_closed_to_another),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
