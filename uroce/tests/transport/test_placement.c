/* SPDX-License-Identifier: Apache-2.0 */
/* FLUSH and ATOMIC WRITE, IBTA volume 1 annex A19: between two devices, and packet by packet with the test as either end. */
#include "responder_rig.h"

static struct sim_node *far_node;
static struct sim_end far_end;

static struct sim_options placing(void)
{
	struct sim_options options = small();
	options.psn = PSN;
	options.access |= ACCESS_FLUSH_GLOBAL;
	options.mr_access |= ACCESS_FLUSH_GLOBAL;
	return options;
}

static void begin_pair(const struct sim_options *options)
{
	sim_start(1);
	node = sim_node();
	far_node = sim_node();
	node->wire.delay = far_node->wire.delay = 2 * US;
	sim_pair(&end, node, &far_end, far_node, options);
}

static void finish_pair(void)
{
	sim_close(&end);
	sim_close(&far_end);
	sim_stop();
}

static struct ibv_qp_ex *start(uint64_t id)
{
	struct qp *qp = qp_of(end.qp);
	qp->allowed_ops = UINT64_MAX;
	wr_init(qp);
	ibv_wr_start(&qp->ibv);
	qp->ibv.wr_id = id;
	qp->ibv.wr_flags = IBV_SEND_SIGNALED;
	return &qp->ibv;
}

static wr_flush_function *flush_of(struct ibv_qp_ex *ex)
{
#ifdef HAVE_IBV_WR_FLUSH
	return ex->wr_flush;
#else
	return ((struct qp *)ex)->wr_flush;
#endif
}

static int post_flush(uint64_t id, const struct sim_end *to, size_t at, size_t length, uint8_t type, uint8_t level)
{
	struct ibv_qp_ex *ex = start(id);
	flush_of(ex)(ex, to->mr->rkey, (uintptr_t)to->memory + at, length, type, level);
	return ibv_wr_complete(ex);
}

static int post_atomic_write(uint64_t id, const struct sim_end *to, size_t at, uint64_t value)
{
	struct ibv_qp_ex *ex = start(id);
	ibv_wr_atomic_write(ex, to->mr->rkey, (uintptr_t)to->memory + at, &value);
	int error = ibv_wr_complete(ex);
	value = 0; /* it has been copied */
	return error;
}

/* ---- between two ---- */

/* By which programs find out. */
static void a_queue_pair_made_without_them_has_no_functions(void **state)
{
	(void)state;
	struct sim_options options = placing();
	begin_pair(&options);
	assert_null(flush_of(&qp_of(end.qp)->ibv));
	assert_null(qp_of(end.qp)->ibv.wr_atomic_write);
	struct ibv_qp_ex *ex = start(1);
	assert_non_null(flush_of(ex));
	assert_non_null(ex->wr_atomic_write);
	ibv_wr_abort(ex);
	finish_pair();
}

static void both_reach_the_memory_in_order(void **state)
{
	(void)state;
	struct sim_options options = placing();
	begin_pair(&options);
	sim_fill(end.memory, 3000, 3);
	sim_write(&end, 1, 0, 3000, &far_end, 100);
	assert_int_equal(post_flush(2, &far_end, 100, 3000, FLUSH_GLOBAL, FLUSH_RANGE), 0);
	assert_int_equal(post_atomic_write(3, &far_end, 4096, 0x1122334455667788), 0);
	assert_int_equal(post_flush(4, &far_end, 0, SIZE_MAX, FLUSH_GLOBAL, FLUSH_REGION), 0);
	assert_true(sim_run(SECOND));
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	assert_int_equal((int)sim_expect(end.scq, 2, IBV_WC_SUCCESS).opcode, WC_FLUSH);
	assert_int_equal((int)sim_expect(end.scq, 3, IBV_WC_SUCCESS).opcode, WC_ATOMIC_WRITE);
	assert_int_equal((int)sim_expect(end.scq, 4, IBV_WC_SUCCESS).opcode, WC_FLUSH);
	assert_true(sim_filled(far_end.memory + 100, 3000, 3));
	uint64_t word;
	memcpy(&word, far_end.memory + 4096, 8);
	assert_int_equal(word, 0x1122334455667788);
	finish_pair();
}

