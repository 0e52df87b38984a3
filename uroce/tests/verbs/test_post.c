/* SPDX-License-Identifier: Apache-2.0 */
/* Posting: what is refused, what is copied, what is flushed and how; the builder; address handles. */
#include "qp_rig.h"
#include "requester.h"

static struct ibv_sge sge[3] = { { .addr = 4096, .length = 100, .lkey = 7 }, { .addr = 8192, .length = 50, .lkey = 8 } };

static struct ibv_send_wr send_wr(uint64_t id, enum ibv_wr_opcode opcode)
{
	return (struct ibv_send_wr){ .wr_id = id, .opcode = opcode, .sg_list = sge, .num_sge = 1 };
}

static int post(struct ibv_qp *qp, struct ibv_send_wr wr)
{
	struct ibv_send_wr *bad = NULL;
	int error = qp_post_send(qp, &wr, &bad);
	assert_ptr_equal(bad, error == 0 ? NULL : &wr);
	return error;
}

static int post_recv(struct ibv_qp *qp, uint64_t id)
{
	struct ibv_recv_wr wr = { .wr_id = id, .sg_list = sge, .num_sge = 1 }, *bad = NULL;
	int error = qp_post_recv(qp, &wr, &bad);
	assert_ptr_equal(bad, error == 0 ? NULL : &wr);
	return error;
}

static struct ibv_qp *ready(struct rig *rig, enum ibv_qp_type type)
{
	struct ibv_qp *qp = rig_qp(rig, type);
	rig_bring(qp, IBV_QPS_RTS);
	return qp;
}

static const struct send_wqe *last(struct ibv_qp *qp)
{
	return send_queue_at(&qp_of(qp)->sq, qp_of(qp)->sq.tail - 1);
}

static void each_type_has_its_operations(void **state)
{
	struct rig *rig = *state;
	static const char rc[] = "xxxxxxxx-x", uc[] = "xxxx---x--", ud[] = "--xx------";
	static const struct {
		enum ibv_qp_type type;
		const char *allowed;
	} table[] = { { IBV_QPT_RC, rc }, { IBV_QPT_UC, uc }, { IBV_QPT_UD, ud } };
	struct ibv_ah_attr attr = rig_good_attr(0).ah_attr;
	struct ibv_ah *ah = ah_create(rig->pd, &attr);
	assert_non_null(ah);

	for (size_t t = 0; t < 3; t++) {
		for (unsigned op = 0; op < 20; op++) {
			struct ibv_qp *qp = ready(rig, table[t].type);
			struct ibv_send_wr wr = send_wr(op, (enum ibv_wr_opcode)op);
			if (table[t].type == IBV_QPT_UD)
				wr.wr.ud.ah = ah;
			/* A bind without a window is refused, so that it is no "x" here. */
			assert_int_equal(post(qp, wr), op < 10 && table[t].allowed[op] == 'x' ? 0 : EINVAL);
			assert_int_equal(qp_destroy(qp), 0);
		}
	}
	assert_int_equal(ah_destroy(ah), 0);
}

static void wrong_requests_are_refused(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	uint32_t inline_max = qp_of(qp)->cap.max_inline_data;
	struct ibv_send_wr wr;
#define REFUSED(op, set) \
	do { \
		wr = send_wr(1, op); \
		set; \
		assert_int_equal(post(qp, wr), EINVAL); \
	} while (0)
	REFUSED(IBV_WR_SEND, wr.num_sge = 3);
	REFUSED(IBV_WR_SEND, wr.num_sge = -1);
	REFUSED(IBV_WR_SEND, wr.send_flags = 1 << 20);
	REFUSED(IBV_WR_RDMA_READ, wr.send_flags = IBV_SEND_INLINE);
	struct ibv_sge big[2] = { { .addr = (uintptr_t)sge, .length = inline_max + 1 }, { .length = UINT32_MAX } };
	REFUSED(IBV_WR_SEND, (wr.send_flags = IBV_SEND_INLINE, wr.sg_list = big));
	big[0].length = MAX_MESSAGE;
	REFUSED(IBV_WR_SEND, (wr.sg_list = big, wr.num_sge = 2));
	big[0].length = 4;
	REFUSED(IBV_WR_ATOMIC_FETCH_AND_ADD, wr.sg_list = big);
	assert_int_equal(qp_of(qp)->sq.tail, 0);
	assert_int_equal(qp_destroy(qp), 0);

	qp = ready(rig, IBV_QPT_UD);
	REFUSED(IBV_WR_SEND, (void)0); /* without an address */
	struct ibv_ah_attr attr = rig_good_attr(0).ah_attr;
	struct ibv_ah *ah = ah_create(rig->pd, &attr);
	big[0].length = 2048;
	wr = send_wr(1, IBV_WR_SEND);
	wr.wr.ud.ah = ah;
	wr.sg_list = big;
	assert_int_equal(post(qp, wr), 0);
	big[0].length = 2049;
	assert_int_equal(post(qp, wr), EINVAL);
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(ah_destroy(ah), 0);
}

