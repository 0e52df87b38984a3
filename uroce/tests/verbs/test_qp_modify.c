/* SPDX-License-Identifier: Apache-2.0 */
/* Transitions of queue pairs: each with all it needs, without each of it, and with each attribute too many. */
#include "qp_rig.h"

static const enum ibv_qp_type types[] = { IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD };
enum { TYPES = 3, STATES = IBV_QPS_ERR + 1, ATTRIBUTES = 26 };

/* The specification's table once more, in another form: letters for the attributes that must (capital) and may be set. */
static const struct {
	const char letter;
	int bit;
} alphabet[] = {
	{ 'c', IBV_QP_CUR_STATE }, { 'n', IBV_QP_EN_SQD_ASYNC_NOTIFY }, { 'a', IBV_QP_ACCESS_FLAGS },
	{ 'k', IBV_QP_PKEY_INDEX }, { 'p', IBV_QP_PORT }, { 'q', IBV_QP_QKEY }, { 'v', IBV_QP_AV },
	{ 'm', IBV_QP_PATH_MTU }, { 't', IBV_QP_TIMEOUT }, { 'r', IBV_QP_RETRY_CNT }, { 'w', IBV_QP_RNR_RETRY },
	{ 'i', IBV_QP_RQ_PSN }, { 'x', IBV_QP_MAX_QP_RD_ATOMIC }, { 'h', IBV_QP_MIN_RNR_TIMER },
	{ 's', IBV_QP_SQ_PSN }, { 'y', IBV_QP_MAX_DEST_RD_ATOMIC }, { 'g', IBV_QP_PATH_MIG_STATE },
	{ 'd', IBV_QP_DEST_QPN },
};

static const struct {
	enum ibv_qp_state from, to;
	const char *of[TYPES]; /* RC, UC, UD; NULL: no such transition */
} table[] = {
	{ IBV_QPS_RESET, IBV_QPS_INIT, { "KPA", "KPA", "KPQ" } },
	{ IBV_QPS_INIT, IBV_QPS_INIT, { "kpa", "kpa", "kpq" } },
	{ IBV_QPS_INIT, IBV_QPS_RTR, { "VMDIYHak", "VMDIak", "kq" } },
	{ IBV_QPS_RTR, IBV_QPS_RTS, { "TRWSXcgah", "Scga", "Scq" } },
	{ IBV_QPS_RTS, IBV_QPS_RTS, { "cgah", "cga", "cq" } },
	{ IBV_QPS_RTS, IBV_QPS_SQD, { "n", "n", "n" } },
	{ IBV_QPS_SQD, IBV_QPS_RTS, { "cgah", "cga", "cq" } },
	{ IBV_QPS_SQD, IBV_QPS_SQD, { "pvtrwxygakh", "vgak", "kq" } },
	{ IBV_QPS_SQE, IBV_QPS_RTS, { NULL, "ca", "cq" } },
};

static bool lookup(unsigned type, enum ibv_qp_state from, enum ibv_qp_state to, int *required, int *optional)
{
	*required = *optional = 0;
	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return true;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		if (table[i].from != from || table[i].to != to || !table[i].of[type])
			continue;
		for (size_t a = 0; a < sizeof alphabet / sizeof alphabet[0]; a++) {
			if (strchr(table[i].of[type], alphabet[a].letter - 'a' + 'A'))
				*required |= alphabet[a].bit;
			if (strchr(table[i].of[type], alphabet[a].letter))
				*optional |= alphabet[a].bit;
		}
		return true;
	}
	return false;
}

static void try(struct rig *rig, unsigned type, enum ibv_qp_state from, enum ibv_qp_state to, int mask, bool works)
{
	struct ibv_qp *qp = rig_qp(rig, types[type]);
	rig_bring(qp, from);
	int ret = rig_modify(qp, to, mask | IBV_QP_STATE);
	if ((ret == 0) != works)
		fail_msg("type %u, %d to %d, mask %#x: %d", type, from, to, (unsigned)mask, ret);
	assert_int_equal(qp_of(qp)->state, works ? to : from);
	if (works)
		assert_int_equal(qp->state, to);
	assert_int_equal(qp_destroy(qp), 0);
}

