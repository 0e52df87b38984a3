/* SPDX-License-Identifier: Apache-2.0 */
#include "thread.h"

#include <signal.h>

int srdma_thread_start(void *(*run)(void *), void *arg, size_t stack, pthread_t *out)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int error = pthread_attr_init(&attr);

	if (error != 0)
		return error;
	if (stack > 0)
		error = pthread_attr_setstacksize(&attr, stack);
	if (!out)
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (error == 0)
		error = pthread_create(out ? out : &thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return error;
}
