/* SPDX-License-Identifier: Apache-2.0 */
/* Reliable connections on wires that lose, repeat, delay and reorder: every operation still happens exactly once, in
 * order, with its data whole. */
#include "sim.h"

enum { SLOT = 8192, SLOTS = 48, ATOMIC_AT = SLOT * SLOTS * 2, LANDING = 600000 };

struct side {
	struct sim_end *end;
	struct sim_end *peer;
	uint64_t posted;
	uint64_t sends;    /* to the peer */
	uint64_t received; /* from the peer */
	uint64_t adds;
	uint64_t last_add_result;
	bool added;
	struct work {
		enum ibv_wr_opcode opcode;
		uint32_t length;
		uint64_t seed;
	} work[SLOTS];
	struct work sent[512]; /* sends, in order */
};

/* Which slot of memory a request uses is its own, so that nothing overlaps. First SLOTS slots: mine, to send from or
 * read into. Second: the peer's writes, and what the peer reads. */
static void post_one(struct side *side, uint64_t id)
{
	struct sim_end *me = side->end, *peer = side->peer;
	size_t slot = id * SLOT, remote = (size_t)(SLOTS + id) * SLOT;
	struct work *work = &side->work[id];
	uint64_t kind = sim_below(10);

	*work = (struct work){.length = (uint32_t)sim_below(sim_below(3) ? 3000 : SLOT), .seed = sim_random()};
	if (kind < 3) {
		struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_SEND_WITH_IMM, .send_flags = IBV_SEND_SIGNALED};
		wr.imm_data = htobe32((uint32_t)side->sends);
		work->opcode = IBV_WR_SEND_WITH_IMM;
		sim_fill(me->memory + slot, work->length, work->seed);
		side->sent[side->sends++] = *work;
		sim_post(me, &wr, slot, work->length);
	} else if (kind < 5) {
		work->opcode = IBV_WR_RDMA_WRITE;
		sim_fill(me->memory + slot, work->length, work->seed);
		sim_write(me, id, slot, work->length, peer, remote);
	} else if (kind < 7) {
		work->opcode = IBV_WR_RDMA_READ;
		sim_fill(peer->memory + remote, work->length, work->seed);
		memset(me->memory + slot, 0, work->length);
		sim_read(me, id, slot, work->length, peer, remote);
	} else {
		work->opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
		sim_fetch_add(me, id, slot, peer, ATOMIC_AT, 1);
	}
}

static void check_one(struct side *side, uint64_t id)
{
	const struct work *work = &side->work[id];
	size_t slot = id * SLOT, remote = (size_t)(SLOTS + id) * SLOT;
	uint64_t value;

	switch (work->opcode) {
	case IBV_WR_RDMA_WRITE: assert_true(sim_filled(side->peer->memory + remote, work->length, work->seed)); break;
	case IBV_WR_RDMA_READ: assert_true(sim_filled(side->end->memory + slot, work->length, work->seed)); break;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		/* One queue pair adds one at a time, in order. */
		memcpy(&value, side->end->memory + slot, 8);
		assert_int_equal(value, side->adds);
		side->adds++;
		break;
	default: break;
	}
}

static void check_receives(struct side *side, const struct side *from)
{
	struct ibv_wc wc;
	while (cq_poll(side->end->rcq, 1, &wc) == 1) {
		const struct work *work = &from->sent[side->received];
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.wr_id, side->received % SLOTS);
		assert_int_equal(be32toh(wc.imm_data), side->received);
		assert_int_equal(wc.byte_len, work->length);
		size_t at = LANDING + 400000 + (size_t)wc.wr_id * SLOT;
		assert_true(sim_filled(side->end->memory + at, work->length, work->seed));
		sim_recv(side->end, wc.wr_id, at, SLOT);
		side->received++;
	}
}

