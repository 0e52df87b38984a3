/* SPDX-License-Identifier: Apache-2.0 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "log.h"

enum {
	CHECK_NS = 1000000,     /* between looks whether the handlers are in front */
	CHECK_SOON_NS = 20000,  /* the same where the program's calls are not seen: a hundredth of the time goes there */
	SIGNALS = 2,
	PAGE = 4096, /* at least: some processors tell the page of a fault alone */
};

static const int guarded[SIGNALS] = { SIGSEGV, SIGBUS };

/* Of the thread that is within the guard. */
static guard_point recover;
static const struct iovec *pieces_guarded;
static size_t pieces_count;
static pthread_t inside;
static atomic_bool active;

/* What the application had, or has installed since. Read by the handler: only ever replaced whole. */
static struct sigaction before[SIGNALS];
static atomic_flag changing = ATOMIC_FLAG_INIT; /* by whom the actions are changed holds it */
static atomic_uint generation; /* odd while `before` changes */
static uint64_t checked_at;
static atomic_bool installed;

static guard_sigaction *set_action = sigaction; /* the C library's */
static bool sees_calls; /* of the program, for guard_action */
static _Thread_local bool unblocked;

/* ---- the handler ---- */

static bool is_ours(int code, uintptr_t fault)
{
	/* An address that no mapping can have: the processor does not tell which, and the copy is all that this thread does. */
	if (code == SI_KERNEL && fault == 0)
		return true;
	for (size_t i = 0; i < pieces_count; i++) {
		uintptr_t begin = (uintptr_t)pieces_guarded[i].iov_base, first = begin & ~(uintptr_t)(PAGE - 1);
		/* Its end may be beyond the last address. */
		if (fault >= first && fault - first < begin - first + pieces_guarded[i].iov_len)
			return true;
	}
	return false;
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
	struct sigaction action;
	unsigned was;

	do {
		was = atomic_load(&generation);
		action = before[signal == SIGBUS];
	} while ((was & 1) || was != atomic_load(&generation));
	bool sent = info->si_code <= 0; /* by kill(), not by an access */
	bool own = action.sa_flags & SA_SIGINFO ? action.sa_sigaction != NULL
						: action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
	if (!own && sent && action.sa_handler == SIG_IGN)
		return;
	struct sigaction standard = { .sa_handler = SIG_DFL };
	if (!own)
		set_action(signal, &standard, NULL);
	else if (action.sa_flags & SA_RESETHAND)
		guard_action(signal, &standard, NULL); /* behind ours, which stays */
	if (own && (action.sa_flags & SA_SIGINFO))
		action.sa_sigaction(signal, info, context);
	else if (own)
		action.sa_handler(signal);
	else if (sent)
		raise(signal); /* when this returns; an access faults again by itself */
}

static void handle(int signal, siginfo_t *info, void *context)
{
	if (info->si_code > 0 && atomic_load_explicit(&active, memory_order_relaxed) && pthread_equal(inside, pthread_self()) &&
	    is_ours(info->si_code, (uintptr_t)info->si_addr)) {
		const ucontext_t *interrupted = context;
		atomic_store_explicit(&active, false, memory_order_relaxed);
		pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
		GUARD_JUMP(recover);
	}
	pass_on(signal, info, context);
}

/* ---- installing ---- */

static bool is_in_front(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == handle;
}

/* Puts the handlers in front of `behind`, which runs from ours, with the mask and on the stack that it asked for. */
static int put_in_front(unsigned index, const struct sigaction *behind)
{
	atomic_fetch_add(&generation, 1);
	before[index] = *behind;
	atomic_fetch_add(&generation, 1);
	struct sigaction ours = { .sa_sigaction = handle, .sa_mask = behind->sa_mask };
	bool none = !(behind->sa_flags & SA_SIGINFO) && (behind->sa_handler == SIG_DFL || behind->sa_handler == SIG_IGN);
	ours.sa_flags = SA_SIGINFO | (none ? SA_ONSTACK : behind->sa_flags & (SA_ONSTACK | SA_NODEFER | SA_RESTART));
	return set_action(guarded[index], &ours, NULL);
}

/* One thread at a time, which no signal interrupts: its handler might change the actions too. */
static void lock_actions(sigset_t *mask)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, mask);
	while (atomic_flag_test_and_set(&changing))
		sched_yield();
}

static void unlock_actions(const sigset_t *mask)
{
	atomic_flag_clear(&changing);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

static void install(unsigned index)
{
	struct sigaction now;
	sigset_t mask;

	if (set_action(guarded[index], NULL, &now) != 0 || is_in_front(&now))
		return;
	lock_actions(&mask);
	int error = set_action(guarded[index], NULL, &now) == 0 && !is_in_front(&now) ? put_in_front(index, &now) : 0;
	unlock_actions(&mask);
	if (error != 0)
		log_write(LOG_WARN, "cannot handle signal %d: %s; memory that is unmapped while it is registered ends the program",
			  guarded[index], strerror(errno));
}

void guard_use(guard_sigaction *real, bool sees)
{
	set_action = real;
	sees_calls = sees;
}

int guard_action(int signal, const struct sigaction *action, struct sigaction *old)
{
	unsigned index = signal == SIGBUS;
	struct sigaction now;
	sigset_t mask;

	if (signal != guarded[index])
		return set_action(signal, action, old);
	lock_actions(&mask);
	int error;
	if (!atomic_load(&installed)) {
		error = set_action(signal, action, old);
	} else if (set_action(signal, NULL, &now) == 0 && !is_in_front(&now)) {
		error = action ? put_in_front(index, action) : 0;
		if (error == 0 && old)
			*old = now;
	} else {
		now = before[index];
		error = action && action->sa_sigaction != handle ? put_in_front(index, action) : 0;
		if (error == 0 && old)
			*old = now;
	}
	unlock_actions(&mask);
	return error;
}

void guard_note_mask(void)
{
	unblocked = false;
}

bool guard_is_ready(void)
{
	return unblocked && installed;
}

void guard_install(uint64_t now)
{
	/* The kernel ends a program that faults while these are blocked. */
	if (!unblocked) {
		sigset_t both;
		sigemptyset(&both);
		for (unsigned i = 0; i < SIGNALS; i++)
			sigaddset(&both, guarded[i]);
		pthread_sigmask(SIG_UNBLOCK, &both, NULL);
		unblocked = true;
	}
	if (installed && now - checked_at < (sees_calls ? CHECK_NS : CHECK_SOON_NS))
		return;
	installed = true;
	checked_at = now;
	for (unsigned i = 0; i < SIGNALS; i++)
		install(i);
}

/* ---- access ---- */

guard_point *guard_begin(const struct iovec *pieces, size_t count)
{
	pieces_guarded = pieces;
	pieces_count = count;
	inside = pthread_self();
	atomic_store_explicit(&active, true, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	return &recover;
}

void guard_end(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&active, false, memory_order_relaxed);
}

bool guard_copy(void *to, const void *from, size_t length)
{
	/* Memory of the device, the one of the two, does not fault. */
	const struct iovec both[2] = { { to, length }, { (void *)(uintptr_t)from, length } };

	if (GUARD_SET(*guard_begin(both, 2)) != 0)
		return false;
	memcpy(to, from, length);
	guard_end();
	return true;
}
