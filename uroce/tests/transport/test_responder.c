/* SPDX-License-Identifier: Apache-2.0 */
/* The responder, packet by packet: the test is the requester. Rules of IBTA volume 1, 9.7. */
#include "sim.h"

enum { PSN = 0xfffffe, MTU = 256, GUARD = 0x5a }; /* the PSN wraps on the third packet */

static struct sim_node *node;
static struct sim_end end;
static uint8_t data[8192];

static void begin_with(struct sim_options options)
{
	options.psn = PSN;
	sim_start(1);
	node = sim_node();
	sim_open(&end, node, &options);
	script_connect(&end);
	memset(end.memory, GUARD, end.size);
	sim_fill(data, sizeof data, 99);
}

static struct sim_options small(void)
{
	struct sim_options options = sim_defaults();
	options.mtu = IBV_MTU_256;
	return options;
}

static void begin(void)
{
	begin_with(small());
}

static void finish(void)
{
	script_expect_none();
	sim_close(&end);
	sim_stop();
}

/* A request n packets after the first PSN. */
static struct packet request(uint8_t opcode, uint32_t n)
{
	return (struct packet){.opcode = opcode, .psn = psn_add(PSN, n), .ack_req = true};
}

static void send_data(uint8_t opcode, uint32_t n, uint32_t length)
{
	script_send(&end, request(opcode, n), data, length);
}

static struct packet one_sided(uint8_t opcode, uint32_t n, size_t at, uint32_t length)
{
	struct packet packet = request(opcode, n);
	packet.va = (uintptr_t)end.memory + at;
	packet.rkey = end.mr->rkey;
	packet.length = length;
	return packet;
}

static void write_only(uint32_t n, size_t at, uint32_t length)
{
	script_send(&end, one_sided(OP_WRITE_ONLY, n, at, length), data, length);
}

static void fetch_add(uint32_t n, size_t at, uint64_t add)
{
	struct packet packet = one_sided(OP_FETCH_ADD, n, at, 8);
	packet.swap_add = add;
	script_send(&end, packet, NULL, 0);
}

static uint64_t word_at(size_t at)
{
	uint64_t word;
	memcpy(&word, end.memory + at, 8);
	return word;
}

static bool untouched(void)
{
	for (size_t i = 0; i < end.size; i++)
		if (end.memory[i] != GUARD)
			return false;
	return true;
}

/* Refused: this NAK for packet n, the queue pair in error, nothing more answered. */
static void expect_refusal(uint8_t syndrome, uint32_t n)
{
	script_expect_ack(syndrome, PSN + n);
	assert_int_equal(sim_state(&end), IBV_QPS_ERR);
	write_only(n, 0, 4);
	write_only(n + 1, 0, 4);
	script_expect_none();
}

static void each_message_is_acknowledged_with_its_psn_and_counted(void **state)
{
	(void)state;
	begin();
	for (uint32_t n = 0; n < 5; n++) {
		write_only(n, 100 * n, 10);
		const struct packet *ack = script_expect_ack(AETH_ACK, PSN + n);
		assert_int_equal(ack->msn, n + 1);
		assert_int_equal(ack->qpn, SCRIPT_QPN);
	}
	finish();
}

static void an_acknowledgement_that_is_not_asked_for_is_not_sent(void **state)
{
	(void)state;
	begin();
	struct packet packet = one_sided(OP_WRITE_FIRST, 0, 0, 2 * MTU + 1);
	packet.ack_req = false;
	script_send(&end, packet, data, MTU);
	packet = request(OP_WRITE_MIDDLE, 1);
	packet.ack_req = false;
	script_send(&end, packet, data + MTU, MTU);
	script_expect_none();
	script_send(&end, request(OP_WRITE_LAST, 2), data + 2 * MTU, 1);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 2)->msn, 1);
	assert_true(sim_filled(end.memory, 2 * MTU + 1, 99));
	finish();
}

static void an_acknowledgement_in_the_middle_does_not_count_the_message(void **state)
{
	(void)state;
	begin();
	script_send(&end, one_sided(OP_WRITE_FIRST, 0, 0, MTU + 1), data, MTU);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN)->msn, 0);
	send_data(OP_WRITE_LAST, 1, 1);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 1)->msn, 1);
	finish();
}

static void acknowledgements_are_coalesced_while_the_link_is_busy(void **state)
{
	(void)state;
	begin();
	node->blocked = true;
	for (uint32_t n = 0; n < 10; n++)
		write_only(n, 0, 4);
	node->blocked = false;
	sim_run(0);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 9)->msn, 10);
	finish();
}

