/* SPDX-License-Identifier: Apache-2.0 */
/* How long a cache line takes from one processor to another: two threads, each kept on a processor of its own, pass a number to and
 * fro. On a virtual machine it changes while it runs, and the latency and message rate of shared memory with it.
 * usage: cache_line: prints the median of several runs, one way, in nanoseconds. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PASSES = 20000, RUNS = 9, LINE = 64 };

static _Alignas(LINE) atomic_uint there;
static _Alignas(LINE) atomic_uint back;

/* The first or the last of the processors that this process may use. */
static void stay_on(bool last)
{
	cpu_set_t may, own;
	CPU_ZERO(&own);
	if (sched_getaffinity(0, sizeof may, &may) != 0)
		return;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &may))
			continue;
		CPU_ZERO(&own);
		CPU_SET(i, &own);
		if (!last)
			break;
	}
	sched_setaffinity(0, sizeof own, &own);
}

static void *answer(void *arg)
{
	(void)arg;
	stay_on(true);
	for (unsigned i = 1; i <= RUNS * PASSES; i++) {
		while (atomic_load_explicit(&there, memory_order_acquire) != i)
			;
		atomic_store_explicit(&back, i, memory_order_release);
	}
	return NULL;
}

static double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(void)
{
	double ns[RUNS];
	pthread_t thread;
	unsigned i = 0;

	stay_on(false);
	if (pthread_create(&thread, NULL, answer, NULL) != 0) {
		fputs("cache_line: cannot start a thread\n", stderr);
		return 1;
	}
	for (unsigned run = 0; run < RUNS; run++) {
		double began = now_ns();
		for (unsigned pass = 0; pass < PASSES; pass++) {
			atomic_store_explicit(&there, ++i, memory_order_release);
			while (atomic_load_explicit(&back, memory_order_acquire) != i)
				;
		}
		ns[run] = (now_ns() - began) / PASSES / 2;
	}
	pthread_join(thread, NULL);
	qsort(ns, RUNS, sizeof ns[0], compare);
	printf("%.0f\n", ns[RUNS / 2]);
	return 0;
}
