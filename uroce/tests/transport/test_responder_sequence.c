/* SPDX-License-Identifier: Apache-2.0 */
/* The responder and the sequence of PSNs: acknowledgements, gaps, and requests that come again. */
#include "responder_rig.h"

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

/* A requester that has a tag, as uroce, learns how long its request has waited. Others, as rdma_rxe, are sent nothing unknown to them. */
static void a_peer_with_a_tag_is_told_how_long_its_request_waited(void **state)
{
	(void)state;
	begin();
	script_wait(MS);
	write_only(0, 0, 10);
	script_expect_ack(AETH_ACK, PSN);
	script_have_tag(&end, 9);
	write_only(1, 0, 10);
	assert_in_range(script_expect(OP_WAITED, PSN + 1)->waited, MS, MS + 10 * US);
	script_expect_ack(AETH_ACK, PSN + 1);
	script_send(&end, one_sided(OP_READ_REQUEST, 2, 0, 2 * MTU), NULL, 0);
	assert_in_range(script_expect(OP_WAITED, PSN + 2)->waited, MS - US, MS + 10 * US);
	script_expect(OP_READ_FIRST, PSN + 2);
	script_expect(OP_READ_LAST, PSN + 3);
	script_expect_none();
	/* So short a time as this is none. */
	script_wait(10 * US);
	write_only(4, 0, 10);
	script_expect_ack(AETH_ACK, PSN + 4);
	script_expect_none();
	finish();
}

/* The peer is told of gaps: each is an offset from the PSN and a length. */
static void expect_gaps(uint32_t psn, const uint16_t (*gaps)[2], size_t count)
{
	const struct packet *report = script_expect(OP_GAPS, psn);
	assert_int_equal(report->payload_length, count * WIRE_GAP);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(report->payload[4 * i] << 8 | report->payload[4 * i + 1], gaps[i][0]);
		assert_int_equal(report->payload[4 * i + 2] << 8 | report->payload[4 * i + 3], gaps[i][1]);
	}
}

/* Nothing of a peer that has no tag, as rdma_rxe: whoever forges its packets must find the PSN, and not only one that is ahead. */
static void what_comes_ahead_is_not_kept_without_a_tag(void **state)
{
	(void)state;
	begin();
	write_only(3, 12, 4);
	script_expect_ack(AETH_NAK_SEQUENCE, PSN);
	assert_int_equal(script_asked(), 1);
	assert_int_equal(node->device.held_bytes, 0);
	for (uint32_t n = 0; n < 3; n++)
		write_only(n, n * 4, 4);
	script_forget();
	assert_int_equal(end.memory[12], GUARD);
	assert_int_equal(node->counters.held, 0);
	finish();
}

/* The tag is that of the peer's packets in their order, after it was asked for; from then on others are not the peer's. */
static void a_tag_is_learned_in_order_and_asked_of_all_packets(void **state)
{
	(void)state;
	begin();
	script_use_tag(5);
	write_only(0, 0, 4); /* unasked, it says nothing */
	script_expect_ack(AETH_ACK, PSN);
	write_only(2, 8, 4);
	script_expect_ack(AETH_NAK_SEQUENCE, PSN + 1);
	assert_int_equal(script_asked(), 1);
	assert_int_equal(node->device.held_bytes, 0);
	script_use_tag(6);
	write_only(1, 4, 4);
	script_expect_ack(AETH_ACK, PSN + 1);
	for (uint16_t tag = 0; tag < 1 << WIRE_TAG_BITS; tag++) {
		script_use_tag(tag);
		if (tag == 6)
			continue;
		write_only(3, 12, 4); /* ahead */
		write_only(2, 8, 4);  /* in order */
	}
	script_expect_none();
	assert_int_equal(node->counters.held, 0);
	assert_int_equal(node->counters.drop_tag, 2 * (1 << WIRE_TAG_BITS) - 2);
	assert_int_equal(node->counters.out_of_sequence, node->counters.drop_tag + 1); /* a forger shows there */
	assert_int_equal(end.memory[8], GUARD);
	script_use_tag(6);
	write_only(3, 12, 4);
	write_only(2, 8, 4);
	assert_int_equal(end.memory[12], data[0]);
	assert_int_equal(node->counters.held, 1);
	script_forget();
	finish();
}

