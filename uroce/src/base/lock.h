/* SPDX-License-Identifier: Apache-2.0 */
/* Locks that nobody else has most of the time: to take one, and to give it back, is one instruction each, in place. A lock of zeros is
 * free, and needs no end. Whoever has to wait looks again for a moment, and then sleeps. */
#ifndef UROCE_LOCK_H
#define UROCE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { LOCK_FREE, LOCK_TAKEN, LOCK_WANTED /* taken, and somebody may be waiting */ };

struct lock {
	_Atomic uint32_t state;
};

/* lock.c: what is rarely needed. Neither is a cancellation point. */
void lock_wait(struct lock *lock);
void lock_wake(struct lock *lock);

static inline bool lock_try(struct lock *lock)
{
	uint32_t before = LOCK_FREE;
	return atomic_compare_exchange_strong_explicit(&lock->state, &before, LOCK_TAKEN, memory_order_acquire, memory_order_relaxed);
}

static inline void lock_take(struct lock *lock)
{
	if (!lock_try(lock))
		lock_wait(lock);
}

static inline void lock_give(struct lock *lock)
{
	if (atomic_exchange_explicit(&lock->state, LOCK_FREE, memory_order_release) == LOCK_WANTED)
		lock_wake(lock);
}

#endif
