/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation of a reliable connection on a wire that loses nothing. */
#include "sim.h"

static struct sim_node *na, *nb;
static struct sim_end a, b;

static void begin(const struct sim_options *options)
{
	sim_start(1);
	na = sim_node();
	nb = sim_node();
	na->wire.delay = nb->wire.delay = 2 * US;
	sim_pair(&a, na, &b, nb, options);
}

static void finish(void)
{
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

static uint32_t bytes_of(enum ibv_mtu mtu)
{
	return 128u << mtu;
}

/* One message of each kind, with guard bytes around where it lands. */
static void exchange(uint32_t length, uint64_t seed)
{
	const size_t at = 4096 + 3;
	struct ibv_wc wc;

	sim_fill(a.memory, length, seed);
	memset(b.memory, 0xee, at + length + 8);
	sim_recv(&b, 1, at, length + 5 < 200000 ? length + 5 : length);
	sim_send(&a, 2, 0, length);
	assert_true(sim_run(SECOND));
	wc = sim_expect(a.scq, 2, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_SEND);
	assert_int_equal(wc.qp_num, a.qp->qp_num);
	wc = sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_RECV);
	assert_int_equal(wc.byte_len, length);
	assert_int_equal(wc.qp_num, b.qp->qp_num);
	assert_int_equal(wc.wc_flags & (IBV_WC_WITH_IMM | IBV_WC_WITH_INV), 0);
	assert_true(sim_filled(b.memory + at, length, seed));
	assert_int_equal(b.memory[at + length], 0xee);

	sim_fill(a.memory, length, seed + 1);
	sim_write(&a, 3, 0, length, &b, at);
	assert_true(sim_run(SECOND));
	wc = sim_expect(a.scq, 3, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_RDMA_WRITE);
	assert_true(sim_filled(b.memory + at, length, seed + 1));
	assert_int_equal(b.memory[at - 1], 0xee);
	assert_int_equal(b.memory[at + length], 0xee);

	sim_fill(b.memory + at, length, seed + 2);
	a.memory[length] = 0xdd;
	sim_read(&a, 4, 0, length, &b, at);
	assert_true(sim_run(SECOND));
	wc = sim_expect(a.scq, 4, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_RDMA_READ);
	assert_true(sim_filled(a.memory, length, seed + 2));
	assert_int_equal(a.memory[length], 0xdd);
	sim_expect_none(b.rcq);
}

static void messages_of_all_sizes_arrive_whole_at_each_mtu(void **state)
{
	(void)state;
	for (enum ibv_mtu mtu = IBV_MTU_256; mtu <= IBV_MTU_4096; mtu++) {
		struct sim_options options = sim_defaults();
		uint32_t bytes = bytes_of(mtu);
		options.mtu = mtu;
		begin(&options);
		uint32_t sizes[] = {0,
				    1,
				    2,
				    3,
				    4,
				    5,
				    bytes - 1,
				    bytes,
				    bytes + 1,
				    2 * bytes - 1,
				    2 * bytes,
				    2 * bytes + 1,
				    7 * bytes + 5,
				    64 * bytes,
				    64 * bytes + 1,
				    65536,
				    65537,
				    200000,
				    500001};
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
			exchange(sizes[i], 100 * mtu + i);
		assert_int_equal(na->counters.retransmits, 0);
		assert_int_equal(nb->counters.retransmits, 0);
		finish();
	}
}

static void psn_wraps_in_the_middle_of_messages(void **state)
{
	(void)state;
	for (uint32_t back = 0; back < 12; back++) {
		struct sim_options options = sim_defaults();
		options.mtu = IBV_MTU_256;
		options.psn = WIRE_PSN_MASK - back;
		begin(&options);
		exchange(256 * 3 + 7, back);
		exchange(256 * 3, back);
		exchange(0, back);
		assert_int_equal(na->counters.retransmits, 0);
		finish();
	}
}

