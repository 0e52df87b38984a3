/* SPDX-License-Identifier: Apache-2.0 */
/* Unreliable connections and datagrams. */
#include "sim.h"

#include "engine.h"

static struct sim_node *na, *nb;
static struct sim_end a, b;

static struct sim_options of_type(enum ibv_qp_type type)
{
	struct sim_options options = sim_defaults();
	options.type = type;
	if (type == IBV_QPT_UC)
		options.access = IBV_ACCESS_REMOTE_WRITE;
	return options;
}

static void begin(enum ibv_qp_type type)
{
	struct sim_options options = of_type(type);
	sim_start(1);
	na = sim_node();
	nb = sim_node();
	sim_pair(&a, na, &b, nb, &options);
}

static void finish(void)
{
	sim_close(&a);
	sim_close(&b);
	sim_stop();
}

static void uc_sends_and_writes_arrive_whole(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {0, 1, 1023, 1024, 1025, 2048, 10001, 100000};
	begin(IBV_QPT_UC);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		sim_fill(a.memory, sizes[i], i);
		sim_recv(&b, i, 0, 200000);
		sim_send(&a, i, 0, sizes[i]);
		sim_write(&a, 100, 0, sizes[i], &b, 300000);
		assert_true(sim_run(SECOND));
		sim_expect(a.scq, i, IBV_WC_SUCCESS);
		sim_expect(a.scq, 100, IBV_WC_SUCCESS);
		assert_int_equal(sim_expect(b.rcq, i, IBV_WC_SUCCESS).byte_len, sizes[i]);
		assert_true(sim_filled(b.memory, sizes[i], i));
		assert_true(sim_filled(b.memory + 300000, sizes[i], i));
	}
	assert_int_equal(nb->sent, 0); /* nothing is ever answered */
	finish();
}

static bool drop_one(void *arg, const struct sim_packet *packet)
{
	return packet->packet.psn == *(uint32_t *)arg;
}

/* Whichever packet of a message is lost, the message is, and only it; the receive serves the next one. */
static void uc_loss_drops_one_message_and_no_other(void **state)
{
	(void)state;
	for (uint32_t lost = 0; lost < 4; lost++) {
		uint32_t psn = 0x100 + 4 + lost;
		begin(IBV_QPT_UC);
		na->wire.drop = drop_one;
		na->wire.arg = &psn;
		for (uint64_t i = 0; i < 3; i++) {
			sim_recv(&b, i, i * 5000, 5000);
			sim_fill(a.memory + i * 5000, 4000, i);
			sim_send(&a, i, i * 5000, 4000);
		}
		assert_true(sim_run(SECOND));
		assert_int_equal(sim_count(a.scq), 3); /* nobody knows */
		sim_expect(b.rcq, 0, IBV_WC_SUCCESS);
		assert_int_equal(sim_expect(b.rcq, 1, IBV_WC_SUCCESS).byte_len, 4000);
		assert_true(sim_filled(b.memory, 4000, 0));
		assert_true(sim_filled(b.memory + 5000, 4000, 2));
		sim_expect_none(b.rcq);
		assert_int_equal(sim_state(&b), IBV_QPS_RTS);
		finish();
	}
}

static void uc_never_completes_a_torn_message_at_any_loss(void **state)
{
	(void)state;
	begin(IBV_QPT_UC);
	na->wire.loss = 0.1;
	na->wire.reorder = 0.02;
	na->wire.duplicate = 0.02;
	na->wire.delay = 2 * US;
	unsigned arrived = 0;
	uint64_t next = 0;
	for (uint64_t i = 0; i < 60; i++)
		sim_recv(&b, i, 200000 + i * 8192, 8192);
	for (uint64_t i = 0; i < 50; i++) {
		struct ibv_send_wr wr = {.wr_id = i,
					 .opcode = IBV_WR_SEND_WITH_IMM,
					 .send_flags = IBV_SEND_SIGNALED,
					 .imm_data = htobe32((uint32_t)i)};
		sim_fill(a.memory, 6000, i);
		sim_post(&a, &wr, 0, 6000);
		assert_true(sim_run(SECOND));
	}
	for (struct ibv_wc wc; cq_poll(b.rcq, 1, &wc) == 1; arrived++) {
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.byte_len, 6000);
		assert_true(be32toh(wc.imm_data) >= next);
		next = be32toh(wc.imm_data) + 1;
		assert_true(sim_filled(b.memory + 200000 + wc.wr_id * 8192, 6000, be32toh(wc.imm_data)));
	}
	assert_uint_in_range(arrived, 5, 49);
	finish();
}

