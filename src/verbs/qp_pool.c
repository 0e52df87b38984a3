/* SPDX-License-Identifier: Apache-2.0 */
#include "qp_pool.h"

#include "log.h"

#include <openssl/rand.h>

static int make(const struct srdma_qp *like, struct srdma_qp *out)
{
	unsigned char random;
	int ret;

	if (RAND_bytes(&random, 1) != 1)
		return srdma_fail(SRDMA_ERANDOM, "cannot draw a random number: the random generator failed");
	for (unsigned skip = random % SRDMA_QP_SKIPS; skip > 0; skip--) {
		struct srdma_qp skipped;

		ret = srdma_qp_new_like(like, &skipped);
		if (ret != 0)
			return ret;
		srdma_qp_release(&skipped);
	}
	return srdma_qp_new_like(like, out);
}

int srdma_qp_pool_fill(struct srdma_qp_pool *pool, const struct srdma_qp *like)
{
	return pool->spare.verbs ? 0 : make(like, &pool->spare);
}

int srdma_qp_pool_take(struct srdma_qp_pool *pool, const struct srdma_qp *like, struct srdma_qp *out)
{
	int ret = srdma_qp_pool_fill(pool, like);

	if (ret != 0)
		return ret;
	*out = pool->spare;
	pool->spare = (struct srdma_qp){0};
	return 0;
}

void srdma_qp_pool_release(struct srdma_qp_pool *pool)
{
	srdma_qp_release(&pool->spare);
}
