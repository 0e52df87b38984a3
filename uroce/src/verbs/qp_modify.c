/* SPDX-License-Identifier: Apache-2.0 */
/* ibv_modify_qp: the transitions, and the attributes that each must and may set (IBTA vol 1, 11.2.5.2, table 91). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "qp_state.h"
#include "requester.h"
#include "responder.h"
#include "response.h"
#include "shm.h"
#include "verbs.h"
#include "wipe.h"

enum { RC, UC, UD, TYPES };

enum { STATES = IBV_QPS_ERR + 1 };

#define ACCESS IBV_QP_ACCESS_FLAGS
#define PKEY IBV_QP_PKEY_INDEX
/* Automatic path migration is allowed for here, as the specification does, and refused when values are checked. */
#define MIGRATION (IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE)

static const struct transition {
	bool valid;
	struct {
		int required;
		int optional;
	} of[TYPES];
} transitions[STATES][STATES] = {
	[IBV_QPS_RESET] = {
		[IBV_QPS_INIT] = { true, {
			[RC] = { PKEY | IBV_QP_PORT | ACCESS, 0 },
			[UC] = { PKEY | IBV_QP_PORT | ACCESS, 0 },
			[UD] = { PKEY | IBV_QP_PORT | IBV_QP_QKEY, 0 },
		} },
	},
	[IBV_QPS_INIT] = {
		[IBV_QPS_INIT] = { true, {
			[RC] = { 0, PKEY | IBV_QP_PORT | ACCESS },
			[UC] = { 0, PKEY | IBV_QP_PORT | ACCESS },
			[UD] = { 0, PKEY | IBV_QP_PORT | IBV_QP_QKEY },
		} },
		[IBV_QPS_RTR] = { true, {
			[RC] = { IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				 IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
				 IBV_QP_ALT_PATH | ACCESS | PKEY },
			[UC] = { IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
				 IBV_QP_ALT_PATH | ACCESS | PKEY },
			[UD] = { 0, PKEY | IBV_QP_QKEY },
		} },
	},
	[IBV_QPS_RTR] = {
		[IBV_QPS_RTS] = { true, {
			[RC] = { IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				 IBV_QP_MAX_QP_RD_ATOMIC,
				 IBV_QP_CUR_STATE | MIGRATION | ACCESS | IBV_QP_MIN_RNR_TIMER },
			[UC] = { IBV_QP_SQ_PSN, IBV_QP_CUR_STATE | MIGRATION | ACCESS },
			[UD] = { IBV_QP_SQ_PSN, IBV_QP_CUR_STATE | IBV_QP_QKEY },
		} },
	},
	[IBV_QPS_RTS] = {
		[IBV_QPS_RTS] = { true, {
			[RC] = { 0, IBV_QP_CUR_STATE | MIGRATION | ACCESS | IBV_QP_MIN_RNR_TIMER },
			[UC] = { 0, IBV_QP_CUR_STATE | MIGRATION | ACCESS },
			[UD] = { 0, IBV_QP_CUR_STATE | IBV_QP_QKEY },
		} },
		[IBV_QPS_SQD] = { true, {
			[RC] = { 0, IBV_QP_EN_SQD_ASYNC_NOTIFY },
			[UC] = { 0, IBV_QP_EN_SQD_ASYNC_NOTIFY },
			[UD] = { 0, IBV_QP_EN_SQD_ASYNC_NOTIFY },
		} },
	},
	[IBV_QPS_SQD] = {
		[IBV_QPS_RTS] = { true, {
			[RC] = { 0, IBV_QP_CUR_STATE | MIGRATION | ACCESS | IBV_QP_MIN_RNR_TIMER },
			[UC] = { 0, IBV_QP_CUR_STATE | MIGRATION | ACCESS },
			[UD] = { 0, IBV_QP_CUR_STATE | IBV_QP_QKEY },
		} },
		[IBV_QPS_SQD] = { true, {
			[RC] = { 0, IBV_QP_PORT | IBV_QP_AV | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				    IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MAX_DEST_RD_ATOMIC | MIGRATION | ACCESS | PKEY |
				    IBV_QP_MIN_RNR_TIMER },
			[UC] = { 0, IBV_QP_AV | MIGRATION | ACCESS | PKEY },
			[UD] = { 0, PKEY | IBV_QP_QKEY },
		} },
	},
	[IBV_QPS_SQE] = {
		/* Reliable queue pairs never are in SQE. */
		[IBV_QPS_RTS] = { true, {
			[UC] = { 0, IBV_QP_CUR_STATE | ACCESS },
			[UD] = { 0, IBV_QP_CUR_STATE | IBV_QP_QKEY },
		} },
	},
};

