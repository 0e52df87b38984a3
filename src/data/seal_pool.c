/* SPDX-License-Identifier: Apache-2.0 */
#include "seal_pool.h"

#include "log.h"
#include "seal_lane.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Lanes that can wait at a time; of further ones, the owners do the works themselves. */
#define QUEUE_ROOM 1024u
/* Looks at an empty queue before a thread sleeps: the next chunk of a transfer mostly comes sooner than a wake-up takes. */
#define IDLE_LOOKS 20000
#define STACK (256 * 1024)

/* A place of a bounded queue for many producers and consumers: `turn` tells who may use it next. */
struct place {
	atomic_size_t turn;
	struct srdma_seal_lane *lane;
};

struct thread {
	struct srdma_seal_pool *pool;
	pthread_t thread;
	unsigned number;
};

struct srdma_seal_pool {
	struct place queue[QUEUE_ROOM];
	atomic_size_t put, taken;
	atomic_uint sleepers;
	atomic_bool over;
	pid_t process;
	atomic_uint count; /* threads */
	struct thread threads[SRDMA_SEAL_THREADS_MAX];
	_Atomic uint64_t bytes[SRDMA_SEAL_THREADS_MAX + 1];
	pthread_mutex_t mutex; /* guards the sleep */
	pthread_cond_t work;
};

/* The process's own; the mutex guards all of it. */
static struct {
	pthread_once_t once;
	pthread_mutex_t mutex;
	struct srdma_seal_pool *pool;
	unsigned users;
} shared = {.once = PTHREAD_ONCE_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- the queue ---------------------------------------------------------------------------------------------------- */

static bool put(struct srdma_seal_pool *pool, struct srdma_seal_lane *lane)
{
	size_t at = atomic_load(&pool->put);

	for (;;) {
		struct place *place = &pool->queue[at % QUEUE_ROOM];
		size_t turn = atomic_load(&place->turn);

		if (turn == at) {
			if (!atomic_compare_exchange_weak(&pool->put, &at, at + 1))
				continue;
			place->lane = lane;
			atomic_store(&place->turn, at + 1);
			return true;
		}
		if (turn < at)
			return false;
		at = atomic_load(&pool->put);
	}
}

static struct srdma_seal_lane *take(struct srdma_seal_pool *pool)
{
	size_t at = atomic_load(&pool->taken);

	for (;;) {
		struct place *place = &pool->queue[at % QUEUE_ROOM];
		size_t turn = atomic_load(&place->turn);

		if (turn == at + 1) {
			struct srdma_seal_lane *lane;

			if (!atomic_compare_exchange_weak(&pool->taken, &at, at + 1))
				continue;
			lane = place->lane;
			atomic_store(&place->turn, at + QUEUE_ROOM);
			return lane;
		}
		if (turn < at + 1)
			return NULL;
		at = atomic_load(&pool->taken);
	}
}

bool srdma_seal_pool_offer(struct srdma_seal_pool *pool, struct srdma_seal_lane *lane)
{
	if (!put(pool, lane))
		return false;
	/* A thread counts itself among the sleepers before its last look at the queue, so it sees the lane, or is seen here. */
	if (atomic_load(&pool->sleepers) > 0) {
		pthread_mutex_lock(&pool->mutex);
		pthread_cond_signal(&pool->work);
		pthread_mutex_unlock(&pool->mutex);
	}
	return true;
}

/* ---- the threads -------------------------------------------------------------------------------------------------- */

static struct srdma_seal_lane *take_soon(struct srdma_seal_pool *pool)
{
	struct srdma_seal_lane *lane = take(pool);

	for (unsigned looks = 0; !lane && looks < IDLE_LOOKS && !atomic_load_explicit(&pool->over, memory_order_relaxed); looks++) {
		if (atomic_load_explicit(&pool->put, memory_order_relaxed) != atomic_load_explicit(&pool->taken, memory_order_relaxed))
			lane = take(pool);
	}
	return lane;
}

/* Sleeps until a lane is in the queue. NULL: the pool is over. */
static struct srdma_seal_lane *sleep_for(struct srdma_seal_pool *pool)
{
	struct srdma_seal_lane *lane;

	pthread_mutex_lock(&pool->mutex);
	atomic_fetch_add(&pool->sleepers, 1);
	while (!(lane = take(pool)) && !atomic_load(&pool->over))
		pthread_cond_wait(&pool->work, &pool->mutex);
	atomic_fetch_sub(&pool->sleepers, 1);
	pthread_mutex_unlock(&pool->mutex);
	return lane;
}

static void *thread_main(void *arg)
{
	struct thread *self = arg;
	struct srdma_seal_lane *lane;

	while ((lane = take_soon(self->pool)) || (lane = sleep_for(self->pool)))
		srdma_seal_lane_serve(lane, self->number);
	return NULL;
}

/* One thread at a time may call this for a pool. */
static int grow(struct srdma_seal_pool *pool, unsigned threads)
{
	unsigned count = atomic_load(&pool->count);

	for (; count < threads && count < SRDMA_SEAL_THREADS_MAX; count++) {
		struct thread *thread = &pool->threads[count];
		int error;

		*thread = (struct thread){.pool = pool, .number = count + 1};
		error = srdma_thread_start(thread_main, thread, STACK, &thread->thread);
		if (error != 0)
			return srdma_fail(-EAGAIN, "cannot start seal thread %u: %s; lower seal-threads", count + 1, strerror(error));
		atomic_store(&pool->count, count + 1);
	}
	return 0;
}

int srdma_seal_pool_new(unsigned threads, struct srdma_seal_pool **out)
{
	struct srdma_seal_pool *pool = calloc(1, sizeof *pool);
	int ret;

	if (!pool)
		return srdma_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < QUEUE_ROOM; i++)
		atomic_init(&pool->queue[i].turn, i);
	pool->process = getpid();
	pthread_mutex_init(&pool->mutex, NULL);
	pthread_cond_init(&pool->work, NULL);
	ret = grow(pool, threads);
	if (ret != 0) {
		srdma_seal_pool_delete(&pool);
		return ret;
	}
	*out = pool;
	return 0;
}