static void psn_wraps_between_any_two_packets_of_a_long_read(void **state)
{
	(void)state;
	for (uint32_t back = 0; back < 10; back++) {
		struct sim_options options = sim_defaults();
		options.mtu = IBV_MTU_256;
		options.psn = WIRE_PSN_MASK - back;
		begin(&options);
		sim_fill(b.memory, 2000, back);
		sim_read(&a, 1, 0, 2000, &b, 0);
		sim_fetch_add(&a, 2, 4096, &b, 4096, 1);
		assert_true(sim_run(SECOND));
		sim_expect(a.scq, 1, IBV_WC_SUCCESS);
		sim_expect(a.scq, 2, IBV_WC_SUCCESS);
		assert_true(sim_filled(a.memory, 2000, back));
		finish();
	}
}

static void atomics_change_memory_and_return_what_was_there(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	uint64_t word = 40, result;

	begin(&options);
	memcpy(b.memory + 64, &word, 8);
	sim_fetch_add(&a, 1, 8, &b, 64, 2);
	assert_true(sim_run(SECOND));
	assert_int_equal(sim_expect(a.scq, 1, IBV_WC_SUCCESS).opcode, IBV_WC_FETCH_ADD);
	memcpy(&result, a.memory + 8, 8);
	assert_int_equal(result, 40);
	memcpy(&word, b.memory + 64, 8);
	assert_int_equal(word, 42);

	static const struct {
		uint64_t compare, swap, after;
	} cases[] = {{41, 7, 42}, {42, UINT64_MAX - 5, UINT64_MAX - 5}};
	for (size_t i = 0; i < 2; i++) {
		struct ibv_send_wr wr = {
			.wr_id = 2, .opcode = IBV_WR_ATOMIC_CMP_AND_SWP, .send_flags = IBV_SEND_SIGNALED};
		wr.wr.atomic.remote_addr = (uintptr_t)b.memory + 64;
		wr.wr.atomic.rkey = b.mr->rkey;
		wr.wr.atomic.compare_add = cases[i].compare;
		wr.wr.atomic.swap = cases[i].swap;
		sim_post(&a, &wr, 16, 8);
		assert_true(sim_run(SECOND));
		assert_int_equal(sim_expect(a.scq, 2, IBV_WC_SUCCESS).opcode, IBV_WC_COMP_SWAP);
		memcpy(&result, a.memory + 16, 8);
		assert_int_equal(result, 42);
		memcpy(&word, b.memory + 64, 8);
		assert_int_equal(word, cases[i].after);
	}
	sim_fetch_add(&a, 3, 8, &b, 64, 10); /* past 2^64 */
	assert_true(sim_run(SECOND));
	memcpy(&word, b.memory + 64, 8);
	assert_int_equal(word, 4);
	finish();
}

static void immediate_data_arrives_with_sends_and_writes(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {0, 1, 1024, 1025, 5000};
	struct sim_options options = sim_defaults();
	begin(&options);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct ibv_send_wr wr = {.wr_id = i, .opcode = IBV_WR_SEND_WITH_IMM, .send_flags = IBV_SEND_SIGNALED};
		wr.imm_data = htobe32(0x01020304u + (uint32_t)i);
		sim_fill(a.memory, sizes[i], i);
		sim_recv(&b, i, 0, 8192);
		sim_post(&a, &wr, 0, sizes[i]);
		assert_true(sim_run(SECOND));
		struct ibv_wc wc = sim_expect(b.rcq, i, IBV_WC_SUCCESS);
		assert_int_equal(wc.opcode, IBV_WC_RECV);
		assert_true(wc.wc_flags & IBV_WC_WITH_IMM);
		assert_int_equal(be32toh(wc.imm_data), 0x01020304u + i);
		assert_int_equal(wc.byte_len, sizes[i]);
		assert_true(sim_filled(b.memory, sizes[i], i));

		wr.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
		wr.wr.rdma.remote_addr = (uintptr_t)b.memory + 100000;
		wr.wr.rdma.rkey = b.mr->rkey;
		memset(b.memory, 0x33, 8192);
		sim_recv(&b, 50 + i, 0, 8192);
		sim_post(&a, &wr, 0, sizes[i]);
		assert_true(sim_run(SECOND));
		wc = sim_expect(b.rcq, 50 + i, IBV_WC_SUCCESS);
		assert_int_equal(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
		assert_int_equal(be32toh(wc.imm_data), 0x01020304u + i);
		assert_int_equal(wc.byte_len, sizes[i]);
		assert_true(sim_filled(b.memory + 100000, sizes[i], i));
		assert_int_equal(b.memory[0], 0x33); /* the receive's own memory is not for it */
	}
	assert_int_equal(sim_count(a.scq), 10);
	finish();
}