static void transitions_need_their_attributes_and_take_no_others(void **state)
{
	struct rig *rig = *state;
	for (unsigned type = 0; type < TYPES; type++) {
		for (int from = 0; from < STATES; from++) {
			for (int to = 0; to < STATES; to++) {
				int required, optional;
				if (from == IBV_QPS_SQE && types[type] == IBV_QPT_RC)
					continue; /* it can't be there */
				bool valid = lookup(type, from, to, &required, &optional);
				try(rig, type, from, to, required, valid);
				try(rig, type, from, to, required | optional, valid);
				for (int bit = 1; bit < ATTRIBUTES; bit++) {
					int mask = 1 << bit;
					if (required & mask)
						try(rig, type, from, to, required & ~mask, false);
					else
						try(rig, type, from, to, required | mask, valid && (optional & mask));
				}
			}
		}
	}
}

static void refuses(struct rig *rig, enum ibv_qp_state from, int mask, const struct ibv_qp_attr *attr, int error)
{
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_RC);
	struct ibv_qp_attr copy = *attr;
	rig_bring(qp, from);
	struct ibv_qp_attr before = qp_of(qp)->attr;
	assert_int_equal(qp_modify(qp, &copy, mask), error);
	assert_int_equal(qp_of(qp)->state, from);
	assert_memory_equal(&before, &qp_of(qp)->attr, sizeof before);
	assert_int_equal(qp_destroy(qp), 0);
}

#define REFUSES(from, to, mask, field, value, error) \
	do { \
		struct ibv_qp_attr attr_ = rig_good_attr(to); \
		attr_.field = (value); \
		refuses(rig, from, mask, &attr_, error); \
	} while (0)

static void values_out_of_range_change_nothing(void **state)
{
	struct rig *rig = *state;
	int init = rig_to_init[IBV_QPT_RC], rtr = rig_to_rtr[IBV_QPT_RC], rts = rig_to_rts[IBV_QPT_RC];

	REFUSES(IBV_QPS_RESET, IBV_QPS_INIT, init, port_num, 2, EINVAL);
	REFUSES(IBV_QPS_RESET, IBV_QPS_INIT, init, port_num, 0, EINVAL);
	REFUSES(IBV_QPS_RESET, IBV_QPS_INIT, init, pkey_index, 1, EINVAL);
	REFUSES(IBV_QPS_RESET, IBV_QPS_INIT, init, qp_access_flags, 1 << 12, EINVAL);
	REFUSES(IBV_QPS_RESET, (enum ibv_qp_state)7, init, port_num, 1, EINVAL);
	REFUSES(IBV_QPS_RESET, (enum ibv_qp_state)-1, init, port_num, 1, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, path_mtu, IBV_MTU_4096, EINVAL); /* the device has 2048 */
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, path_mtu, 0, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, dest_qp_num, 1 << 24, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, min_rnr_timer, 32, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, max_dest_rd_atomic, MAX_RD_ATOMIC + 1, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, ah_attr.is_global, 0, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr, ah_attr.port_num, 2, EINVAL);
	REFUSES(IBV_QPS_INIT, IBV_QPS_RTR, rtr | IBV_QP_ALT_PATH, alt_port_num, 1, EOPNOTSUPP);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts, timeout, 32, EINVAL);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts, retry_cnt, 8, EINVAL);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts, rnr_retry, 8, EINVAL);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts, max_rd_atomic, MAX_RD_ATOMIC + 1, EINVAL);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts | IBV_QP_CUR_STATE, cur_qp_state, IBV_QPS_SQD, EINVAL);
	REFUSES(IBV_QPS_RTR, IBV_QPS_RTS, rts | IBV_QP_PATH_MIG_STATE, path_mig_state, IBV_MIG_REARM, EOPNOTSUPP);
}

