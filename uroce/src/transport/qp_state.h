/* SPDX-License-Identifier: Apache-2.0 */
/* The states of a queue pair: the way to ERR, SQE and RESET, and while a send queue drains. The device's
 * lock is held in all. */
#ifndef UROCE_QP_STATE_H
#define UROCE_QP_STATE_H

#include "qp.h"

/* To ERR: all posted work completes as IBV_WC_WR_FLUSH_ERR, in order; `event` (IBV_EVENT_QP_FATAL, _QP_REQ_ERR,
 * _QP_ACCESS_ERR), unless -1, is raised; with an SRQ, IBV_EVENT_QP_LAST_WQE_REACHED. Idempotent. */
void qp_fail(struct qp *qp, int event);
/* Completes the work request at sq.head with `status` (IBV_WC_SUCCESS: only when it is signaled) and moves head on. */
void qp_complete_send(struct qp *qp, enum ibv_wc_status status);
/* After qp_complete_send with an error that the send queue found itself: RC goes to ERR, UC and UD to SQE (IBTA vol 1,
 * 10.3.1.7), where receiving goes on and sends are flushed. */
void qp_fail_send(struct qp *qp);
/* Raises IBV_EVENT_SQ_DRAINED when draining and nothing is outstanding. */
void qp_check_drained(struct qp *qp);

/* All posted sends complete with a flush error, in order. */
void qp_flush_sends(struct qp *qp);
/* To RESET: posted requests, completions and attributes are forgotten. */
void qp_reset(struct qp *qp);
/* In SQD: whether something that was begun is still to be finished. */
bool qp_drains(const struct qp *qp);

#endif