static void scattered_memory_is_gathered_and_scattered_in_order(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	options.sges = 8;
	options.mtu = IBV_MTU_256;
	begin(&options);
	static const uint32_t from[8] = {1, 700, 0, 3, 255, 257, 1000, 2}; /* 2218 */
	static const uint32_t to[8] = {513, 1, 1, 400, 0, 300, 3, 2000};
	struct ibv_sge out[8], in[8];
	uint8_t expected[2218], got[2218];
	size_t at = 0;

	sim_fill(expected, sizeof expected, 5);
	for (size_t i = 0; i < 8; at += from[i++]) {
		out[i] = (struct ibv_sge){(uintptr_t)a.memory + i * 5000 + i, from[i], a.mr->lkey};
		in[i] = (struct ibv_sge){(uintptr_t)b.memory + i * 6000 + i, to[i], b.mr->lkey};
		memcpy(a.memory + i * 5000 + i, expected + at, from[i]);
	}
	struct ibv_recv_wr recv = {.wr_id = 1, .sg_list = in, .num_sge = 8}, *bad_recv;
	struct ibv_send_wr wr = {.wr_id = 2, .sg_list = out, .num_sge = 8, .opcode = IBV_WR_SEND}, *bad;
	assert_int_equal(qp_post_recv(b.qp, &recv, &bad_recv), 0);
	assert_int_equal(qp_post_send(a.qp, &wr, &bad), 0);
	/* Back by a READ into as many pieces. */
	struct ibv_send_wr read = {
		.wr_id = 3, .sg_list = in, .num_sge = 8, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED};
	assert_true(sim_run(SECOND));
	assert_int_equal(sim_expect(b.rcq, 1, IBV_WC_SUCCESS).byte_len, 2218);
	at = 0;
	for (size_t i = 0; i < 8 && at < sizeof got; i++) {
		size_t n = to[i] < sizeof got - at ? to[i] : sizeof got - at;
		memcpy(got + at, b.memory + i * 6000 + i, n);
		at += n;
	}
	assert_memory_equal(got, expected, sizeof got);

	sim_fill(b.memory + 100000, 3218, 6);
	for (size_t i = 0; i < 8; i++)
		in[i] = (struct ibv_sge){(uintptr_t)a.memory + 200000 + i * 6000 + i, to[i], a.mr->lkey};
	read.wr.rdma.remote_addr = (uintptr_t)b.memory + 100000;
	read.wr.rdma.rkey = b.mr->rkey;
	assert_int_equal(qp_post_send(a.qp, &read, &bad), 0);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 3, IBV_WC_SUCCESS);
	uint8_t back[3218];
	at = 0;
	for (size_t i = 0; i < 8; at += to[i++])
		memcpy(back + at, a.memory + 200000 + i * 6000 + i, to[i]);
	assert_int_equal(at, sizeof back);
	assert_true(sim_filled(back, sizeof back, 6));
	finish();
}