static void states_decide_what_may_be_posted(void **state)
{
	struct rig *rig = *state;
	for (int s = IBV_QPS_RESET; s <= IBV_QPS_ERR; s++) {
		struct ibv_qp *qp = rig_qp(rig, IBV_QPT_UC);
		rig_bring(qp, s);
		assert_int_equal(post(qp, send_wr(1, IBV_WR_SEND)), s < IBV_QPS_RTS ? EINVAL : 0);
		assert_int_equal(post_recv(qp, 2), s == IBV_QPS_RESET ? EINVAL : 0);
		if (s == IBV_QPS_SQE || s == IBV_QPS_ERR)
			assert_int_equal(rig_poll(rig->send_cq).status, IBV_WC_WR_FLUSH_ERR);
		if (s == IBV_QPS_ERR)
			assert_int_equal(rig_poll(rig->recv_cq).status, IBV_WC_WR_FLUSH_ERR);
		rig_no_completion(rig->send_cq);
		rig_no_completion(rig->recv_cq);
		assert_int_equal(qp_destroy(qp), 0);
	}
}

static void a_list_stops_at_the_bad_one(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	struct ibv_send_wr wr[6], *bad = NULL;
	for (int i = 0; i < 6; i++) {
		wr[i] = send_wr((uint64_t)i, IBV_WR_SEND);
		wr[i].next = i < 5 ? &wr[i + 1] : NULL;
	}
	wr[2].num_sge = 9;
	errno = 0; /* which some programs read, though it is returned */
	assert_int_equal(qp_post_send(qp, wr, &bad), EINVAL);
	assert_int_equal(errno, EINVAL);
	assert_ptr_equal(bad, &wr[2]);
	assert_int_equal(qp_of(qp)->sq.tail, 2);
	wr[2].num_sge = 1;
	assert_int_equal(qp_post_send(qp, &wr[2], &bad), ENOMEM);
	assert_ptr_equal(bad, &wr[4]);
	assert_int_equal(qp_of(qp)->sq.tail, 4);

	struct ibv_recv_wr recv[6], *bad_recv = NULL;
	for (int i = 0; i < 6; i++)
		recv[i] = (struct ibv_recv_wr){ .wr_id = (uint64_t)i, .next = i < 5 ? &recv[i + 1] : NULL };
	assert_int_equal(qp_post_recv(qp, recv, &bad_recv), ENOMEM);
	assert_int_equal(errno, ENOMEM);
	assert_ptr_equal(bad_recv, &recv[4]);
	assert_int_equal(qp_destroy(qp), 0);
}

static void inline_data_is_copied(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	char text[] = "hello", more[] = "world";
	struct ibv_sge parts[2] = { { .addr = (uintptr_t)text, .length = 5 }, { .addr = (uintptr_t)more, .length = 5 } };
	struct ibv_send_wr wr = send_wr(1, IBV_WR_SEND);
	wr.sg_list = parts;
	wr.num_sge = 2;
	wr.send_flags = IBV_SEND_INLINE;
	assert_int_equal(post(qp, wr), 0);
	memset(text, 0, sizeof text);
	assert_int_equal(last(qp)->length, 10);
	assert_true(last(qp)->inlined);
	assert_int_equal(last(qp)->sges, 0);
	assert_memory_equal(last(qp)->sge, "helloworld", 10);
	assert_int_equal(qp_destroy(qp), 0);
}