static void uc_without_a_receive_drops_the_message(void **state)
{
	(void)state;
	begin(IBV_QPT_UC);
	sim_send(&a, 1, 0, 3000);
	assert_true(sim_run(SECOND));
	sim_recv(&b, 1, 0, 3000);
	sim_fill(a.memory, 3000, 4);
	sim_send(&a, 2, 0, 3000);
	assert_true(sim_run(SECOND));
	sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	assert_true(sim_filled(b.memory, 3000, 4));
	finish();
}

static void uc_drops_a_message_that_is_longer_than_its_receive(void **state)
{
	(void)state;
	for (uint32_t room = 0; room <= 2000; room += 1000) {
		begin(IBV_QPT_UC);
		memset(b.memory, 9, b.size);
		sim_recv(&b, 1, 0, room);
		sim_send(&a, 1, 0, 3000);
		assert_true(sim_run(SECOND));
		sim_expect(a.scq, 1, IBV_WC_SUCCESS);
		sim_expect_none(b.rcq);
		assert_int_equal(b.memory[room], 9);
		assert_int_equal(nb->counters.drop_too_long, 1);
		sim_fill(a.memory, room, 4);
		sim_send(&a, 2, 0, room);
		assert_true(sim_run(SECOND));
		assert_int_equal(sim_expect(b.rcq, 1, IBV_WC_SUCCESS).byte_len, room);
		assert_true(sim_filled(b.memory, room, 4));
		finish();
	}
}

static void uc_writes_outside_of_the_region_touch_nothing(void **state)
{
	(void)state;
	begin(IBV_QPT_UC);
	memset(b.memory, 9, b.size);
	sim_write(&a, 1, 0, 3000, &b, b.size - 2999);
	assert_true(sim_run(SECOND));
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	for (size_t i = b.size - 3000; i < b.size; i++)
		assert_int_equal(b.memory[i], 9);
	finish();
}

/* ---- datagrams ---- */

static void send_datagram(struct ibv_ah *ah, uint64_t id, uint32_t qpn, uint32_t qkey, uint32_t length)
{
	struct ibv_send_wr wr = {.wr_id = id,
				 .opcode = IBV_WR_SEND_WITH_IMM,
				 .send_flags = IBV_SEND_SIGNALED,
				 .imm_data = htobe32(0xabc)};
	wr.wr.ud.ah = ah;
	wr.wr.ud.remote_qpn = qpn;
	wr.wr.ud.remote_qkey = qkey;
	sim_post(&a, &wr, 0, length);
	assert_true(sim_run(SECOND));
}

static struct ibv_ah *address(const union ibv_gid *gid)
{
	struct ibv_ah_attr attr = {
		.is_global = 1, .port_num = 1, .grh = {.dgid = *gid, .hop_limit = 7, .traffic_class = 32}};
	struct ibv_ah *ah = ah_create(na->pd, &attr);
	assert_non_null(ah);
	return ah;
}

static void a_datagram_arrives_behind_its_routing_header(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {0, 1, 2, 3, 1000, 4096};
	begin(IBV_QPT_UD);
	struct ibv_ah *ah = address(&nb->gid);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		sim_fill(a.memory, sizes[i], i);
		memset(b.memory, 0x5a, 8192);
		sim_recv(&b, i, 0, 8192);
		send_datagram(ah, i, b.qp->qp_num, 0x11111111, sizes[i]);
		assert_int_equal(sim_expect(a.scq, i, IBV_WC_SUCCESS).opcode, IBV_WC_SEND);
		struct ibv_wc wc = sim_expect(b.rcq, i, IBV_WC_SUCCESS);
		assert_int_equal(wc.byte_len, sizes[i] + 40);
		assert_true(wc.wc_flags & IBV_WC_GRH);
		assert_true(wc.wc_flags & IBV_WC_WITH_IMM);
		assert_int_equal(be32toh(wc.imm_data), 0xabc);
		assert_int_equal(wc.src_qp, a.qp->qp_num);
		assert_int_equal(wc.qp_num, b.qp->qp_num);
		assert_true(sim_filled(b.memory + 40, sizes[i], i));
		assert_int_equal(b.memory[40 + sizes[i]], 0x5a);
		/* IPv4 addresses: an IPv4 header in the second half, annex A17. Its length is that of the whole packet: IPv4
		 * and UDP headers, BTH, DETH, immediate, padded payload, ICRC. */
		assert_int_equal(b.memory[20] >> 4, 4);
		assert_int_equal(b.memory[22] << 8 | b.memory[23], 20 + 8 + 12 + 8 + 4 + (sizes[i] + 3) / 4 * 4 + 4);
		assert_int_equal(wc.sl, 0xa);
		assert_memory_equal(b.memory + 32, na->gid.raw + 12, 4);
		assert_memory_equal(b.memory + 36, nb->gid.raw + 12, 4);
	}
	assert_int_equal(ah_destroy(ah), 0);
	finish();
}

