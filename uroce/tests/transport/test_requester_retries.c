/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that do not answer, or are not ready. */
#include "requester_rig.h"

/* Every try may take T to 4 T, by the rules of the transport timer; the first one counts too. */
static void a_silent_peer_ends_in_retry_exceeded_after_the_configured_time(void **state)
{
	(void)state;
	static const struct {
		uint8_t timeout;
		uint8_t retries;
	} rows[] = {{8, 0}, {8, 1}, {9, 7}, {10, 3}, {14, 2}, {18, 1}};
	for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
		for (unsigned with_rtt = 0; with_rtt < 2; with_rtt++) {
			struct sim_options options = usual();
			options.timeout = rows[row].timeout;
			options.retry_cnt = rows[row].retries;
			begin_with(&options);
			uint32_t n = 0;
			if (with_rtt) { /* a connection that has worked before */
				sim_write(&end, 0, 0, 10, peer, 0);
				sim_pass(50 * US);
				ack(n++);
				sim_expect(end.scq, 0, IBV_WC_SUCCESS);
				script_forget();
				sim_pass(10 * SECOND);
			}
			uint64_t start = sim_now(), t = 4096ull << rows[row].timeout, tries = rows[row].retries + 1u;
			sim_write(&end, 1, 0, 3 * MTU, peer, 0);
			sim_read(&end, 2, 0, 10, peer, 0);
			sim_send(&end, 3, 0, 10);
			while (sim_state(&end) == IBV_QPS_RTS && sim_now() < start + 5 * tries * t)
				sim_pass(t / 64);
			assert_uint_in_range(sim_now() - start, tries * t, tries * 4 * t + t / 64);
			sim_expect(end.scq, 1, IBV_WC_RETRY_EXC_ERR);
			sim_expect(end.scq, 2, IBV_WC_WR_FLUSH_ERR);
			sim_expect(end.scq, 3, IBV_WC_WR_FLUSH_ERR);
			unsigned firsts = 0;
			for (const struct sim_packet *packet; (packet = script_take());)
				firsts += packet->packet.psn == psn_add(PSN, n);
			assert_true(firsts >= tries);
			assert_int_equal(node->counters.timeouts, tries);
			assert_int_equal(node->counters.retries_exhausted, 1);
			assert_true(sim_run(10 * SECOND));
			finish();
		}
	}
}

