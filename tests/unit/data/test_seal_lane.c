/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes and their pool. Linked with --wrap for what a thread does to a record and to a key: the threads of the pool are made slow, are
 * held, and fail, so that whatever they do, the results must be those of one thread. SECURDMA_TEST_SEED=N runs that sequence alone. */
#include "test.h"

#include "seal_lane.h"
#include "seal_parts.h"
#include "seal_pool.h"

#include "log.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 3, SEQUENCES = 24, RECORDS = 300, LONGEST = 9000, ORDER_MAX = 64, LONG = 32768,
       STREAM_CONTEXTS = 3 /* of the sealers and the opener themselves */ };

static pthread_t owner;
static atomic_uint seed_of_faults;   /* 0: none */
static atomic_uint contexts;         /* alive */
static sem_t entered, released;
static atomic_bool hold;             /* a thread of the pool waits for `released` before it does a work */
static _Atomic uint64_t order[ORDER_MAX]; /* the numbers of the works that the pool's threads did */
static atomic_uint order_count;
static atomic_uint others;           /* works that they did */

bool __real_srdma_seal_key_seal(const struct srdma_seal_key *, uint64_t, const void *, size_t, const void *, size_t, void *);
bool __real_srdma_seal_key_open(const struct srdma_seal_key *, uint64_t, const void *, size_t, const void *, size_t, uint8_t *, void *);
bool __real_srdma_seal_key_copy(const struct srdma_seal_key *, bool, struct srdma_seal_key *);
void __real_srdma_seal_key_drop(struct srdma_seal_key *);

EVP_CIPHER_CTX *__real_EVP_CIPHER_CTX_new(void);
void __real_EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *);

EVP_CIPHER_CTX *__wrap_EVP_CIPHER_CTX_new(void)
{
	atomic_fetch_add(&contexts, 1);
	return __real_EVP_CIPHER_CTX_new();
}

void __wrap_EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context)
{
	if (context)
		atomic_fetch_sub(&contexts, 1);
	__real_EVP_CIPHER_CTX_free(context);
}

/* Any number of threads draws from it. */
static unsigned fault(unsigned n)
{
	unsigned seed = atomic_load(&seed_of_faults), next;

	if (seed == 0)
		return 1;
	do
		next = seed * 1664525u + 1013904223u;
	while (!atomic_compare_exchange_weak(&seed_of_faults, &seed, next ? next : 1));
	return (next >> 8) % n;
}

static void be_slow(uint64_t number)
{
	if (pthread_equal(pthread_self(), owner))
		return;
	if (atomic_load(&hold)) {
		sem_post(&entered);
		sem_wait(&released);
	}
	unsigned at = atomic_fetch_add(&order_count, 1);

	atomic_fetch_add(&others, 1);
	if (at < ORDER_MAX)
		atomic_store(&order[at], number);
	if (fault(4) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 1000 * (long)fault(300)}, NULL);
}

bool __wrap_srdma_seal_key_seal(const struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length,
				const void *data, size_t length, void *out)
{
	be_slow(number);
	return __real_srdma_seal_key_seal(key, number, header, header_length, data, length, out);
}

bool __wrap_srdma_seal_key_open(const struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length,
				const void *data, size_t length, uint8_t *tag, void *out)
{
	be_slow(number);
	return __real_srdma_seal_key_open(key, number, header, header_length, data, length, tag, out);
}

bool __wrap_srdma_seal_key_copy(const struct srdma_seal_key *key, bool seal, struct srdma_seal_key *out)
{
	if (!pthread_equal(pthread_self(), owner) && fault(3) == 0)
		return false;
	return __real_srdma_seal_key_copy(key, seal, out);
}

void __wrap_srdma_seal_key_drop(struct srdma_seal_key *key)
{
	__real_srdma_seal_key_drop(key);
	for (size_t i = 0; i < sizeof *key; i++)
		assert_int_equal(((uint8_t *)key)[i], 0);
}

