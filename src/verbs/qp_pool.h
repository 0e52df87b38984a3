/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs kept ready for a connection's next epochs. Most devices number theirs one after the other; a random number of them is
 * made and thrown away before each that is kept, so that an attacker who knows one QPN does not know the next (ReDMArk, mitigation 1). */
#ifndef SRDMA_QP_POOL_H
#define SRDMA_QP_POOL_H

#include "qp.h"

#define SRDMA_QP_SKIPS 16 /* fewer than so many are thrown away */

struct srdma_qp_pool {
	struct srdma_qp spare; /* in INIT; verbs NULL: there is none */
};

/* Makes a spare one if there is none. */
int srdma_qp_pool_fill(struct srdma_qp_pool *pool, const struct srdma_qp *like);
/* The spare one, or one made now. */
int srdma_qp_pool_take(struct srdma_qp_pool *pool, const struct srdma_qp *like, struct srdma_qp *out);
void srdma_qp_pool_release(struct srdma_qp_pool *pool);

#endif
