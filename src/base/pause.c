/* SPDX-License-Identifier: Apache-2.0 */
#include "pause.h"

#include <limits.h>
#include <openssl/rand.h>
#include <stdint.h>

#define DOUBLINGS_MAX 16 /* of any int, in 64 bits */

int srdma_pause_below(int ms)
{
	uint32_t random;

	/* The random number only spreads the pauses and is no secret, so the middle serves where there is none. */
	if (RAND_bytes((unsigned char *)&random, sizeof random) != 1)
		random = UINT32_MAX / 2;
	return (int)((uint64_t)ms * random / UINT32_MAX);
}

int srdma_pause_growing(int first_ms, int most_ms, unsigned doublings)
{
	uint64_t pause = (uint64_t)first_ms << (doublings < DOUBLINGS_MAX ? doublings : DOUBLINGS_MAX);
	int middle = pause < (uint64_t)most_ms ? (int)pause : most_ms;

	int more = srdma_pause_below(middle);

	return middle / 2 < INT_MAX - more ? middle / 2 + more : INT_MAX;
}