static void all_is_flushed_in_order(void **state)
{
	struct rig *rig = *state;
	static const struct {
		enum ibv_wr_opcode posted;
		enum ibv_wc_opcode completed;
	} ops[] = {
		{ IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE },
		{ IBV_WR_RDMA_READ, IBV_WC_RDMA_READ },
		{ IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WC_COMP_SWAP },
		{ IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD },
	};
	struct ibv_qp *ibqp = ready(rig, IBV_QPT_RC);
	struct qp *qp = qp_of(ibqp);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(post(ibqp, send_wr(i, ops[i].posted)), 0);
		assert_int_equal(post_recv(ibqp, 10 + i), 0);
	}
	assert_true(recv_queue_take(&qp->rq, qp->resp.receive)); /* a message has begun */
	qp->resp.has_receive = true;

	engine_enter(qp->device);
	qp_complete_send(qp, IBV_WC_RETRY_EXC_ERR);
	qp_fail(qp, IBV_EVENT_QP_FATAL);
	qp_fail(qp, IBV_EVENT_QP_FATAL);
	engine_leave(qp->device);
	for (uint64_t i = 0; i < 4; i++) {
		struct ibv_wc wc = rig_poll(rig->send_cq);
		assert_int_equal(wc.wr_id, i);
		assert_int_equal(wc.status, i == 0 ? IBV_WC_RETRY_EXC_ERR : IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(wc.opcode, ops[i].completed);
		assert_int_equal(wc.qp_num, ibqp->qp_num);
		wc = rig_poll(rig->recv_cq);
		assert_int_equal(wc.wr_id, 10 + i);
		assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(wc.opcode, IBV_WC_RECV);
	}
	rig_no_completion(rig->send_cq);
	rig_no_completion(rig->recv_cq);
	assert_int_equal(rig_events(rig, IBV_EVENT_QP_FATAL), 1);
	assert_int_equal(qp_destroy(ibqp), 0);
}

static void reset_forgets_without_a_word(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	assert_int_equal(post(qp, send_wr(1, IBV_WR_SEND)), 0);
	assert_int_equal(post_recv(qp, 2), 0);
	assert_int_equal(rig_modify(qp, IBV_QPS_ERR, IBV_QP_STATE), 0);
	assert_int_equal(rig_modify(qp, IBV_QPS_RESET, IBV_QP_STATE), 0);
	rig_no_completion(rig->send_cq);
	rig_no_completion(rig->recv_cq);
	rig_bring(qp, IBV_QPS_RTS);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(post(qp, send_wr(i, IBV_WR_SEND)), 0);
		assert_int_equal(post_recv(qp, i), 0);
	}
	assert_int_equal(qp_destroy(qp), 0);
	rig_no_completion(rig->send_cq);
}

static void only_signaled_ones_complete(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *ibqp = ready(rig, IBV_QPT_RC);
	struct qp *qp = qp_of(ibqp);
	struct ibv_send_wr signaled = send_wr(2, IBV_WR_SEND);
	signaled.send_flags = IBV_SEND_SIGNALED;
	assert_int_equal(post(ibqp, send_wr(1, IBV_WR_SEND)), 0);
	assert_int_equal(post(ibqp, signaled), 0);
	engine_enter(qp->device);
	qp_complete_send(qp, IBV_WC_SUCCESS);
	qp_complete_send(qp, IBV_WC_SUCCESS);
	qp->sq.next = qp->sq.tail;
	engine_leave(qp->device);
	struct ibv_wc wc = rig_poll(rig->send_cq);
	assert_int_equal(wc.wr_id, 2);
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.byte_len, 100);
	rig_no_completion(rig->send_cq);
	assert_int_equal(qp_destroy(ibqp), 0);
}

static void a_type_1_bind_gives_a_new_key_of_the_same_window(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	struct ibv_mw *mw = mw_alloc(rig->pd, IBV_MW_TYPE_1), *second = mw_alloc(rig->pd, IBV_MW_TYPE_2);
	struct ibv_mw_bind bind = { .wr_id = 5 };
	uint32_t before = mw->rkey;
	errno = 0;
	assert_int_equal(qp_bind_mw(qp, second, &bind), EINVAL);
	assert_int_equal(errno, EINVAL);
	bind.bind_info.length = 1; /* of no region */
	assert_int_equal(qp_bind_mw(qp, mw, &bind), EINVAL);
	assert_int_equal(mw->rkey, before);
	bind.bind_info.length = 0;
	assert_int_equal(qp_bind_mw(qp, mw, &bind), 0);
	assert_int_not_equal(mw->rkey, before);
	assert_int_equal(mw->rkey >> 8, before >> 8);
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(mw_dealloc(mw), 0);
	assert_int_equal(mw_dealloc(second), 0);
}

