/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs kept ready for a connection's next epochs. Most devices number queue pairs consecutively. So the pool makes and destroys
 * a random number of them before each one that it keeps: an attacker who knows one QPN cannot predict the next (ReDMArk, mitigation 1). */
#ifndef SRDMA_QP_POOL_H
#define SRDMA_QP_POOL_H

#include "qp.h"

#define SRDMA_QP_SKIPS 16 /* the pool destroys fewer than this many */

struct srdma_qp_pool {
	struct srdma_qp spare; /* in INIT; verbs NULL: there is none */
};

int srdma_qp_pool_fill(struct srdma_qp_pool *pool, const struct srdma_qp *like);
/* Takes the spare queue pair, or makes one. */
int srdma_qp_pool_take(struct srdma_qp_pool *pool, const struct srdma_qp *like, struct srdma_qp *out);
void srdma_qp_pool_release(struct srdma_qp_pool *pool);

#endif
