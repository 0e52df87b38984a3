/* SPDX-License-Identifier: Apache-2.0 */
/* READs and atomics: what they ask for, and what they take as the answer. */
#include "requester_rig.h"

static void a_read_asks_for_the_whole_and_takes_its_answer(void **state)
{
	(void)state;
	uint8_t data[2500];
	begin();
	sim_fill(data, sizeof data, 3);
	sim_read(&end, 1, 100, 2500, peer, 7);
	sim_read(&end, 2, 5000, 0, peer, 0);
	let_out();
	const struct packet *request = script_expect(OP_READ_REQUEST, PSN);
	assert_int_equal(request->va, (uintptr_t)end.memory + 7);
	assert_int_equal(request->length, 2500);
	assert_int_equal(script_expect(OP_READ_REQUEST, PSN + 3)->length, 0);
	answer_read(OP_READ_FIRST, 0, data, 1024);
	answer_read(OP_READ_MIDDLE, 1, data + 1024, 1024);
	sim_expect_none(end.scq);
	answer_read(OP_READ_LAST, 2, data + 2048, 452);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	assert_true(sim_filled(end.memory + 100, 2500, 3));
	assert_int_equal(end.memory[2600], 0);
	answer_read(OP_READ_ONLY, 3, NULL, 0);
	sim_expect(end.scq, 2, IBV_WC_SUCCESS);
	finish();
}

/* A rest of at most half a part goes with the last one. `more`: short READs behind it. */
static void read_in_parts(uint32_t part, uint32_t window, unsigned more)
{
	const struct {
		uint32_t length, parts[3];
	} cases[] = {
		{ part, { part } },
		{ part + 1, { part + 1 } },
		{ part + part / 2, { part + part / 2 } },
		{ part + part / 2 + 1, { part, part / 2 + 1 } },
		{ 2 * part, { part, part } },
		{ 2 * part + 16, { part, part + 16 } },
	};

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		uint32_t at = 0;

		begin();
		node->device.max_window = window;
		node->blocked = true;
		sim_read(&end, 1, 0, cases[c].length, peer, 0);
		for (unsigned i = 0; i < more; i++)
			sim_read(&end, 2, 0, 8, peer, 0);
		node->blocked = false;
		let_out();
		for (size_t i = 0; i < 3 && cases[c].parts[i] > 0; i++) {
			/* One at a time: at first the window has room for no more. */
			const struct packet *request = script_expect(OP_READ_REQUEST, psn_add(PSN, at / MTU));
			uint32_t length = cases[c].parts[i], packets = (length + MTU - 1) / MTU;

			assert_int_equal(request->length, length);
			assert_int_equal(request->va, (uintptr_t)end.memory + at);
			for (uint32_t n = 0; n < packets; n++)
				answer_read(n == 0 ? OP_READ_FIRST : n + 1 < packets ? OP_READ_MIDDLE : OP_READ_LAST, at / MTU + n,
					    end.memory + at + n * MTU, n + 1 < packets ? MTU : length - n * MTU);
			let_out();
			at += length;
		}
		assert_int_equal(at, cases[c].length);
		sim_expect(end.scq, 1, IBV_WC_SUCCESS);
		finish();
	}
}

static void a_long_read_is_asked_for_in_parts_that_the_window_has_room_for(void **state)
{
	(void)state;
	read_in_parts(65536, 255, 3);
	read_in_parts(262144, 256, 3);
	/* When no more may be outstanding, round trips count. */
	read_in_parts(262144, 255, 2);
	read_in_parts(262144, 255, 0);
}

static void a_read_with_a_lost_answer_asks_for_what_is_missing_again(void **state)
{
	(void)state;
	uint8_t data[4096];
	begin();
	script_have_tag(&end, 77);
	sim_fill(data, sizeof data, 3);
	sim_read(&end, 1, 0, 4096, peer, 0);
	let_out();
	script_expect(OP_READ_REQUEST, PSN);
	answer_read(OP_READ_FIRST, 0, data, 1024);
	answer_read(OP_READ_MIDDLE, 2, data + 2048, 1024); /* 1 is missing */
	sim_expect_none(end.scq);
	sim_pass(2 * MS); /* it might only be late */
	const struct sim_packet *again = script_take();
	assert_non_null(again);
	assert_int_equal(again->packet.opcode, OP_READ_REQUEST);
	assert_int_equal(again->packet.psn, PSN + 1);
	assert_int_equal(again->packet.va, (uintptr_t)end.memory + 1024);
	assert_int_equal(again->packet.length, 1024);
	answer_read(OP_READ_ONLY, 1, data + 1024, 1024);
	sim_expect_none(end.scq);
	answer_read(OP_READ_LAST, 3, data + 3072, 1024);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	assert_true(sim_filled(end.memory, 4096, 3));
	finish();
}