static void a_gap_is_answered_by_one_nak_with_the_expected_psn(void **state)
{
	(void)state;
	begin();
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	for (uint32_t n = 2; n < 8; n++)
		write_only(n, 8, 4);
	assert_int_equal(script_expect_ack(AETH_NAK_SEQUENCE, PSN + 1)->msn, 1);
	script_expect_none();
	assert_int_equal(end.memory[8], GUARD);
	/* Repaired; the next gap gets its own. */
	write_only(1, 0, 4);
	script_expect_ack(AETH_ACK, PSN + 1);
	write_only(3, 8, 4);
	script_expect_ack(AETH_NAK_SEQUENCE, PSN + 2);
	write_only(4, 8, 4);
	script_expect_none();
	/* A duplicate does not fill the gap. */
	write_only(0, 0, 4);
	const struct sim_packet *ack = script_take();
	assert_non_null(ack);
	assert_int_equal(ack->packet.psn, psn_add(PSN, 1));
	write_only(5, 8, 4);
	script_expect_none();
	assert_int_equal(end.memory[8], GUARD);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	finish();
}

static void a_psn_half_the_circle_ahead_or_behind_is_told_apart(void **state)
{
	(void)state;
	begin();
	write_only((1 << 23) - 1, 0, 4); /* the farthest ahead */
	script_expect_ack(AETH_NAK_SEQUENCE, PSN);
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	write_only(1 + (1 << 23), 8, 4); /* the farthest behind: acknowledged, not executed */
	script_expect_ack(AETH_ACK, PSN);
	assert_int_equal(end.memory[8], GUARD);
	finish();
}

static void a_duplicate_send_is_acknowledged_and_not_executed_again(void **state)
{
	(void)state;
	begin();
	sim_recv(&end, 1, 0, 100);
	sim_recv(&end, 2, 200, 100);
	send_data(OP_SEND_ONLY, 0, 50);
	script_expect_ack(AETH_ACK, PSN);
	memset(end.memory, 0x77, 100);
	for (unsigned i = 0; i < 3; i++) {
		send_data(OP_SEND_ONLY, 0, 50);
		assert_int_equal(script_expect_ack(AETH_ACK, PSN)->msn, 1);
	}
	sim_expect(end.rcq, 1, IBV_WC_SUCCESS);
	sim_expect_none(end.rcq);
	assert_int_equal(end.memory[0], 0x77);
	assert_int_equal(end.memory[200], GUARD);
	finish();
}

static void a_duplicate_write_is_acknowledged_and_not_executed_again(void **state)
{
	(void)state;
	begin();
	write_only(0, 0, 50);
	write_only(1, 100, 50);
	script_forget();
	memset(end.memory, 0x77, 50);
	write_only(0, 0, 50);
	const struct sim_packet *ack = script_take();
	assert_non_null(ack);
	assert_int_equal(ack->packet.opcode, OP_ACK);
	assert_int_equal(ack->packet.syndrome, AETH_ACK);
	assert_int_equal(ack->packet.psn, psn_add(PSN, 1));
	assert_int_equal(ack->packet.msn, 2);
	assert_int_equal(end.memory[0], 0x77);
	finish();
}

/* From packet n, `length` bytes from `at`. */
static void expect_read(uint32_t n, size_t at, uint32_t length, uint32_t msn)
{
	uint32_t count = length == 0 ? 1 : (length + MTU - 1) / MTU;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t opcode = count == 1       ? OP_READ_ONLY
				 : i == 0         ? OP_READ_FIRST
				 : i == count - 1 ? OP_READ_LAST
						  : OP_READ_MIDDLE;
		const struct packet *packet = script_expect(opcode, PSN + n + i);
		uint32_t part = i == count - 1 ? length - i * MTU : MTU;
		assert_int_equal(packet->payload_length, part);
		if (part > 0)
			assert_memory_equal(packet->payload, end.memory + at + i * MTU, part);
		if (opcode == OP_READ_MIDDLE)
			continue;
		assert_int_equal(packet->syndrome & AETH_TYPE_MASK, AETH_TYPE_ACK);
		assert_int_equal(packet->msn, msn);
	}
}