/* ---- queues, sealed by one thread and by many -------------------------------------------------------------------- */

static const uint8_t secret[SRDMA_SEAL_SECRET] = {7};
static struct srdma_seal_pool *pool;
static struct srdma_sealer *alone, *shared;
static struct srdma_opener *opener;
static struct srdma_seal_lane *lane;
static atomic_uint wakes;

static void wake(void *arg)
{
	atomic_fetch_add(&wakes, 1);
}

static struct srdma_seal_lane *new_lane(bool seal)
{
	struct srdma_seal_lane *made;

	assert_int_equal(srdma_seal_lane_new(pool, seal, wake, NULL, &made), 0);
	return made;
}

static int begin_test(void **unused)
{
	owner = pthread_self();
	atomic_store(&seed_of_faults, 0);
	atomic_store(&order_count, 0);
	atomic_store(&others, 0);
	atomic_store(&wakes, 0);
	assert_int_equal(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, secret, &alone), 0);
	assert_int_equal(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, secret, &shared), 0);
	assert_int_equal(srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, secret, &opener), 0);
	return 0;
}

static void start(unsigned threads, bool seal)
{
	assert_int_equal(srdma_seal_pool_new(threads, &pool), 0);
	lane = new_lane(seal);
	if (seal)
		srdma_seal_lane_set_key(lane, srdma_sealer_key(shared));
	else
		srdma_seal_lane_set_key(lane, srdma_opener_key(opener, 0));
}

static int end_test(void **unused)
{
	srdma_seal_lane_delete(&lane);
	assert_int_equal(atomic_load(&contexts), STREAM_CONTEXTS);
	srdma_seal_pool_delete(&pool);
	srdma_sealer_delete(&alone);
	srdma_sealer_delete(&shared);
	srdma_opener_delete(&opener);
	assert_int_equal(atomic_load(&contexts), 0);
	return 0;
}

#define PIPELINE .setup_func = begin_test, .teardown_func = end_test

static struct srdma_seal_work work_of(uint64_t number, const void *from, void *to, uint32_t length)
{
	struct srdma_seal_work work = {.number = number, .length = length, .header_length = 8, .from = from, .to = to};

	memcpy(work.header, &number, sizeof number);
	return work;
}

/* The record as one thread seals it. */
static void seal_alone(uint64_t number, const void *data, uint32_t length, uint8_t *out)
{
	assert_int_equal(srdma_sealer_next(alone), number);
	assert_int_equal(srdma_sealer_seal(alone, &number, sizeof number, data, length, out), 0);
}

struct record {
	uint8_t data[LONGEST], sealed[LONGEST + SRDMA_SEAL_OVERHEAD], out[LONGEST + SRDMA_SEAL_OVERHEAD];
	uint32_t length;
	bool forged;
};
static struct record records[RECORDS];

static void make_records(unsigned *state)
{
	for (uint64_t i = 0; i < RECORDS; i++) {
		struct record *r = &records[i];

		*r = (struct record){.length = rand_r(state) % 5 == 0 ? (unsigned)rand_r(state) % 50 : (unsigned)rand_r(state) % LONGEST};
		for (uint32_t k = 0; k < r->length; k++)
			r->data[k] = (uint8_t)rand_r(state);
		seal_alone(i, r->data, r->length, r->sealed);
	}
}

/* The owner's part of a transfer: it adds what there is room for, takes what is done in order, and helps. Returns how many records it
 * took before one failed. */
