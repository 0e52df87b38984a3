/* SPDX-License-Identifier: Apache-2.0 */
/* How long a cache line takes from one processor to another: two threads, each kept on a processor of its own, pass a number to and
 * fro. On a virtual machine it changes while it runs, and the latency and message rate of shared memory with it.
 * usage: cache_line: prints the median of several runs, one way, in nanoseconds; fails where not one ends within 3 s. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PASSES = 2000, RUNS = 9, LINE = 64 };
#define LIMIT_NS 3e9 /* on a busy machine, or one with a single processor: the runs so far count */

static _Alignas(LINE) atomic_uint there;
static _Alignas(LINE) atomic_uint back;
static double end;
static pthread_barrier_t placed;

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

static double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Waits until the other thread has written `value`. False: not before the end. */
static bool await(atomic_uint *from, unsigned value)
{
	for (unsigned looks = 1; atomic_load_explicit(from, memory_order_acquire) != value; looks++)
		if (looks % 1024 == 0 && now_ns() > end)
			return false;
	return true;
}

static void *answer(void *arg)
{
	(void)arg;
	stay_on(true);
	pthread_barrier_wait(&placed);
	for (unsigned i = 1; i <= RUNS * PASSES && await(&there, i); i++)
		atomic_store_explicit(&back, i, memory_order_release);
	return NULL;
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
	unsigned i = 0, runs = 0;

	end = now_ns() + LIMIT_NS;
	pthread_barrier_init(&placed, NULL, 2);
	if (pthread_create(&thread, NULL, answer, NULL) != 0) {
		fputs("cache_line: cannot start a thread\n", stderr);
		return 1;
	}
	pthread_barrier_wait(&placed); /* a thread has its processors from the one that made it */
	stay_on(false);
	for (bool answered = true; answered && runs < RUNS;) {
		double began = now_ns();
		for (unsigned pass = 0; pass < PASSES && answered; pass++) {
			atomic_store_explicit(&there, ++i, memory_order_release);
			answered = await(&back, i);
		}
		if (answered)
			ns[runs++] = (now_ns() - began) / PASSES / 2;
	}
	pthread_join(thread, NULL);
	if (runs == 0) {
		fputs("cache_line: the threads were not both running within 3 s; run it on an idle machine with two processors\n", stderr);
		return 1;
	}
	qsort(ns, runs, sizeof ns[0], compare);
	printf("%.0f\n", ns[runs / 2]);
	return 0;
}