static void a_read_consumes_as_many_psns_as_its_answer_has_packets(void **state)
{
	(void)state;
	static const uint32_t lengths[] = {0, 1, MTU - 1, MTU, MTU + 1, 2 * MTU, 5 * MTU + 3};
	uint32_t n = 0;
	begin();
	sim_fill(end.memory, 4096, 5);
	for (uint32_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		script_send(&end, one_sided(OP_READ_REQUEST, n, 7, lengths[i]), NULL, 0);
		expect_read(n, 7, lengths[i], i + 1);
		script_expect_none();
		n += lengths[i] == 0 ? 1 : (lengths[i] + MTU - 1) / MTU;
	}
	finish();
}

static void a_duplicate_read_is_served_again_whole_or_from_the_middle(void **state)
{
	(void)state;
	begin();
	sim_fill(end.memory, 4096, 5);
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 5 * MTU), NULL, 0);
	expect_read(0, 0, 5 * MTU, 1);
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 5 * MTU), NULL, 0);
	expect_read(0, 0, 5 * MTU, 1);
	/* The rest alone, with PSN, address and length moved along. */
	script_send(&end, one_sided(OP_READ_REQUEST, 2, 2 * MTU, 3 * MTU), NULL, 0);
	for (uint32_t i = 2; i < 5; i++) {
		const struct sim_packet *packet = script_take();
		assert_non_null(packet);
		assert_int_equal(packet->packet.psn, psn_add(PSN, i));
		assert_memory_equal(packet->packet.payload, end.memory + i * MTU, MTU);
	}
	/* And what comes next is still what was expected before. */
	write_only(5, 0, 4);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 5)->msn, 2);
	finish();
}

/* Its first answer may have been spoilt by a writer: the second one is to be copied, and so sent whole. */
static void only_the_answer_to_a_read_that_is_asked_again_is_copied(void **state)
{
	(void)state;
	begin();
	sim_fill(end.memory, 3 * MTU, 5);
	for (unsigned time = 0; time < 3; time++) {
		script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 3 * MTU), NULL, 0);
		for (uint32_t i = 0; i < 3; i++) {
			const struct sim_packet *packet = script_take();
			assert_non_null(packet);
			assert_int_equal(packet->may_change, time > 0);
		}
	}
	finish();
}

static void a_duplicate_atomic_is_answered_from_what_was_saved(void **state)
{
	(void)state;
	begin();
	memset(end.memory, 0, 16);
	for (uint32_t n = 0; n < 4; n++) {
		fetch_add(n, 0, 10);
		assert_int_equal(script_expect(OP_ATOMIC_ACK, PSN + n)->original, 10 * n);
	}
	for (uint32_t n = 0; n < 4; n++) {
		fetch_add(n, 0, 10);
		const struct packet *again = script_expect(OP_ATOMIC_ACK, PSN + n);
		assert_int_equal(again->original, 10 * n);
		assert_int_equal(again->syndrome & AETH_TYPE_MASK, AETH_TYPE_ACK);
	}
	assert_int_equal(word_at(0), 40);
	finish();
}

static void a_duplicate_atomic_that_is_no_longer_saved_is_dropped(void **state)
{
	(void)state;
	struct sim_options options = small();
	options.dest_rd_atomic = 1;
	begin_with(options);
	memset(end.memory, 0, 16);
	for (uint32_t n = 0; n < 20; n++)
		fetch_add(n, 0, 1);
	script_forget();
	fetch_add(0, 0, 1);
	script_expect_none();
	assert_int_equal(word_at(0), 20);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	finish();
}

/* Behind the expected PSN, but not what was asked there: nothing may be executed, read, or answered past it. */
static void a_duplicate_that_asks_for_something_else_gets_nothing(void **state)
{
	(void)state;
	begin();
	memset(end.memory, 0, 4096);
	fetch_add(0, 0, 1);
	script_send(&end, one_sided(OP_READ_REQUEST, 1, 64, 2 * MTU), NULL, 0);
	write_only(3, 4000, 4);
	script_forget();
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 64, 8), NULL, 0);
	script_send(&end, one_sided(OP_COMPARE_SWAP, 0, 64, 8), NULL, 0);
	fetch_add(1, 0, 1);
	fetch_add(3, 0, 1);
	script_expect_none();
	/* Longer than it was: the answer would take PSNs of others. */
	script_send(&end, one_sided(OP_READ_REQUEST, 1, 64, 2 * MTU + 1), NULL, 0);
	script_send(&end, one_sided(OP_READ_REQUEST, 2, 64, 2 * MTU), NULL, 0);
	script_send(&end, one_sided(OP_READ_REQUEST, 1, 64, 0xffffffff), NULL, 0);
	for (const struct sim_packet *packet; (packet = script_take());)
		assert_true(psn_diff(packet->packet.psn, psn_add(PSN, 3)) < 0);
	assert_int_equal(word_at(0), 1);
	finish();
}

