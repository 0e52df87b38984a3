/* SPDX-License-Identifier: Apache-2.0 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "log.h"

enum {
	CHECK_NS = 1000000, /* between looks whether the handlers are in front */
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

/* What the application had, or has installed since. Read by the handler: only ever replaced whole, under the device's lock. */
static struct sigaction before[SIGNALS];
static atomic_uint generation; /* odd while `before` changes */
static uint64_t checked_at;
static bool installed;

/* ---- the handler ---- */

static bool is_ours(uintptr_t fault)
{
	for (size_t i = 0; i < pieces_count; i++) {
		uintptr_t first = (uintptr_t)pieces_guarded[i].iov_base & ~(uintptr_t)(PAGE - 1);
		if (fault >= first && fault < (uintptr_t)pieces_guarded[i].iov_base + pieces_guarded[i].iov_len)
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
	if (!own || (action.sa_flags & SA_RESETHAND)) {
		struct sigaction standard = { .sa_handler = SIG_DFL };
		sigaction(signal, &standard, NULL);
	}
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
	    is_ours((uintptr_t)info->si_addr)) {
		const ucontext_t *interrupted = context;
		atomic_store_explicit(&active, false, memory_order_relaxed);
		pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
		GUARD_JUMP(recover);
	}
	pass_on(signal, info, context);
}

/* ---- installing ---- */

static void install(unsigned index)
{
	struct sigaction now;

	if (sigaction(guarded[index], NULL, &now) != 0 || ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handle))
		return;
	atomic_fetch_add(&generation, 1);
	before[index] = now;
	atomic_fetch_add(&generation, 1);
	/* The application's handler runs from ours, with the mask and on the stack that it asked for. */
	struct sigaction ours = { .sa_sigaction = handle, .sa_mask = now.sa_mask };
	bool none = !(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN);
	ours.sa_flags = SA_SIGINFO | (none ? SA_ONSTACK : now.sa_flags & (SA_ONSTACK | SA_NODEFER | SA_RESTART));
	if (sigaction(guarded[index], &ours, NULL) != 0)
		log_write(LOG_WARN, "cannot handle signal %d: %s; memory that is unmapped while it is registered ends the program",
			  guarded[index], strerror(errno));
}

void guard_install(uint64_t now)
{
	static _Thread_local bool unblocked;

	/* The kernel ends a program that faults while these are blocked. */
	if (!unblocked) {
		sigset_t both;
		sigemptyset(&both);
		for (unsigned i = 0; i < SIGNALS; i++)
			sigaddset(&both, guarded[i]);
		pthread_sigmask(SIG_UNBLOCK, &both, NULL);
		unblocked = true;
	}
	if (installed && now - checked_at < CHECK_NS)
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