static void inline_data_is_taken_at_the_post(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {0, 1, 63, 64, 200};
	struct sim_options options = sim_defaults();
	options.inline_bytes = 200;
	begin(&options);
	na->blocked = true;
	for (size_t i = 0; i < 5; i++) {
		uint8_t data[200]; /* not registered: inline needs no key */
		sim_fill(data, sizes[i], i);
		struct ibv_sge sge[2] = {{(uintptr_t)data, sizes[i] / 3, 0},
					 {(uintptr_t)data + sizes[i] / 3, sizes[i] - sizes[i] / 3, 0}};
		struct ibv_send_wr *bad, wr = {.wr_id = i,
					       .sg_list = sge,
					       .num_sge = 2,
					       .opcode = IBV_WR_SEND,
					       .send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED};
		sim_recv(&b, i, i * 256, 256);
		assert_int_equal(qp_post_send(a.qp, &wr, &bad), 0);
		memset(data, 0, sizeof data);
	}
	na->blocked = false;
	assert_true(sim_run(SECOND));
	for (size_t i = 0; i < 5; i++) {
		sim_expect(a.scq, i, IBV_WC_SUCCESS);
		assert_int_equal(sim_expect(b.rcq, i, IBV_WC_SUCCESS).byte_len, sizes[i]);
		assert_true(sim_filled(b.memory + i * 256, sizes[i], i));
	}
	finish();
}

static void unsignalled_work_completes_silently_and_frees_its_slots(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	for (uint64_t id = 0; id < 500; id++) {
		struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_RDMA_WRITE};
		wr.send_flags = id % 25 == 24 ? IBV_SEND_SIGNALED : 0;
		wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
		wr.wr.rdma.rkey = b.mr->rkey;
		sim_post(&a, &wr, 0, 100);
		if (id % 25 == 24) {
			assert_true(sim_run(SECOND));
			sim_expect(a.scq, id, IBV_WC_SUCCESS);
			sim_expect_none(a.scq);
		}
	}
	finish();

	options.signal_all = true;
	begin(&options);
	struct ibv_send_wr wr = {.wr_id = 9, .opcode = IBV_WR_RDMA_WRITE};
	wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
	wr.wr.rdma.rkey = b.mr->rkey;
	sim_post(&a, &wr, 0, 100);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 9, IBV_WC_SUCCESS);
	finish();
}

/* Both directions, all kinds mixed, queues full: completions in the order of posting. */
static void mixed_work_completes_in_the_order_of_posting(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	struct sim_end *ends[2] = {&a, &b};
	begin(&options);
	for (unsigned e = 0; e < 2; e++) {
		struct sim_end *me = ends[e], *peer = ends[1 - e];
		for (uint64_t i = 0; i < 64; i++)
			sim_recv(peer, 1000 + i, 500000 + i * 2000, 2000);
		for (uint64_t i = 0; i < 64; i++) {
			switch (sim_below(4)) {
			case 0: sim_send(me, i, 0, (uint32_t)sim_below(2000)); break;
			case 1: sim_write(me, i, 0, (uint32_t)sim_below(20000), peer, 0); break;
			case 2: sim_read(me, i, 30000, (uint32_t)sim_below(20000), peer, 0); break;
			default: sim_fetch_add(me, i, 60000, peer, 80000, 1);
			}
		}
	}
	assert_true(sim_run(SECOND));
	for (unsigned e = 0; e < 2; e++) {
		for (uint64_t i = 0; i < 64; i++)
			sim_expect(ends[e]->scq, i, IBV_WC_SUCCESS);
		struct ibv_wc wc;
		for (uint64_t i = 0; cq_poll(ends[e]->rcq, 1, &wc) == 1; i++)
			assert_int_equal(wc.wr_id, 1000 + i);
	}
	assert_int_equal(na->counters.retransmits + nb->counters.retransmits, 0);
	assert_int_equal(na->counters.rnr_sent + nb->counters.rnr_sent, 0);
	finish();
}