/* A peer that never answers must not be given a tag by others for the rest of the connection. */
static void a_tag_that_comes_late_is_none(void **state)
{
	(void)state;
	begin();
	write_only(1, 8, 4);
	assert_int_equal(script_asked(), 1);
	sim_pass(2 * SECOND);
	script_forget();
	script_use_tag(6);
	write_only(0, 4, 4);
	script_use_tag(0);
	write_only(1, 8, 4);
	script_expect_ack(AETH_ACK, PSN);
	script_expect_ack(AETH_ACK, PSN + 1);
	assert_int_equal(node->counters.drop_tag, 0);
	finish();
}

/* Whoever asks gets one, in all packets that follow, and is asked in turn, once. */
static void a_peer_that_asks_for_a_tag_gets_one_and_is_asked(void **state)
{
	(void)state;
	uint16_t tag = 0;
	begin();
	write_only(0, 0, 4);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN)->tag, 0);
	for (uint32_t n = 1; n < 4; n++) {
		script_send(&end, (struct packet){ .opcode = OP_ASK_TAG }, NULL, 0);
		assert_int_equal(script_asked(), 1);
		write_only(n, 0, 4);
		uint16_t now = script_expect_ack(AETH_ACK, PSN + n)->tag;
		assert_int_not_equal(now, 0);
		assert_true(tag == 0 || tag == now);
		tag = now;
	}
	finish();
}

/* Where packets are lost, a request to READ comes twice: only where the first did not, the copy counts. */
static void a_copy_of_a_read_request_is_answered_in_place_of_the_lost_one(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
	struct packet packet = one_sided(OP_READ_REQUEST, 0, 0, MTU), copy = packet;
	copy.ack_req = false;
	script_send(&end, packet, NULL, 0);
	script_send(&end, copy, NULL, 0);
	script_expect(OP_READ_ONLY, PSN);
	script_expect_none();
	assert_int_equal(node->counters.duplicates, 0);
	copy = one_sided(OP_READ_REQUEST, 1, 0, MTU);
	copy.ack_req = false;
	script_send(&end, copy, NULL, 0);
	script_expect(OP_READ_ONLY, PSN + 1);
	/* What is asked for again is answered again. */
	script_send(&end, packet, NULL, 0);
	script_expect(OP_READ_ONLY, PSN);
	finish();
}

static void marked_data_is_told_to_its_sender_at_times(void **state)
{
	(void)state;
	static const uint8_t nothing[WIRE_CNP_BYTES];
	begin();
	script_use_class(WIRE_ECT);
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	script_use_class(0x20 | WIRE_CE);
	for (uint32_t n = 1; n < 31; n++) {
		sim_pass(10 * US);
		write_only(n, 0, 4);
	}
	unsigned cnps = 0;
	for (const struct sim_packet *packet; (packet = script_take());) {
		if (packet->packet.opcode != OP_CNP)
			continue;
		cnps++;
		assert_int_equal(packet->bytes[4], 0x40); /* BECN */
		assert_int_equal(packet->packet.qpn, SCRIPT_QPN);
		assert_int_equal(packet->packet.payload_length, WIRE_CNP_BYTES);
		assert_memory_equal(packet->packet.payload, nothing, WIRE_CNP_BYTES);
		assert_int_equal(packet->tclass & WIRE_ECN_MASK, 0);
	}
	assert_int_equal(cnps, 6);
	assert_int_equal(node->counters.cnps_sent, 6);
	assert_int_equal(node->counters.ecn_marked, 30);
	finish();
}

