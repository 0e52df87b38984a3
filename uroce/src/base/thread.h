/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the device's own. */
#ifndef UROCE_THREAD_H
#define UROCE_THREAD_H

#include <pthread.h>

/* Starts one to which no signal is delivered: signals are the application's. 0 or a positive errno. */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
