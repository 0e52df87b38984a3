/* SPDX-License-Identifier: Apache-2.0 */
/* What a responder refuses: order, lengths, keys, rights, bounds. */
#include "responder_rig.h"

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
	/* Whatever key the peer wants to take back: the fault is on this side. */
	static const uint8_t opcodes[] = {OP_SEND_ONLY, OP_SEND_ONLY_IMM, OP_SEND_ONLY_INV};
	for (size_t o = 0; o < sizeof opcodes; o++) {
		begin();
		struct ibv_sge sge = {(uintptr_t)end.memory, 100, end.mr->lkey ^ 0x100};
		struct ibv_recv_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1};
		assert_int_equal(qp_post_recv(end.qp, &wr, &bad), 0);
		send_data(opcodes[o], 0, 50);
		expect_refusal(AETH_NAK_OPERATION, 0);
		sim_expect(end.rcq, 1, IBV_WC_LOC_PROT_ERR);
		assert_true(untouched());
		finish();
	}
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
			bool by_key = opcodes[o] == OP_WRITE_ONLY_IMM && nak->packet.syndrome == AETH_NAK_ACCESS;
			sim_expect(end.rcq, 1, by_key ? IBV_WC_LOC_ACCESS_ERR : IBV_WC_WR_FLUSH_ERR);
			assert_int_equal(mr_dereg(other), 0);
			assert_int_equal(pd_dealloc(pd), 0);
			finish();
		}
	}
}

/* The receive that the immediate data would use, and no other, hears of it: of a shared queue too. */
static void a_refused_write_with_immediate_ends_its_receive_with_an_access_error(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 3; kind++) { /* a wrong key; memory that goes; a shared queue */
		struct sim_options options = small();
		sim_start(1);
		node = sim_node();
		struct ibv_srq_init_attr attr = {.attr = {.max_wr = 4, .max_sge = 1}};
		struct ibv_srq *srq = srq_create(node->pd, &attr);
		options.psn = PSN;
		options.srq = kind == 2 ? srq : NULL;
		sim_open(&end, node, &options);
		script_connect(&end);
		memset(end.memory, GUARD, end.size);
		struct ibv_mr *mr = mr_reg(end.pd, end.memory, end.size, (uintptr_t)end.memory, end.options.mr_access);
		struct ibv_recv_wr *bad, wr = {.wr_id = 1};
		for (; wr.wr_id < 4; wr.wr_id++)
			assert_int_equal(options.srq ? srq_post_recv(srq, &wr, &bad) : qp_post_recv(end.qp, &wr, &bad), 0);
		struct packet packet = one_sided(kind == 1 ? OP_WRITE_FIRST : OP_WRITE_ONLY_IMM, 0, 0, kind == 1 ? MTU + 4 : 8);
		packet.rkey = kind == 1 ? mr->rkey : mr->rkey ^ 1;
		script_send(&end, packet, data, kind == 1 ? MTU : 8);
		assert_int_equal(mr_dereg(mr), 0);
		if (kind == 1) {
			script_expect_ack(AETH_ACK, PSN);
			send_data(OP_WRITE_LAST_IMM, 1, 4);
		}
		expect_refusal(AETH_NAK_ACCESS, kind == 1);
		struct ibv_wc wc = sim_expect(end.rcq, 1, IBV_WC_LOC_ACCESS_ERR);
		assert_int_equal(wc.qp_num, end.qp->qp_num);
		for (uint64_t id = 2; id < 4 && !options.srq; id++)
			sim_expect(end.rcq, id, IBV_WC_WR_FLUSH_ERR);
		sim_expect_none(end.rcq);
		sim_close(&end);
		assert_int_equal(srq_destroy(srq), 0);
		sim_stop();
	}
}

/* IBTA vol 1, 9.7.4.1: the receive is looked for before the key. */
static void a_write_with_immediate_and_a_wrong_key_waits_for_a_receive(void **state)
{
	(void)state;
	begin();
	struct packet packet = one_sided(OP_WRITE_ONLY_IMM, 0, 0, 8);
	packet.rkey ^= 1;
	script_send(&end, packet, data, 8);
	script_expect_ack(AETH_TYPE_RNR | 12, PSN);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	sim_recv(&end, 1, 0, 0);
	script_send(&end, packet, data, 8);
	expect_refusal(AETH_NAK_ACCESS, 0);
	sim_expect(end.rcq, 1, IBV_WC_LOC_ACCESS_ERR);
	finish();
}

static void an_unreliable_write_that_is_dropped_leaves_the_receive(void **state)
{
	(void)state;
	struct sim_options options = small();
	options.type = IBV_QPT_UC;
	begin_with(options);
	sim_recv(&end, 1, 0, 0);
	struct packet packet = one_sided(WIRE_UC | OP_WRITE_ONLY_IMM, 0, 0, 8);
	packet.rkey ^= 1;
	script_send(&end, packet, data, 8);
	sim_expect_none(end.rcq);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	script_send(&end, one_sided(WIRE_UC | OP_WRITE_ONLY_IMM, 1, 0, 8), data, 8);
	sim_expect(end.rcq, 1, IBV_WC_SUCCESS);
	finish();
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opcodes_out_of_order_and_wrong_lengths_are_invalid_requests),
		cmocka_unit_test(a_refusal_is_told_to_the_consumer_and_nothing_more_is_heard),
		cmocka_unit_test(a_message_longer_than_the_receive_is_a_length_error_here_and_an_invalid_request_there),
		cmocka_unit_test(a_receive_whose_key_does_not_fit_is_an_operation_error),
		cmocka_unit_test(remote_accesses_outside_of_what_is_allowed_are_refused_and_touch_nothing),
		cmocka_unit_test(a_refused_write_with_immediate_ends_its_receive_with_an_access_error),
		cmocka_unit_test(a_write_with_immediate_and_a_wrong_key_waits_for_a_receive),
		cmocka_unit_test(an_unreliable_write_that_is_dropped_leaves_the_receive),
		cmocka_unit_test(a_write_longer_than_a_message_may_be_is_refused),
		cmocka_unit_test(a_read_longer_than_a_message_may_be_is_refused),
		cmocka_unit_test(rights_of_the_region_are_asked),
		cmocka_unit_test(rights_of_the_queue_pair_are_asked),
		cmocka_unit_test(an_unaligned_atomic_is_an_invalid_request),
		cmocka_unit_test(nothing_is_asked_of_a_key_when_no_byte_moves),
		cmocka_unit_test(more_reads_than_agreed_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