static void a_compare_and_swap_repeated_does_not_swap_again(void **state)
{
	(void)state;
	begin();
	memset(end.memory, 0, 16);
	struct packet swap = one_sided(OP_COMPARE_SWAP, 0, 8, 8);
	swap.compare = 0;
	swap.swap_add = 5;
	script_send(&end, swap, NULL, 0);
	assert_int_equal(script_expect(OP_ATOMIC_ACK, PSN)->original, 0);
	memset(end.memory, 0, 16); /* the owner takes it back */
	script_send(&end, swap, NULL, 0);
	assert_int_equal(script_expect(OP_ATOMIC_ACK, PSN)->original, 0);
	assert_int_equal(word_at(8), 0);
	finish();
}

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

/* Each row: packets that are fine, and at the end one that is out of order, or of a wrong length. */
static void opcodes_out_of_order_and_wrong_lengths_are_invalid_requests(void **state)
{
	(void)state;
	static const struct {
		struct {
			uint8_t opcode;
			uint32_t length;
		} packet[3];
		unsigned count;
		uint32_t total; /* of RETH */
	} rows[] = {
		{{{OP_SEND_MIDDLE, MTU}}, 1, 0},
		{{{OP_SEND_LAST, 1}}, 1, 0},
		{{{OP_SEND_LAST_IMM, 1}}, 1, 0},
		{{{OP_SEND_LAST_INV, 1}}, 1, 0},
		{{{OP_WRITE_MIDDLE, MTU}}, 1, 0},
		{{{OP_WRITE_LAST, 1}}, 1, 0},
		{{{OP_WRITE_LAST_IMM, 1}}, 1, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_FIRST, MTU}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_ONLY, 1}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_WRITE_MIDDLE, MTU}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_WRITE_LAST, 1}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_WRITE_ONLY, 1}}, 2, 1},
		{{{OP_SEND_FIRST, MTU}, {OP_READ_REQUEST, 0}}, 2, 4},
		{{{OP_SEND_FIRST, MTU}, {OP_FETCH_ADD, 0}}, 2, 8},
		{{{OP_WRITE_FIRST, MTU}, {OP_SEND_LAST, 1}}, 2, 2 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_SEND_ONLY, 1}}, 2, 2 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_FIRST, MTU}}, 2, 2 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_ONLY, 1}}, 2, 2 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_READ_REQUEST, 0}}, 2, 2 * MTU},
		/* lengths */
		{{{OP_SEND_FIRST, MTU - 4}}, 1, 0},
		{{{OP_SEND_FIRST, MTU + 4}}, 1, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_MIDDLE, MTU - 1}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_MIDDLE, MTU + 1}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_LAST, 0}}, 2, 0},
		{{{OP_SEND_FIRST, MTU}, {OP_SEND_LAST, MTU + 1}}, 2, 0},
		{{{OP_SEND_ONLY, MTU + 1}}, 1, 0},
		{{{OP_WRITE_FIRST, MTU - 1}}, 1, 2 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_MIDDLE, MTU - 4}}, 2, 3 * MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_LAST, 0}}, 2, MTU},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_LAST, 9}}, 2, MTU + 8},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_LAST, 7}}, 2, MTU + 8},
		{{{OP_WRITE_FIRST, MTU}, {OP_WRITE_MIDDLE, MTU}}, 2, MTU + 8},
		{{{OP_WRITE_ONLY, 9}}, 1, 8},
		{{{OP_WRITE_ONLY, 7}}, 1, 8},
		{{{OP_WRITE_ONLY, MTU + 1}}, 1, MTU + 1},
	};
	for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
		begin();
		sim_recv(&end, 1, 100000, 10000);
		sim_recv(&end, 2, 120000, 10000);
		for (uint32_t n = 0; n < rows[row].count; n++) {
			uint8_t opcode = rows[row].packet[n].opcode;
			script_send(&end, one_sided(opcode, n, 4096, rows[row].total), data,
				    rows[row].packet[n].length);
			if (n + 1 < rows[row].count)
				script_expect_ack(AETH_ACK, PSN + n);
		}
		const struct sim_packet *nak = script_take();
		if (!nak || nak->packet.syndrome != AETH_NAK_INVALID ||
		    nak->packet.psn != psn_add(PSN, rows[row].count - 1))
			fail_msg("row %zu: syndrome %x", row, nak ? nak->packet.syndrome : 0u);
		assert_int_equal(sim_state(&end), IBV_QPS_ERR);
		sim_expect(end.rcq, 1, IBV_WC_WR_FLUSH_ERR);
		sim_expect(end.rcq, 2, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(end.memory[4096 + MTU + 8], GUARD);
		finish();
	}
}