void srdma_seal_pool_delete(struct srdma_seal_pool **out)
{
	struct srdma_seal_pool *pool = *out;
	struct srdma_seal_lane *lane;

	*out = NULL;
	/* In a child the threads do not exist, and the mutex may be locked for ever: it abandons the parent's pool. */
	if (!pool || pool->process != getpid())
		return;
	pthread_mutex_lock(&pool->mutex);
	atomic_store(&pool->over, true);
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->mutex);
	for (unsigned i = 0; i < atomic_load(&pool->count); i++)
		pthread_join(pool->threads[i].thread, NULL);
	while ((lane = take(pool)))
		srdma_seal_lane_unref(lane);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->mutex);
	free(pool);
}

unsigned srdma_seal_pool_threads(const struct srdma_seal_pool *pool)
{
	return atomic_load(&pool->count);
}

void srdma_seal_pool_count(struct srdma_seal_pool *pool, unsigned thread, uint32_t bytes)
{
	atomic_fetch_add_explicit(&pool->bytes[thread], bytes, memory_order_relaxed);
}

uint64_t srdma_seal_pool_bytes(const struct srdma_seal_pool *pool, unsigned thread)
{
	return atomic_load_explicit(&pool->bytes[thread], memory_order_relaxed);
}

/* ---- the process's pool ------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&shared.mutex);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&shared.mutex);
}

static void after_fork_in_child(void)
{
	shared.pool = NULL;
	shared.users = 0;
	pthread_mutex_unlock(&shared.mutex);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int srdma_seal_pool_share(unsigned threads, struct srdma_seal_pool **out)
{
	int ret;

	pthread_once(&shared.once, watch_forks);
	pthread_mutex_lock(&shared.mutex);
	ret = shared.pool ? grow(shared.pool, threads) : srdma_seal_pool_new(threads, &shared.pool);
	if (ret == 0) {
		shared.users++;
		*out = shared.pool;
	}
	pthread_mutex_unlock(&shared.mutex);
	return ret;
}

void srdma_seal_pool_leave(struct srdma_seal_pool **out)
{
	struct srdma_seal_pool *pool = *out, *last = NULL;

	*out = NULL;
	pthread_mutex_lock(&shared.mutex);
	if (pool && pool == shared.pool && --shared.users == 0) {
		last = pool;
		shared.pool = NULL;
	}
	pthread_mutex_unlock(&shared.mutex);
	srdma_seal_pool_delete(&last);
}
