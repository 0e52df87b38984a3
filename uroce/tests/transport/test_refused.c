/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that the peer refuses, wherever in the request its NAK points to: the right request ends, at once and without any timer,
 * and those before it succeed. IBTA volume 1, 9.9.2. */
#include "sim.h"

enum { PSN = 0xfffff0, MTU = 1024, KIB = 1024 };

static struct sim_node *na, *nb;
static struct sim_end a, b;

/* Nothing that is awaited here may depend on a timer. */
static struct sim_options without_timers(void)
{
	struct sim_options options = sim_defaults();
	options.psn = PSN;
	options.timeout = 0;
	options.memory = 5 << 20;
	return options;
}

static void begin_pair(const struct sim_options *options)
{
	sim_start(1);
	na = sim_node();
	nb = sim_node();
	na->wire.delay = nb->wire.delay = 2 * US;
	sim_pair(&a, na, &b, nb, options);
}

static void finish_pair(void)
{
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

/* ---- a READ that ends beyond the region ---- */

static void read_beyond(uint32_t length, uint32_t beyond, const struct sim_options *options)
{
	begin_pair(options);
	sim_fill(b.memory, 300 * KIB, 5);
	sim_write(&a, 1, 0, 3000, &b, 4 << 20);
	sim_read(&a, 2, 0, 300 * KIB, &b, 0);
	sim_read(&a, 3, 400 * KIB, length, &b, b.size - (length - beyond));
	sim_write(&a, 4, 0, 8, &b, 0);
	sim_run(SECOND);
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	sim_expect(a.scq, 2, IBV_WC_SUCCESS);
	sim_expect(a.scq, 3, IBV_WC_REM_ACCESS_ERR);
	sim_expect(a.scq, 4, IBV_WC_WR_FLUSH_ERR);
	assert_true(sim_filled(a.memory, 300 * KIB, 5));
	assert_true(sim_event(nb, IBV_EVENT_QP_ACCESS_ERR, b.qp));
	finish_pair();
}

static void a_read_that_ends_beyond_the_region_is_an_access_error(void **state)
{
	(void)state;
	static const uint32_t lengths[] = { 1,		64 * KIB,	64 * KIB + 1,  96 * KIB + 1, 256 * KIB,  256 * KIB + 1,
					    384 * KIB + 1, 512 * KIB,	640 * KIB + 5, 1024 * KIB,   2048 * KIB, 4096 * KIB };
	static const uint8_t limits[] = { 1, 2, 4, 16 };

	for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
		const uint32_t beyond[] = { 1, lengths[l] / 2 + 1, lengths[l] };
		for (size_t i = 0; i < 3; i++) {
			struct sim_options options = without_timers();
			options.rd_atomic = options.dest_rd_atomic = limits[(l + i) % 4];
			options.retry_cnt = i == 0 ? 0 : 7;
			read_beyond(lengths[l], beyond[i], &options);
		}
	}
}

/* ---- a region that goes while it is read ---- */

static uint64_t packets_left; /* of b, until the region goes */

static bool deregister_then(void *arg, const struct sim_packet *packet)
{
	(void)arg;
	(void)packet;
	if (packets_left > 0)
		packets_left--;
	return false;
}

static void a_region_that_goes_while_it_is_read_is_an_access_error(void **state)
{
	(void)state;
	for (unsigned after = 0; after < 1000; after += 37) {
		struct sim_options options = without_timers();
		options.rd_atomic = options.dest_rd_atomic = after % 2 ? 1 : 16;
		begin_pair(&options);
		struct ibv_mr *mr = mr_reg(b.pd, b.memory, 1 << 20, (uintptr_t)b.memory, b.options.mr_access);
		struct ibv_send_wr wr = { .wr_id = 2, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED };
		wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
		wr.wr.rdma.rkey = mr->rkey;
		packets_left = after;
		nb->wire.bytes_per_second = 1000000000; /* a packet about every us: time for the region to go */
		nb->wire.queue = 8 * MTU;
		nb->wire.drop = deregister_then;
		sim_write(&a, 1, 0, 10, &b, 2 << 20);
		sim_post(&a, &wr, 0, 1 << 20);
		sim_read(&a, 3, 0, 10, &b, 0);
		while (packets_left > 0)
			sim_pass(US);
		assert_int_equal(mr_dereg(mr), 0);
		sim_run(SECOND);
		sim_expect(a.scq, 1, IBV_WC_SUCCESS);
		sim_expect(a.scq, 2, IBV_WC_REM_ACCESS_ERR);
		sim_expect(a.scq, 3, IBV_WC_WR_FLUSH_ERR);
		finish_pair();
	}
}

