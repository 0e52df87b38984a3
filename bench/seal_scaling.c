/* SPDX-License-Identifier: Apache-2.0 */
/* How sealing scales with --seal-threads, on a machine that has fewer processors than the question needs. It measures, with the
 * library's own lanes, what a chunk costs the owner and another thread, and the rate of real threads here with the bytes that each
 * sealed. Then it simulates a connection's pipeline with these costs, each thread on a processor of its own, in virtual time.
 * usage: seal_scaling [--size N] [--owner-ns N] [--round-trip-us N] [--bytes N]
 * --size: of a chunk, up to 262144. --owner-ns: what else a chunk costs the owner (posting, completions), beyond its hand-over;
 * default 3000. --round-trip-us: from the announcement of a chunk until its place in the ring is free again; default 30. */
#include "seal_lane.h"
#include "seal_parts.h"
#include "seal_pool.h"
#include "sealed_ring.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 16, CHUNKS = 20000 };

static struct {
	uint32_t size;
	double owner_ns, round_trip_ns, bytes;
} asked = {.size = SRDMA_SEALED_CHUNK, .owner_ns = 3000, .round_trip_ns = 30000, .bytes = 2e9};

static uint8_t *plain, *sealed;
static uint32_t room; /* chunks in the ring */

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double wall_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void wake(void *arg)
{
	(void)arg;
}

static void die(const char *what)
{
	fprintf(stderr, "seal_scaling: %s\n", what);
	exit(1);
}

static struct srdma_seal_work work_of(uint64_t number)
{
	uint64_t at = number % room * (asked.size + 64);

	return (struct srdma_seal_work){.number = number, .length = asked.size, .header_length = 28, .from = plain + at, .to = sealed + at};
}

/* ---- with real threads ----------------------------------------------------------------------------------------- */

static struct srdma_seal_lane *new_lane(struct srdma_seal_pool *pool, struct srdma_sealer **sealer)
{
	const uint8_t secret[SRDMA_SEAL_SECRET] = {1};
	struct srdma_seal_lane *lane;

	if (srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, secret, sealer) != 0 || srdma_seal_lane_new(pool, true, wake, NULL, &lane) != 0)
		die("no lane");
	srdma_seal_lane_set_key(lane, srdma_sealer_key(*sealer));
	return lane;
}

/* The CPU time that a chunk costs this thread: in the lane alone, and with its sealing. */
static void measure(double *hand_over, double *seal)
{
	struct srdma_seal_pool *pool;
	struct srdma_sealer *sealer;
	struct srdma_seal_lane *lane;
	double began, both;
	unsigned count = (unsigned)(asked.bytes / 4 / asked.size) + 100;

	if (srdma_seal_pool_new(1, &pool) != 0)
		die("no threads");
	lane = new_lane(pool, &sealer);
	began = now_ns();
	for (unsigned i = 0; i < count; i++) {
		struct srdma_seal_work work = work_of(i);

		srdma_seal_lane_add(lane, &work);
		srdma_seal_lane_look(lane, NULL);
		srdma_seal_lane_take_back(lane);
	}
	*hand_over = (now_ns() - began) / count;
	began = now_ns();
	for (unsigned i = 0; i < count; i++) {
		struct srdma_seal_work work = work_of(i);

		srdma_seal_lane_add(lane, &work);
		srdma_seal_lane_help(lane);
		srdma_seal_lane_pop(lane);
	}
	both = (now_ns() - began) / count;
	*seal = both - *hand_over;
	srdma_seal_lane_delete(&lane);
	srdma_sealer_delete(&sealer);
	srdma_seal_pool_delete(&pool);
}

/* The owner of a connection that has always something to send. */
static void run_threads(unsigned threads)
{
	struct srdma_seal_pool *pool;
	struct srdma_sealer *sealer;
	struct srdma_seal_lane *lane;
	uint64_t added = 0, taken = 0, count = (uint64_t)(asked.bytes / asked.size);
	double began = wall_ns(), seconds;

	if (srdma_seal_pool_new(threads, &pool) != 0)
		die("no threads");
	lane = new_lane(pool, &sealer);
	while (taken < count) {
		while (added < count && added - taken < room) {
			struct srdma_seal_work work = work_of(added++);

			srdma_seal_lane_add(lane, &work);
		}
		if (srdma_seal_lane_look(lane, NULL) == SRDMA_SEAL_DONE) {
			srdma_seal_lane_pop(lane);
			taken++;
		} else {
			srdma_seal_lane_help(lane);
		}
	}
	seconds = (wall_ns() - began) / 1e9;
	printf("  %2u seal threads: %.2f GB/s; MB by each, the owner first:", threads, (double)count * asked.size / seconds / 1e9);
	for (unsigned i = 0; i <= threads; i++)
		printf(" %.0f", (double)srdma_seal_pool_bytes(pool, i) / 1e6);
	putchar('\n');
	srdma_seal_lane_delete(&lane);
	srdma_sealer_delete(&sealer);
	srdma_seal_pool_delete(&pool);
}

