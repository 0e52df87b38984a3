/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor by which one thread wakes another: an eventfd, readable from the first call of srdma_wake_send until it is taken. */
#ifndef SRDMA_WAKE_H
#define SRDMA_WAKE_H

#include <stdbool.h>

/* Returns the descriptor; -1: there is none, and errno says why. */
int srdma_wake_new(void);
/* Does nothing for -1. */
void srdma_wake_close(int fd);
/* Thread-safe, async-signal-safe. */
void srdma_wake_send(int fd);
/* Whether a wake-up was sent; the descriptor is then no longer readable. Does not wait. */
bool srdma_wake_take(int fd);

#endif