static void an_acknowledgement_past_a_read_without_answer_is_no_answer_to_it(void **state)
{
	(void)state;
	for (unsigned atomic = 0; atomic < 2; atomic++) {
		begin();
		sim_write(&end, 1, 0, 10, peer, 0);
		if (atomic)
			sim_fetch_add(&end, 2, 64, peer, 0, 1);
		else
			sim_read(&end, 2, 64, 8, peer, 0);
		sim_send(&end, 3, 0, 10);
		let_out();
		ack(0); /* lets out what waited for company */
		let_out();
		script_forget();
		sim_expect(end.scq, 1, IBV_WC_SUCCESS);
		ack(2);
		sim_expect_none(end.scq);
		sim_pass(20 * MS); /* asked again: at once, or by the timer */
		assert_int_equal(script_take()->packet.psn, psn_add(PSN, 1));
		if (atomic)
			answer_atomic(1, 5);
		else
			answer_read(OP_READ_ONLY, 1, "12345678", 8);
		sim_expect(end.scq, 2, IBV_WC_SUCCESS);
		ack(2);
		sim_expect(end.scq, 3, IBV_WC_SUCCESS);
		finish();
	}
}

static void answers_of_a_wrong_kind_or_length_never_succeed(void **state)
{
	(void)state;
	uint8_t data[2048];
	memset(data, 0x55, sizeof data);
	for (int kind = 0; kind < 7; kind++) {
		begin();
		if (kind < 6)
			sim_read(&end, 1, 0, kind == 5 ? 8 : 1500, peer, 0);
		else
			sim_fetch_add(&end, 1, 0, peer, 0, 1);
		let_out();
		switch (kind) {
		case 0: /* too short */ answer_read(OP_READ_FIRST, 0, data, 1000); break;
		case 1: /* too long for the MTU */ answer_read(OP_READ_FIRST, 0, data, 1028); break;
		case 2: /* ends too early */ answer_read(OP_READ_ONLY, 0, data, 1024); break;
		case 3: /* last too long: past the memory asked for */
			answer_read(OP_READ_FIRST, 0, data, 1024);
			answer_read(OP_READ_LAST, 1, data, 480);
			break;
		case 4: /* an ACK is no answer to a READ */ ack(1); break;
		case 5: answer_atomic(0, 5); break;
		default: answer_read(OP_READ_ONLY, 0, data, 8);
		}
		struct ibv_wc wc;
		if (cq_poll(end.scq, 1, &wc) == 1)
			assert_int_equal(wc.status, IBV_WC_BAD_RESP_ERR);
		for (size_t i = kind == 5 || kind == 6 ? 8 : 1500; i < 4096; i++)
			assert_int_equal(end.memory[i], 0);
		finish();
	}
}

static void no_more_reads_are_outstanding_than_agreed(void **state)
{
	(void)state;
	struct sim_options options = usual();
	options.rd_atomic = 2;
	begin_with(&options);
	for (uint64_t i = 0; i < 6; i++)
		i % 2 ? sim_fetch_add(&end, i, 64, peer, 0, 1) : sim_read(&end, i, 0, 8, peer, 0);
	let_out();
	for (uint32_t n = 0; n < 6; n++) {
		/* n answered: n + 2 sent. */
		if (n == 0)
			script_expect(OP_READ_REQUEST, PSN);
		if (n < 5)
			script_expect(n % 2 ? OP_READ_REQUEST : OP_FETCH_ADD, PSN + n + 1);
		script_expect_none();
		if (n % 2)
			answer_atomic(n, n);
		else
			answer_read(OP_READ_ONLY, n, "12345678", 8);
		let_out();
		sim_expect(end.scq, n, IBV_WC_SUCCESS);
	}
	finish();
}

static void a_fence_waits_for_reads_and_atomics_before_it(void **state)
{
	(void)state;
	begin();
	struct ibv_send_wr wr = {.wr_id = 3, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_FENCE | IBV_SEND_SIGNALED};
	sim_read(&end, 1, 0, 8, peer, 0);
	sim_fetch_add(&end, 2, 64, peer, 0, 1);
	sim_post(&end, &wr, 0, 8);
	let_out();
	script_expect(OP_READ_REQUEST, PSN);
	script_expect(OP_FETCH_ADD, PSN + 1);
	script_expect_none();
	answer_read(OP_READ_ONLY, 0, "abcdefgh", 8);
	let_out();
	script_expect_none();
	answer_atomic(1, 1);
	let_out();
	/* It carries what the READ has brought. */
	assert_memory_equal(script_expect(OP_SEND_ONLY, PSN + 2)->payload, "abcdefgh", 8);
	ack(2);
	assert_int_equal(sim_count(end.scq), 3);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_asks_for_the_whole_and_takes_its_answer),
		cmocka_unit_test(a_long_read_is_asked_for_in_parts_that_the_window_has_room_for),
		cmocka_unit_test(a_read_with_a_lost_answer_asks_for_what_is_missing_again),
		cmocka_unit_test(an_acknowledgement_past_a_read_without_answer_is_no_answer_to_it),
		cmocka_unit_test(answers_of_a_wrong_kind_or_length_never_succeed),
		cmocka_unit_test(no_more_reads_are_outstanding_than_agreed),
		cmocka_unit_test(a_fence_waits_for_reads_and_atomics_before_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
