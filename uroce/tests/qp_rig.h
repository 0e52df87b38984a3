/* SPDX-License-Identifier: Apache-2.0 */
/* A device without a wire, for tests of what queue pairs do by themselves: nothing that they send ever leaves. */
#ifndef UROCE_TEST_QP_RIG_H
#define UROCE_TEST_QP_RIG_H

#include "check.h"

#include "device.h"
#include "engine.h"
#include "qp_state.h"
#include "verbs.h"

struct rig {
	struct bare bare;
	struct ibv_pd *pd;
	struct ibv_cq *send_cq;
	struct ibv_cq *recv_cq;
};

static inline int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof *rig);
	assert_non_null(rig);
	bare_open(&rig->bare);
	rig->bare.device.mtu = IBV_MTU_2048;
	rig->pd = pd_alloc(&rig->bare.context.verbs.context);
	rig->send_cq = cq_create(&rig->bare.context.verbs.context, 100, NULL, NULL, 0);
	rig->recv_cq = cq_create(&rig->bare.context.verbs.context, 100, NULL, NULL, 0);
	assert_non_null(rig->pd);
	assert_non_null(rig->send_cq);
	assert_non_null(rig->recv_cq);
	*state = rig;
	return 0;
}

static inline int rig_teardown(void **state)
{
	struct rig *rig = *state;
	assert_int_equal(cq_destroy(rig->recv_cq), 0);
	assert_int_equal(cq_destroy(rig->send_cq), 0);
	assert_int_equal(pd_dealloc(rig->pd), 0);
	assert_int_equal(rig->bare.context.objects, 0);
	assert_int_equal(rig->bare.counters.objects.qp, 0);
	assert_int_equal(rig->bare.counters.objects.srq, 0);
	assert_int_equal(rig->bare.device.qps.count, 0);
	assert_null(rig->bare.device.active_head);
	test_device_close(&rig->bare.device, &rig->bare.context);
	free(rig);
	return 0;
}

static inline struct ibv_qp_init_attr rig_init_attr(struct rig *rig, enum ibv_qp_type type)
{
	return (struct ibv_qp_init_attr){
		.send_cq = rig->send_cq,
		.recv_cq = rig->recv_cq,
		.cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 2, .max_recv_sge = 2, .max_inline_data = 64 },
		.qp_type = type,
	};
}

static inline struct ibv_qp *rig_qp(struct rig *rig, enum ibv_qp_type type)
{
	struct ibv_qp_init_attr attr = rig_init_attr(rig, type);
	struct ibv_qp *qp = qp_create(rig->pd, &attr);
	assert_non_null(qp);
	return qp;
}

/* Every attribute with a value that is right. */
static inline struct ibv_qp_attr rig_good_attr(enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {
		.qp_state = state,
		.path_mtu = IBV_MTU_1024,
		.path_mig_state = IBV_MIG_MIGRATED,
		.qkey = 0x11111111,
		.rq_psn = 0x345678,
		.sq_psn = 0x123456,
		.dest_qp_num = 0xabcde,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
		.ah_attr = { .is_global = 1, .port_num = 1, .grh = { .hop_limit = 64, .traffic_class = 8 } },
		.en_sqd_async_notify = 1,
		.max_rd_atomic = 4,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 12,
		.port_num = 1,
		.timeout = 14,
		.retry_cnt = 7,
		.rnr_retry = 6,
	};
	attr.ah_attr.grh.dgid.raw[15] = 1;
	return attr;
}

static const int rig_to_init[] = {
	[IBV_QPT_RC] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
	[IBV_QPT_UC] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
	[IBV_QPT_UD] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY,
};
static const int rig_to_rtr[] = {
	[IBV_QPT_RC] = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
	[IBV_QPT_UC] = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
	[IBV_QPT_UD] = IBV_QP_STATE,
};
static const int rig_to_rts[] = {
	[IBV_QPT_RC] = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		       IBV_QP_MAX_QP_RD_ATOMIC,
	[IBV_QPT_UC] = IBV_QP_STATE | IBV_QP_SQ_PSN,
	[IBV_QPT_UD] = IBV_QP_STATE | IBV_QP_SQ_PSN,
};

static inline int rig_modify(struct ibv_qp *qp, enum ibv_qp_state state, int mask)
{
	struct ibv_qp_attr attr = rig_good_attr(state);
	attr.cur_qp_state = qp_of(qp)->state;
	return qp_modify(qp, &attr, mask);
}

/* Brings a queue pair in RESET to a state, by the usual way. */
static inline void rig_bring(struct ibv_qp *qp, enum ibv_qp_state state)
{
	if (state == IBV_QPS_RESET)
		return;
	assert_int_equal(rig_modify(qp, IBV_QPS_INIT, rig_to_init[qp->qp_type]), 0);
	if (state == IBV_QPS_ERR)
		assert_int_equal(rig_modify(qp, IBV_QPS_ERR, IBV_QP_STATE), 0);
	if (state == IBV_QPS_INIT || state == IBV_QPS_ERR)
		return;
	assert_int_equal(rig_modify(qp, IBV_QPS_RTR, rig_to_rtr[qp->qp_type]), 0);
	if (state == IBV_QPS_RTR)
		return;
	assert_int_equal(rig_modify(qp, IBV_QPS_RTS, rig_to_rts[qp->qp_type]), 0);
	if (state == IBV_QPS_SQD)
		assert_int_equal(rig_modify(qp, IBV_QPS_SQD, IBV_QP_STATE), 0);
	if (state == IBV_QPS_SQE) {
		engine_enter(qp_of(qp)->device);
		qp_fail_send(qp_of(qp));
		engine_leave(qp_of(qp)->device);
	}
}

/* One completion, which must be there; all others stay. */
static inline struct ibv_wc rig_poll(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(cq, 1, &wc), 1);
	return wc;
}

static inline void rig_no_completion(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(cq, 1, &wc), 0);
}

/* How many events of a type wait. */
static inline unsigned rig_events(struct rig *rig, enum ibv_event_type type)
{
	unsigned count = 0;
	for (struct async_event *event = rig->bare.context.event_head; event; event = event->next)
		count += event->event.event_type == type;
	return count;
}

#endif
