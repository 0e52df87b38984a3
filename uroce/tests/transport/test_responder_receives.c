/* SPDX-License-Identifier: Apache-2.0 */
/* What a responder needs before it executes: a posted receive, a state, the right peer. */
#include "responder_rig.h"

static void without_a_receive_the_requester_is_told_to_wait(void **state)
{
	(void)state;
	begin();
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	send_data(OP_SEND_ONLY, 1, 4);
	script_expect_ack(AETH_TYPE_RNR | 12, PSN + 1);
	/* What was sent after it was dropped, without a word. */
	send_data(OP_SEND_ONLY, 2, 4);
	send_data(OP_SEND_ONLY, 3, 4);
	script_expect_none();
	send_data(OP_SEND_ONLY, 1, 4);
	script_expect_ack(AETH_TYPE_RNR | 12, PSN + 1);
	sim_recv(&end, 1, 100, 10);
	send_data(OP_SEND_ONLY, 1, 4);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 1)->msn, 2);
	sim_expect(end.rcq, 1, IBV_WC_SUCCESS);
	finish();
}

static void a_write_with_immediate_waits_for_a_receive_too(void **state)
{
	(void)state;
	begin();
	script_send(&end, one_sided(OP_WRITE_FIRST, 0, 0, MTU + 4), data, MTU);
	script_expect_ack(AETH_ACK, PSN);
	send_data(OP_WRITE_LAST_IMM, 1, 4);
	script_expect_ack(AETH_TYPE_RNR | 12, PSN + 1);
	sim_recv(&end, 1, 5000, 0);
	send_data(OP_WRITE_LAST_IMM, 1, 4);
	script_expect_ack(AETH_ACK, PSN + 1);
	assert_int_equal(sim_expect(end.rcq, 1, IBV_WC_SUCCESS).byte_len, MTU + 4);
	assert_int_equal(end.memory[MTU + 4], GUARD);
	finish();
}

static void packets_of_others_are_dropped(void **state)
{
	(void)state;
	begin();
	struct packet packet = one_sided(OP_WRITE_ONLY, 0, 0, 4);
	packet.qpn = (end.qp->qp_num + 1) & 0xffffff;
	script_send(&end, packet, data, 4);
	packet.qpn = 0;
	packet.pkey = 0x1234;
	script_send(&end, packet, data, 4);
	packet.pkey = 0;
	packet.opcode = WIRE_UC | OP_WRITE_ONLY;
	script_send(&end, packet, data, 4);
	packet.opcode = WIRE_UD | OP_SEND_ONLY;
	script_send(&end, packet, data, 4);
	assert_true(untouched());
	assert_int_equal(node->counters.drop_qpn, 1);
	assert_int_equal(node->counters.drop_pkey, 1);
	assert_int_equal(node->counters.drop_transport, 2);

	struct sim_node *stranger = sim_node();
	struct sim_end other;
	sim_open(&other, stranger, &end.options);
	sim_connect(&other, &node->gid, end.qp->qp_num);
	sim_send(&other, 1, 0, 4);
	sim_pass(MS);
	assert_true(node->counters.drop_source > 0);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	sim_close(&other);
	/* Limited membership of the same partition is fine. */
	packet = one_sided(OP_WRITE_ONLY, 0, 0, 4);
	packet.pkey = 0x7fff;
	script_send(&end, packet, data, 4);
	script_expect_ack(AETH_ACK, PSN);
	finish();
}

static void a_queue_pair_that_is_not_ready_answers_nothing(void **state)
{
	(void)state;
	begin();
	assert_int_equal(sim_modify(&end, IBV_QPS_ERR), 0);
	write_only(0, 0, 4);
	assert_int_equal(sim_modify(&end, IBV_QPS_RESET), 0);
	write_only(0, 0, 4);
	script_expect_none();
	assert_true(untouched());
	finish();
}

/* A message that never ends: its receive is flushed with the others, and first. */
static void a_half_received_message_is_flushed_in_order(void **state)
{
	(void)state;
	begin();
	for (uint64_t i = 1; i < 4; i++)
		sim_recv(&end, i, 0, 4096);
	send_data(OP_SEND_FIRST, 0, MTU);
	script_forget();
	assert_int_equal(sim_modify(&end, IBV_QPS_ERR), 0);
	for (uint64_t i = 1; i < 4; i++)
		sim_expect(end.rcq, i, IBV_WC_WR_FLUSH_ERR);
	sim_expect_none(end.rcq);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_receive_the_requester_is_told_to_wait),
		cmocka_unit_test(a_write_with_immediate_waits_for_a_receive_too),
		cmocka_unit_test(packets_of_others_are_dropped),
		cmocka_unit_test(a_queue_pair_that_is_not_ready_answers_nothing),
		cmocka_unit_test(a_half_received_message_is_flushed_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