static void windows_end_with_their_queue_pair(void **state)
{
	struct rig *rig = *state;
	static uint8_t memory[64];
	struct ibv_qp *qp = ready(rig, IBV_QPT_RC);
	struct ibv_mr *mr = mr_reg(rig->pd, memory, sizeof memory, (uintptr_t)memory,
				   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	struct ibv_mw *mw = mw_alloc(rig->pd, IBV_MW_TYPE_2);
	struct ibv_send_wr wr = send_wr(1, IBV_WR_BIND_MW);
	wr.bind_mw.mw = mw;
	/* Devices take the lower 8 bits and look at no others. */
	uint32_t key = (mw->rkey & ~0xffu) | ((mw->rkey + 1) & 0xff);
	wr.bind_mw.rkey = ~mw->rkey << 8 | (key & 0xff);
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
		.mr = mr, .addr = (uintptr_t)memory, .length = 8, .mw_access_flags = IBV_ACCESS_REMOTE_READ };
	assert_int_equal(post(qp, wr), 0);
	engine_enter(&rig->bare.device);
	requester_pump(qp_of(qp), 1); /* which a link that is not ready does not come to */
	engine_leave(&rig->bare.device);
	assert_ptr_equal(memory_remote(qp_of(qp)->pd, qp->qp_num, key, (uintptr_t)memory, 8, IBV_ACCESS_REMOTE_READ), memory);
	assert_int_equal(mr_dereg(mr), EBUSY);
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(mw_dealloc(mw), 0);
}

/* ---- the builder ---- */

static struct ibv_qp_ex *builder(struct rig *rig, enum ibv_qp_type type, uint64_t ops)
{
	struct ibv_qp_init_attr_ex attr = {
		.send_cq = rig->send_cq,
		.recv_cq = rig->recv_cq,
		.cap = { .max_send_wr = 4, .max_send_sge = 2, .max_inline_data = 32 },
		.qp_type = type,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = rig->pd,
		.send_ops_flags = ops,
	};
	struct ibv_qp *qp = qp_create_ex(&rig->bare.context.verbs.context, &attr);
	assert_non_null(qp);
	rig_bring(qp, IBV_QPS_RTS);
	return &qp_of(qp)->ibv;
}

static void what_is_built_is_posted_together(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_ex *ex = builder(rig, IBV_QPT_RC, IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE);
	struct qp *qp = qp_of(&ex->qp_base);

	ibv_wr_start(ex);
	ex->wr_id = 1;
	ex->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send(ex);
	ibv_wr_set_inline_data(ex, (char[]){ "abc" }, 3);
	ex->wr_id = 2;
	ex->wr_flags = 0;
	ibv_wr_rdma_write(ex, 0x77, 0x1000);
	ibv_wr_set_sge_list(ex, 2, sge);
	assert_int_equal(qp->sq.tail, 0);
	assert_int_equal(ibv_wr_complete(ex), 0);
	assert_int_equal(qp->sq.tail, 2);
	assert_memory_equal(send_queue_at(&qp->sq, 0)->sge, "abc", 3);
	assert_int_equal(send_queue_at(&qp->sq, 0)->flags, IBV_SEND_SIGNALED);
	assert_int_equal(last(&ex->qp_base)->length, 150);
	assert_int_equal(last(&ex->qp_base)->rkey, 0x77);
	assert_int_equal(qp_destroy(&ex->qp_base), 0);
}

static void an_error_posts_nothing(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_ex *ex = builder(rig, IBV_QPT_RC, IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ |
							 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD);
	struct qp *qp = qp_of(&ex->qp_base);

	ibv_wr_start(ex);
	ibv_wr_set_sge(ex, 1, 2, 3); /* of nothing */
	errno = 0;
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	assert_int_equal(errno, EINVAL);
	ibv_wr_start(ex);
	ibv_wr_send(ex);
	ibv_wr_rdma_write(ex, 1, 2); /* was not asked for */
	ibv_wr_send(ex);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	ibv_wr_start(ex);
	ibv_wr_rdma_read(ex, 1, 2);
	ibv_wr_set_inline_data(ex, sge, 4);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	ibv_wr_start(ex);
	ibv_wr_atomic_fetch_add(ex, 1, 8, 2); /* without a place for the answer */
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	ibv_wr_start(ex);
	for (int i = 0; i < 5; i++)
		ibv_wr_send(ex);
	assert_int_equal(ibv_wr_complete(ex), ENOMEM);
	ibv_wr_start(ex);
	ibv_wr_send(ex);
	ibv_wr_abort(ex);
	assert_int_equal(qp->sq.tail, 0);

	assert_int_equal(rig_modify(&ex->qp_base, IBV_QPS_RESET, IBV_QP_STATE), 0);
	ibv_wr_start(ex);
	ibv_wr_send(ex);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	assert_int_equal(qp->sq.tail, 0);
	assert_int_equal(qp_destroy(&ex->qp_base), 0);
}