static int check_transition(const struct qp *qp, enum ibv_qp_state from, enum ibv_qp_state to, int mask)
{
	mask &= ~IBV_QP_STATE;
	/* From anywhere, and with nothing else. */
	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return mask == 0 ? 0 : EINVAL;

	const struct transition *transition = &transitions[from][to];
	int type = qp->type == IBV_QPT_RC ? RC : qp->type == IBV_QPT_UC ? UC : UD;
	int required = transition->of[type].required, optional = transition->of[type].optional;
	if (!transition->valid || (mask & required) != required || (mask & ~(required | optional)))
		return EINVAL;
	return 0;
}

/* ---- values ---- */

/* Programs pass the flags of their regions. What is no right of a peer, or a right that no region grants, as
 * IBV_ACCESS_FLUSH_PERSISTENT, is taken and means nothing. */
static bool access_known(unsigned access)
{
	const unsigned known = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			       IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | ACCESS_FLUSH_GLOBAL |
			       ACCESS_FLUSH_PERSISTENT | IBV_ACCESS_ON_DEMAND | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_HUGETLB;
	return (access & ~(known | IBV_ACCESS_OPTIONAL_RANGE)) == 0;
}

static int check_values(const struct qp *qp, const struct ibv_qp_attr *attr, int mask, struct address_vector *av)
{
	if ((mask & IBV_QP_ALT_PATH) || ((mask & IBV_QP_PATH_MIG_STATE) && attr->path_mig_state != IBV_MIG_MIGRATED))
		return EOPNOTSUPP;

	bool bad = ((mask & IBV_QP_CUR_STATE) && attr->cur_qp_state != qp->state) ||
		   ((mask & IBV_QP_PORT) && attr->port_num != 1) ||
		   ((mask & PKEY) && attr->pkey_index != 0) ||
		   ((mask & ACCESS) && !access_known(attr->qp_access_flags)) ||
		   ((mask & IBV_QP_PATH_MTU) &&
		    (attr->path_mtu < IBV_MTU_256 || attr->path_mtu > qp->device->mtu)) ||
		   ((mask & IBV_QP_DEST_QPN) && attr->dest_qp_num > WIRE_PSN_MASK) ||
		   ((mask & IBV_QP_TIMEOUT) && attr->timeout > 31) ||
		   ((mask & IBV_QP_RETRY_CNT) && attr->retry_cnt > 7) ||
		   ((mask & IBV_QP_RNR_RETRY) && attr->rnr_retry > 7) ||
		   ((mask & IBV_QP_MIN_RNR_TIMER) && attr->min_rnr_timer > 31) ||
		   ((mask & IBV_QP_MAX_QP_RD_ATOMIC) && attr->max_rd_atomic > MAX_RD_ATOMIC) ||
		   ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) && attr->max_dest_rd_atomic > MAX_RD_ATOMIC);
	if (bad)
		return EINVAL;
	return mask & IBV_QP_AV ? ah_resolve(qp->device, &attr->ah_attr, av) : 0;
}

static void store_values(struct qp *qp, const struct ibv_qp_attr *from, int mask, const struct address_vector *av)
{
	struct ibv_qp_attr *to = &qp->attr;

#define STORE(bit, field) \
	if (mask & (bit)) \
	to->field = from->field
	STORE(IBV_QP_EN_SQD_ASYNC_NOTIFY, en_sqd_async_notify);
	STORE(ACCESS, qp_access_flags);
	STORE(PKEY, pkey_index);
	STORE(IBV_QP_PORT, port_num);
	STORE(IBV_QP_QKEY, qkey);
	STORE(IBV_QP_AV, ah_attr);
	STORE(IBV_QP_PATH_MTU, path_mtu);
	STORE(IBV_QP_DEST_QPN, dest_qp_num);
	STORE(IBV_QP_RQ_PSN, rq_psn);
	STORE(IBV_QP_SQ_PSN, sq_psn);
	STORE(IBV_QP_TIMEOUT, timeout);
	STORE(IBV_QP_RETRY_CNT, retry_cnt);
	STORE(IBV_QP_RNR_RETRY, rnr_retry);
	STORE(IBV_QP_MIN_RNR_TIMER, min_rnr_timer);
	STORE(IBV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic);
	STORE(IBV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic);
#undef STORE
	/* Programs draw PSNs from 32 bits or more: other devices cut them too. */
	to->rq_psn &= WIRE_PSN_MASK;
	to->sq_psn &= WIRE_PSN_MASK;
	if (mask & IBV_QP_AV)
		qp->av = *av;
	if (mask & IBV_QP_PATH_MTU)
		qp->mtu = 128u << from->path_mtu;
	/* Those that are left are counted down from here, in SQD too. */
	if (mask & IBV_QP_RETRY_CNT)
		qp->req.retries = from->retry_cnt;
	if (mask & IBV_QP_RNR_RETRY)
		qp->req.rnr_retries = from->rnr_retry;
}

