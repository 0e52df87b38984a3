/* SPDX-License-Identifier: Apache-2.0 */
#include "psn.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

int srdma_psn_generate(uint32_t *psn)
{
	unsigned char bytes[3];

	/* No fallback: a guessable PSN would be worse than no connection. */
	if (RAND_bytes(bytes, sizeof bytes) != 1)
		return srdma_fail_openssl(SRDMA_ERANDOM, "cannot draw a packet sequence number: the random generator failed");
	*psn = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];
	OPENSSL_cleanse(bytes, sizeof bytes);
	return 0;
}

int srdma_psn_generate_apart(const struct srdma_psn_range *last, uint32_t *psn, uint32_t *limit)
{
	uint32_t room = SRDMA_PSN_MASK + 1 - last->count, most = *limit, ahead;
	int ret;

	if (last->count > SRDMA_PSN_MASK || room <= SRDMA_PSN_STARTS)
		return srdma_fail(-ERANGE, "the last epoch used %u PSNs, and leaves none for the next one", last->count);
	if (most > room - SRDMA_PSN_STARTS)
		most = room - SRDMA_PSN_STARTS;
	/* At least one draw in sixteen is accepted, so the loop is short. */
	do {
		uint32_t drawn;

		ret = srdma_psn_generate(&drawn);
		if (ret != 0)
			return ret;
		ahead = (drawn - last->first) & SRDMA_PSN_MASK;
	} while (ahead < last->count || ahead + most > SRDMA_PSN_MASK + 1);
	*psn = (last->first + ahead) & SRDMA_PSN_MASK;
	*limit = most;
	return 0;
}