/* By ibv_post_send: from registered memory, or inline. */
static void an_atomic_write_may_be_posted_as_a_work_request(void **state)
{
	(void)state;
	struct sim_options options = placing();
	options.inline_bytes = 8;
	for (unsigned inlined = 0; inlined < 2; inlined++) {
		begin_pair(&options);
		struct ibv_send_wr wr = { .wr_id = 1, .opcode = (enum ibv_wr_opcode)WR_ATOMIC_WRITE, .send_flags = IBV_SEND_SIGNALED };
		wr.send_flags |= inlined ? IBV_SEND_INLINE : 0;
		wr.wr.rdma.remote_addr = (uintptr_t)far_end.memory + 8;
		wr.wr.rdma.rkey = far_end.mr->rkey;
		memcpy(end.memory, "ABCDEFGH", 8);
		sim_post(&end, &wr, 0, 8);
		assert_true(sim_run(SECOND));
		sim_expect(end.scq, 1, IBV_WC_SUCCESS);
		assert_memory_equal(far_end.memory + 8, "ABCDEFGH", 8);
		finish_pair();
	}
}

static void they_survive_loss_and_are_executed_once(void **state)
{
	(void)state;
	struct sim_options options = placing();
	for (uint64_t seed = 1; seed < 30; seed++) {
		begin_pair(&options);
		node->wire = far_node->wire = (struct sim_wire){ .loss = 0.1, .duplicate = 0.1, .reorder = 0.1, .delay = 2 * US, .loss_cap = 3 };
		for (uint64_t i = 0; i < 20; i++) {
			assert_int_equal(post_atomic_write(3 * i, &far_end, 0, i + seed), 0);
			sim_fetch_add(&end, 3 * i + 1, 64, &far_end, 0, 100);
			assert_int_equal(post_flush(3 * i + 2, &far_end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE), 0);
			assert_true(sim_run(10 * SECOND));
			assert_int_equal(sim_count(end.scq), 3);
			uint64_t word;
			memcpy(&word, far_end.memory, 8);
			assert_int_equal(word, i + seed + 100);
		}
		finish_pair();
	}
}

static void they_count_as_reads_do(void **state)
{
	(void)state;
	struct sim_options options = placing();
	options.rd_atomic = 255; /* none */
	begin_pair(&options);
	assert_int_equal(post_flush(1, &far_end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE), 0);
	sim_expect(end.scq, 1, IBV_WC_LOC_QP_OP_ERR);
	finish_pair();
	options.rd_atomic = 1;
	options.dest_rd_atomic = 1;
	begin_pair(&options);
	for (uint64_t i = 0; i < 6; i++)
		assert_int_equal(i % 2 ? post_flush(i, &far_end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE) :
				post_atomic_write(i, &far_end, 0, i), 0);
	assert_true(sim_run(SECOND));
	assert_int_equal(sim_count(end.scq), 6);
	finish_pair();
}

static void what_cannot_be_asked_for_is_refused_when_it_is_posted(void **state)
{
	(void)state;
	struct sim_options options = placing();
	begin_pair(&options);
	assert_int_equal(post_flush(1, &far_end, 0, 8, 0, FLUSH_RANGE), EINVAL);
	assert_int_equal(post_flush(1, &far_end, 0, 8, 4, FLUSH_RANGE), EINVAL);
	assert_int_equal(post_flush(1, &far_end, 0, 8, FLUSH_GLOBAL, 2), EINVAL);
	assert_int_equal(post_flush(1, &far_end, 0, (size_t)1 << 32, FLUSH_GLOBAL, FLUSH_RANGE), EINVAL);
	struct ibv_qp_ex *ex = start(1);
	flush_of(ex)(ex, 1, 2, 3, FLUSH_GLOBAL, FLUSH_RANGE);
	ibv_wr_set_sge(ex, 1, 2, 3);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	ex = start(1);
	ibv_wr_atomic_write(ex, 1, 2, "12345678");
	ibv_wr_set_inline_data(ex, (char[]){ "1234" }, 4);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	struct ibv_sge sge = { .addr = (uintptr_t)end.memory, .length = 7, .lkey = end.mr->lkey };
	struct ibv_send_wr *bad, wr = { .opcode = (enum ibv_wr_opcode)WR_ATOMIC_WRITE, .sg_list = &sge, .num_sge = 1 };
	assert_int_equal(qp_post_send(end.qp, &wr, &bad), EINVAL);
	sge.length = 8;
	wr.opcode = (enum ibv_wr_opcode)WR_FLUSH;
	assert_int_equal(qp_post_send(end.qp, &wr, &bad), EINVAL);
	sim_expect_none(end.scq);
	finish_pair();
}

/* ---- the test is the requester ---- */

