/* SPDX-License-Identifier: Apache-2.0 */
/* How many READs and atomics the peer has to answer at a time: no more than a device would let it have that asks for each READ in
 * one request, however long the READs are. */
#include "sim.h"

enum { MIB = 1 << 20 };

static struct sim_node *na, *nb;
static struct sim_end a, b;

/* What goes over the wire, seen from the peer: a request is outstanding until its last answer has left. */
static struct {
	uint32_t now, most;
	uint32_t last_psn[64]; /* of the answers to come, oldest first */
} seen;

static bool see_request(void *arg, const struct sim_packet *packet)
{
	(void)arg;
	const struct packet *p = &packet->packet;
	bool read = p->opcode == OP_READ_REQUEST;
	if (!read && !(wire_traits(p->opcode) & T_ATOMIC))
		return false;
	uint32_t packets = read ? (p->length + 1023) / 1024 : 1;
	seen.last_psn[seen.now++ % 64] = psn_add(p->psn, packets - 1);
	if (seen.now > seen.most)
		seen.most = seen.now;
	return false;
}

static bool see_answer(void *arg, const struct sim_packet *packet)
{
	(void)arg;
	uint32_t done = 0;
	while (done < seen.now && psn_diff(packet->packet.psn, seen.last_psn[done]) >= 0)
		done++;
	memmove(seen.last_psn, seen.last_psn + done, (seen.now - done) * sizeof *seen.last_psn);
	seen.now -= done;
	return false;
}

static void begin_seeded(uint64_t seed, uint8_t rd_atomic, uint8_t dest)
{
	struct sim_options options = sim_defaults();
	options.memory = 8 * MIB;
	options.rd_atomic = rd_atomic;
	options.dest_rd_atomic = dest;
	memset(&seen, 0, sizeof seen);
	options.depth = 256;
	sim_start(seed);
	na = sim_node();
	nb = sim_node();
	na->wire = nb->wire = (struct sim_wire){ .delay = 5 * US };
	na->wire.drop = see_request;
	nb->wire.drop = see_answer;
	sim_pair(&a, na, &b, nb, &options);
	sim_fill(b.memory, b.size, 7);
}

static void begin(uint8_t rd_atomic, uint8_t dest)
{
	begin_seeded(1, rd_atomic, dest);
}

static void finish(void)
{
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

static void post_together(unsigned count, uint32_t length, unsigned flags)
{
	na->blocked = true;
	for (unsigned i = 0; i < count; i++) {
		struct ibv_send_wr wr = { .wr_id = i, .opcode = IBV_WR_RDMA_READ, .send_flags = IBV_SEND_SIGNALED | flags };
		wr.wr.rdma.remote_addr = (uintptr_t)b.memory;
		wr.wr.rdma.rkey = b.mr->rkey;
		sim_post(&a, &wr, 0, length);
	}
	na->blocked = false;
}

static void a_long_read_is_one_for_the_peer_whatever_our_own_limit(void **state)
{
	(void)state;
	static const uint8_t dest[] = { 1, 2, 4 };
	static const uint32_t lengths[] = { MIB, 4 * MIB };

	for (unsigned rd_atomic = 1; rd_atomic <= 16; rd_atomic *= 2) {
		for (size_t i = 0; i < 6; i++) {
			begin((uint8_t)rd_atomic, dest[i % 3]);
			sim_read(&a, 1, 0, lengths[i / 3], &b, 0);
			assert_true(sim_run(10 * SECOND));
			sim_expect(a.scq, 1, IBV_WC_SUCCESS);
			assert_true(sim_filled(a.memory, lengths[i / 3], 7));
			assert_int_equal(seen.most, 1);
			finish();
		}
	}
}

/* As many as an application that keeps to the peer's limit has outstanding, though the queue pair's own is larger. */
static void several_long_reads_are_as_many_for_the_peer(void **state)
{
	(void)state;
	for (uint8_t count = 1; count <= 8; count++) {
		begin(16, count);
		post_together(count, 2 * MIB, 0);
		assert_true(sim_run(10 * SECOND));
		assert_int_equal(sim_count(a.scq), count);
		assert_true(seen.most <= count);
		if (count <= 4) /* beyond these the window has no room for more */
			assert_int_equal(seen.most, count);
		finish();
	}
}

/* With a fence each waits for those before it: so there is one at a time. */
static void fenced_reads_are_one_at_a_time(void **state)
{
	(void)state;
	begin(16, 1);
	post_together(6, MIB, IBV_SEND_FENCE);
	assert_true(sim_run(10 * SECOND));
	assert_int_equal(sim_count(a.scq), 6);
	assert_int_equal(seen.most, 1);
	finish();
}

static void our_own_limit_holds_for_parts_too(void **state)
{
	(void)state;
	for (uint8_t limit = 1; limit <= 8; limit *= 2) {
		begin(limit, limit);
		post_together(32, 1 << 18, 0);
		for (unsigned i = 0; i < 8; i++)
			sim_fetch_add(&a, 100 + i, 6 * MIB, &b, 6 * MIB, 1);
		assert_true(sim_run(10 * SECOND));
		assert_int_equal(sim_count(a.scq), 40);
		assert_true(seen.most <= limit);
		finish();
	}
}

/* Of a READ that is asked for again the peer answers what lies within one of its requests: the parts stay as they were, however
 * many READs are outstanding then. */
static void parts_stay_as_they_were_when_answers_are_lost(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		begin_seeded(seed, 16, 16);
		na->device.max_window = 100; /* no room for several long parts: there are short ones too */
		na->wire = nb->wire = (struct sim_wire){ .delay = 5 * US, .loss = 0.02, .reorder = 0.01, .loss_cap = 3 };
		for (unsigned i = 0; i < 30; i++) {
			post_together(1 + (unsigned)sim_below(6), 60000 + (uint32_t)sim_below(400000), 0);
			sim_pass(sim_below(300) * US);
			sim_run(i % 3 ? 0 : 10 * SECOND);
		}
		assert_true(sim_run(20 * SECOND));
		assert_int_equal(sim_state(&a), IBV_QPS_RTS);
		finish();
	}
}

/* Draining begins no new READ, and so counts none. */
static void reads_that_wait_behind_a_drain_do_not_count(void **state)
{
	(void)state;
	begin(16, 1);
	na->blocked = true;
	sim_read(&a, 1, 0, 4 * MIB, &b, 0);
	na->blocked = false;
	sim_pass(7 * US);
	assert_int_equal(sim_modify(&a, IBV_QPS_SQD), 0);
	for (unsigned i = 2; i < 9; i++)
		sim_read(&a, i, 0, 8, &b, 0);
	assert_true(sim_run(10 * SECOND));
	assert_int_equal(sim_count(a.scq), 1);
	assert_int_equal(seen.most, 1);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_long_read_is_one_for_the_peer_whatever_our_own_limit),
		cmocka_unit_test(several_long_reads_are_as_many_for_the_peer),
		cmocka_unit_test(fenced_reads_are_one_at_a_time),
		cmocka_unit_test(our_own_limit_holds_for_parts_too),
		cmocka_unit_test(parts_stay_as_they_were_when_answers_are_lost),
		cmocka_unit_test(reads_that_wait_behind_a_drain_do_not_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