/* Nothing that a peer does not answer may be marked in place of being dropped. */
static void only_packets_to_a_peer_with_a_tag_may_be_marked(void **state)
{
	(void)state;
	begin();
	write_only(0, 0, 4);
	assert_int_equal(script_take()->tclass, 0);
	script_have_tag(&end, 77);
	write_only(1, 0, 4);
	assert_int_equal(script_take()->tclass, WIRE_ECT);
	node->device.ecn = false;
	write_only(2, 0, 4);
	assert_int_equal(script_take()->tclass, 0);
	finish();
}

/* So it is for comparison: --go-back. */
static void a_device_that_goes_back_asks_for_no_tag_and_has_none(void **state)
{
	(void)state;
	begin();
	node->device.keeps_ahead = false;
	script_send(&end, (struct packet){ .opcode = OP_ASK_TAG }, NULL, 0);
	write_only(3, 12, 4);
	assert_int_equal(script_expect_ack(AETH_NAK_SEQUENCE, PSN)->tag, 0);
	assert_int_equal(script_asked(), 0);
	assert_int_equal(node->counters.held, 0);
	finish();
}

static void what_comes_ahead_of_a_gap_is_reported_and_executed_in_its_turn(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
	/* 0, 2, 3 and 5 of 6. */
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	write_only(2, 8, 4);
	expect_gaps(PSN + 1, (const uint16_t[][2]){ { 0, 1 }, { 2, 0 } }, 2);
	script_expect_ack(AETH_NAK_SEQUENCE, PSN + 1);
	write_only(3, 12, 4);
	expect_gaps(PSN + 1, (const uint16_t[][2]){ { 0, 1 }, { 3, 0 } }, 2);
	write_only(5, 20, 4);
	expect_gaps(PSN + 1, (const uint16_t[][2]){ { 0, 1 }, { 3, 1 }, { 5, 0 } }, 3);
	write_only(5, 20, 4); /* known */
	script_expect_none();
	assert_int_equal(end.memory[8], GUARD);
	assert_true(node->device.held_bytes > 0);
	write_only(1, 4, 4);
	expect_gaps(PSN + 4, (const uint16_t[][2]){ { 0, 1 }, { 2, 0 } }, 2);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 3)->msn, 4);
	assert_memory_equal(end.memory + 8, data, 4);
	assert_int_equal(end.memory[20], GUARD);
	write_only(4, 16, 4);
	assert_int_equal(script_expect_ack(AETH_ACK, PSN + 5)->msn, 6);
	assert_memory_equal(end.memory + 20, data, 4);
	assert_int_equal(node->device.held_bytes, 0);
	finish();
}

/* A READ takes as many PSNs as its answer has packets: what follows it is no gap. */
static void a_read_ahead_of_a_gap_is_answered_in_its_turn(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
	script_send(&end, one_sided(OP_READ_REQUEST, 1, 0, 3 * MTU), NULL, 0);
	write_only(4, 8, 4);
	script_forget();
	write_only(6, 8, 4);
	expect_gaps(PSN, (const uint16_t[][2]){ { 0, 1 }, { 5, 1 }, { 7, 0 } }, 3);
	write_only(0, 0, 4);
	script_expect(OP_READ_FIRST, PSN + 1);
	script_expect(OP_READ_MIDDLE, PSN + 2);
	script_expect(OP_READ_LAST, PSN + 3);
	expect_gaps(PSN + 5, (const uint16_t[][2]){ { 0, 1 }, { 2, 0 } }, 2);
	script_expect_ack(AETH_ACK, PSN + 4);
	finish();
}

/* However much comes, what is kept is bounded; all of it is freed with the queue pair. */
static void what_is_kept_is_bounded(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
	for (uint32_t n = 1; n < 20000; n++) {
		write_only(n, 8, MTU);
		script_forget();
	}
	assert_true(node->device.held_bytes > 1 << 20);
	assert_true(node->device.held_bytes <= 16 << 20);
	assert_int_equal(sim_modify(&end, IBV_QPS_ERR), 0);
	assert_int_equal(node->device.held_bytes, 0);
	finish();
}

