/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's functions that set handlers and masks of signals, for guard.h: so that the device's handlers of SIGSEGV and SIGBUS
 * stay in front of the program's, and the program finds its own. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#include "guard.h"

/* TSan calls these before anything that was built with it can run. */
#ifndef __SANITIZE_THREAD__

#define EXPORT __attribute__((visibility("default")))

/* The C library's function of that name. Async-signal-safe once it has been called. */
#define NEXT(function, symbol) \
	({ \
		static _Atomic(void *) cache_; \
		void *address_ = atomic_load_explicit(&cache_, memory_order_acquire); \
		if (!address_) { \
			address_ = dlsym(RTLD_NEXT, symbol); \
			atomic_store_explicit(&cache_, address_, memory_order_release); \
		} \
		(__typeof__(&(function)))address_; \
	})

static int next_action(int signal, const struct sigaction *action, struct sigaction *old)
{
	return NEXT(sigaction, "sigaction")(signal, action, old);
}

__attribute__((constructor)) static void take_over(void)
{
	/* Finds it now, and not in a handler. */
	struct sigaction now;
	next_action(SIGSEGV, NULL, &now);
	guard_use(next_action);
}

static bool is_guarded(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS;
}

int signal_action(int signal, const struct sigaction *action, struct sigaction *old) __asm__("sigaction");
EXPORT int signal_action(int signal, const struct sigaction *action, struct sigaction *old)
{
	if (!is_guarded(signal))
		return next_action(signal, action, old);
	guard_use(next_action); /* other libraries' constructors may run before ours */
	return guard_action(signal, action, old);
}

typedef void handler(int);

static handler *set_handler(int signal, handler *wanted, int flags)
{
	struct sigaction action = { .sa_handler = wanted, .sa_flags = flags }, old;
	sigemptyset(&action.sa_mask);
	guard_use(next_action);
	return guard_action(signal, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

handler *signal_bsd(int signal, handler *wanted) __asm__("signal");
EXPORT handler *signal_bsd(int signal, handler *wanted)
{
	return is_guarded(signal) ? set_handler(signal, wanted, SA_RESTART) : NEXT(signal_bsd, "signal")(signal, wanted);
}

/* What signal() is to programs that ask for standards alone. */
handler *signal_sysv(int signal, handler *wanted) __asm__("__sysv_signal");
EXPORT handler *signal_sysv(int signal, handler *wanted)
{
	if (is_guarded(signal))
		return set_handler(signal, wanted, (int)(SA_RESETHAND | SA_NODEFER));
	return NEXT(signal_sysv, "__sysv_signal")(signal, wanted);
}

int signal_thread_mask(int how, const sigset_t *set, sigset_t *old) __asm__("pthread_sigmask");
EXPORT int signal_thread_mask(int how, const sigset_t *set, sigset_t *old)
{
	if (set)
		guard_note_mask();
	return NEXT(signal_thread_mask, "pthread_sigmask")(how, set, old);
}

int signal_process_mask(int how, const sigset_t *set, sigset_t *old) __asm__("sigprocmask");
EXPORT int signal_process_mask(int how, const sigset_t *set, sigset_t *old)
{
	if (set)
		guard_note_mask();
	return NEXT(signal_process_mask, "sigprocmask")(how, set, old);
}

#endif
