/* SPDX-License-Identifier: Apache-2.0 */
/* Starting PSNs of epochs. (srdma_psn_generate, of a connection's first one, is public.) */
#ifndef SRDMA_PSN_H
#define SRDMA_PSN_H

#include <stdint.h>

#define SRDMA_PSN_MASK 0xffffffu
/* At least this many starting PSNs are possible: 20 bits against an attacker that knows the last one. */
#define SRDMA_PSN_STARTS (1u << 20)

/* What an epoch has used of the PSNs: `count` from `first` on. */
struct srdma_psn_range {
	uint32_t first;
	uint32_t count;
};

/* For an epoch on the queue pair of the one before, which has used `last`: a starting PSN with which no PSN of the two is the same as
 * long as the new one uses *limit of them, drawn uniformly from all such. *limit is made smaller where that would leave fewer than
 * SRDMA_PSN_STARTS. Errors: SRDMA_ERANDOM; -ERANGE when `last` leaves no room for an epoch. */
int srdma_psn_generate_apart(const struct srdma_psn_range *last, uint32_t *psn, uint32_t *limit);

#endif
