/* SPDX-License-Identifier: Apache-2.0 */
/* Tells why the server turned this client away, and when to come again. */
#include <securdma.h>
#include <stdio.h>

void tell_rejection(int error)
{
	struct srdma_reject reject;

	if (error != SRDMA_EREJECTED)
		return;
	srdma_reject_last(&reject);
	printf("%s: %s\n", srdma_reject_reason_name(reject.reason), reject.text);
	if (reject.retry_after_ms > 0)
		printf("try again in %u ms\n", (unsigned)reject.retry_after_ms);
}