static void an_answer_finds_its_way_back_by_the_completion(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	struct ibv_ah *ah = address(&nb->gid);
	sim_recv(&b, 1, 0, 8192);
	send_datagram(ah, 1, b.qp->qp_num, 0x11111111, 100);
	struct ibv_wc wc = sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	struct ibv_ah *back = ah_create_from_wc(nb->pd, &wc, (struct ibv_grh *)(void *)b.memory, 1);
	assert_non_null(back);
	assert_memory_equal(&((struct ah *)back)->av.dgid, &na->gid, 16);
	assert_int_equal(ah_destroy(back), 0);
	assert_int_equal(ah_destroy(ah), 0);
	finish();
}

static void a_datagram_with_another_q_key_is_dropped(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	struct ibv_ah *ah = address(&nb->gid);
	sim_recv(&b, 1, 0, 8192);
	send_datagram(ah, 1, b.qp->qp_num, 0x11111112, 100);
	sim_expect(a.scq, 1, IBV_WC_SUCCESS);
	sim_expect_none(b.rcq);
	assert_int_equal(nb->counters.drop_qkey, 1);
	/* The upper bit: the sender's own key is used instead, IBTA 10.2.5. */
	send_datagram(ah, 2, b.qp->qp_num, 0x80000000u, 100);
	sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	assert_int_equal(ah_destroy(ah), 0);
	finish();
}

static void a_datagram_without_a_receive_is_dropped(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	struct ibv_ah *ah = address(&nb->gid);
	send_datagram(ah, 1, b.qp->qp_num, 0x11111111, 100);
	assert_int_equal(nb->counters.drop_no_receive, 1);
	assert_int_equal(nb->sent, 0);
	sim_recv(&b, 1, 0, 8192);
	sim_expect_none(b.rcq);
	send_datagram(ah, 2, b.qp->qp_num, 0x11111111, 100);
	sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	assert_int_equal(ah_destroy(ah), 0);
	finish();
}

static void a_datagram_never_writes_past_its_receive(void **state)
{
	(void)state;
	static const uint32_t rooms[] = {0, 1, 39, 40, 139};
	for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
		begin(IBV_QPT_UD);
		struct ibv_ah *ah = address(&nb->gid);
		memset(b.memory, 0x5a, 1000);
		sim_recv(&b, 1, 0, rooms[i]);
		send_datagram(ah, 1, b.qp->qp_num, 0x11111111, 100);
		for (size_t at = rooms[i]; at < 1000; at++)
			assert_int_equal(b.memory[at], 0x5a);
		/* It costs nothing but itself: the receive is there for the next one, if that fits. */
		sim_expect_none(b.rcq);
		assert_int_equal(nb->counters.drop_too_long, 1);
		assert_int_equal(sim_state(&b), IBV_QPS_RTS);
		if (rooms[i] >= 40) {
			send_datagram(ah, 2, b.qp->qp_num, 0x11111111, rooms[i] - 40);
			assert_int_equal(sim_expect(b.rcq, 1, IBV_WC_SUCCESS).byte_len, rooms[i]);
		}
		assert_int_equal(ah_destroy(ah), 0);
		finish();
	}
}

static void one_datagram_queue_pair_talks_to_many(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	struct sim_options options = of_type(IBV_QPT_UD);
	struct sim_node *nc = sim_node();
	struct sim_end c;
	sim_open(&c, nc, &options);
	sim_connect(&c, &na->gid, 0);
	struct ibv_ah *to_b = address(&nb->gid), *to_c = address(&nc->gid);
	for (uint64_t i = 0; i < 10; i++) {
		sim_recv(&b, i, i * 200, 200);
		sim_recv(&c, i, i * 200, 200);
		sim_fill(a.memory, 100, i);
		send_datagram(i % 2 ? to_b : to_c, i, i % 2 ? b.qp->qp_num : c.qp->qp_num, 0x11111111, 100);
	}
	assert_int_equal(sim_count(b.rcq), 5);
	assert_int_equal(sim_count(c.rcq), 5);
	assert_true(sim_filled(b.memory + 40, 100, 1));
	assert_true(sim_filled(c.memory + 40, 100, 0));
	assert_int_equal(ah_destroy(to_b), 0);
	assert_int_equal(ah_destroy(to_c), 0);
	sim_close(&c);
	finish();
}

