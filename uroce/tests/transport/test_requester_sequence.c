/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as packets, and what answers them. */
#include "requester_rig.h"

static void messages_are_cut_at_the_mtu(void **state)
{
	(void)state;
	begin();
	sim_fill(end.memory, 3000, 1);
	sim_send(&end, 1, 0, 3 * MTU - 71);
	let_out();
	static const uint8_t opcodes[] = {OP_SEND_FIRST, OP_SEND_MIDDLE, OP_SEND_LAST};
	for (uint32_t i = 0; i < 3; i++) {
		const struct packet *packet = script_expect(opcodes[i], PSN + i);
		assert_int_equal(packet->qpn, SCRIPT_QPN);
		assert_int_equal(packet->payload_length, i == 2 ? MTU - 71 : MTU);
		assert_int_equal(packet->pad, i == 2 ? 3 : 0);
		assert_memory_equal(packet->payload, end.memory + i * MTU, packet->payload_length);
		if (i == 2)
			assert_true(packet->ack_req);
	}
	sim_write(&end, 2, 0, MTU + 1, peer, 5);
	let_out();
	const struct packet *first = script_expect(OP_WRITE_FIRST, PSN + 3);
	assert_int_equal(first->va, (uintptr_t)end.memory + 5);
	assert_int_equal(first->rkey, end.mr->rkey);
	assert_int_equal(first->length, MTU + 1);
	assert_true(script_expect(OP_WRITE_LAST, PSN + 4)->ack_req);
	sim_send(&end, 3, 0, 0);
	sim_send(&end, 4, 0, MTU);
	let_out();
	/* A short message may wait for the answer to those before it. */
	ack(4);
	assert_int_equal(script_expect(OP_SEND_ONLY, PSN + 5)->payload_length, 0);
	assert_int_equal(script_expect(OP_SEND_ONLY, PSN + 6)->payload_length, MTU);
	script_expect_none();
	finish();
}

static void se_and_immediate_are_in_the_last_packet_alone(void **state)
{
	(void)state;
	begin();
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_SEND_WITH_IMM, .send_flags = IBV_SEND_SOLICITED, .imm_data = htobe32(7)};
	sim_post(&end, &wr, 0, 2 * MTU + 1);
	let_out();
	assert_false(script_expect(OP_SEND_FIRST, PSN)->solicited);
	assert_false(script_expect(OP_SEND_MIDDLE, PSN + 1)->solicited);
	const struct packet *last = script_expect(OP_SEND_LAST_IMM, PSN + 2);
	assert_true(last->solicited);
	assert_int_equal(be32toh(last->imm), 7);
	finish();
}

