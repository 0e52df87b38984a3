/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's limits within a host, without a network: what one copy from another process's memory reaches, and how long a
 * cache line takes there and back. Prints JSON: MB/s, microseconds of half a round trip.
 * usage: host_copy BYTES */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIPS = 200000, LIMIT_SECONDS = 60 };
#define COPIED (UINT64_C(4) << 30)

struct shared {
	_Alignas(64) atomic_uint there;
	_Alignas(64) atomic_uint back;
};

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void answer(struct shared *shared)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 1; i <= TRIPS; i++) {
		while (atomic_load_explicit(&shared->there, memory_order_acquire) < i)
			;
		atomic_store_explicit(&shared->back, i, memory_order_release);
	}
	for (;;)
		pause();
}

static double half_trip(struct shared *shared)
{
	double begin = seconds();
	for (unsigned i = 1; i <= TRIPS; i++) {
		atomic_store_explicit(&shared->there, i, memory_order_release);
		while (atomic_load_explicit(&shared->back, memory_order_acquire) < i)
			;
	}
	return (seconds() - begin) / TRIPS / 2;
}

int main(int argc, char **argv)
{
	size_t size = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (size == 0 || shared == MAP_FAILED) {
		fputs("usage: host_copy BYTES\n", stderr);
		return 2;
	}
	/* At the same place in both. */
	uint8_t *theirs = malloc(size), *mine = malloc(size);
	if (!theirs || !mine)
		return 1;
	memset(theirs, 1, size);
	memset(mine, 2, size);
	alarm(LIMIT_SECONDS);
	pid_t child = fork();
	if (child == 0)
		answer(shared);
	if (child < 0)
		return 1;
	memset(theirs, 3, size); /* not the pages that the child has */
	double trip = half_trip(shared);

	uint64_t copied = 0;
	double begin = seconds();
	for (; copied < COPIED; copied += size) {
		struct iovec here = { mine, size }, there = { theirs, size };
		if (process_vm_readv(child, &here, 1, &there, 1, 0) != (ssize_t)size) {
			perror("host_copy: process_vm_readv");
			return 1;
		}
	}
	printf("{\"copy_MB_s\": %.0f, \"half_trip_us\": %.3f}\n", (double)copied / (seconds() - begin) / 1e6, trip * 1e6);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}