/* `rounds` times SLOTS requests from both sides at once. */
static void stress(uint64_t seed, const struct sim_wire *wire, unsigned rounds, const struct sim_options *options)
{
	struct sim_end a, b;
	struct side sides[2] = {{.end = &a, .peer = &b}, {.end = &b, .peer = &a}};

	sim_start(seed);
	struct sim_node *na = sim_node(), *nb = sim_node();
	sim_pair(&a, na, &b, nb, options);
	na->wire = nb->wire = *wire;
	for (unsigned s = 0; s < 2; s++)
		for (size_t i = 0; i < SLOTS; i++)
			sim_recv(sides[s].end, i, LANDING + 400000 + i * SLOT, SLOT);
	for (unsigned round = 0; round < rounds; round++) {
		for (uint64_t i = 0; i < SLOTS; i++)
			for (unsigned s = 0; s < 2; s++)
				post_one(&sides[s], i);
		/* All comes to rest: nothing hangs, and no timer stays behind. */
		assert_true(sim_run(100 * SECOND));
		for (unsigned s = 0; s < 2; s++) {
			for (uint64_t i = 0; i < SLOTS; i++) {
				sim_expect(sides[s].end->scq, i, IBV_WC_SUCCESS);
				check_one(&sides[s], i);
			}
			sim_expect_none(sides[s].end->scq);
			check_receives(&sides[s], &sides[1 - s]);
			assert_int_equal(sides[s].received, sides[1 - s].sends);
		}
	}
	for (unsigned s = 0; s < 2; s++) {
		uint64_t counter;
		memcpy(&counter, sides[s].peer->memory + ATOMIC_AT, 8);
		assert_int_equal(counter, sides[s].adds);
		assert_int_equal(sim_state(sides[s].end), IBV_QPS_RTS);
	}
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

static uint64_t last_seed;

static int tell_seed(void **state)
{
	(void)state;
	print_message("             last seed: %llu\n", (unsigned long long)last_seed);
	return 0;
}

static struct sim_options stressed(uint64_t seed)
{
	struct sim_options options = sim_defaults();
	options.memory = 2 << 20;
	options.timeout = 9;
	options.min_rnr_timer = 1;
	options.mtu = (enum ibv_mtu)(IBV_MTU_256 + seed % 5);
	options.psn = seed % 3 ? (uint32_t)(WIRE_PSN_MASK - seed * 7) : (uint32_t)(seed * 7919);
	options.rd_atomic = options.dest_rd_atomic = (uint8_t)(seed % 4 == 0 ? 1 : seed % 4 == 1 ? 16 : 3 + seed % 3);
	return options;
}

/* UROCE_SIM_RUNS=n in the environment: n times as many seeds. */
static void runs(const struct sim_wire *wire, uint64_t seeds, unsigned rounds)
{
	const char *times = getenv("UROCE_SIM_RUNS");
	seeds *= !times ? 2 : strtoull(times, NULL, 10);
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		last_seed = seed;
		struct sim_options options = stressed(seed);
		stress(seed, wire, rounds, &options);
	}
}

static void nothing_is_lost_at_a_loss_of_a_thousandth(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.loss = 0.001, .delay = 5 * US, .loss_cap = 3}, 12, 4);
}

static void nothing_is_lost_at_a_loss_of_a_hundredth(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.loss = 0.01, .delay = 5 * US, .loss_cap = 3}, 20, 3);
}

static void nothing_is_lost_at_a_loss_of_a_twentieth(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.loss = 0.05, .delay = 5 * US, .loss_cap = 3}, 20, 2);
}

static void nothing_is_lost_at_a_loss_of_a_fifth(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.loss = 0.2, .delay = 5 * US, .loss_cap = 3}, 20, 2);
}

static void nothing_is_lost_in_bursts(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.burst = 0.005, .burst_length = 40, .delay = 5 * US, .loss_cap = 3}, 15, 2);
}

static void nothing_happens_twice_when_packets_are_repeated(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.duplicate = 0.2, .delay = 5 * US}, 15, 2);
	runs(&(struct sim_wire){.duplicate = 1.0, .delay = 5 * US, .jitter = 3 * US}, 8, 2);
}

static void order_is_kept_when_packets_overtake_each_other(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.reorder = 0.02, .delay = 5 * US}, 15, 2);
	runs(&(struct sim_wire){.delay = 5 * US, .jitter = 4 * US}, 8, 1);
}

static void all_evils_at_once_do_no_harm(void **state)
{
	(void)state;
	runs(&(struct sim_wire){.loss = 0.03,
				.duplicate = 0.05,
				.reorder = 0.03,
				.burst = 0.001,
				.burst_length = 20,
				.delay = 20 * US,
				.jitter = 1 * US,
				.loss_cap = 3},
	     30, 2);
}