static uint64_t transfer(bool seal, unsigned *state)
{
	uint64_t added = 0, taken = 0, number;

	while (taken < RECORDS) {
		const struct srdma_seal_work *work;

		for (unsigned burst = 1 + (unsigned)rand_r(state) % 12; burst > 0 && added < RECORDS && srdma_seal_lane_count(lane) < SRDMA_SEAL_LANE_ROOM; burst--) {
			struct record *r = &records[added];
			struct srdma_seal_work next = seal ? work_of(added, r->data, r->out, r->length) : work_of(added, r->sealed, r->out, r->length);

			if (seal) {
				assert_int_equal(srdma_sealer_reserve(shared, &number), 0);
				assert_int_equal(number, added);
			}
			srdma_seal_lane_add(lane, &next);
			added++;
		}
		switch (srdma_seal_lane_look(lane, &work)) {
		case SRDMA_SEAL_DONE:
			assert_int_equal(work->number, taken);
			if (seal)
				assert_memory_equal(records[taken].out, records[taken].sealed, records[taken].length + SRDMA_SEAL_OVERHEAD);
			else
				assert_memory_equal(records[taken].out, records[taken].data, records[taken].length);
			srdma_seal_lane_pop(lane);
			taken++;
			break;
		case SRDMA_SEAL_FAILED: return taken;
		default:
			if (rand_r(state) % 3 == 0 || added == RECORDS || srdma_seal_lane_count(lane) == SRDMA_SEAL_LANE_ROOM)
				srdma_seal_lane_help(lane);
		}
	}
	return taken;
}

static void run_sequence(unsigned seed)
{
	unsigned state = seed;
	bool seal = seed % 2;

	begin_test(NULL);
	make_records(&state);
	atomic_store(&seed_of_faults, seed);
	start(1 + seed % THREADS, seal);
	if (!seal && seed % 4 == 0) {
		uint64_t forged = (unsigned)rand_r(&state) % RECORDS;

		records[forged].sealed[records[forged].length] ^= 1;
		assert_int_equal(transfer(seal, &state), forged);
		for (uint32_t i = 0; i < records[forged].length; i++)
			assert_int_equal(records[forged].out[i], 0);
	} else {
		assert_int_equal(transfer(seal, &state), RECORDS);
	}
	end_test(NULL);
}

TEST(slow_and_faulty_threads_change_neither_results_nor_order)
{
	const char *only = getenv("SECURDMA_TEST_SEED");

	for (unsigned seed = 1; seed <= SEQUENCES; seed++)
		run_sequence(only ? (unsigned)atoi(only) : seed);
}

/* ---- single properties --------------------------------------------------------------------------------------------- */

static uint8_t data[SRDMA_SEAL_LANE_ROOM][LONG], out[SRDMA_SEAL_LANE_ROOM][LONG + SRDMA_SEAL_OVERHEAD];

/* Numbers from `base` on, which no sealer has to give out here. */
static void add_long(struct srdma_seal_lane *to, uint64_t base, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct srdma_seal_work work = work_of(base + i, data[i], out[i], LONG);

		srdma_seal_lane_add(to, &work);
	}
}

static void let_go(void)
{
	atomic_store(&hold, false);
	sem_post(&released);
}

TEST(the_owner_does_what_nobody_has_begun_while_a_thread_is_stuck, PIPELINE)
{
	unsigned done = 0;

	atomic_store(&hold, true);
	start(1, true);
	add_long(lane, 0, 8);
	sem_wait(&entered);
	while (srdma_seal_lane_help(lane))
		done++;
	assert_int_equal(done, 7);
	assert_false(srdma_seal_lane_can_help(lane));
	let_go();
	srdma_seal_lane_settle(lane);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_DONE);
		srdma_seal_lane_pop(lane);
	}
	assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_NONE);
	assert_int_equal(srdma_seal_pool_bytes(pool, 0), 7 * LONG);
	assert_int_equal(srdma_seal_pool_bytes(pool, 1), LONG);
}

/* It is let go from another thread, while the owner is in the drop. */
static void *let_go_later(void *arg)
{
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	let_go();
	return NULL;
}

