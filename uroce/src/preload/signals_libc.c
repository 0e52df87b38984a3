/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's functions that set handlers and masks of signals, for guard.h: so that the device's handlers of SIGSEGV and SIGBUS
 * stay in front of the program's, and the program finds its own. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "guard.h"
#include "next.h"

/* TSan calls these before anything that was built with it can run. */
#ifndef __SANITIZE_THREAD__

#define EXPORT __attribute__((visibility("default")))

static int next_action(int signal, const struct sigaction *action, struct sigaction *old)
{
	return NEXT(sigaction, "sigaction")(signal, action, old);
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
	guard_use(next_action, true); /* other libraries' constructors may run before ours */
	return guard_action(signal, action, old);
}

/* Never the C library's, as a reference to the exported name would be where that comes first. */
int signal_action_here(int signal, const struct sigaction *action, struct sigaction *old)
	__attribute__((alias("sigaction"), visibility("hidden")));

__attribute__((constructor)) static void begin(void)
{
	/* Finds it now, and not in a handler. */
	struct sigaction now;
	next_action(SIGSEGV, NULL, &now);
	/* Where the drop-in alone leads to this library, the C library comes before it. */
	guard_use(next_action, dlsym(RTLD_DEFAULT, "sigaction") == (void *)signal_action_here);
}

int signal_action_too(int signal, const struct sigaction *action, struct sigaction *old) __asm__("__sigaction");
EXPORT int signal_action_too(int signal, const struct sigaction *action, struct sigaction *old)
{
	return signal_action(signal, action, old);
}

/* ---- masks ---- */

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

#define NOTING(name, symbol) \
	int name(int value) __asm__(symbol); \
	EXPORT int name(int value) \
	{ \
		guard_note_mask(); \
		return NEXT(name, symbol)(value); \
	}

NOTING(signal_hold, "sighold")
NOTING(signal_block, "sigblock")
NOTING(signal_set_mask, "sigsetmask")

/* ---- its predecessors ---- */

typedef void handler(int);

/* Of the guarded signals, as bits: calls that they interrupt fail (siginterrupt). */
static atomic_uint interrupting;

static handler *set_handler(int signal, handler *wanted, int flags)
{
	struct sigaction action = { .sa_handler = wanted, .sa_flags = flags }, old;
	sigemptyset(&action.sa_mask);
	guard_use(next_action, true);
	return guard_action(signal, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

handler *signal_bsd(int signal, handler *wanted) __asm__("signal");
EXPORT handler *signal_bsd(int signal, handler *wanted)
{
	if (is_guarded(signal))
		return set_handler(signal, wanted, interrupting & 1u << signal ? 0 : SA_RESTART);
	return NEXT(signal_bsd, "signal")(signal, wanted);
}

#define SAME_AS(name, symbol, function) \
	handler *name(int signal, handler *wanted) __asm__(symbol); \
	EXPORT handler *name(int signal, handler *wanted) \
	{ \
		return function(signal, wanted); \
	}

SAME_AS(signal_bsd_too, "bsd_signal", signal_bsd)
SAME_AS(signal_s, "ssignal", signal_bsd)

/* What signal() is to programs that ask for standards alone. */
handler *signal_sysv(int signal, handler *wanted) __asm__("__sysv_signal");
EXPORT handler *signal_sysv(int signal, handler *wanted)
{
	if (is_guarded(signal))
		return set_handler(signal, wanted, (int)(SA_RESETHAND | SA_NODEFER));
	return NEXT(signal_sysv, "__sysv_signal")(signal, wanted);
}

SAME_AS(signal_sysv_too, "sysv_signal", signal_sysv)

/* Sets a handler, and unblocks the signal; or blocks it. */
handler *signal_set(int signal, handler *wanted) __asm__("sigset");
EXPORT handler *signal_set(int signal, handler *wanted)
{
	if (!is_guarded(signal))
		return NEXT(signal_set, "sigset")(signal, wanted);
	bool block = wanted == SIG_HOLD;
	struct sigaction now;
	sigset_t this, before;
	guard_use(next_action, true);
	if (guard_action(signal, NULL, &now) != 0 || (!block && set_handler(signal, wanted, 0) == SIG_ERR))
		return SIG_ERR;
	sigemptyset(&this);
	sigaddset(&this, signal);
	signal_thread_mask(block ? SIG_BLOCK : SIG_UNBLOCK, &this, &before);
	return sigismember(&before, signal) ? SIG_HOLD : now.sa_handler;
}

int signal_ignore(int signal) __asm__("sigignore");
EXPORT int signal_ignore(int signal)
{
	if (is_guarded(signal))
		return set_handler(signal, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
	return NEXT(signal_ignore, "sigignore")(signal);
}

int signal_interrupt(int signal, int wanted) __asm__("siginterrupt");
EXPORT int signal_interrupt(int signal, int wanted)
{
	if (!is_guarded(signal))
		return NEXT(signal_interrupt, "siginterrupt")(signal, wanted);
	struct sigaction action;
	guard_use(next_action, true);
	if (guard_action(signal, NULL, &action) != 0)
		return -1;
	if (wanted)
		atomic_fetch_or(&interrupting, 1u << signal);
	else
		atomic_fetch_and(&interrupting, ~(1u << signal));
	action.sa_flags = wanted ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
	return guard_action(signal, &action, NULL);
}

#endif