static void a_slow_wire_that_loses_does_no_harm(void **state)
{
	(void)state;
	runs(
		&(struct sim_wire){
			.loss = 0.02, .delay = 100 * US, .bytes_per_second = 300000000, .queue = 30000, .loss_cap = 3},
		10, 1);
}

/* The only packet that can tell is lost: a message's last one, or its acknowledgement. */
static bool drop_once(void *arg, const struct sim_packet *packet)
{
	int *left = arg;
	(void)packet;
	return (*left)-- == 0;
}

static void any_single_packet_may_be_lost(void **state)
{
	(void)state;
	for (unsigned which = 0; which < 2; which++) {
		for (int lost = 0; lost < 16; lost++) {
			int left = lost;
			struct sim_end a, b;
			struct sim_options options = sim_defaults();
			uint64_t counter;
			options.mtu = IBV_MTU_256;
			sim_start(1);
			struct sim_node *na = sim_node(), *nb = sim_node();
			sim_pair(&a, na, &b, nb, &options);
			struct sim_wire *wire = which ? &na->wire : &nb->wire;
			wire->drop = drop_once;
			wire->arg = &left;
			sim_recv(&b, 1, 50000, 1000);
			sim_fill(a.memory, 1000, 1);
			sim_fill(b.memory + 10000, 1000, 2);
			sim_send(&a, 1, 0, 1000);
			sim_fetch_add(&a, 2, 40000, &b, 40000, 1);
			sim_read(&a, 3, 10000, 1000, &b, 10000);
			sim_write(&a, 4, 0, 1000, &b, 20000);
			sim_fetch_add(&a, 5, 40008, &b, 40000, 1);
			assert_true(sim_run(SECOND));
			assert_int_equal(sim_count(a.scq), 5);
			assert_int_equal(sim_count(b.rcq), 1);
			assert_true(sim_filled(b.memory + 50000, 1000, 1));
			assert_true(sim_filled(b.memory + 20000, 1000, 1));
			assert_true(sim_filled(a.memory + 10000, 1000, 2));
			memcpy(&counter, b.memory + 40000, 8);
			assert_int_equal(counter, 2);
			sim_close(&a);
			sim_close(&b);
			sim_stop();
		}
	}
}

/* Several queue pairs add to one counter: all results differ, and the sum is the number of operations. */
static void fetch_add_of_many_queue_pairs_counts_exactly_under_loss(void **state)
{
	(void)state;
	enum { PAIRS = 8, EACH = 200 };
	static struct sim_end a[PAIRS], b[PAIRS];
	static uint8_t seen[PAIRS * EACH];
	struct sim_options options = sim_defaults();
	memset(seen, 0, sizeof seen);
	options.memory = 4096;
	options.rd_atomic = options.dest_rd_atomic = 16;
	options.depth = 256;
	options.timeout = 9;
	sim_start(77);
	struct sim_node *na = sim_node(), *nb = sim_node();
	na->wire = nb->wire =
		(struct sim_wire){.loss = 0.05, .duplicate = 0.05, .reorder = 0.02, .delay = 5 * US, .loss_cap = 3};
	for (unsigned i = 0; i < PAIRS; i++)
		sim_pair(&a[i], na, &b[i], nb, &options);
	for (uint64_t n = 0; n < EACH; n++)
		for (unsigned i = 0; i < PAIRS; i++)
			sim_fetch_add(&a[i], n, (size_t)n * 8, &b[0], 0, 1);
	assert_true(sim_run(100 * SECOND));
	for (unsigned i = 0; i < PAIRS; i++) {
		for (uint64_t n = 0; n < EACH; n++) {
			uint64_t result;
			sim_expect(a[i].scq, n, IBV_WC_SUCCESS);
			memcpy(&result, a[i].memory + n * 8, 8);
			assert_true(result < PAIRS * EACH);
			assert_int_equal(seen[result]++, 0);
		}
	}
	uint64_t sum;
	memcpy(&sum, b[0].memory, 8);
	assert_int_equal(sum, PAIRS * EACH);
	for (unsigned i = 0; i < PAIRS; i++) {
		sim_close(&a[i]);
		sim_close(&b[i]);
	}
	sim_stop();
}