static void a_solicited_event_is_given_for_solicited_receives_alone(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	sim_start(1);
	na = sim_node();
	nb = sim_node();
	struct ibv_comp_channel *channel = channel_create(&nb->context.verbs.context);
	assert_non_null(channel);
	sim_open(&a, na, &options);
	options.channel = channel;
	sim_open(&b, nb, &options);
	sim_connect(&a, &nb->gid, b.qp->qp_num);
	sim_connect(&b, &na->gid, a.qp->qp_num);
	sim_recv(&b, 1, 0, 4000);
	sim_recv(&b, 2, 0, 4000);
	assert_int_equal(cq_req_notify(b.rcq, 1), 0);
	sim_send(&a, 1, 0, 3000);
	assert_true(sim_run(SECOND));
	assert_int_equal(cq_of(b.rcq)->events.waiting, 0);
	struct ibv_send_wr wr = {.wr_id = 2, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SOLICITED};
	sim_post(&a, &wr, 0, 3000);
	assert_true(sim_run(SECOND));
	assert_int_equal(cq_of(b.rcq)->events.waiting, 1);
	struct ibv_cq *which;
	void *context;
	assert_int_equal(cq_get_event(channel, &which, &context), 0);
	assert_ptr_equal(which, b.rcq);
	cq_ack_events(which, 1);
	sim_close(&a);
	sim_close(&b);
	assert_int_equal(channel_destroy(channel), 0);
	sim_stop();
}

static void a_device_may_connect_to_itself(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	sim_start(1);
	na = nb = sim_node();
	sim_pair(&a, na, &b, na, &options);
	exchange(10000, 1);
	finish();
}

/* A slow wire with a short queue: the link says no again and again, and all still arrives at the wire's speed. */
static void a_link_that_is_full_slows_the_sender_and_loses_nothing(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	options.mtu = IBV_MTU_4096;
	begin(&options);
	na->wire.bytes_per_second = nb->wire.bytes_per_second = 100000000;
	na->wire.queue = nb->wire.queue = 20000;
	uint64_t start = sim_now();
	sim_fill(a.memory, 1000000, 1);
	sim_write(&a, 1, 0, 1000000, &b, 0);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	assert_true(sim_filled(b.memory, 1000000, 1));
	assert_uint_in_range(sim_now() - start, 10 * MS, 13 * MS);
	memset(a.memory, 0, 1000000);
	sim_read(&a, 2, 0, 1000000, &b, 0);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 2, IBV_WC_SUCCESS);
	assert_true(sim_filled(a.memory, 1000000, 1));
	assert_int_equal(na->counters.retransmits, 0);
	finish();
}

static void a_local_key_that_does_not_fit_ends_the_request_with_a_local_protection_error(void **state)
{
	(void)state;
	struct sim_options options = sim_defaults();
	begin(&options);
	struct ibv_sge sge = {(uintptr_t)a.memory + a.size - 10, 11, a.mr->lkey};
	struct ibv_send_wr *bad, wr = {.wr_id = 5, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
	sim_recv(&b, 1, 0, 100);
	sim_recv(&b, 2, 0, 100);
	sim_send(&a, 4, 0, 10);
	assert_int_equal(qp_post_send(a.qp, &wr, &bad), 0);
	sim_send(&a, 6, 0, 10);
	sim_run(SECOND);
	sim_expect(a.scq, 4, IBV_WC_SUCCESS);
	sim_expect(a.scq, 5, IBV_WC_LOC_PROT_ERR);
	sim_expect(a.scq, 6, IBV_WC_WR_FLUSH_ERR);
	assert_int_equal(sim_state(&a), IBV_QPS_ERR);
	sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	sim_expect_none(b.rcq);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_of_all_sizes_arrive_whole_at_each_mtu),
		cmocka_unit_test(psn_wraps_in_the_middle_of_messages),
		cmocka_unit_test(psn_wraps_between_any_two_packets_of_a_long_read),
		cmocka_unit_test(atomics_change_memory_and_return_what_was_there),
		cmocka_unit_test(immediate_data_arrives_with_sends_and_writes),
		cmocka_unit_test(scattered_memory_is_gathered_and_scattered_in_order),
		cmocka_unit_test(inline_data_is_taken_at_the_post),
		cmocka_unit_test(unsignalled_work_completes_silently_and_frees_its_slots),
		cmocka_unit_test(mixed_work_completes_in_the_order_of_posting),
		cmocka_unit_test(a_solicited_event_is_given_for_solicited_receives_alone),
		cmocka_unit_test(a_device_may_connect_to_itself),
		cmocka_unit_test(a_link_that_is_full_slows_the_sender_and_loses_nothing),
		cmocka_unit_test(a_local_key_that_does_not_fit_ends_the_request_with_a_local_protection_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