/* The last packet of the answer is lost, and before it is asked for again the region goes. */
static bool lose_once(void *arg, const struct sim_packet *packet)
{
	bool *armed = arg;
	bool lose = *armed && packet->packet.opcode == OP_READ_LAST;
	*armed = *armed && !lose;
	return lose;
}

static void a_region_that_goes_before_a_lost_answer_is_repeated_is_an_access_error(void **state)
{
	(void)state;
	struct sim_options options = without_timers();
	bool armed = true;
	options.timeout = 10;
	begin_pair(&options);
	struct ibv_mr *mr = mr_reg(b.pd, b.memory, 1 << 20, (uintptr_t)b.memory, b.options.mr_access);
	struct ibv_send_wr wr = { .wr_id = 1, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED };
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
	wr.wr.rdma.rkey = mr->rkey;
	nb->wire.drop = lose_once;
	nb->wire.arg = &armed;
	sim_post(&a, &wr, 0, 10000);
	while (armed)
		sim_pass(US);
	assert_int_equal(mr_dereg(mr), 0);
	sim_run(SECOND);
	sim_expect(a.scq, 1, IBV_WC_REM_ACCESS_ERR);
	finish_pair();
}

/* Memory of an earlier READ is gone when a later request is refused: the READ hears of it. */
static void a_refusal_does_not_hide_that_an_earlier_read_has_no_answer(void **state)
{
	(void)state;
	struct sim_options options = without_timers();
	begin_pair(&options);
	struct ibv_mr *mr = mr_reg(b.pd, b.memory, 1 << 20, (uintptr_t)b.memory, b.options.mr_access);
	struct ibv_send_wr wr = { .wr_id = 1, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED };
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
	wr.wr.rdma.rkey = mr->rkey;
	nb->blocked = true;
	sim_post(&a, &wr, 0, 10000);
	wr.wr_id = 2;
	wr.opcode = IBV_WR_RDMA_WRITE;
	wr.wr.rdma.rkey = b.mr->rkey ^ 1;
	sim_pass(10 * US);
	assert_int_equal(mr_dereg(mr), 0);
	sim_post(&a, &wr, 0, 8192); /* too long to wait for company */
	sim_pass(10 * US);
	assert_int_equal(sim_state(&b), IBV_QPS_ERR);
	nb->blocked = false;
	sim_run(SECOND);
	sim_expect(a.scq, 1, IBV_WC_REM_ACCESS_ERR);
	sim_expect(a.scq, 2, IBV_WC_WR_FLUSH_ERR);
	finish_pair();
}

/* ---- the test is the peer ---- */

static void begin_script(uint8_t retry_cnt)
{
	struct sim_options options = without_timers();
	options.retry_cnt = retry_cnt;
	sim_start(1);
	na = sim_node();
	sim_open(&a, na, &options);
	script_connect(&a);
	memset(a.memory, 0, a.size);
}

static void finish_script(void)
{
	sim_close(&a);
	sim_stop();
}

static void let_out(void)
{
	sim_run(10 * US);
}

/* Packets `from` to `to` of the answer to a READ whose first PSN is `first`, and which has `count`. */
static void answer_read(uint32_t first, uint32_t from, uint32_t to, uint32_t count)
{
	static const uint8_t data[MTU];
	for (uint32_t n = from; n < to; n++) {
		uint8_t opcode = count == 1 ? OP_READ_ONLY : n == 0 ? OP_READ_FIRST : n + 1 == count ? OP_READ_LAST : OP_READ_MIDDLE;
		struct packet packet = { .opcode = opcode, .psn = psn_add(first, n), .syndrome = AETH_ACK };
		script_send(&a, packet, data, MTU);
	}
}

static const struct {
	uint8_t syndrome;
	enum ibv_wc_status status;
} refusals[] = { { AETH_NAK_INVALID, IBV_WC_REM_INV_REQ_ERR },
		 { AETH_NAK_ACCESS, IBV_WC_REM_ACCESS_ERR },
		 { AETH_NAK_OPERATION, IBV_WC_REM_OP_ERR } };

