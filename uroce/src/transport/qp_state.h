/* SPDX-License-Identifier: Apache-2.0 */
/* What modify_qp, destroy_qp and posting need of the state machine, besides what qp.h shows. Device's lock held. */
#ifndef UROCE_QP_STATE_H
#define UROCE_QP_STATE_H

#include "qp.h"

/* All posted sends complete with a flush error, in order. */
void qp_flush_sends(struct qp *qp);
/* To RESET: what is posted, what has completed and what was set is forgotten. */
void qp_reset(struct qp *qp);
/* In SQD: whether something that was begun is still to be finished. */
bool qp_drains(const struct qp *qp);

#endif