static void flags_of_regions_are_taken_by_a_queue_pair(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_RC);
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr = rig_good_attr(IBV_QPS_INIT);
	attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND | 1 << 8 | 1 << 9;
	assert_int_equal(qp_modify(qp, &attr, rig_to_init[IBV_QPT_RC]), 0);
	assert_int_equal(qp_query(qp, &attr, IBV_QP_ACCESS_FLAGS, &init), 0);
	assert_int_equal(attr.qp_access_flags, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND | 1 << 8 | 1 << 9);
	assert_int_equal(qp_destroy(qp), 0);
}

static void psns_are_cut_to_24_bits(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_RC);
	struct ibv_qp_init_attr init;
	rig_bring(qp, IBV_QPS_INIT);
	struct ibv_qp_attr attr = rig_good_attr(IBV_QPS_RTR);
	attr.rq_psn = 0xff000005;
	assert_int_equal(qp_modify(qp, &attr, rig_to_rtr[IBV_QPT_RC]), 0);
	attr.qp_state = IBV_QPS_RTS;
	attr.sq_psn = 0xff000006;
	assert_int_equal(qp_modify(qp, &attr, rig_to_rts[IBV_QPT_RC]), 0);
	assert_int_equal(qp_query(qp, &attr, IBV_QP_SQ_PSN, &init), 0);
	assert_int_equal(attr.rq_psn, 5);
	assert_int_equal(attr.sq_psn, 6);
	assert_int_equal(qp_destroy(qp), 0);
}

static void query_tells_what_was_set(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_attr good = rig_good_attr(IBV_QPS_RTS), attr;
	struct ibv_qp_init_attr init;
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_RC);
	rig_bring(qp, IBV_QPS_RTS);
	assert_int_equal(qp_query(qp, &attr, IBV_QP_STATE, &init), 0);
	assert_int_equal(attr.qp_state, IBV_QPS_RTS);
	assert_int_equal(attr.cur_qp_state, IBV_QPS_RTS);
	assert_int_equal(attr.path_mtu, good.path_mtu);
	assert_int_equal(attr.rq_psn, good.rq_psn);
	assert_int_equal(attr.sq_psn, good.sq_psn);
	assert_int_equal(attr.dest_qp_num, good.dest_qp_num);
	assert_int_equal(attr.qp_access_flags, good.qp_access_flags);
	assert_int_equal(attr.timeout, good.timeout);
	assert_int_equal(attr.retry_cnt, good.retry_cnt);
	assert_int_equal(attr.rnr_retry, good.rnr_retry);
	assert_int_equal(attr.min_rnr_timer, good.min_rnr_timer);
	assert_int_equal(attr.max_rd_atomic, good.max_rd_atomic);
	assert_int_equal(attr.max_dest_rd_atomic, good.max_dest_rd_atomic);
	assert_memory_equal(&attr.ah_attr, &good.ah_attr, sizeof good.ah_attr);
	assert_false(attr.sq_draining);
	assert_int_equal(init.cap.max_send_wr, 4);
	assert_true(init.cap.max_inline_data >= 64);
	assert_ptr_equal(init.send_cq, rig->send_cq);
	assert_int_equal(init.qp_type, IBV_QPT_RC);

	assert_int_equal(rig_modify(qp, IBV_QPS_RESET, IBV_QP_STATE), 0);
	assert_int_equal(qp_query(qp, &attr, IBV_QP_STATE, &init), 0);
	assert_int_equal(attr.qp_state, IBV_QPS_RESET);
	assert_int_equal(attr.dest_qp_num, 0);
	assert_int_equal(attr.rq_psn, 0);
	assert_int_equal(qp_destroy(qp), 0);
}

