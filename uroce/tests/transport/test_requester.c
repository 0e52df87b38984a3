/* SPDX-License-Identifier: Apache-2.0 */
/* The requester, packet by packet: the test is the responder. Rules of IBTA volume 1, 9.7 and 9.9. */
#include "sim.h"

enum { PSN = 0xfffffd, MTU = 1024 };

static struct sim_node *node;
static struct sim_end end;
static const struct sim_end *peer = &end; /* whose address and key one-sided requests carry */

static struct sim_options usual(void)
{
	struct sim_options options = sim_defaults();
	options.psn = PSN;
	return options;
}

static void begin_with(const struct sim_options *options)
{
	sim_start(1);
	node = sim_node();
	sim_open(&end, node, options);
	script_connect(&end);
}

static void begin(void)
{
	struct sim_options options = usual();
	begin_with(&options);
}

static void finish(void)
{
	sim_close(&end);
	sim_stop();
}

/* Lets the packets out, but no timer fire. */
static void let_out(void)
{
	sim_run(10 * US);
}

static void ack(uint32_t n)
{
	script_ack(&end, PSN + n, AETH_ACK);
}

static void answer_read(uint8_t opcode, uint32_t n, const void *data, uint32_t length)
{
	struct packet packet = {.opcode = opcode, .psn = psn_add(PSN, n), .syndrome = AETH_ACK};
	script_send(&end, packet, data, length);
}

static void answer_atomic(uint32_t n, uint64_t original)
{
	struct packet packet = {.opcode = OP_ATOMIC_ACK, .psn = psn_add(PSN, n), .syndrome = AETH_ACK};
	packet.original = original;
	script_send(&end, packet, NULL, 0);
}

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

/* ---- round trips ---- */

static const struct congestion *path(void)
{
	return &qp_of(end.qp)->req.path;
}

static void tell_waited(uint32_t n, uint32_t ns)
{
	script_send(&end, (struct packet){ .opcode = OP_WAITED, .psn = psn_add(PSN, n), .waited = ns }, NULL, 0);
}

/* The timers count what the programs at both ends take, and what tells of the path does not. */
static void what_waits_at_the_ends_is_no_time_of_the_path(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 5);
	sim_send(&end, 1, 0, 10);
	let_out();
	sim_pass(3 * MS);
	tell_waited(0, 2 * MS);
	script_wait(MS / 2);
	ack(0);
	assert_in_range(path()->rtt, 3 * MS, 3 * MS + 20 * US);
	assert_in_range(path()->base, MS / 2, MS / 2 + 20 * US);
	/* It was for that answer. */
	script_wait(0);
	sim_send(&end, 2, 0, 10);
	let_out();
	sim_pass(MS / 4);
	ack(1);
	assert_in_range(path()->base, MS / 4, MS / 4 + 20 * US);
	assert_in_range(path()->recent[0], MS / 4, MS / 4 + 20 * US);
	finish();
}

static void what_a_peer_without_a_tag_says_of_waiting_is_not_heeded(void **state)
{
	(void)state;
	begin();
	sim_send(&end, 1, 0, 10);
	let_out();
	sim_pass(3 * MS);
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
	sim_send(&end, 1, 0, 10);
	let_out();
	sim_pass(3 * MS);
	tell_waited(1, 2 * MS); /* never sent */
	tell_waited(0xffffff, 2 * MS);
	ack(0);
	assert_in_range(path()->base, 3 * MS, 3 * MS + 20 * US);
	sim_send(&end, 2, 0, 10);
	let_out();
	sim_pass(MS);
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
		cmocka_unit_test(a_read_asks_for_the_whole_and_takes_its_answer),
		cmocka_unit_test(a_long_read_is_asked_for_in_parts_that_the_window_has_room_for),
		cmocka_unit_test(notifications_of_congestion_slow_the_sender_down_to_a_floor),
		cmocka_unit_test(a_read_with_a_lost_answer_asks_for_what_is_missing_again),
		cmocka_unit_test(an_acknowledgement_past_a_read_without_answer_is_no_answer_to_it),
		cmocka_unit_test(answers_of_a_wrong_kind_or_length_never_succeed),
		cmocka_unit_test(no_more_reads_are_outstanding_than_agreed),
		cmocka_unit_test(a_fence_waits_for_reads_and_atomics_before_it),
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
		cmocka_unit_test(a_queue_pair_destroyed_or_reset_with_packets_in_flight_is_gone),
		cmocka_unit_test(a_queue_pair_works_again_after_a_reset),
		cmocka_unit_test(what_waits_at_the_ends_is_no_time_of_the_path),
		cmocka_unit_test(what_a_peer_without_a_tag_says_of_waiting_is_not_heeded),
		cmocka_unit_test(what_is_said_of_other_requests_or_of_too_long_a_time_does_no_harm),
		cmocka_unit_test(the_answer_to_a_read_that_waited_is_measured_without_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