TEST(after_a_drop_no_thread_touches_the_memory, PIPELINE)
{
	pthread_t helper;

	atomic_store(&hold, true);
	start(2, true);
	add_long(lane, 0, 1);
	add_long(lane, 1, 1);
	sem_wait(&entered);
	assert_int_equal(pthread_create(&helper, NULL, let_go_later, NULL), 0);
	sem_post(&released); /* the second thread may have begun, too */
	srdma_seal_lane_drop(lane);
	memset(out, 0x5a, sizeof out);
	assert_int_equal(srdma_seal_lane_count(lane), 0);
	pthread_join(helper, NULL);
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	for (size_t i = 0; i < sizeof out; i++)
		assert_int_equal(((uint8_t *)out)[i], 0x5a);
	while (sem_trywait(&released) == 0)
		;
	while (sem_trywait(&entered) == 0)
		;
}

TEST(the_queue_serves_the_lane_that_waits_longest, PIPELINE)
{
	struct srdma_seal_lane *little;
	unsigned of_little = 0;

	atomic_store(&hold, true);
	start(1, true);
	little = new_lane(true);
	srdma_seal_lane_set_key(little, srdma_sealer_key(shared));
	add_long(lane, 0, 20);
	sem_wait(&entered); /* the thread has put the first lane back into the queue */
	add_long(little, 1000, 4);
	let_go();
	/* The owner does nothing itself. */
	for (unsigned tries = 0; atomic_load(&order_count) < 24 && tries < 10000; tries++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	assert_int_equal(atomic_load(&order_count), 24);
	/* Of nine works, each lane got its turn every other time. */
	for (unsigned i = 0; i < 9; i++)
		of_little += atomic_load(&order[i]) >= 1000;
	assert_int_equal(of_little, 4);
	srdma_seal_lane_delete(&little);
}

TEST(a_work_that_nobody_has_begun_can_be_taken_back, PIPELINE)
{
	atomic_store(&hold, true);
	start(1, true);
	add_long(lane, 0, 3);
	sem_wait(&entered); /* at the oldest */
	assert_false(srdma_seal_lane_take_back(lane));
	assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_BEGUN);
	let_go();
	srdma_seal_lane_await(lane);
	assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_DONE);
	srdma_seal_lane_drop(lane);
	add_long(lane, 3, 1);
	assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_WAITING);
	assert_true(srdma_seal_lane_take_back(lane));
	assert_int_equal(srdma_seal_lane_count(lane), 0);
}

