/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

int srdma_psn_generate(uint32_t *psn)
{
	unsigned char bytes[3];

	/* No fallback: a guessable PSN would be worse than no connection. */
	if (RAND_bytes(bytes, sizeof bytes) != 1)
		return srdma_fail_openssl(SRDMA_ERANDOM, "no random bytes for the packet sequence number");
	*psn = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];
	OPENSSL_cleanse(bytes, sizeof bytes);
	return 0;
}
