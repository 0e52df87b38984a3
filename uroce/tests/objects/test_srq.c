/* SPDX-License-Identifier: Apache-2.0 */
/* Shared receive queues. */
#include "qp_rig.h"

static struct ibv_srq *make(struct rig *rig, uint32_t max_wr, uint32_t max_sge)
{
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = max_wr, .max_sge = max_sge } };
	struct ibv_srq *srq = srq_create(rig->pd, &attr);
	assert_non_null(srq);
	assert_true(attr.attr.max_wr >= max_wr);
	return srq;
}

static int post(struct ibv_srq *srq, uint64_t id, int sges)
{
	struct ibv_sge sge[4] = { { .addr = id, .length = 10, .lkey = 1 }, { .addr = id, .length = 20, .lkey = 2 } };
	struct ibv_recv_wr wr = { .wr_id = id, .sg_list = sge, .num_sge = sges }, *bad = NULL;
	int error = srq_post_recv(srq, &wr, &bad);
	assert_ptr_equal(bad, error == 0 ? NULL : &wr);
	return error;
}

static struct ibv_qp *qp_with(struct rig *rig, struct ibv_srq *srq)
{
	struct ibv_qp_init_attr attr = rig_init_attr(rig, IBV_QPT_RC);
	attr.srq = srq;
	attr.cap.max_recv_wr = UINT32_MAX; /* means nothing with a shared queue */
	struct ibv_qp *qp = qp_create(rig->pd, &attr);
	assert_non_null(qp);
	return qp;
}

static void receives_are_taken_in_order_and_bounded(void **state)
{
	struct rig *rig = *state;
	struct ibv_srq *srq = make(rig, 4, 2);
	struct ibv_qp *qp = qp_with(rig, srq);
	struct recv_taken taken;

	assert_int_equal(post(srq, 9, 3), EINVAL);
	assert_int_equal(post(srq, 9, -1), EINVAL);
	for (uint64_t id = 0; id < 4; id++)
		assert_int_equal(post(srq, id, 2), 0);
	assert_int_equal(post(srq, 9, 1), ENOMEM);
	for (uint64_t id = 0; id < 4; id++) {
		assert_true(recv_queue_take(qp_recv_queue(qp_of(qp)), &taken));
		assert_int_equal(taken.wr_id, id);
		assert_int_equal(taken.length, 30);
		assert_int_equal(taken.sges, 2);
		assert_int_equal(taken.sge[1].lkey, 2);
	}
	assert_false(recv_queue_take(qp_recv_queue(qp_of(qp)), &taken));
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(srq_destroy(srq), 0);
}

static void a_limit_is_told_once(void **state)
{
	struct rig *rig = *state;
	struct ibv_srq *srq = make(rig, 8, 1);
	struct ibv_qp *qp = qp_with(rig, srq);
	struct ibv_srq_attr attr = { .srq_limit = 3 };
	struct recv_taken taken;

	for (uint64_t id = 0; id < 5; id++)
		assert_int_equal(post(srq, id, 1), 0);
	assert_int_equal(srq_modify(srq, &attr, IBV_SRQ_LIMIT), 0);
	recv_queue_take(qp_recv_queue(qp_of(qp)), &taken);
	recv_queue_take(qp_recv_queue(qp_of(qp)), &taken);
	assert_int_equal(rig_events(rig, IBV_EVENT_SRQ_LIMIT_REACHED), 0);
	recv_queue_take(qp_recv_queue(qp_of(qp)), &taken);
	assert_int_equal(rig_events(rig, IBV_EVENT_SRQ_LIMIT_REACHED), 1);
	recv_queue_take(qp_recv_queue(qp_of(qp)), &taken);
	assert_int_equal(rig_events(rig, IBV_EVENT_SRQ_LIMIT_REACHED), 1);
	assert_int_equal(srq_query(srq, &attr), 0);
	assert_int_equal(attr.srq_limit, 0);
	assert_int_equal(attr.max_wr, 8);
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(srq_destroy(srq), 0);
	assert_null(rig->bare.context.event_head);
}

static void resizing_keeps_what_is_posted(void **state)
{
	struct rig *rig = *state;
	struct ibv_srq *srq = make(rig, 4, 2);
	struct ibv_qp *qp = qp_with(rig, srq);
	struct ibv_srq_attr attr = { .max_wr = 2 };
	struct recv_taken taken;

	post(srq, 100, 1);
	recv_queue_take(qp_recv_queue(qp_of(qp)), &taken);
	for (uint64_t id = 0; id < 4; id++) /* they wrap around */
		assert_int_equal(post(srq, id, 2), 0);
	assert_int_equal(srq_modify(srq, &attr, IBV_SRQ_MAX_WR), EINVAL);
	attr.max_wr = 16;
	attr.srq_limit = 17;
	assert_int_equal(srq_modify(srq, &attr, IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT), EINVAL);
	assert_int_equal(srq_query(srq, &attr), 0);
	assert_int_equal(attr.max_wr, 4);
	attr.max_wr = 16;
	assert_int_equal(srq_modify(srq, &attr, IBV_SRQ_MAX_WR), 0);
	for (uint64_t id = 4; id < 16; id++)
		assert_int_equal(post(srq, id, 2), 0);
	assert_int_equal(post(srq, 16, 1), ENOMEM);
	for (uint64_t id = 0; id < 16; id++) {
		assert_true(recv_queue_take(qp_recv_queue(qp_of(qp)), &taken));
		assert_int_equal(taken.wr_id, id);
	}
	assert_int_equal(srq_modify(srq, &attr, 1 << 5), EINVAL);
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(srq_destroy(srq), 0);
}