static struct packet flush(uint32_t n, size_t at, uint32_t length, uint8_t type, uint8_t level)
{
	struct packet packet = one_sided(OP_FLUSH, n, at, length);
	packet.flush_type = type;
	packet.flush_level = level;
	return packet;
}

static void the_answer_is_an_empty_read_response(void **state)
{
	(void)state;
	begin_with(placing());
	script_send(&end, flush(0, 0, 100, FLUSH_GLOBAL, FLUSH_RANGE), NULL, 0);
	assert_int_equal(script_expect(OP_READ_ONLY, PSN)->payload_length, 0);
	script_send(&end, one_sided(OP_ATOMIC_WRITE, 1, 8, 8), data, 8);
	const struct packet *answer = script_expect(OP_READ_ONLY, PSN + 1);
	assert_int_equal(answer->payload_length, 0);
	assert_int_equal(answer->syndrome, AETH_ACK);
	assert_int_equal(answer->msn, 2);
	assert_memory_equal(end.memory + 8, data, 8);
	/* Asked for again they are answered, and not executed. */
	memset(end.memory, GUARD, end.size);
	script_send(&end, one_sided(OP_ATOMIC_WRITE, 1, 8, 8), data, 8);
	script_expect(OP_READ_ONLY, PSN + 1);
	script_send(&end, flush(0, 0, 100, FLUSH_GLOBAL, FLUSH_RANGE), NULL, 0);
	script_expect(OP_READ_ONLY, PSN);
	assert_true(untouched());
	finish();
}

static void a_wrong_flush_is_refused(void **state)
{
	(void)state;
	enum { TYPE_0, TYPE_4, LEVEL_2, QP_PERSISTENT, QP_RIGHT, INVALID, KEY = INVALID, REGION_KEY, LKEY, MR_RIGHT, BEYOND, BEFORE, CASES };
	for (int kind = 0; kind < CASES; kind++) {
		struct sim_options options = placing();
		options.access &= ~(kind == QP_RIGHT ? ACCESS_FLUSH_GLOBAL : 0);
		options.mr_access &= ~(kind == MR_RIGHT ? ACCESS_FLUSH_GLOBAL : 0);
		begin_with(options);
		struct packet packet = flush(0, 0, 100, FLUSH_GLOBAL, kind == REGION_KEY ? FLUSH_REGION : FLUSH_RANGE);
		switch (kind) {
		case TYPE_0: packet.flush_type = 0; break;
		case TYPE_4: packet.flush_type = 4; break;
		case LEVEL_2: packet.flush_level = 2; break;
		case QP_PERSISTENT: packet.flush_type = FLUSH_PERSISTENT; break;
		case KEY:
		case REGION_KEY: packet.rkey ^= 1; break;
		case LKEY: packet.rkey = end.mr->lkey; break;
		case BEYOND: packet.length = (uint32_t)end.size + 1; break;
		case BEFORE: packet.va--; break;
		}
		script_send(&end, packet, NULL, 0);
		expect_refusal(kind < INVALID ? AETH_NAK_INVALID : AETH_NAK_ACCESS, 0);
		finish();
	}
}

static void a_flush_of_a_region_looks_at_its_key_alone(void **state)
{
	(void)state;
	begin_with(placing());
	struct packet packet = flush(0, 0, UINT32_MAX, FLUSH_GLOBAL, FLUSH_REGION);
	packet.va = 1;
	script_send(&end, packet, NULL, 0);
	script_expect(OP_READ_ONLY, PSN);
	finish();
}

static void a_wrong_atomic_write_is_refused_and_touches_nothing(void **state)
{
	(void)state;
	enum { ODD, SHORT, LONG, LENGTH, QP_RIGHT, INVALID, KEY = INVALID, MR_RIGHT, BEYOND, CASES };
	for (int kind = 0; kind < CASES; kind++) {
		struct sim_options options = placing();
		options.access &= ~(kind == QP_RIGHT ? IBV_ACCESS_REMOTE_WRITE : 0);
		options.mr_access &= ~(kind == MR_RIGHT ? IBV_ACCESS_REMOTE_WRITE : 0);
		begin_with(options);
		struct packet packet = one_sided(OP_ATOMIC_WRITE, 0, kind == ODD ? 12 : 8, kind == LENGTH ? 4 : 8);
		if (kind == KEY)
			packet.rkey ^= 1;
		if (kind == BEYOND)
			packet.va = (uintptr_t)end.memory + end.size;
		script_send(&end, packet, data, kind == SHORT ? 4 : kind == LONG ? 12 : 8);
		script_expect_ack(kind < INVALID ? AETH_NAK_INVALID : AETH_NAK_ACCESS, PSN);
		assert_int_equal(sim_state(&end), IBV_QPS_ERR);
		assert_true(untouched());
		finish();
	}
}

