/* SPDX-License-Identifier: Apache-2.0 */
/* What the requester learns of the path: round trips, and notifications of congestion. */
#include "requester_rig.h"

static const struct congestion *path(void)
{
	return &qp_of(end.qp)->req.path;
}

static void tell_waited(uint32_t n, uint32_t ns)
{
	script_send(&end, (struct packet){ .opcode = OP_WAITED, .psn = psn_add(PSN, n), .waited = ns }, NULL, 0);
}

/* A message leaves, and is not answered for so long. */
static void send_and_pass(uint64_t wr_id, uint64_t ns)
{
	sim_send(&end, wr_id, 0, 10);
	let_out();
	sim_pass(ns);
}

/* The timers count what the programs at both ends take, and what tells of the path does not. */
static void what_waits_at_the_ends_is_no_time_of_the_path(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 5);
	send_and_pass(1, 3 * MS);
	tell_waited(0, 2 * MS);
	script_wait(MS / 2);
	ack(0);
	assert_in_range(path()->rtt, 3 * MS, 3 * MS + 20 * US);
	assert_in_range(path()->base, MS / 2, MS / 2 + 20 * US);
	/* It was for that answer. */
	script_wait(0);
	send_and_pass(2, MS / 4);
	ack(1);
	assert_in_range(path()->base, MS / 4, MS / 4 + 20 * US);
	assert_in_range(path()->recent[0], MS / 4, MS / 4 + 20 * US);
	finish();
}

static void what_a_peer_without_a_tag_says_of_waiting_is_not_heeded(void **state)
{
	(void)state;
	begin();
	send_and_pass(1, 3 * MS);
	tell_waited(0, 2 * MS);
	ack(0);
	assert_in_range(path()->base, 3 * MS, 3 * MS + 20 * US);
	finish();
}

static void what_is_said_of_other_requests_or_of_too_long_a_time_does_no_harm(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 5);
	send_and_pass(1, 3 * MS);
	tell_waited(1, 2 * MS); /* never sent */
	tell_waited(0xffffff, 2 * MS);
	ack(0);
	assert_in_range(path()->base, 3 * MS, 3 * MS + 20 * US);
	send_and_pass(2, MS);
	tell_waited(1, UINT32_MAX);
	ack(1);
	assert_int_equal(path()->base, 1);
	assert_in_range(path()->rtt, MS, 3 * MS);
	finish();
}

static void the_answer_to_a_read_that_waited_is_measured_without_it(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 5);
	sim_read(&end, 1, 0, 100, peer, 0);
	let_out();
	sim_pass(3 * MS);
	tell_waited(0, 2 * MS);
	answer_read(OP_READ_ONLY, 0, end.memory + 4096, 100);
	assert_in_range(path()->base, MS, MS + 20 * US);
	finish();
}

/* However many are forged: the sender slows down to a few packets a round trip, and goes on. */
static void notifications_of_congestion_slow_the_sender_down_to_a_floor(void **state)
{
	(void)state;
	begin();
	const struct requester *req = &qp_of(end.qp)->req;
	double before = req->path.window;
	script_send(&end, (struct packet){ .opcode = OP_CNP }, NULL, 0);
	assert_true(req->path.window < before);
	script_have_tag(&end, 77);
	for (unsigned n = 0; n < 1000; n++) {
		sim_pass(MS);
		script_send(&end, (struct packet){ .opcode = OP_CNP }, NULL, 0);
	}
	assert_int_equal(node->counters.cnps_received, 1001);
	before = req->path.window;
	assert_true(before >= 4);
	/* Without the tag it is not the peer's. */
	script_use_tag(78);
	script_send(&end, (struct packet){ .opcode = OP_CNP }, NULL, 0);
	assert_int_equal(node->counters.cnps_received, 1001);
	script_use_tag(77);
	sim_send(&end, 1, 0, 4 * 1024);
	sim_run(0);
	for (uint32_t n = 0; n < 4; n++)
		script_take();
	script_ack(&end, PSN + 3, AETH_ACK);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(notifications_of_congestion_slow_the_sender_down_to_a_floor),
		cmocka_unit_test(what_waits_at_the_ends_is_no_time_of_the_path),
		cmocka_unit_test(what_a_peer_without_a_tag_says_of_waiting_is_not_heeded),
		cmocka_unit_test(what_is_said_of_other_requests_or_of_too_long_a_time_does_no_harm),
		cmocka_unit_test(the_answer_to_a_read_that_waited_is_measured_without_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
