/* SPDX-License-Identifier: Apache-2.0 */
/* Starting PSNs of epochs. (srdma_psn_generate, which draws a connection's first one, is public.) */
#ifndef SRDMA_PSN_H
#define SRDMA_PSN_H

#include <stdint.h>

#define SRDMA_PSN_MASK 0xffffffu
/* At least this many starting PSNs are possible: 20 bits against an attacker that knows the last one. */
#define SRDMA_PSN_STARTS (1u << 20)

/* The PSNs that an epoch has used: `count` from `first` on. */
struct srdma_psn_range {
	uint32_t first;
	uint32_t count;
};

/* Draws the starting PSN of an epoch that keeps the queue pair of the last epoch, which has used `last`. The two epochs share no PSN as
 * long as the new one uses at most *limit; the draw is uniform over all such starts. The function lowers *limit where it would leave
 * fewer than SRDMA_PSN_STARTS. Errors: SRDMA_ERANDOM; -ERANGE when `last` leaves no room for an epoch. */
int srdma_psn_generate_apart(const struct srdma_psn_range *last, uint32_t *psn, uint32_t *limit);

#endif