static void draining_tells_once_when_it_is_done(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *ibqp = rig_qp(rig, IBV_QPT_RC);
	struct qp *qp = qp_of(ibqp);
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	rig_bring(ibqp, IBV_QPS_RTS);
	/* Something is on its way. */
	qp->req.top = psn_add(qp->req.top, 1);
	assert_int_equal(rig_modify(ibqp, IBV_QPS_SQD, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
	assert_int_equal(rig_events(rig, IBV_EVENT_SQ_DRAINED), 0);
	assert_int_equal(qp_query(ibqp, &attr, IBV_QP_STATE, &init), 0);
	assert_true(attr.sq_draining);
	assert_int_equal(rig_modify(ibqp, IBV_QPS_SQD, IBV_QP_STATE | IBV_QP_TIMEOUT), EINVAL);

	engine_enter(qp->device);
	qp->req.unacked = qp->req.next = qp->req.top;
	qp_check_drained(qp);
	qp_check_drained(qp);
	engine_leave(qp->device);
	assert_int_equal(rig_events(rig, IBV_EVENT_SQ_DRAINED), 1);
	assert_int_equal(qp_query(ibqp, &attr, IBV_QP_STATE, &init), 0);
	assert_false(attr.sq_draining);
	assert_int_equal(rig_modify(ibqp, IBV_QPS_SQD, IBV_QP_STATE | IBV_QP_TIMEOUT), 0);
	assert_true(qp->draining);
	assert_int_equal(rig_modify(ibqp, IBV_QPS_RTS, IBV_QP_STATE), 0);
	assert_false(qp->draining);
	assert_int_equal(qp_destroy(ibqp), 0);
	assert_null(rig->bare.context.event_head);
}

static void drained_without_being_asked_says_nothing(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_UC);
	rig_bring(qp, IBV_QPS_SQD);
	assert_int_equal(rig_events(rig, IBV_EVENT_SQ_DRAINED), 0);
	assert_int_equal(qp_destroy(qp), 0);
}

static void more_reads_may_be_allowed_while_drained(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *ibqp = rig_qp(rig, IBV_QPT_RC);
	struct qp *qp = qp_of(ibqp);
	rig_bring(ibqp, IBV_QPS_SQD);
	struct responder *resp = &qp->resp;
	for (uint32_t i = 0; i < 6; i++)
		resp->reads[resp->read_tail++ & (resp->read_size - 1)].msn = i;
	resp->read_kept = resp->read_size;
	resp->read_head = resp->read_tail;

	struct ibv_qp_attr attr = rig_good_attr(IBV_QPS_SQD);
	attr.max_dest_rd_atomic = 16;
	assert_int_equal(qp_modify(ibqp, &attr, IBV_QP_MAX_DEST_RD_ATOMIC), 0);
	assert_int_equal(resp->read_size, 16);
	for (uint32_t i = 2; i < 6; i++)
		assert_int_equal(resp->reads[i & (resp->read_size - 1)].msn, i);
	assert_int_equal(qp_destroy(ibqp), 0);
}

static void retries_may_be_changed_while_drained(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp *qp = rig_qp(rig, IBV_QPT_RC);
	rig_bring(qp, IBV_QPS_SQD);
	struct ibv_qp_attr attr = rig_good_attr(IBV_QPS_SQD);
	attr.retry_cnt = rig_good_attr(IBV_QPS_RTS).retry_cnt - 1;
	attr.rnr_retry = rig_good_attr(IBV_QPS_RTS).rnr_retry - 1;
	assert_int_equal(qp_modify(qp, &attr, IBV_QP_STATE | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY), 0);
	assert_int_equal(qp_of(qp)->req.retries, attr.retry_cnt);
	assert_int_equal(qp_of(qp)->req.rnr_retries, attr.rnr_retry);
	assert_int_equal(qp_destroy(qp), 0);
}

static void caps_and_types_beyond_the_device_are_refused(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_init_attr attr;
#define FAILS(set, error) \
	do { \
		attr = rig_init_attr(rig, IBV_QPT_RC); \
		set; \
		assert_null(qp_create(rig->pd, &attr)); \
		assert_int_equal(errno, error); \
	} while (0)
	FAILS(attr.qp_type = IBV_QPT_RAW_PACKET, EOPNOTSUPP);
	FAILS(attr.qp_type = IBV_QPT_XRC_SEND, EOPNOTSUPP);
	FAILS(attr.qp_type = (enum ibv_qp_type)77, EINVAL);
	FAILS(attr.send_cq = NULL, EINVAL);
	FAILS(attr.recv_cq = NULL, EINVAL);
	FAILS(attr.cap.max_send_wr = UINT32_MAX, EINVAL);
	FAILS(attr.cap.max_recv_wr = MAX_QP_WR + 1, EINVAL);
	FAILS(attr.cap.max_send_sge = MAX_SGE + 1, EINVAL);
	FAILS(attr.cap.max_recv_sge = 0xffff, EINVAL);
	FAILS(attr.cap.max_inline_data = MAX_INLINE + 1, EINVAL);
}

static void extended_creation_knows_what_it_supports(void **state)
{
	struct rig *rig = *state;
	struct ibv_qp_init_attr_ex good = {
		.send_cq = rig->send_cq,
		.recv_cq = rig->recv_cq,
		.cap = { .max_send_wr = 5, .max_send_sge = 1 },
		.qp_type = IBV_QPT_UD,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = rig->pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	}, attr = good;
	struct ibv_context *context = &rig->bare.context.verbs.context;

	struct ibv_qp *qp = qp_create_ex(context, &attr);
	assert_non_null(qp);
	assert_true(attr.cap.max_send_wr >= 5);
	assert_int_equal(qp_destroy(qp), 0);

	attr = good;
	attr.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ;
	assert_null(qp_create_ex(context, &attr));
	assert_int_equal(errno, EOPNOTSUPP);
	attr = good;
	attr.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
	assert_null(qp_create_ex(context, &attr));
	assert_int_equal(errno, EOPNOTSUPP);
	attr = good;
	attr.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
	attr.create_flags = IBV_QP_CREATE_SCATTER_FCS;
	assert_null(qp_create_ex(context, &attr));
	assert_int_equal(errno, EOPNOTSUPP);
	attr = good;
	attr.comp_mask &= ~(uint32_t)IBV_QP_INIT_ATTR_PD;
	assert_null(qp_create_ex(context, &attr));
	assert_int_equal(errno, EINVAL);
}

static void numbers_are_distinct_and_not_reserved(void **state)
{
	struct rig *rig = *state;
	enum { COUNT = 200 };
	struct ibv_qp *qps[COUNT];
	for (int i = 0; i < COUNT; i++) {
		qps[i] = rig_qp(rig, IBV_QPT_UC);
		assert_true(qps[i]->qp_num > 1 && qps[i]->qp_num < 0xffffff);
		for (int j = 0; j < i; j++)
			assert_int_not_equal(qps[i]->qp_num, qps[j]->qp_num);
	}
	assert_int_equal(rig->bare.device.qp_count, COUNT);
	assert_int_equal(pd_dealloc(rig->pd), EBUSY);
	assert_int_equal(cq_destroy(rig->send_cq), EBUSY);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(qp_destroy(qps[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
		T(transitions_need_their_attributes_and_take_no_others),
		T(values_out_of_range_change_nothing),
		T(flags_of_regions_are_taken_by_a_queue_pair),
		T(psns_are_cut_to_24_bits),
		T(query_tells_what_was_set),
		T(draining_tells_once_when_it_is_done),
		T(drained_without_being_asked_says_nothing),
		T(more_reads_may_be_allowed_while_drained),
		T(retries_may_be_changed_while_drained),
		T(caps_and_types_beyond_the_device_are_refused),
		T(extended_creation_knows_what_it_supports),
		T(numbers_are_distinct_and_not_reserved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