static void a_refusal_is_told_to_the_consumer_and_nothing_more_is_heard(void **state)
{
	(void)state;
	begin();
	send_data(OP_SEND_MIDDLE, 0, MTU);
	expect_refusal(AETH_NAK_INVALID, 0);
	assert_true(sim_event(node, IBV_EVENT_QP_REQ_ERR, end.qp));
	assert_true(untouched());
	finish();
}

static void a_message_longer_than_the_receive_is_a_length_error_here_and_an_invalid_request_there(void **state)
{
	(void)state;
	for (unsigned many = 0; many < 2; many++) {
		begin();
		sim_recv(&end, 1, 0, many ? 2 * MTU : 50);
		sim_recv(&end, 2, 5000, 50);
		if (many) {
			send_data(OP_SEND_FIRST, 0, MTU);
			send_data(OP_SEND_MIDDLE, 1, MTU);
			script_forget();
			send_data(OP_SEND_LAST, 2, 1);
		} else {
			send_data(OP_SEND_ONLY, 0, 51);
		}
		expect_refusal(AETH_NAK_INVALID, many ? 2 : 0);
		sim_expect(end.rcq, 1, IBV_WC_LOC_LEN_ERR);
		sim_expect(end.rcq, 2, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(end.memory[many ? 2 * MTU : 50], GUARD);
		finish();
	}
}

static void a_receive_whose_key_does_not_fit_is_an_operation_error(void **state)
{
	(void)state;
	begin();
	struct ibv_sge sge = {(uintptr_t)end.memory, 100, end.mr->lkey ^ 0x100};
	struct ibv_recv_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1};
	assert_int_equal(qp_post_recv(end.qp, &wr, &bad), 0);
	send_data(OP_SEND_ONLY, 0, 50);
	expect_refusal(AETH_NAK_OPERATION, 0);
	sim_expect(end.rcq, 1, IBV_WC_LOC_PROT_ERR);
	assert_true(untouched());
	finish();
}

