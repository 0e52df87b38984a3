/* SPDX-License-Identifier: Apache-2.0 */
/* Of probe-wrapped alone, which has the library's static form in it, linked with --wrap: what chance hardly ever brings, and what this
 * machine's processor does not have.
 *
 * PROBE_NARROW_PSNS=1   PSNs are drawn from the first 65536 alone: those of two epochs would soon meet
 * PROBE_SLOW_AES=1      a processor without instructions for AES */
#include "conn.h"

#include <stdbool.h>
#include <stdlib.h>

uint32_t region_mr_rkey(const struct srdma_conn *conn);

uint32_t region_mr_rkey(const struct srdma_conn *conn)
{
	return conn->region.mr->rkey;
}

int __real_RAND_bytes(unsigned char *buffer, int length);
int __wrap_RAND_bytes(unsigned char *buffer, int length);
bool __real_srdma_cipher_aes_is_fast(void);
bool __wrap_srdma_cipher_aes_is_fast(void);

int __wrap_RAND_bytes(unsigned char *buffer, int length)
{
	int ret = __real_RAND_bytes(buffer, length);

	/* Nothing else draws three bytes. */
	if (length == 3 && getenv("PROBE_NARROW_PSNS"))
		buffer[0] = 0;
	return ret;
}

bool __wrap_srdma_cipher_aes_is_fast(void)
{
	return !getenv("PROBE_SLOW_AES") && __real_srdma_cipher_aes_is_fast();
}