static void a_gap_is_answered_by_one_nak_with_the_expected_psn(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
	write_only(0, 0, 4);
	script_expect_ack(AETH_ACK, PSN);
	for (uint32_t n = 2; n < 8; n++)
		write_only(n, 8, 4);
	script_expect(OP_GAPS, PSN + 1);
	assert_int_equal(script_expect_ack(AETH_NAK_SEQUENCE, PSN + 1)->msn, 1);
	for (uint32_t n = 3; n < 8; n++)
		script_expect(OP_GAPS, PSN + 1);
	script_expect_none();
	assert_int_equal(end.memory[8], GUARD);
	/* Repaired; the next gap gets its own. */
	write_only(1, 0, 4);
	script_expect_ack(AETH_ACK, PSN + 7);
	memset(end.memory + 8, GUARD, 4);
	write_only(9, 8, 4);
	script_expect(OP_GAPS, PSN + 8);
	script_expect_ack(AETH_NAK_SEQUENCE, PSN + 8);
	write_only(10, 8, 4);
	script_expect(OP_GAPS, PSN + 8);
	script_expect_none();
	/* A duplicate does not fill the gap. */
	write_only(0, 0, 4);
	const struct sim_packet *ack = script_take();
	assert_non_null(ack);
	assert_int_equal(ack->packet.psn, psn_add(PSN, 7));
	write_only(11, 8, 4);
	script_expect(OP_GAPS, PSN + 8);
	script_expect_none();
	assert_int_equal(end.memory[8], GUARD);
	assert_int_equal(sim_state(&end), IBV_QPS_RTS);
	finish();
}

static void a_psn_half_the_circle_ahead_or_behind_is_told_apart(void **state)
{
	(void)state;
	begin();
	script_have_tag(&end, 77);
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

/* The application may take its memory back when it has all answers; a copy of a request that comes then ends nothing here, and
 * the refusal, if it is no copy, tells the requester why there is no answer. */
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
	script_expect_ack(AETH_NAK_ACCESS, PSN);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_message_is_acknowledged_with_its_psn_and_counted),
		cmocka_unit_test(an_acknowledgement_that_is_not_asked_for_is_not_sent),
		cmocka_unit_test(an_acknowledgement_in_the_middle_does_not_count_the_message),
		cmocka_unit_test(acknowledgements_are_coalesced_while_the_link_is_busy),
		cmocka_unit_test(a_peer_with_a_tag_is_told_how_long_its_request_waited),
		cmocka_unit_test(what_comes_ahead_is_not_kept_without_a_tag),
		cmocka_unit_test(a_tag_is_learned_in_order_and_asked_of_all_packets),
		cmocka_unit_test(a_tag_that_comes_late_is_none),
		cmocka_unit_test(a_peer_that_asks_for_a_tag_gets_one_and_is_asked),
		cmocka_unit_test(a_copy_of_a_read_request_is_answered_in_place_of_the_lost_one),
		cmocka_unit_test(marked_data_is_told_to_its_sender_at_times),
		cmocka_unit_test(only_packets_to_a_peer_with_a_tag_may_be_marked),
		cmocka_unit_test(a_device_that_goes_back_asks_for_no_tag_and_has_none),
		cmocka_unit_test(what_comes_ahead_of_a_gap_is_reported_and_executed_in_its_turn),
		cmocka_unit_test(a_read_ahead_of_a_gap_is_answered_in_its_turn),
		cmocka_unit_test(what_is_kept_is_bounded),
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
		cmocka_unit_test(repeated_reads_do_not_count_against_new_ones),
		cmocka_unit_test(a_late_copy_of_a_read_of_memory_that_is_gone_ends_nothing),
		cmocka_unit_test(a_read_answers_before_what_follows_it_is_acknowledged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
