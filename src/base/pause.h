/* SPDX-License-Identifier: Apache-2.0 */
/* Random pauses before another try, so that clients that failed together do not retry together. */
#ifndef SRDMA_PAUSE_H
#define SRDMA_PAUSE_H

/* From 0 to `ms`. */
int srdma_pause_below(int ms);
/* Doubles `first_ms` that many times, up to `most_ms`. Returns a time from half to one and a half of the result. */
int srdma_pause_growing(int first_ms, int most_ms, unsigned doublings);

#endif