/* A WRITE, a READ, an atomic, a SEND and a WRITE of four packets each (the atomic of one), and a NAK at each PSN of them. */
static void any_packet_of_any_request_may_be_refused(void **state)
{
	(void)state;
	static const uint32_t first[] = { 0, 4, 8, 9, 13, 17 };

	for (uint32_t at = 0; at < 17; at++) {
		for (size_t r = 0; r < 3; r++) {
			begin_script(at % 2 ? 7 : 0);
			sim_write(&a, 0, 0, 4 * MTU, &a, 0);
			sim_read(&a, 1, 0, 4 * MTU, &a, 0);
			sim_fetch_add(&a, 2, 0, &a, 0, 1);
			sim_send(&a, 3, 0, 4 * MTU);
			sim_write(&a, 4, 0, 4 * MTU, &a, 0);
			let_out();
			answer_read(psn_add(PSN, 4), 0, at < 4 ? 0 : at - 4 < 4 ? at - 4 : 4, 4);
			if (at > 8)
				script_send(&a, (struct packet){ .opcode = OP_ATOMIC_ACK, .psn = psn_add(PSN, 8) }, NULL, 0);
			script_ack(&a, PSN + at, refusals[r].syndrome);
			uint64_t id = 0;
			for (; first[id + 1] <= at; id++)
				sim_expect(a.scq, id, IBV_WC_SUCCESS);
			sim_expect(a.scq, id, refusals[r].status);
			while (++id < 5)
				sim_expect(a.scq, id, IBV_WC_WR_FLUSH_ERR);
			assert_int_equal(sim_state(&a), IBV_QPS_ERR);
			finish_script();
		}
	}
}

/* Parts of a READ are refused at their first packets, whatever was received of it. */
static void any_part_of_a_read_may_be_refused_with_any_of_its_answer_missing(void **state)
{
	(void)state;
	for (uint32_t received = 0; received < 300; received += 60) {
		for (uint32_t at = received; at <= 300; at += 25) {
			begin_script(0);
			sim_read(&a, 1, 0, 1024 * MTU, &a, 0);
			sim_write(&a, 2, 0, 8, &a, 0);
			let_out();
			answer_read(PSN, 0, received, 256);
			if (psn_diff(qp_of(a.qp)->req.top, PSN + at) <= 0) {
				finish_script(); /* not asked for yet: nothing to refuse */
				continue;
			}
			script_ack(&a, PSN + at, AETH_NAK_ACCESS);
			sim_expect(a.scq, 1, IBV_WC_REM_ACCESS_ERR);
			sim_expect(a.scq, 2, IBV_WC_WR_FLUSH_ERR);
			finish_script();
		}
	}
}

/* ---- refusals and answers that overtake each other ---- */

static void begin_overtaken(bool atomic)
{
	begin_script(0);
	sim_write(&a, 1, 0, 10, &a, 0);
	if (atomic)
		sim_fetch_add(&a, 2, 64, &a, 0, 1);
	else
		sim_read(&a, 2, 64, MTU, &a, 0);
	sim_write(&a, 3, 0, 2 * MTU, &a, 0);
	sim_write(&a, 4, 0, 5 * MTU, &a, 0);
	let_out();
	script_ack(&a, PSN, AETH_ACK);
	let_out();
	script_ack(&a, PSN + 3, AETH_NAK_ACCESS); /* of the third's second packet */
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	sim_expect_none(a.scq);
	script_forget();
}

static void a_refusal_that_overtakes_an_answer_waits_for_it(void **state)
{
	(void)state;
	for (unsigned atomic = 0; atomic < 2; atomic++) {
		begin_overtaken(atomic);
		sim_pass(100 * US);
		script_ack(&a, PSN + 3, AETH_NAK_ACCESS); /* a copy of it */
		script_ack(&a, PSN + 3, AETH_NAK_SEQUENCE);
		sim_expect_none(a.scq);
		if (atomic)
			script_send(&a, (struct packet){ .opcode = OP_ATOMIC_ACK, .psn = psn_add(PSN, 1) }, NULL, 0);
		else
			answer_read(psn_add(PSN, 1), 0, 1, 1);
		sim_expect(a.scq, 2, IBV_WC_SUCCESS);
		sim_expect(a.scq, 3, IBV_WC_REM_ACCESS_ERR);
		sim_expect(a.scq, 4, IBV_WC_WR_FLUSH_ERR);
		script_expect_none(); /* nothing is sent to a peer that has ended */
		finish_script();
	}
}

/* Nobody repeats it; that is no reason to wait for ever, though the timeout is 0. */
static void a_lost_answer_before_a_refusal_ends_as_a_lost_answer(void **state)
{
	(void)state;
	for (unsigned atomic = 0; atomic < 2; atomic++) {
		begin_overtaken(atomic);
		sim_pass(SECOND);
		sim_expect(a.scq, 2, IBV_WC_RETRY_EXC_ERR);
		sim_expect(a.scq, 3, IBV_WC_WR_FLUSH_ERR);
		sim_expect(a.scq, 4, IBV_WC_WR_FLUSH_ERR);
		script_expect_none();
		assert_true(sim_run(SECOND));
		finish_script();
	}
}

