/* SPDX-License-Identifier: Apache-2.0 */
#include "lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_futex
#define SYS_futex SYS_futex_time64 /* newer 32-bit systems have that alone */
#endif

/* Locks are held for less than a microsecond: to sleep, and to be woken, takes longer. A thread that has lost its processor holds one for
 * longer. */
enum { LOOKS = 100 };

static void pause_processor(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void futex(struct lock *lock, int operation, uint32_t value)
{
	int before = errno;
	syscall(SYS_futex, &lock->state, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
	errno = before;
}

void lock_wait(struct lock *lock)
{
	for (unsigned i = 0; i < LOOKS; i++) {
		if (atomic_load_explicit(&lock->state, memory_order_relaxed) == LOCK_FREE && lock_try(lock))
			return;
		pause_processor();
	}
	/* Others may wait as well: it stays wanted. */
	while (atomic_exchange_explicit(&lock->state, LOCK_WANTED, memory_order_acquire) != LOCK_FREE)
		futex(lock, FUTEX_WAIT, LOCK_WANTED);
}

void lock_wake(struct lock *lock)
{
	futex(lock, FUTEX_WAKE, 1);
}