/* Loss costs time, but not without measure: a hundredth of loss on 16 MiB stays far from one timeout per loss. */
static void a_hundredth_of_loss_does_not_stop_a_stream(void **state)
{
	(void)state;
	struct sim_end a, b;
	struct sim_options options = sim_defaults();
	options.mtu = IBV_MTU_4096;
	options.timeout = 14; /* 67 ms */
	sim_start(3);
	struct sim_node *na = sim_node(), *nb = sim_node();
	sim_pair(&a, na, &b, nb, &options);
	na->wire = nb->wire = (struct sim_wire){
		.loss = 0.01, .delay = 20 * US, .bytes_per_second = SECOND, .queue = 100000, .loss_cap = 3};
	uint64_t start = sim_now(), losses = 16 * 256 / 100;
	for (uint64_t i = 0; i < 16; i++)
		sim_write(&a, i, 0, 1 << 20, &b, 0);
	assert_true(sim_run(100 * SECOND));
	assert_int_equal(sim_count(a.scq), 16);
	assert_true(sim_now() - start < losses * 67 * MS / 4);
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

/* A peer whose host becomes busy answers later and later, at last later than all retries of its timeout would last. It lives. */
static void a_peer_that_becomes_slow_is_not_given_up(void **state)
{
	(void)state;
	struct sim_end a, b;
	struct sim_options options = sim_defaults(); /* retries last 34 ms */
	sim_start(4);
	struct sim_node *na = sim_node(), *nb = sim_node();
	sim_pair(&a, na, &b, nb, &options);
	for (uint64_t delay = MS / 4; delay < 40 * MS; delay += delay / 4) {
		na->wire.delay = nb->wire.delay = delay;
		sim_write(&a, delay, 0, 8192, &b, 0);
		assert_true(sim_run(10 * SECOND));
		sim_expect(a.scq, delay, IBV_WC_SUCCESS);
	}
	assert_int_equal(na->counters.retries_exhausted, 0);
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

/* All answers come late at once, as from a host that had no time: nothing was lost, and the window is as before. */
static void a_silence_without_a_loss_costs_no_window(void **state)
{
	(void)state;
	struct sim_end a, b;
	struct sim_options options = sim_defaults();
	options.timeout = 14;
	sim_start(5);
	struct sim_node *na = sim_node(), *nb = sim_node();
	sim_pair(&a, na, &b, nb, &options);
	na->wire.delay = nb->wire.delay = 50 * US;
	for (uint64_t i = 0; i < 8; i++)
		sim_write(&a, i, 0, 65536, &b, 0);
	assert_true(sim_run(SECOND));
	assert_int_equal(sim_count(a.scq), 8);
	double window = qp_of(a.qp)->req.path.window;
	nb->wire.delay = 60 * MS;
	sim_write(&a, 8, 0, 65536, &b, 0);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 8, IBV_WC_SUCCESS);
	assert_true(na->counters.retransmits > 1);
	assert_true(qp_of(a.qp)->req.path.window >= window);
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_single_packet_may_be_lost),
		cmocka_unit_test_teardown(nothing_is_lost_at_a_loss_of_a_thousandth, tell_seed),
		cmocka_unit_test_teardown(nothing_is_lost_at_a_loss_of_a_hundredth, tell_seed),
		cmocka_unit_test_teardown(nothing_is_lost_at_a_loss_of_a_twentieth, tell_seed),
		cmocka_unit_test_teardown(nothing_is_lost_at_a_loss_of_a_fifth, tell_seed),
		cmocka_unit_test_teardown(nothing_is_lost_in_bursts, tell_seed),
		cmocka_unit_test_teardown(nothing_happens_twice_when_packets_are_repeated, tell_seed),
		cmocka_unit_test_teardown(order_is_kept_when_packets_overtake_each_other, tell_seed),
		cmocka_unit_test_teardown(all_evils_at_once_do_no_harm, tell_seed),
		cmocka_unit_test_teardown(a_slow_wire_that_loses_does_no_harm, tell_seed),
		cmocka_unit_test(fetch_add_of_many_queue_pairs_counts_exactly_under_loss),
		cmocka_unit_test(a_hundredth_of_loss_does_not_stop_a_stream),
		cmocka_unit_test(a_peer_that_becomes_slow_is_not_given_up),
		cmocka_unit_test(a_silence_without_a_loss_costs_no_window),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