static void remote_accesses_outside_of_what_is_allowed_are_refused_and_touch_nothing(void **state)
{
	(void)state;
	static const uint8_t opcodes[] = {OP_WRITE_ONLY,   OP_WRITE_FIRST, OP_WRITE_ONLY_IMM,
					  OP_READ_REQUEST, OP_FETCH_ADD,   OP_COMPARE_SWAP};
	enum {
		WRONG_KEY,
		KEY_BITS,
		LOCAL_KEY,
		OTHER_PD,
		BEFORE,
		AFTER,
		BY_ONE,
		WRAP,
		HUGE,
		ZERO_KEY,
		DEREGISTERED,
		CASES
	};
	for (size_t o = 0; o < sizeof opcodes; o++) {
		for (int kind = 0; kind < CASES; kind++) {
			begin();
			bool atomic = opcodes[o] == OP_FETCH_ADD || opcodes[o] == OP_COMPARE_SWAP;
			bool write = wire_traits(opcodes[o]) & T_WRITE;
			uint32_t payload = opcodes[o] == OP_WRITE_FIRST ? MTU : 8;
			uint32_t length = opcodes[o] == OP_WRITE_FIRST ? 2 * MTU : 8;
			struct packet packet = one_sided(opcodes[o], 0, 64, length);
			struct ibv_pd *pd = pd_alloc(&node->context.verbs.context);
			struct ibv_mr *other =
				mr_reg(pd, end.memory, end.size, (uintptr_t)end.memory, end.options.mr_access);
			struct ibv_mr *gone =
				mr_reg(end.pd, end.memory, end.size, (uintptr_t)end.memory, end.options.mr_access);
			uint32_t gone_key = gone->rkey;
			assert_int_equal(mr_dereg(gone), 0);
			uint64_t base = (uintptr_t)end.memory;
			switch (kind) {
			case WRONG_KEY: packet.rkey ^= 0x40000000; break;
			case KEY_BITS: packet.rkey ^= 1; break;
			case LOCAL_KEY: packet.rkey = end.mr->lkey; break;
			case OTHER_PD: packet.rkey = other->rkey; break;
			case BEFORE: packet.va = base - 8; break;
			case AFTER: packet.va = base + end.size; break;
			case BY_ONE: packet.va = base + end.size - length + (atomic ? 8 : 1); break;
			case WRAP: packet.va = UINT64_MAX - 7; break;
			case HUGE:
				packet.va = atomic ? UINT64_MAX & ~7ull : base;
				packet.length = 0x7fffffff;
				break;
			case ZERO_KEY: packet.rkey = 0; break;
			default: packet.rkey = gone_key;
			}
			sim_recv(&end, 1, 0, 0);
			script_send(&end, packet, data, write ? payload : 0);
			const struct sim_packet *nak = script_take();
			if (!nak || nak->packet.opcode != OP_ACK || nak->packet.syndrome != AETH_NAK_ACCESS)
				if (!(kind == HUGE && write && nak && nak->packet.syndrome == AETH_NAK_INVALID))
					fail_msg("opcode %x, case %d: %x", opcodes[o], kind,
						 nak ? nak->packet.syndrome : 0u);
			assert_true(untouched());
			assert_int_equal(sim_state(&end), IBV_QPS_ERR);
			assert_true(sim_event(node, IBV_EVENT_QP_ACCESS_ERR, end.qp) ||
				    sim_event(node, IBV_EVENT_QP_REQ_ERR, end.qp));
			sim_expect(end.rcq, 1, IBV_WC_WR_FLUSH_ERR);
			assert_int_equal(mr_dereg(other), 0);
			assert_int_equal(pd_dealloc(pd), 0);
			finish();
		}
	}
}

static void a_write_longer_than_a_message_may_be_is_refused(void **state)
{
	(void)state;
	begin();
	script_send(&end, one_sided(OP_WRITE_FIRST, 0, 0, 0x80000001u), data, MTU);
	const struct sim_packet *nak = script_take();
	assert_non_null(nak);
	assert_int_equal(nak->packet.syndrome, AETH_NAK_INVALID);
	assert_int_equal(sim_state(&end), IBV_QPS_ERR);
	assert_true(untouched());
	finish();
}

static void a_read_longer_than_a_message_may_be_is_refused(void **state)
{
	(void)state;
	begin();
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 0x80000001u), NULL, 0);
	const struct sim_packet *nak = script_take();
	assert_non_null(nak);
	assert_int_equal(nak->packet.syndrome, AETH_NAK_INVALID);
	assert_int_equal(sim_state(&end), IBV_QPS_ERR);
	finish();
}

static void rights_of_the_region_are_asked(void **state)
{
	(void)state;
	static const struct {
		uint8_t opcode;
		int right;
	} rows[] = {{OP_WRITE_ONLY, IBV_ACCESS_REMOTE_WRITE},
		    {OP_READ_REQUEST, IBV_ACCESS_REMOTE_READ},
		    {OP_FETCH_ADD, IBV_ACCESS_REMOTE_ATOMIC},
		    {OP_COMPARE_SWAP, IBV_ACCESS_REMOTE_ATOMIC}};
	for (size_t row = 0; row < 4; row++) {
		for (unsigned allowed = 0; allowed < 2; allowed++) {
			struct sim_options options = small();
			options.mr_access = allowed ? rows[row].right | IBV_ACCESS_LOCAL_WRITE
						    : options.mr_access & ~rows[row].right;
			begin_with(options);
			script_send(&end, one_sided(rows[row].opcode, 0, 0, 8), data, row == 0 ? 8 : 0);
			const struct sim_packet *answer = script_take();
			assert_non_null(answer);
			if (allowed) {
				assert_int_equal(answer->packet.syndrome, AETH_ACK);
			} else {
				assert_int_equal(answer->packet.syndrome, AETH_NAK_ACCESS);
				assert_true(sim_event(node, IBV_EVENT_QP_ACCESS_ERR, end.qp));
				assert_true(untouched());
			}
			finish();
		}
	}
}