TEST(a_sleeping_owner_is_woken_once, PIPELINE)
{
	start(2, true);
	srdma_seal_lane_arm(lane);
	add_long(lane, 0, 8);
	for (unsigned tries = 0; atomic_load(&wakes) == 0 && tries < 10000; tries++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	srdma_seal_lane_settle(lane);
	srdma_seal_lane_drop(lane);
	assert_int_equal(atomic_load(&wakes), 1);
}

TEST(a_single_work_that_the_owner_leaves_is_done_and_wakes_it, PIPELINE)
{
	start(1, true);
	add_long(lane, 0, 1);
	assert_true(srdma_seal_lane_leave(lane));
	for (unsigned tries = 0; atomic_load(&wakes) == 0 && tries < 10000; tries++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	assert_int_equal(srdma_seal_lane_look(lane, NULL), SRDMA_SEAL_DONE);
	assert_int_equal(atomic_load(&wakes), 1);
	assert_int_equal(atomic_load(&others), 1);
}

TEST(another_key_replaces_every_threads_context, PIPELINE)
{
	uint8_t expected[LONG + SRDMA_SEAL_OVERHEAD];
	struct srdma_seal_key other;

	start(2, true);
	add_long(lane, 0, 8);
	srdma_seal_lane_settle(lane);
	srdma_seal_lane_drop(lane);
	assert_true(atomic_load(&contexts) > STREAM_CONTEXTS);
	assert_int_equal(srdma_seal_ratchet_turn(&shared->ratchet, true, &other), 0);
	assert_false(srdma_seal_lane_has_key(lane, &other));
	srdma_seal_lane_set_key(lane, &other);
	assert_int_equal(atomic_load(&contexts), STREAM_CONTEXTS + 1);
	assert_true(srdma_seal_lane_has_key(lane, &other));
	add_long(lane, 1ull << SRDMA_SEAL_UPDATE_SHIFT, 8);
	srdma_seal_lane_settle(lane);
	for (unsigned i = 0; i < 8; i++) {
		const struct srdma_seal_work *work;

		assert_int_equal(srdma_seal_lane_look(lane, &work), SRDMA_SEAL_DONE);
		assert_true(__real_srdma_seal_key_seal(&other, work->number, work->header, work->header_length, work->from, LONG, expected));
		assert_memory_equal(work->to, expected, sizeof expected);
		srdma_seal_lane_pop(lane);
	}
	__real_srdma_seal_key_drop(&other);
}

TEST(idle_threads_use_no_processor, PIPELINE)
{
	struct timespec before, after;
	double used;

	start(4, true);
	add_long(lane, 0, 8);
	srdma_seal_lane_settle(lane);
	srdma_seal_lane_drop(lane);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	used = (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
	assert_true(used < 0.1);
}

/* ---- the process's pool -------------------------------------------------------------------------------------------- */

TEST(connections_of_a_process_share_one_pool)
{
	struct srdma_seal_pool *first, *second, *third;

	assert_int_equal(srdma_seal_pool_share(1, &first), 0);
	assert_int_equal(srdma_seal_pool_share(3, &second), 0);
	assert_int_equal(srdma_seal_pool_share(2, &third), 0);
	assert_ptr_equal(first, second);
	assert_ptr_equal(first, third);
	assert_int_equal(srdma_seal_pool_threads(first), 3);
	srdma_seal_pool_leave(&first);
	assert_null(first);
	srdma_seal_pool_leave(&second);
	assert_int_equal(srdma_seal_pool_threads(third), 3);
	srdma_seal_pool_leave(&third);
}

static int live_in_child(void)
{
	static struct srdma_seal_pool *left_alone; /* for valgrind: it stays reachable */
	struct srdma_seal_pool *own;

	alarm(20);
	left_alone = pool;
	/* The parent's thread is at a work here for ever. */
	srdma_seal_lane_delete(&lane);
	srdma_seal_pool_delete(&pool);
	if (!left_alone)
		return 3;
#ifdef __SANITIZE_THREAD__
	return 0; /* ThreadSanitizer starts no threads after a fork. */
#endif
	if (srdma_seal_pool_share(1, &own) != 0)
		return 1;
	pool = own;
	lane = new_lane(true);
	srdma_seal_lane_set_key(lane, srdma_sealer_key(shared));
	atomic_store(&hold, false);
	add_long(lane, 0, 8);
	srdma_seal_lane_settle(lane);
	if (srdma_seal_lane_look(lane, NULL) != SRDMA_SEAL_DONE)
		return 2;
	srdma_seal_lane_delete(&lane);
	srdma_seal_pool_leave(&own);
	return 0;
}

TEST(a_child_lets_its_parents_threads_be, PIPELINE)
{
	struct srdma_seal_pool *parents;
	int status;
	pid_t child;

	assert_int_equal(srdma_seal_pool_share(2, &parents), 0);
	atomic_store(&hold, true);
	start(1, true);
	add_long(lane, 0, 2);
	sem_wait(&entered);
	child = fork();
	if (child == 0)
		_exit(live_in_child());
	assert_int_equal(waitpid(child, &status, 0), child);
	let_go();
	srdma_seal_pool_leave(&parents);
	assert_int_equal(status, 0);
}

static int make_semaphores(void **unused)
{
	return sem_init(&entered, 0, 0) || sem_init(&released, 0, 0);
}

RUN_TESTS(make_semaphores, NULL)
