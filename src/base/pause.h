/* SPDX-License-Identifier: Apache-2.0 */
/* Random pauses before another try, so that clients that failed together do not retry together. */
#ifndef SRDMA_PAUSE_H
#define SRDMA_PAUSE_H

/* From 0 to `ms`. */
int srdma_pause_below(int ms);
/* `first_ms` doubled so many times, but not above `most_ms`; between half and one and a half of that. */
int srdma_pause_growing(int first_ms, int most_ms, unsigned doublings);

#endif