static void rights_of_the_queue_pair_are_asked(void **state)
{
	(void)state;
	static const struct {
		uint8_t opcode;
		int right;
	} rows[] = {{OP_WRITE_ONLY, IBV_ACCESS_REMOTE_WRITE},
		    {OP_WRITE_FIRST, IBV_ACCESS_REMOTE_WRITE},
		    {OP_READ_REQUEST, IBV_ACCESS_REMOTE_READ},
		    {OP_FETCH_ADD, IBV_ACCESS_REMOTE_ATOMIC},
		    {OP_COMPARE_SWAP, IBV_ACCESS_REMOTE_ATOMIC}};
	for (size_t row = 0; row < 5; row++) {
		struct sim_options options = small();
		options.access &= ~rows[row].right;
		begin_with(options);
		script_send(&end, one_sided(rows[row].opcode, 0, 0, row == 1 ? 2 * MTU : 8), data,
			    row == 0   ? 8
			    : row == 1 ? MTU
				       : 0);
		expect_refusal(AETH_NAK_INVALID, 0);
		assert_true(untouched());
		finish();
	}
}

static void an_unaligned_atomic_is_an_invalid_request(void **state)
{
	(void)state;
	for (size_t at = 1; at < 8; at++) {
		begin();
		fetch_add(0, 64 + at, 1);
		expect_refusal(AETH_NAK_INVALID, 0);
		assert_true(untouched());
		finish();
	}
}

static void nothing_is_asked_of_a_key_when_no_byte_moves(void **state)
{
	(void)state;
	begin();
	struct packet packet = one_sided(OP_WRITE_ONLY, 0, 0, 0);
	packet.rkey = 0x12345678;
	packet.va = 1;
	script_send(&end, packet, NULL, 0);
	script_expect_ack(AETH_ACK, PSN);
	packet = one_sided(OP_READ_REQUEST, 1, 0, 0);
	packet.rkey = 0x12345678;
	packet.va = 1;
	script_send(&end, packet, NULL, 0);
	assert_int_equal(script_expect(OP_READ_ONLY, PSN + 1)->payload_length, 0);
	finish();
}

static void more_reads_than_agreed_are_refused(void **state)
{
	(void)state;
	struct sim_options options = small();
	options.dest_rd_atomic = 3; /* not a power of two */
	begin_with(options);
	node->blocked = true;
	for (uint32_t n = 0; n < 3; n++)
		script_send(&end, one_sided(OP_READ_REQUEST, n, 0, 8), NULL, 0);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	script_send(&end, one_sided(OP_READ_REQUEST, 3, 0, 8), NULL, 0);
	assert_int_equal(sim_state(&end), IBV_QPS_ERR);
	assert_true(sim_event(node, IBV_EVENT_QP_REQ_ERR, end.qp));
	node->blocked = false;
	finish();
}

/* The network repeats an old request while new ones come: no more are outstanding than agreed. */
static void repeated_reads_do_not_count_against_new_ones(void **state)
{
	(void)state;
	struct sim_options options = small();
	options.dest_rd_atomic = 2;
	begin_with(options);
	sim_fill(end.memory, 4096, 3);
	for (uint32_t n = 0; n < 2; n++) {
		script_send(&end, one_sided(OP_READ_REQUEST, n, 8 * n, 8), NULL, 0);
		expect_read(n, 8 * n, 8, n + 1);
	}
	node->blocked = true;
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 8), NULL, 0); /* a late copy */
	script_send(&end, one_sided(OP_READ_REQUEST, 2, 16, 8), NULL, 0);
	script_send(&end, one_sided(OP_READ_REQUEST, 3, 24, 8), NULL, 0);
	node->blocked = false;
	sim_run(0);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	bool answered[4] = {false};
	for (const struct sim_packet *packet; (packet = script_take());) {
		uint32_t n = (uint32_t)psn_diff(packet->packet.psn, PSN);
		assert_true(n < 4);
		answered[n] = true;
		assert_memory_equal(packet->packet.payload, end.memory + 8 * n, 8);
	}
	assert_true(answered[2] && answered[3]);
	finish();
}

/* The application may take its memory back when it has all answers; a copy of a request that comes then is nobody's. */
static void a_late_copy_of_a_read_of_memory_that_is_gone_ends_nothing(void **state)
{
	(void)state;
	begin();
	struct ibv_mr *mr = mr_reg(end.pd, end.memory, 4096, (uintptr_t)end.memory, end.options.mr_access);
	struct packet read = one_sided(OP_READ_REQUEST, 0, 0, 8);
	read.rkey = mr->rkey;
	script_send(&end, read, NULL, 0);
	expect_read(0, 0, 8, 1);
	write_only(1, 64, 8);
	script_expect_ack(AETH_ACK, PSN + 1);
	assert_int_equal(mr_dereg(mr), 0);
	script_send(&end, read, NULL, 0);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	write_only(2, 64, 8);
	script_expect_ack(AETH_ACK, PSN + 2);
	finish();
}