static void a_datagram_needs_an_address(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_ex *ex = builder(rig, IBV_QPT_UD, IBV_QP_EX_WITH_SEND);
	struct ibv_ah_attr attr = rig_good_attr(0).ah_attr;
	struct ibv_ah *ah = ah_create(rig->pd, &attr);

	ibv_wr_start(ex);
	ibv_wr_send(ex);
	ibv_wr_send(ex);
	ibv_wr_set_ud_addr(ex, ah, 5, 6);
	assert_int_equal(ibv_wr_complete(ex), EINVAL);
	ibv_wr_start(ex);
	ibv_wr_send(ex);
	ibv_wr_set_ud_addr(ex, ah, 5, 6);
	assert_int_equal(ibv_wr_complete(ex), 0);
	assert_int_equal(last(&ex->qp_base)->remote_qpn, 5);
	assert_int_equal(qp_destroy(&ex->qp_base), 0);
	assert_int_equal(ah_destroy(ah), 0);
}

/* ---- address handles ---- */

static void the_sender_of_a_datagram_is_found_in_its_header(void **state)
{
	struct rig *rig = *state;
	struct ibv_context *context = &rig->bare.context.verbs.context;
	struct ibv_wc wc = { .wc_flags = IBV_WC_GRH };
	struct ibv_ah_attr attr;
	uint8_t grh[40] = { 0 };
	const uint8_t v4[20] = { 0x45, 0x24, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
	memcpy(grh + 20, v4, 20);
	assert_int_equal(ah_init_from_wc(context, 1, &wc, (struct ibv_grh *)(void *)grh, &attr), 0);
	assert_true(gid_is_v4(&attr.grh.dgid));
	assert_memory_equal(attr.grh.dgid.raw + 12, v4 + 12, 4);
	assert_int_equal(attr.grh.traffic_class, 0x24);

	/* IPv6, with an address that begins like an IPv4 header. */
	memset(grh, 0, sizeof grh);
	grh[0] = 0x61;
	grh[1] = 0x23;
	grh[8] = 0xfd;
	grh[23] = 1;
	grh[20] = 0x45;
	assert_int_equal(ah_init_from_wc(context, 1, &wc, (struct ibv_grh *)(void *)grh, &attr), 0);
	assert_int_equal(attr.grh.dgid.raw[0], 0xfd);
	assert_int_equal(attr.grh.traffic_class, 0x12);
	assert_int_equal(attr.grh.flow_label, 0x30000);

	memset(grh, 0, sizeof grh);
	assert_int_equal(ah_init_from_wc(context, 1, &wc, (struct ibv_grh *)(void *)grh, &attr), EINVAL);
	wc.wc_flags = 0;
	assert_null(ah_create_from_wc(rig->pd, &wc, (struct ibv_grh *)(void *)grh, 1));
	assert_int_equal(errno, EINVAL);
	attr = (struct ibv_ah_attr){ .port_num = 1 };
	assert_null(ah_create(rig->pd, &attr));
	assert_int_equal(errno, EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
		T(each_type_has_its_operations),
		T(wrong_requests_are_refused),
		T(states_decide_what_may_be_posted),
		T(a_list_stops_at_the_bad_one),
		T(inline_data_is_copied),
		T(all_is_flushed_in_order),
		T(reset_forgets_without_a_word),
		T(only_signaled_ones_complete),
		T(a_type_1_bind_gives_a_new_key_of_the_same_window),
		T(windows_end_with_their_queue_pair),
		T(what_is_built_is_posted_together),
		T(an_error_posts_nothing),
		T(a_datagram_needs_an_address),
		T(the_sender_of_a_datagram_is_found_in_its_header),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
