/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own threads. */
#ifndef SRDMA_THREAD_H
#define SRDMA_THREAD_H

#include <pthread.h>

/* Starts a thread in which all signals are blocked, since the program's handlers must not run in a thread that the program does not know.
 * `stack`: bytes; 0: the system's default. `out` NULL: nobody joins it. Returns 0 or an errno, above 0. */
int srdma_thread_start(void *(*run)(void *arg), void *arg, size_t stack, pthread_t *out);

#endif