static void a_read_answers_before_what_follows_it_is_acknowledged(void **state)
{
	(void)state;
	begin();
	sim_fill(end.memory, 4096, 3);
	node->blocked = true;
	script_send(&end, one_sided(OP_READ_REQUEST, 0, 0, 3 * MTU), NULL, 0);
	write_only(3, 5000, 4);
	fetch_add(4, 6000, 1);
	write_only(5, 5000, 4);
	node->blocked = false;
	sim_run(0);
	expect_read(0, 0, 3 * MTU, 1);
	const struct sim_packet *packet = script_take();
	assert_non_null(packet);
	if (packet->packet.opcode == OP_ACK) /* of the write between: may be left out */
		packet = script_take();
	assert_int_equal(packet->packet.opcode, OP_ATOMIC_ACK);
	script_expect_ack(AETH_ACK, PSN + 5);
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
		cmocka_unit_test(each_message_is_acknowledged_with_its_psn_and_counted),
		cmocka_unit_test(an_acknowledgement_that_is_not_asked_for_is_not_sent),
		cmocka_unit_test(an_acknowledgement_in_the_middle_does_not_count_the_message),
		cmocka_unit_test(acknowledgements_are_coalesced_while_the_link_is_busy),
		cmocka_unit_test(a_gap_is_answered_by_one_nak_with_the_expected_psn),
		cmocka_unit_test(a_psn_half_the_circle_ahead_or_behind_is_told_apart),
		cmocka_unit_test(a_duplicate_send_is_acknowledged_and_not_executed_again),
		cmocka_unit_test(a_duplicate_write_is_acknowledged_and_not_executed_again),
		cmocka_unit_test(a_read_consumes_as_many_psns_as_its_answer_has_packets),
		cmocka_unit_test(a_duplicate_read_is_served_again_whole_or_from_the_middle),
		cmocka_unit_test(only_the_answer_to_a_read_that_is_asked_again_is_copied),
		cmocka_unit_test(a_duplicate_atomic_is_answered_from_what_was_saved),
		cmocka_unit_test(a_duplicate_atomic_that_is_no_longer_saved_is_dropped),
		cmocka_unit_test(a_duplicate_that_asks_for_something_else_gets_nothing),
		cmocka_unit_test(a_compare_and_swap_repeated_does_not_swap_again),
		cmocka_unit_test(without_a_receive_the_requester_is_told_to_wait),
		cmocka_unit_test(a_write_with_immediate_waits_for_a_receive_too),
		cmocka_unit_test(opcodes_out_of_order_and_wrong_lengths_are_invalid_requests),
		cmocka_unit_test(a_refusal_is_told_to_the_consumer_and_nothing_more_is_heard),
		cmocka_unit_test(a_message_longer_than_the_receive_is_a_length_error_here_and_an_invalid_request_there),
		cmocka_unit_test(a_receive_whose_key_does_not_fit_is_an_operation_error),
		cmocka_unit_test(remote_accesses_outside_of_what_is_allowed_are_refused_and_touch_nothing),
		cmocka_unit_test(a_write_longer_than_a_message_may_be_is_refused),
		cmocka_unit_test(a_read_longer_than_a_message_may_be_is_refused),
		cmocka_unit_test(rights_of_the_region_are_asked),
		cmocka_unit_test(rights_of_the_queue_pair_are_asked),
		cmocka_unit_test(an_unaligned_atomic_is_an_invalid_request),
		cmocka_unit_test(nothing_is_asked_of_a_key_when_no_byte_moves),
		cmocka_unit_test(more_reads_than_agreed_are_refused),
		cmocka_unit_test(repeated_reads_do_not_count_against_new_ones),
		cmocka_unit_test(a_late_copy_of_a_read_of_memory_that_is_gone_ends_nothing),
		cmocka_unit_test(a_read_answers_before_what_follows_it_is_acknowledged),
		cmocka_unit_test(packets_of_others_are_dropped),
		cmocka_unit_test(a_queue_pair_that_is_not_ready_answers_nothing),
		cmocka_unit_test(a_half_received_message_is_flushed_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