static void progress_gives_all_retries_back(void **state)
{
	(void)state;
	struct sim_options options = usual();
	options.retry_cnt = 1;
	options.timeout = 8;
	begin_with(&options);
	sim_write(&end, 1, 0, 10 * MTU, peer, 0);
	for (uint32_t n = 0; n < 10; n++) {
		/* More than one timeout, less than two tries at their longest would need at least. */
		sim_pass((4096ull << 8) * 3 / 2);
		assert_int_equal(sim_state(&end), IBV_QPS_RTS);
		ack(n);
	}
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

/* An application that polls closely takes answers without the clock: the time of the last one is not known, and may be long past. */
static void an_answer_at_an_unknown_time_gives_the_whole_timeout(void **state)
{
	(void)state;
	const uint64_t timeout = 4096ull << 14;
	struct sim_options options = usual();
	options.retry_cnt = 0;
	options.timeout = 14;
	begin_with(&options);
	sim_write(&end, 1, 0, 2 * MTU, peer, 0);
	sim_pass(50 * US);
	ack(0);
	sim_pass(timeout - MS);
	struct requester *req = &qp_of(end.qp)->req;
	req->progress_undated = true;
	sim_pass(timeout / 2); /* the timer fires meanwhile */
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	assert_false(req->progress_undated);
	sim_pass(5 * timeout);
	sim_expect(end.scq, 1, IBV_WC_RETRY_EXC_ERR);
	finish();
}

/* What sets a timer, or measures, is not taken without it. */
static void an_answer_that_needs_the_time_reads_the_clock(void **state)
{
	(void)state;
	begin();
	sim_write(&end, 1, 0, MTU, peer, 0);
	let_out();
	struct device *device = &node->device;
	struct packet packet = { .opcode = OP_ACK, .qpn = end.qp->qp_num, .pkey = WIRE_PKEY, .psn = PSN, .syndrome = AETH_TYPE_RNR | 14 };
	struct packet_path path = { .sgid = qp_of(end.qp)->av.dgid };
	device->now = 1; /* long past */
	device->undated = true;
	engine_deliver_local(device, &packet, &path);
	assert_false(device->undated);
	assert_int_equal(device->now, sim_now());
	assert_true(qp_of(end.qp)->req.waiting_rnr);
	assert_true(qp_of(end.qp)->req.timer.deadline > sim_now());
	finish();
}

static void a_timeout_of_zero_waits_for_ever(void **state)
{
	(void)state;
	struct sim_options options = usual();
	options.timeout = 0;
	options.retry_cnt = 0;
	begin_with(&options);
	sim_write(&end, 1, 0, 100, peer, 0);
	sim_pass(1000 * SECOND);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	ack(0);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

static void sequence_naks_without_end_exhaust_the_retries(void **state)
{
	(void)state;
	begin();
	sim_write(&end, 1, 0, 2 * MTU, peer, 0);
	uint64_t start = sim_now();
	while (sim_state(&end) == IBV_QPS_RTS && sim_now() < start + 10 * SECOND) {
		script_ack(&end, PSN, AETH_NAK_SEQUENCE);
		sim_pass(2 * MS);
	}
	sim_expect(end.scq, 1, IBV_WC_RETRY_EXC_ERR);
	finish();
}

static void receiver_not_ready_is_waited_for_as_long_as_it_says(void **state)
{
	(void)state;
	static const uint64_t wait[32] = {655360, 10,     20,     30,     40,    60,    80,    120,   160,
					  240,    320,    480,    640,    960,   1280,  1920,  2560,  3840,
					  5120,   7680,   10240,  15360,  20480, 30720, 40960, 61440, 81920,
					  122880, 163840, 245760, 327680, 491520}; /* us; IBTA table 45 */
	for (uint8_t code = 0; code < 32; code++) {
		begin();
		sim_send(&end, 1, 0, 10);
		let_out();
		script_expect(OP_SEND_ONLY, PSN);
		script_ack(&end, PSN, AETH_TYPE_RNR | code);
		sim_pass(wait[code] * US - 1);
		script_expect_none();
		/* But not much longer. */
		sim_pass(MS);
		script_expect(OP_SEND_ONLY, PSN);
		ack(0);
		sim_expect(end.scq, 1, IBV_WC_SUCCESS);
		finish();
	}
}

static void nothing_is_sent_while_the_peer_is_not_ready(void **state)
{
	(void)state;
	begin();
	sim_send(&end, 1, 0, 10);
	let_out();
	script_ack(&end, PSN, AETH_TYPE_RNR | 20); /* 10.24 ms */
	script_forget();
	sim_send(&end, 2, 0, 5000);
	sim_read(&end, 3, 0, 10, peer, 0);
	script_ack(&end, PSN, AETH_NAK_SEQUENCE); /* for what followed the refused one */
	sim_pass(10 * MS);
	script_expect_none();
	sim_pass(MS);
	script_expect(OP_SEND_ONLY, PSN);
	finish();
}

static void rnr_retries_are_counted(void **state)
{
	(void)state;
	for (uint8_t retries = 0; retries < 7; retries += 3) {
		struct sim_options options = usual();
		options.rnr_retry = retries;
		begin_with(&options);
		uint64_t start = sim_now();
		sim_write(&end, 1, 0, 10, peer, 0);
		sim_send(&end, 2, 0, 10);
		sim_send(&end, 3, 0, 10);
		let_out();
		ack(0);
		let_out();
		sim_expect(end.scq, 1, IBV_WC_SUCCESS);
		for (uint8_t n = 0; n <= retries; n++) {
			assert_int_equal(sim_state(&end), IBV_QPS_RTS);
			script_ack(&end, PSN + 1, AETH_TYPE_RNR | 14); /* 1.28 ms */
			if (n < retries)
				sim_pass(1300 * US);
		}
		sim_expect(end.scq, 2, IBV_WC_RNR_RETRY_EXC_ERR);
		sim_expect(end.scq, 3, IBV_WC_WR_FLUSH_ERR);
		assert_uint_in_range(sim_now() - start, retries * 1280 * US, retries * 1400 * US + 100 * US);
		finish();
	}
}

static void progress_gives_all_rnr_retries_back(void **state)
{
	(void)state;
	struct sim_options options = usual();
	options.rnr_retry = 1;
	begin_with(&options);
	for (uint64_t i = 0; i < 4; i++)
		sim_send(&end, i, 0, 10);
	for (uint32_t n = 0; n < 4; n++) {
		let_out();
		script_ack(&end, PSN + n, AETH_TYPE_RNR | 1);
		assert_int_equal(sim_state(&end), IBV_QPS_RTS);
		sim_pass(100 * US);
		ack(n);
		sim_expect(end.scq, n, IBV_WC_SUCCESS);
	}
	finish();
}

static void seven_rnr_retries_are_for_ever(void **state)
{
	(void)state;
	begin();
	sim_send(&end, 1, 0, 10);
	let_out();
	for (unsigned n = 0; n < 200; n++) {
		script_ack(&end, PSN, AETH_TYPE_RNR | 1);
		sim_pass(100 * US);
	}
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	ack(0);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_silent_peer_ends_in_retry_exceeded_after_the_configured_time),
		cmocka_unit_test(progress_gives_all_retries_back),
		cmocka_unit_test(an_answer_at_an_unknown_time_gives_the_whole_timeout),
		cmocka_unit_test(an_answer_that_needs_the_time_reads_the_clock),
		cmocka_unit_test(a_timeout_of_zero_waits_for_ever),
		cmocka_unit_test(sequence_naks_without_end_exhaust_the_retries),
		cmocka_unit_test(receiver_not_ready_is_waited_for_as_long_as_it_says),
		cmocka_unit_test(nothing_is_sent_while_the_peer_is_not_ready),
		cmocka_unit_test(rnr_retries_are_counted),
		cmocka_unit_test(progress_gives_all_rnr_retries_back),
		cmocka_unit_test(seven_rnr_retries_are_for_ever),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