/* ---- other NAKs in the middle of READs ---- */

static void a_sequence_nak_within_a_read_asks_for_the_rest(void **state)
{
	(void)state;
	for (uint32_t received = 0; received < 8; received++) {
		for (uint32_t at = received; at < 9; at++) {
			begin_script(1);
			sim_read(&a, 1, 0, 8 * MTU, &a, 0);
			sim_send(&a, 2, 0, 5 * MTU);
			let_out();
			answer_read(PSN, 0, received, 8);
			script_forget();
			script_ack(&a, PSN + at, AETH_NAK_SEQUENCE);
			let_out();
			const struct packet *again = script_expect(OP_READ_REQUEST, PSN + received);
			assert_int_equal(again->va, (uintptr_t)a.memory + received * MTU);
			assert_int_equal(again->length, (8 - received) * MTU);
			for (uint32_t n = received; n < 8; n++) {
				uint8_t opcode = received == 7 ? OP_READ_ONLY : n == received ? OP_READ_FIRST :
					n == 7 ? OP_READ_LAST : OP_READ_MIDDLE;
				struct packet packet = { .opcode = opcode, .psn = psn_add(PSN, n), .syndrome = AETH_ACK };
				script_send(&a, packet, a.memory + 100000, MTU);
			}
			sim_expect(a.scq, 1, IBV_WC_SUCCESS);
			script_ack(&a, PSN + 12, AETH_ACK);
			sim_expect(a.scq, 2, IBV_WC_SUCCESS);
			finish_script();
		}
	}
}

static void sequence_naks_past_a_read_without_answer_exhaust_the_retries(void **state)
{
	(void)state;
	begin_script(3);
	sim_read(&a, 1, 0, 8 * MTU, &a, 0);
	sim_send(&a, 2, 0, 5 * MTU);
	let_out();
	for (unsigned i = 0; i < 100 && sim_state(&a) == IBV_QPS_RTS; i++) {
		script_ack(&a, PSN + 8, AETH_NAK_SEQUENCE);
		qp_of(a.qp)->req.recovering = false; /* as after the timer */
	}
	sim_expect(a.scq, 1, IBV_WC_RETRY_EXC_ERR);
	finish_script();
}

/* The SEND is not taken in yet, and the READ's answer is lost: the SEND's retries are not spent on the READ. */
static void not_ready_past_a_read_without_answer_asks_for_the_answer_first(void **state)
{
	(void)state;
	struct sim_options options = without_timers();
	options.rnr_retry = 0;
	options.retry_cnt = 1;
	sim_start(1);
	na = sim_node();
	sim_open(&a, na, &options);
	script_connect(&a);
	sim_read(&a, 1, 0, MTU, &a, 0);
	sim_send(&a, 2, 0, 5 * MTU);
	let_out();
	script_forget();
	script_ack(&a, PSN + 1, AETH_TYPE_RNR | 1);
	sim_pass(20 * US);
	script_expect(OP_READ_REQUEST, PSN);
	answer_read(PSN, 0, 1, 1);
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	script_ack(&a, PSN + 1, AETH_TYPE_RNR | 1);
	sim_expect(a.scq, 2, IBV_WC_RNR_RETRY_EXC_ERR);
	finish_script();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_that_ends_beyond_the_region_is_an_access_error),
		cmocka_unit_test(a_region_that_goes_while_it_is_read_is_an_access_error),
		cmocka_unit_test(a_region_that_goes_before_a_lost_answer_is_repeated_is_an_access_error),
		cmocka_unit_test(a_refusal_does_not_hide_that_an_earlier_read_has_no_answer),
		cmocka_unit_test(any_packet_of_any_request_may_be_refused),
		cmocka_unit_test(any_part_of_a_read_may_be_refused_with_any_of_its_answer_missing),
		cmocka_unit_test(a_refusal_that_overtakes_an_answer_waits_for_it),
		cmocka_unit_test(a_lost_answer_before_a_refusal_ends_as_a_lost_answer),
		cmocka_unit_test(a_sequence_nak_within_a_read_asks_for_the_rest),
		cmocka_unit_test(sequence_naks_past_a_read_without_answer_exhaust_the_retries),
		cmocka_unit_test(not_ready_past_a_read_without_answer_asks_for_the_answer_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