/* What arrives for a group at b's host. */
static void arrive_for_group(const union ibv_gid *group, const struct packet *like, const char *text)
{
	struct packet packet = *like;
	const struct packet_path path = {.sgid = na->gid, .dgid = *group, .hop_limit = 64};

	packet.opcode = WIRE_UD | OP_SEND_ONLY;
	packet.pkey = WIRE_PKEY;
	packet.qpn = WIRE_MULTICAST_QPN;
	packet.payload = (const uint8_t *)text;
	packet.payload_length = (uint32_t)strlen(text);
	engine_enter(&nb->device);
	engine_deliver_local(&nb->device, &packet, &path);
	engine_leave(&nb->device);
}

static void a_group_reaches_all_queue_pairs_that_are_attached(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	struct sim_options options = of_type(IBV_QPT_UD);
	const union ibv_gid group = {.raw = {[10] = 0xff, 0xff, 239, 1, 2, 3}}, other = {.raw = {0xff, 0x0e}};
	const struct packet right = {.qkey = options.qkey, .src_qpn = a.qp->qp_num}, wrong = {.qkey = 1, .src_qpn = a.qp->qp_num};
	struct sim_end c;
	sim_open(&c, nb, &options);
	sim_connect(&c, &na->gid, 0);
	assert_int_equal(qp_attach_multicast(b.qp, &group), 0);
	assert_int_equal(qp_attach_multicast(b.qp, &group), 0); /* and no second copy */
	assert_int_equal(qp_attach_multicast(c.qp, &group), 0);
	for (uint64_t i = 0; i < 4; i++) {
		sim_recv(&b, i, i * 100, 100);
		sim_recv(&c, i, i * 100, 100);
	}
	arrive_for_group(&group, &right, "to both");
	arrive_for_group(&group, &wrong, "to nobody");
	arrive_for_group(&other, &right, "to nobody");
	assert_int_equal(sim_expect(b.rcq, 0, IBV_WC_SUCCESS).src_qp, a.qp->qp_num);
	sim_expect(c.rcq, 0, IBV_WC_SUCCESS);
	assert_memory_equal(b.memory + 40, "to both", 7);
	assert_memory_equal(c.memory + 24 + 12, group.raw + 12, 4); /* the header's destination */
	sim_expect_none(b.rcq);
	assert_int_equal(qp_detach_multicast(b.qp, &group), 0);
	assert_int_equal(qp_detach_multicast(b.qp, &group), EINVAL);
	arrive_for_group(&group, &right, "to one");
	sim_expect_none(b.rcq);
	sim_expect(c.rcq, 1, IBV_WC_SUCCESS);
	/* It must be detached before it goes. */
	assert_int_equal(qp_destroy(c.qp), EBUSY);
	assert_int_equal(qp_detach_multicast(c.qp, &group), 0);
	assert_null(nb->device.multicast);
	sim_close(&c);
	finish();
}

static void only_datagrams_join_and_only_groups(void **state)
{
	(void)state;
	const union ibv_gid group = {.raw = {0xff, 0x02}};
	begin(IBV_QPT_UC);
	assert_int_equal(qp_attach_multicast(a.qp, &group), EINVAL);
	finish();
	begin(IBV_QPT_UD);
	assert_int_equal(qp_attach_multicast(a.qp, &na->gid), EINVAL);
	assert_int_equal(qp_detach_multicast(a.qp, &group), EINVAL);
	finish();
}

static void own_datagrams_do_not_come_back_where_that_is_blocked(void **state)
{
	(void)state;
	begin(IBV_QPT_UD);
	const union ibv_gid group = {.raw = {0xff, 0x02}};
	const struct packet own = {.qkey = b.options.qkey, .src_qpn = b.qp->qp_num}, others = {.qkey = b.options.qkey, .src_qpn = 5};
	assert_int_equal(qp_attach_multicast(b.qp, &group), 0);
	for (uint64_t i = 0; i < 3; i++)
		sim_recv(&b, i, 0, 100);
	arrive_for_group(&group, &own, "own");
	sim_expect(b.rcq, 0, IBV_WC_SUCCESS);
	((struct qp *)b.qp)->blocks_own_multicast = true;
	arrive_for_group(&group, &own, "own");
	sim_expect_none(b.rcq);
	arrive_for_group(&group, &others, "others");
	sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
	assert_int_equal(qp_detach_multicast(b.qp, &group), 0);
	finish();
}

/* Three in a row, whose second one names memory that nobody has registered, from its second packet on where it has two.
 */
