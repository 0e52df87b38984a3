/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing memory of the application that may not be there any more.
 *
 * Registered memory is not pinned. When its owner unmaps it, makes it read-only, or shortens the file behind it, an access ends in
 * SIGSEGV or SIGBUS. A handler of both, in front of the application's, makes such an access of the device fail instead; all other
 * signals go on to the application's handler. One thread at a time may be within a guard: the one that has the device's lock. */
#ifndef UROCE_GUARD_H
#define UROCE_GUARD_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* GCC's own costs a few instructions, where the library's costs as much as the copy of a short message. */
#if defined(__GNUC__) && !defined(__clang__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(__SANITIZE_ADDRESS__) && \
	!defined(__SANITIZE_THREAD__)
typedef void *guard_point[5];
#define GUARD_SET(point)  __builtin_setjmp(point)
#define GUARD_JUMP(point) __builtin_longjmp(point, 1)
#else
typedef sigjmp_buf guard_point;
#define GUARD_SET(point)  sigsetjmp(point, 0)
#define GUARD_JUMP(point) siglongjmp(point, 1)
#endif

/* Installs the handlers, where they are not in front. To be called before memory is accessed, and now and then: the application
 * may install its own later. Cheap when called again soon. `now`: nanoseconds. */
void guard_install(uint64_t now);

/* Whether it was called in this thread, since its mask was last changed. */
bool guard_is_ready(void);

/* The application's actions for the two signals, while the handlers are in front: `action` is what they hand its faults to, and
 * `old` what that was. As sigaction() otherwise. Async-signal-safe. */
int guard_action(int signal, const struct sigaction *action, struct sigaction *old);

/* The C library's sigaction, where this library has one of its own. `sees`: the program's calls reach that one, which leads to
 * guard_action. To be called before the two above. */
typedef int guard_sigaction(int signal, const struct sigaction *action, struct sigaction *old);
void guard_use(guard_sigaction *real, bool sees);

/* The application has changed this thread's signal mask: guard_install unblocks the two signals again. */
void guard_note_mask(void);

/* memcpy to or from the application. False: some of the memory was not there; what was is copied. */
bool guard_copy(void *to, const void *from, size_t length);

/* A guard around code of the caller's:
 *	if (GUARD_SET(*guard_begin(pieces, count)) == 0) { access; guard_end(); } else { the memory was not there; }
 * An access of these pieces that faults goes to `else`, with the guard ended. The code may hold no lock but the device's, and local
 * variables that it changes have to be volatile. */
guard_point *guard_begin(const struct iovec *pieces, size_t count);
void guard_end(void);

#endif