/* ---- in virtual time ------------------------------------------------------------------------------------------- */

struct chunk {
	double added, done, freed; /* times; done 0: nobody has begun */
};

static struct {
	struct chunk chunks[CHUNKS];
	unsigned added, begun, taken, freed;
	double idle[THREADS_MAX + 1]; /* from then on each thread has time; 0: the owner */
	unsigned by[THREADS_MAX + 1];
} sim;

/* The threads begin what they can until `now`: the one that has been idle longest takes the oldest chunk. */
static void run_until(double now, unsigned threads, double claim, double seal)
{
	while (sim.begun < sim.added) {
		struct chunk *chunk = &sim.chunks[sim.begun];
		unsigned first = 1;
		double start;

		for (unsigned i = 2; i <= threads; i++)
			if (sim.idle[i] < sim.idle[first])
				first = i;
		start = threads > 0 && sim.idle[first] > chunk->added ? sim.idle[first] : chunk->added;
		if (threads == 0 || start > now)
			return;
		chunk->done = sim.idle[first] = start + claim + seal;
		sim.by[first]++;
		sim.begun++;
	}
}

/* Returns the bytes a nanosecond. */
static double simulate(unsigned threads, double hand_over, double seal)
{
	double now = 0;

	memset(&sim, 0, sizeof sim);
	while (sim.taken < CHUNKS) {
		run_until(now, threads, hand_over / 2, seal);
		while (sim.freed < sim.taken && sim.chunks[sim.freed].freed <= now)
			sim.freed++;
		if (sim.taken < sim.added && sim.chunks[sim.taken].done > 0 && sim.chunks[sim.taken].done <= now) {
			now += asked.owner_ns;
			sim.chunks[sim.taken++].freed = now + asked.round_trip_ns;
		} else if (sim.added < CHUNKS && sim.added - sim.freed < room) {
			now += hand_over;
			sim.chunks[sim.added++].added = now;
		} else if (sim.begun < sim.added) {
			now += seal;
			sim.chunks[sim.begun++].done = now;
			sim.by[0]++;
		} else {
			/* Nothing to do: until the oldest chunk is sealed, or a place is free. */
			double next = sim.freed < sim.taken ? sim.chunks[sim.freed].freed : sim.chunks[sim.taken].done;

			if (sim.taken < sim.added && sim.chunks[sim.taken].done < next)
				next = sim.chunks[sim.taken].done;
			now = next;
		}
	}
	return (double)CHUNKS * asked.size / now;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"size", 1, NULL, 's'}, {"owner-ns", 1, NULL, 'o'}, {"round-trip-us", 1, NULL, 'r'}, {"bytes", 1, NULL, 'b'}, {NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': asked.size = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'o': asked.owner_ns = strtod(optarg, NULL); break;
		case 'r': asked.round_trip_ns = 1000 * strtod(optarg, NULL); break;
		case 'b': asked.bytes = strtod(optarg, NULL); break;
		default: exit(2);
		}
	}
	if (optind != argc || asked.size < 1 || asked.size > SRDMA_SEALED_CHUNK || asked.bytes < 1)
		die("usage: seal_scaling [--size N] [--owner-ns N] [--round-trip-us N] [--bytes N]");
}

int main(int argc, char **argv)
{
	static const unsigned real[] = {1, 2, 4}, virtual[] = {0, 1, 2, 3, 4, 6, 8, 12, 16};
	double hand_over, seal, alone = 0;

	parse(argc, argv);
	room = SRDMA_SEALED_RING / srdma_sealed_ring_align(asked.size + SRDMA_SEAL_OVERHEAD);
	room = room < SRDMA_SEAL_LANE_ROOM ? room : SRDMA_SEAL_LANE_ROOM;
	plain = calloc(room, asked.size + 64);
	sealed = calloc(room, asked.size + 64);
	if (!plain || !sealed)
		die("out of memory");
	measure(&hand_over, &seal);
	printf("chunks of %u bytes: sealing takes %.0f ns (%.2f GB/s), the hand-over through a lane %.0f ns\n", asked.size, seal, asked.size / seal,
	       hand_over);
	puts("real threads on this machine:");
	for (size_t i = 0; i < sizeof real / sizeof *real; i++)
		run_threads(real[i]);
	printf("simulated, a processor for each thread; %.0f ns more of the owner for a chunk, %.0f us round trip:\n", asked.owner_ns,
	       asked.round_trip_ns / 1000);
	for (size_t i = 0; i < sizeof virtual / sizeof *virtual; i++) {
		double rate = simulate(virtual[i], hand_over, seal);

		alone = i == 0 ? rate : alone;
		printf("  %2u seal threads: %.2f GB/s, %.2f times one thread; chunks by each, the owner first:", virtual[i], rate, rate / alone);
		for (unsigned k = 0; k <= virtual[i]; k++)
			printf(" %u", sim.by[k]);
		putchar('\n');
	}
	free(plain);
	free(sealed);
	return 0;
}