static void post_with_a_bad_one(struct ibv_ah *ah, bool uc)
{
	struct ibv_sge good = {.addr = (uintptr_t)a.memory, .length = 1024, .lkey = a.mr->lkey};
	struct ibv_sge torn[2] = {good, {.addr = good.addr, .length = uc ? 1000 : 0, .lkey = good.lkey ^ 0x40000000}};
	struct ibv_send_wr wr[3], *bad = NULL;

	if (!uc)
		torn[0] = (struct ibv_sge){.addr = good.addr, .length = 100, .lkey = torn[1].lkey};
	for (uint64_t i = 0; i < 3; i++) {
		wr[i] = (struct ibv_send_wr){.wr_id = i,
					     .opcode = IBV_WR_SEND,
					     .send_flags = IBV_SEND_SIGNALED,
					     .sg_list = i == 1 ? torn : &good,
					     .num_sge = i == 1 ? 2 : 1,
					     .next = i < 2 ? &wr[i + 1] : NULL};
		if (!uc) {
			wr[i].wr.ud.ah = ah;
			wr[i].wr.ud.remote_qpn = b.qp->qp_num;
			wr[i].wr.ud.remote_qkey = 0x11111111;
		}
	}
	assert_int_equal(qp_post_send(a.qp, wr, &bad), 0);
	assert_true(sim_run(SECOND));
}

/* IBTA vol 1, 10.3.1: an error of a send ends the sending side alone, and RTS brings it back. */
static void a_failed_send_ends_the_send_queue_and_no_more(void **state)
{
	(void)state;
	for (unsigned uc = 0; uc < 2; uc++) {
		begin(uc ? IBV_QPT_UC : IBV_QPT_UD);
		struct ibv_ah *ah = address(&nb->gid);
		for (uint64_t i = 0; i < 2; i++)
			sim_recv(&b, i, i * 5000, 5000);
		post_with_a_bad_one(ah, uc);
		sim_expect(a.scq, 0, IBV_WC_SUCCESS);
		sim_expect(a.scq, 1, IBV_WC_LOC_PROT_ERR);
		sim_expect(a.scq, 2, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(sim_state(&a), IBV_QPS_SQE);
		sim_expect(b.rcq, 0, IBV_WC_SUCCESS);
		sim_expect_none(b.rcq);

		if (uc) { /* what arrives meanwhile is received */
			sim_recv(&a, 9, 0, 5000);
			sim_send(&b, 9, 0, 3000);
			assert_true(sim_run(SECOND));
			sim_expect(b.scq, 9, IBV_WC_SUCCESS);
			sim_expect(a.rcq, 9, IBV_WC_SUCCESS);
		}

		assert_int_equal(sim_modify(&a, IBV_QPS_RTS), 0);
		sim_fill(a.memory, uc ? 4000 : 1000, 7);
		if (uc)
			sim_send(&a, 3, 0, 4000);
		else
			send_datagram(ah, 3, b.qp->qp_num, 0x11111111, 1000);
		assert_true(sim_run(SECOND));
		sim_expect(a.scq, 3, IBV_WC_SUCCESS);
		sim_expect(b.rcq, 1, IBV_WC_SUCCESS);
		assert_true(sim_filled(b.memory + 5000 + (uc ? 0 : 40), uc ? 4000 : 1000, 7));
		assert_int_equal(ah_destroy(ah), 0);
		finish();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uc_sends_and_writes_arrive_whole),
		cmocka_unit_test(uc_loss_drops_one_message_and_no_other),
		cmocka_unit_test(uc_never_completes_a_torn_message_at_any_loss),
		cmocka_unit_test(uc_without_a_receive_drops_the_message),
		cmocka_unit_test(uc_drops_a_message_that_is_longer_than_its_receive),
		cmocka_unit_test(uc_writes_outside_of_the_region_touch_nothing),
		cmocka_unit_test(a_datagram_arrives_behind_its_routing_header),
		cmocka_unit_test(an_answer_finds_its_way_back_by_the_completion),
		cmocka_unit_test(a_datagram_with_another_q_key_is_dropped),
		cmocka_unit_test(a_datagram_without_a_receive_is_dropped),
		cmocka_unit_test(a_datagram_never_writes_past_its_receive),
		cmocka_unit_test(one_datagram_queue_pair_talks_to_many),
		cmocka_unit_test(a_group_reaches_all_queue_pairs_that_are_attached),
		cmocka_unit_test(only_datagrams_join_and_only_groups),
		cmocka_unit_test(own_datagrams_do_not_come_back_where_that_is_blocked),
		cmocka_unit_test(a_failed_send_ends_the_send_queue_and_no_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
