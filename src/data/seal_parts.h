/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a sealer and an opener. Only seal.c may use them, and its test, which cannot seal 2^48 records. */
#ifndef SRDMA_SEAL_PARTS_H
#define SRDMA_SEAL_PARTS_H

#include "seal_key.h"

/* Numbers that the records of a stream can have. */
#define SRDMA_SEAL_NUMBERS (1ull << 48)

struct srdma_sealer {
	struct srdma_seal_ratchet ratchet;
	struct srdma_seal_key key;
	uint64_t next;
};

struct srdma_opener {
	struct srdma_seal_ratchet ratchet;
	struct srdma_seal_key before, present, after; /* after: made for a record that may still prove to be forged */
};

#endif