/* ---- the test is the responder ---- */

static void an_answer_with_bytes_or_of_another_kind_is_a_bad_response(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 6; kind++) {
		struct sim_options options = placing();
		begin_with(options);
		if (kind % 2)
			assert_int_equal(post_flush(1, &end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE), 0);
		else
			assert_int_equal(post_atomic_write(1, &end, 0, 7), 0);
		sim_run(10 * US);
		const struct packet *asked = script_expect(kind % 2 ? OP_FLUSH : OP_ATOMIC_WRITE, PSN);
		assert_true(asked->ack_req);
		assert_int_equal(asked->length, 8);
		struct packet answer = { .psn = PSN, .syndrome = AETH_ACK };
		answer.opcode = kind < 2 ? OP_READ_ONLY : kind < 4 ? OP_ATOMIC_ACK : OP_READ_FIRST;
		script_send(&end, answer, data, kind < 2 ? 4 : 0);
		sim_expect(end.scq, 1, IBV_WC_BAD_RESP_ERR);
		finish();
	}
}

static void expect_flush(uint32_t n, bool twice)
{
	const struct sim_packet *sent = script_take();
	assert_non_null(sent);
	assert_int_equal(sent->packet.opcode, OP_FLUSH);
	assert_int_equal(sent->packet.psn, psn_add(PSN, n));
	assert_int_equal(sent->icrc_twice, twice);
	script_expect_none();
}

static void answer_flush(uint32_t n)
{
	script_send(&end, (struct packet){ .opcode = OP_READ_ONLY, .psn = psn_add(PSN, n), .syndrome = AETH_ACK }, NULL, 0);
	sim_expect(end.scq, n, IBV_WC_SUCCESS);
}

/* One that is not answered goes out again with the ICRC that rdma_rxe takes, and the next one has it at once. */
static void a_flush_without_an_answer_tries_the_other_icrc(void **state)
{
	(void)state;
	enum { RETRANSMIT = 5 * MS };
	begin_with(placing());
	for (uint32_t n = 0; n < 3; n++) {
		assert_int_equal(post_flush(n, &end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE), 0);
		sim_pass(10 * US);
		expect_flush(n, n == 1 || n == 2);
		if (n == 0) {
			sim_pass(RETRANSMIT);
			expect_flush(n, true);
		}
		if (n == 2) {
			sim_pass(RETRANSMIT);
			expect_flush(n, false);
		}
		answer_flush(n);
	}
	finish();
}

/* An acknowledgement is no answer, as it is none to an atomic. */
static void an_acknowledgement_is_no_answer(void **state)
{
	(void)state;
	begin_with(placing());
	assert_int_equal(post_flush(1, &end, 0, 8, FLUSH_GLOBAL, FLUSH_RANGE), 0);
	sim_run(10 * US);
	script_ack(&end, PSN, AETH_ACK);
	sim_expect_none(end.scq);
	script_forget();
	sim_pass(20 * MS);
	script_expect(OP_FLUSH, PSN);
	script_forget();
	script_send(&end, (struct packet){ .opcode = OP_READ_ONLY, .psn = PSN, .syndrome = AETH_ACK }, NULL, 0);
	sim_expect(end.scq, 1, IBV_WC_SUCCESS);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_queue_pair_made_without_them_has_no_functions),
		cmocka_unit_test(both_reach_the_memory_in_order),
		cmocka_unit_test(an_atomic_write_may_be_posted_as_a_work_request),
		cmocka_unit_test(they_survive_loss_and_are_executed_once),
		cmocka_unit_test(they_count_as_reads_do),
		cmocka_unit_test(what_cannot_be_asked_for_is_refused_when_it_is_posted),
		cmocka_unit_test(the_answer_is_an_empty_read_response),
		cmocka_unit_test(a_wrong_flush_is_refused),
		cmocka_unit_test(a_flush_of_a_region_looks_at_its_key_alone),
		cmocka_unit_test(a_wrong_atomic_write_is_refused_and_touches_nothing),
		cmocka_unit_test(an_answer_with_bytes_or_of_another_kind_is_a_bad_response),
		cmocka_unit_test(a_flush_without_an_answer_tries_the_other_icrc),
		cmocka_unit_test(an_acknowledgement_is_no_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