static void a_failing_queue_pair_leaves_it_alone(void **state)
{
	struct rig *rig = *state;
	struct ibv_srq *srq = make(rig, 4, 1);
	struct ibv_qp *ibqp = qp_with(rig, srq);
	struct qp *qp = qp_of(ibqp);
	struct recv_taken taken;

	assert_int_equal(srq_destroy(srq), EBUSY);
	rig_bring(ibqp, IBV_QPS_RTS);
	post(srq, 1, 1);
	post(srq, 2, 1);
	/* A message has begun. */
	assert_true(recv_queue_take(qp_recv_queue(qp), qp->resp.receive));
	qp->resp.has_receive = true;
	assert_int_equal(rig_modify(ibqp, IBV_QPS_ERR, IBV_QP_STATE), 0);
	struct ibv_wc wc = rig_poll(rig->recv_cq);
	assert_int_equal(wc.wr_id, 1);
	assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
	rig_no_completion(rig->recv_cq);
	assert_int_equal(rig_events(rig, IBV_EVENT_QP_LAST_WQE_REACHED), 1);
	assert_true(recv_queue_take(qp_recv_queue(qp), &taken));
	assert_int_equal(taken.wr_id, 2);

	struct ibv_recv_wr wr = { .wr_id = 7 }, *bad = NULL;
	assert_int_equal(qp_post_recv(ibqp, &wr, &bad), EINVAL);
	assert_ptr_equal(bad, &wr);
	assert_int_equal(qp_destroy(ibqp), 0);
	assert_int_equal(srq_destroy(srq), 0);
}

/* One event, from whatever state it fails, and another one only after it has been reset. */
static void the_last_receive_is_told_once(void **state)
{
	static const enum ibv_qp_state from[] = {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS};
	struct rig *rig = *state;
	struct ibv_srq *srq = make(rig, 4, 1);
	struct ibv_qp *qp = qp_with(rig, srq);

	for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
		rig_bring(qp, from[i]);
		assert_int_equal(rig_modify(qp, IBV_QPS_ERR, IBV_QP_STATE), 0);
		assert_int_equal(rig_modify(qp, IBV_QPS_ERR, IBV_QP_STATE), 0);
		assert_int_equal(rig_events(rig, IBV_EVENT_QP_LAST_WQE_REACHED), i + 1); /* none is taken */
		assert_int_equal(rig_modify(qp, IBV_QPS_RESET, IBV_QP_STATE), 0);
	}
	assert_int_equal(qp_destroy(qp), 0);
	assert_int_equal(srq_destroy(srq), 0);
}

static void creation_checks(void **state)
{
	struct rig *rig = *state;
	struct ibv_context *context = &rig->bare.context.verbs.context;
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = MAX_SRQ_WR + 1, .max_sge = 1 } };
	assert_null(srq_create(rig->pd, &attr));
	attr.attr = (struct ibv_srq_attr){ .max_wr = 1, .max_sge = MAX_SGE + 1 };
	assert_null(srq_create(rig->pd, &attr));
	assert_int_equal(errno, EINVAL);

	struct ibv_srq_init_attr_ex ex = {
		.attr = { .max_wr = 1, .max_sge = 1 },
		.comp_mask = IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_TYPE,
		.srq_type = IBV_SRQT_XRC,
		.pd = rig->pd,
	};
	assert_null(srq_create_ex(context, &ex));
	assert_int_equal(errno, EOPNOTSUPP);
	ex.srq_type = IBV_SRQT_BASIC;
	struct ibv_srq *srq = srq_create_ex(context, &ex);
	assert_non_null(srq);
	assert_int_equal(srq_destroy(srq), 0);

	struct ibv_qp_init_attr qp = rig_init_attr(rig, IBV_QPT_UC);
	srq = make(rig, 1, 1);
	qp.srq = srq;
	assert_null(qp_create(rig->pd, &qp));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(srq_destroy(srq), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
		T(receives_are_taken_in_order_and_bounded),
		T(a_limit_is_told_once),
		T(resizing_keeps_what_is_posted),
		T(a_failing_queue_pair_leaves_it_alone),
		T(the_last_receive_is_told_once),
		T(creation_checks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