static void an_acknowledgement_is_asked_for_at_least_every_64_packets(void **state)
{
	(void)state;
	begin();
	unsigned without = 0, seen = 0;
	sim_write(&end, 1, 0, 500 * MTU, peer, 0);
	for (uint32_t acked = 0; acked < 500;) {
		let_out();
		uint32_t before = seen;
		for (const struct sim_packet *packet; (packet = script_take()); seen++) {
			assert_int_equal(packet->packet.psn, psn_add(PSN, seen));
			without = packet->packet.ack_req ? 0 : without + 1;
			assert_true(without < 64);
		}
		assert_int_not_equal(seen, before); /* the window opens again after each answer */
		assert_int_equal(without, 0);       /* closed windows ask */
		acked = seen;
		ack(acked - 1);
	}
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

static void one_acknowledgement_answers_all_before_it(void **state)
{
	(void)state;
	begin();
	for (uint64_t i = 0; i < 5; i++)
		sim_write(&end, i, 0, 4096, peer, 0); /* 4 packets each */
	let_out();
	ack(9); /* in the middle of the third */
	sim_expect(end.scq, 0, IBV_WC_SUCCESS);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	sim_expect_none(end.scq);
	ack(19);
	for (uint64_t i = 2; i < 5; i++)
		sim_expect(end.scq, i, IBV_WC_SUCCESS);
	assert_true(sim_run(SECOND)); /* no timer is left */
	finish();
}

static void acknowledgements_of_what_was_not_sent_are_ignored(void **state)
{
	(void)state;
	static const uint32_t foreign[] = {2, 3, 100, 0x7fffff, 0x800000, 0x800001, WIRE_PSN_MASK, WIRE_PSN_MASK - 5};
	static const uint8_t syndromes[] = {AETH_ACK,
					    0,
					    AETH_NAK_SEQUENCE,
					    AETH_NAK_INVALID,
					    AETH_NAK_ACCESS,
					    AETH_NAK_OPERATION,
					    AETH_TYPE_RNR | 1,
					    0x40,
					    0x7f};
	begin();
	sim_write(&end, 1, 0, 4096, peer, 0);
	let_out();
	ack(3);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	script_forget();
	sim_write(&end, 2, 0, 2 * MTU, peer, 0); /* PSN + 4, + 5 */
	let_out();
	script_forget();
	for (size_t s = 0; s < sizeof syndromes; s++)
		for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
			script_ack(&end, PSN + 4 + foreign[i], syndromes[s]);
	answer_read(OP_READ_ONLY, 6, "1234", 4);
	answer_atomic(6, 1);
	sim_expect_none(end.scq);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	script_expect_none(); /* and nothing is sent again for them */
	ack(5);
	sim_expect(end.scq, 2, IBV_WC_SUCCESS);
	finish();
}

static void a_reserved_syndrome_answers_nothing(void **state)
{
	(void)state;
	begin();
	sim_write(&end, 1, 0, 100, peer, 0);
	let_out();
	script_ack(&end, PSN, 0x40);
	sim_expect_none(end.scq);
	ack(0);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

static void a_sequence_nak_acknowledges_what_is_before_it_and_repeats_the_rest_at_once(void **state)
{
	(void)state;
	begin();
	for (uint64_t i = 0; i < 3; i++)
		sim_write(&end, i, 0, 4096, peer, 0);
	let_out();
	script_forget();
	script_ack(&end, PSN + 6, AETH_NAK_SEQUENCE);
	sim_expect(end.scq, 0, IBV_WC_SUCCESS);
	sim_expect_none(end.scq);
	let_out();
	script_expect(OP_WRITE_MIDDLE, PSN + 6);
	script_expect(OP_WRITE_LAST, PSN + 7);
	for (uint32_t n = 8; n < 12; n++)
		assert_int_equal(script_take()->packet.psn, psn_add(PSN, n));
	script_expect_none();
	ack(11);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	sim_expect(end.scq, 2, IBV_WC_SUCCESS);
	finish();
}

static void the_same_sequence_nak_twice_does_not_double_the_traffic(void **state)
{
	(void)state;
	begin();
	sim_write(&end, 0, 0, 4096, peer, 0);
	let_out();
	script_forget();
	for (unsigned i = 0; i < 20; i++) /* more than there are retries */
		script_ack(&end, PSN + 1, AETH_NAK_SEQUENCE);
	let_out();
	unsigned repeated = 0;
	while (script_take())
		repeated++;
	assert_int_equal(repeated, 3);
	ack(3);
	sim_expect(end.scq, 0, IBV_WC_SUCCESS);
	finish();
}

static void error_naks_end_the_request_with_their_status_and_flush_the_rest_in_order(void **state)
{
	(void)state;
	static const struct {
		uint8_t syndrome;
		enum ibv_wc_status status;
	} rows[] = {{AETH_NAK_INVALID, IBV_WC_REM_INV_REQ_ERR},
		    {AETH_NAK_ACCESS, IBV_WC_REM_ACCESS_ERR},
		    {AETH_NAK_OPERATION, IBV_WC_REM_OP_ERR}};
	for (size_t row = 0; row < 3; row++) {
		begin();
		sim_recv(&end, 70, 0, 10);
		sim_recv(&end, 71, 0, 10);
		for (uint64_t i = 0; i < 5; i++) {
			struct ibv_send_wr wr = {.wr_id = i, .opcode = IBV_WR_RDMA_WRITE};
			sim_post(&end, &wr, 0, 2 * MTU); /* unsignalled: an error is told all the same */
		}
		sim_read(&end, 5, 0, 100, peer, 0);
		let_out();
		script_ack(&end, PSN + 5, rows[row].syndrome);
		struct ibv_wc wc = sim_expect(end.scq, 2, rows[row].status);
		assert_int_equal(wc.qp_num, end.qp->qp_num);
		for (uint64_t i = 3; i < 6; i++)
			sim_expect(end.scq, i, IBV_WC_WR_FLUSH_ERR);
		sim_expect_none(end.scq);
		sim_expect(end.rcq, 70, IBV_WC_WR_FLUSH_ERR);
		sim_expect(end.rcq, 71, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(sim_state(&end), IBV_QPS_ERR);
		/* Work posted now is flushed as well. */
		sim_send(&end, 9, 0, 10);
		sim_recv(&end, 72, 0, 10);
		sim_expect(end.scq, 9, IBV_WC_WR_FLUSH_ERR);
		sim_expect(end.rcq, 72, IBV_WC_WR_FLUSH_ERR);
		script_forget();
		assert_true(sim_run(10 * SECOND));
		script_expect_none();
		finish();
	}
}

static void a_queue_pair_destroyed_or_reset_with_packets_in_flight_is_gone(void **state)
{
	(void)state;
	for (unsigned reset = 0; reset < 3; reset++) {
		begin();
		sim_write(&end, 1, 0, 100 * MTU, peer, 0);
		sim_read(&end, 2, 0, 100, peer, 0);
		let_out();
		if (reset == 2)
			script_ack(&end, PSN, AETH_TYPE_RNR | 0);
		if (reset) {
			assert_int_equal(sim_modify(&end, IBV_QPS_RESET), 0);
			ack(5);
			sim_expect_none(end.scq);
			assert_int_equal(sim_state(&end), IBV_QPS_RESET);
		} else {
			uint32_t qpn = end.qp->qp_num;
			assert_int_equal(qp_destroy(end.qp), 0);
			end.qp = NULL;
			sim_expect_none(end.scq);
			struct ibv_qp gone = {.qp_num = qpn};
			struct sim_end late = end;
			late.qp = &gone;
			script_ack(&late, PSN + 5, AETH_ACK);
			assert_true(node->counters.drop_qpn > 0);
		}
		script_forget();
		assert_true(sim_run(10 * SECOND));
		script_expect_none();
		finish();
	}
}

static void a_queue_pair_works_again_after_a_reset(void **state)
{
	(void)state;
	begin();
	sim_write(&end, 1, 0, 10 * MTU, peer, 0);
	let_out();
	ack(3);
	assert_int_equal(sim_modify(&end, IBV_QPS_RESET), 0);
	script_forget();
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
	assert_int_equal(qp_modify(end.qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
			 0);
	script_connect(&end);
	sim_send(&end, 2, 0, 10);
	let_out();
	script_expect(OP_SEND_ONLY, PSN);
	script_expect_none();
	ack(0);
	sim_expect(end.scq, 2, IBV_WC_SUCCESS);
	sim_expect_none(end.scq);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_are_cut_at_the_mtu),
		cmocka_unit_test(se_and_immediate_are_in_the_last_packet_alone),
		cmocka_unit_test(an_acknowledgement_is_asked_for_at_least_every_64_packets),
		cmocka_unit_test(one_acknowledgement_answers_all_before_it),
		cmocka_unit_test(acknowledgements_of_what_was_not_sent_are_ignored),
		cmocka_unit_test(a_reserved_syndrome_answers_nothing),
		cmocka_unit_test(a_sequence_nak_acknowledges_what_is_before_it_and_repeats_the_rest_at_once),
		cmocka_unit_test(the_same_sequence_nak_twice_does_not_double_the_traffic),
		cmocka_unit_test(error_naks_end_the_request_with_their_status_and_flush_the_rest_in_order),
		cmocka_unit_test(a_queue_pair_destroyed_or_reset_with_packets_in_flight_is_gone),
		cmocka_unit_test(a_queue_pair_works_again_after_a_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