/* ---- entering states ---- */

/* In SQD a connection may come to allow more READs and atomics than there is room to remember. */
static int grow_saved(struct qp *qp, uint32_t count)
{
	struct responder *resp = &qp->resp;
	uint32_t size = ring_size(count);
	if (count <= resp->read_size)
		return 0;
	struct read_atomic *reads = calloc(size, sizeof *reads);
	if (!reads)
		return -ENOMEM;
	for (uint32_t i = resp->read_tail - resp->read_kept; i != resp->read_tail; i++)
		reads[i & (size - 1)] = *response_at(resp, i);
	wipe_free(resp->reads, resp->read_size * sizeof *resp->reads);
	resp->reads = reads;
	resp->read_size = size;
	return 0;
}

/* Sends from where it stopped. */
static void end_draining(struct qp *qp)
{
	qp->draining = false;
	qp->sqd_event_wanted = false;
	if (qp->sq.next != qp->sq.tail)
		requester_post(qp);
}

static void start_draining(struct qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	qp->state = IBV_QPS_SQD;
	qp->draining = true;
	qp->sqd_event_wanted = (mask & IBV_QP_EN_SQD_ASYNC_NOTIFY) && attr->en_sqd_async_notify;
	qp_check_drained(qp);
}

/* A peer on this host is reached through shared memory. */
static void take_path(struct qp *qp)
{
	if (!qp->device->shm || qp->type == IBV_QPT_UD)
		return;
	qp->path = shm_path_to(qp->device->shm, &qp->av.dgid, qp->attr.dest_qp_num);
	shm_hold(qp->path);
}

/* The attributes are stored. 0 or -ENOMEM, and then the state is the old one. */
static int enter_state(struct qp *qp, enum ibv_qp_state to, const struct ibv_qp_attr *attr, int mask)
{
	enum ibv_qp_state from = qp->state;
	int error = 0;

	if (to == IBV_QPS_RESET) {
		qp_reset(qp);
	} else if (to == IBV_QPS_ERR) {
		if (from == IBV_QPS_RESET)
			qp->state = IBV_QPS_INIT; /* qp_fail has nothing to do in RESET */
		qp_fail(qp, -1);
	} else if (to == IBV_QPS_INIT) {
		if (!qp->srq)
			recv_queue_open(&qp->rq);
		qp->state = IBV_QPS_INIT;
	} else if (to == IBV_QPS_RTR) {
		error = responder_start(qp);
		if (error == 0) {
			take_path(qp);
			qp->state = IBV_QPS_RTR;
		}
	} else if (to == IBV_QPS_SQD && from == IBV_QPS_RTS) {
		start_draining(qp, attr, mask);
	} else if (to == IBV_QPS_RTS) {
		if (from == IBV_QPS_RTR)
			requester_start(qp);
		qp->state = IBV_QPS_RTS;
		if (from == IBV_QPS_SQD || from == IBV_QPS_SQE)
			end_draining(qp);
	}
	return error;
}

static int modify_locked(struct qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	struct address_vector av = { .sgid_index = 0 };
	enum ibv_qp_state to = mask & IBV_QP_STATE ? attr->qp_state : qp->state;

	if ((unsigned)to >= STATES)
		return EINVAL;
	int error = check_transition(qp, qp->state, to, mask);
	if (error == 0)
		error = check_values(qp, attr, mask, &av);
	if (error != 0)
		return error;
	if (qp->state == IBV_QPS_SQD && to == IBV_QPS_SQD) {
		/* Packets on their way still need the old ones. */
		if (qp_drains(qp))
			return EINVAL;
		if ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) && grow_saved(qp, attr->max_dest_rd_atomic) != 0)
			return ENOMEM;
	}

	struct ibv_qp_attr before = qp->attr;
	struct address_vector av_before = qp->av;
	uint32_t mtu_before = qp->mtu;
	store_values(qp, attr, mask, &av);
	error = enter_state(qp, to, attr, mask);
	if (error != 0) {
		qp->attr = before;
		qp->av = av_before;
		qp->mtu = mtu_before;
	}
	explicit_bzero(&before, sizeof before);
	return -error;
}

int qp_modify(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask)
{
	struct qp *qp = qp_of(ibqp);

	engine_enter(qp->device);
	int error = modify_locked(qp, attr, mask);
	engine_leave(qp->device);
	if (error == 0 && (mask & IBV_QP_STATE))
		ibqp->state = attr->qp_state;
	return error;
}
