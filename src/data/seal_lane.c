/* SPDX-License-Identifier: Apache-2.0 */
#include "seal_lane.h"

#include "log.h"
#include "seal_pool.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A long chunk is a turn of its own; of short ones a thread claims several. */
#define LONG_WORK (32u * 1024)
#define SHORT_RUN 4u
/* Waking a thread costs more than to seal this much. */
#define WORTH_A_THREAD (8u * 1024)
/* Looks at a work of another thread before this one gives way, and then the pause between two looks. */
#define PATIENT_LOOKS 2000
#define PAUSE_NS 20000

enum state { FREE, READY, BUSY, GOOD, BAD };

/* Only the thread that has made the state BUSY may touch the work; while it is READY, nobody. */
struct slot {
	atomic_uint state;
	struct srdma_seal_work work;
};

struct srdma_seal_lane {
	struct srdma_seal_pool *pool;
	bool seal;
	void (*wake)(void *arg);
	void *arg;
	pid_t process; /* a child has none of the threads */

	struct slot slots[SRDMA_SEAL_LANE_ROOM];
	uint64_t oldest;          /* works that were taken out; the owner's */
	_Atomic uint64_t added;
	_Atomic uint64_t claimed; /* works before it are not offered to the threads any more */
	atomic_uint run;          /* works that a thread claims at a time */

	/* Only changed while the lane is empty. */
	struct srdma_seal_key key; /* without a context */
	/* A thread uses only its own; 0: the owner's. */
	struct srdma_seal_key contexts[SRDMA_SEAL_THREADS_MAX + 1];

	atomic_bool queued; /* in the pool's queue */
	atomic_bool asleep; /* the owner */
	atomic_bool closed;
	atomic_uint users;  /* threads in srdma_seal_lane_serve */
	atomic_uint references; /* the owner's and the queue's */
};

static struct slot *slot_of(const struct srdma_seal_lane *lane, uint64_t index)
{
	return (struct slot *)&lane->slots[index % SRDMA_SEAL_LANE_ROOM];
}

size_t srdma_seal_lane_memory(unsigned threads)
{
	/* The owner and each thread make a context when they first do a work. */
	return sizeof(struct srdma_seal_lane) + (threads + 1) * (size_t)SRDMA_SEAL_CONTEXT;
}

int srdma_seal_lane_new(struct srdma_seal_pool *pool, bool seal, void (*wake)(void *arg), void *arg, struct srdma_seal_lane **out)
{
	struct srdma_seal_lane *lane = calloc(1, sizeof *lane);

	if (!lane)
		return srdma_fail(-ENOMEM, "out of memory");
	lane->pool = pool;
	lane->seal = seal;
	lane->wake = wake;
	lane->arg = arg;
	lane->process = getpid();
	atomic_init(&lane->references, 1);
	*out = lane;
	return 0;
}

void srdma_seal_lane_unref(struct srdma_seal_lane *lane)
{
	if (atomic_fetch_sub(&lane->references, 1) == 1)
		free(lane);
}

/* Gives way to another thread, which is at work on a record of bounded length. */
static void give_way(unsigned *looks)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};

	if (++*looks < PATIENT_LOOKS)
		return;
	if (*looks < 2 * PATIENT_LOOKS)
		sched_yield();
	else
		nanosleep(&pause, NULL);
}

static bool is_forked(const struct srdma_seal_lane *lane)
{
	return lane->process != getpid();
}

static void await_slot(const struct srdma_seal_lane *lane, const struct slot *slot)
{
	for (unsigned looks = 0; atomic_load(&slot->state) == BUSY && !(looks % PATIENT_LOOKS == 1 && is_forked(lane));)
		give_way(&looks);
}

static void wipe_keys(struct srdma_seal_lane *lane)
{
	for (size_t i = 0; i <= SRDMA_SEAL_THREADS_MAX; i++)
		srdma_seal_key_drop(&lane->contexts[i]);
	OPENSSL_cleanse(&lane->key, sizeof lane->key);
}

void srdma_seal_lane_delete(struct srdma_seal_lane **out)
{
	struct srdma_seal_lane *lane = *out;
	unsigned looks = 0;

	*out = NULL;
	if (!lane)
		return;
	atomic_store(&lane->closed, true);
	srdma_seal_lane_drop(lane);
	/* A thread that has done its last work may still be about to call `wake`. */
	while (atomic_load(&lane->users) > 0 && !(looks % PATIENT_LOOKS == 1 && is_forked(lane)))
		give_way(&looks);
	wipe_keys(lane);
	srdma_seal_lane_unref(lane);
}

void srdma_seal_lane_set_key(struct srdma_seal_lane *lane, const struct srdma_seal_key *key)
{
	wipe_keys(lane);
	lane->key = *key;
	lane->key.context = NULL;
}

bool srdma_seal_lane_has_key(const struct srdma_seal_lane *lane, const struct srdma_seal_key *key)
{
	return lane->key.cipher && lane->key.generation == key->generation;
}

bool srdma_seal_lane_use_key(struct srdma_seal_lane *lane, const struct srdma_seal_key *key)
{
	if (srdma_seal_lane_has_key(lane, key))
		return true;
	if (srdma_seal_lane_count(lane) > 0)
		return false;
	srdma_seal_lane_set_key(lane, key);
	return true;
}

uint32_t srdma_seal_lane_count(const struct srdma_seal_lane *lane)
{
	return (uint32_t)(atomic_load_explicit(&lane->added, memory_order_relaxed) - lane->oldest);
}

/* ---- doing works: the owner and the pool's threads ---------------------------------------------------------------- */

/* The thread's context for the lane's key. NULL: OpenSSL failed. */
static struct srdma_seal_key *context_of(struct srdma_seal_lane *lane, unsigned thread)
{
	struct srdma_seal_key *own = &lane->contexts[thread];

	return own->context || srdma_seal_key_copy(&lane->key, lane->seal, own) ? own : NULL;
}

static bool do_work(const struct srdma_seal_lane *lane, struct srdma_seal_key *key, const struct srdma_seal_work *work)
{
	uint8_t tag[SRDMA_SEAL_OVERHEAD];

	if (lane->seal)
		return srdma_seal_key_seal(key, work->number, work->header, work->header_length, work->from, work->length, work->to);
	memcpy(tag, (const uint8_t *)work->from + work->length, sizeof tag);
	return srdma_seal_key_open(key, work->number, work->header, work->header_length, work->from, work->length, tag, work->to);
}

/* Does a work unless somebody else has begun it, or it was taken out. Returns whether it did. */
static bool begin(struct srdma_seal_lane *lane, struct slot *slot, unsigned thread)
{
	struct srdma_seal_key *key;
	unsigned expected = READY;
	bool good;

	if (!atomic_compare_exchange_strong(&slot->state, &expected, BUSY))
		return false;
	key = context_of(lane, thread);
	/* The owner has a context that exists already. */
	if (!key && thread > 0) {
		ERR_clear_error();
		atomic_store(&slot->state, READY);
		return false;
	}
	good = key && do_work(lane, key, &slot->work);
	if (!good) {
		OPENSSL_cleanse(slot->work.to, slot->work.length + (lane->seal ? SRDMA_SEAL_OVERHEAD : 0));
		ERR_clear_error();
	}
	srdma_seal_pool_count(lane->pool, thread, slot->work.length);
	/* The slot is the owner's from here on. */
	atomic_store(&slot->state, good ? GOOD : BAD);
	return true;
}

/* Claims up to a run of works for a thread of the pool. Returns their number. */
static uint64_t claim(struct srdma_seal_lane *lane, uint64_t *first)
{
	uint64_t claimed = atomic_load(&lane->claimed), run = atomic_load_explicit(&lane->run, memory_order_relaxed), left;

	do {
		uint64_t added = atomic_load(&lane->added);

		if (claimed >= added)
			return 0;
		left = added - claimed;
	} while (!atomic_compare_exchange_weak(&lane->claimed, &claimed, claimed + (left < run ? left : run)));
	*first = claimed;
	return left < run ? left : run;
}

static uint64_t unclaimed(const struct srdma_seal_lane *lane)
{
	uint64_t claimed = atomic_load(&lane->claimed), added = atomic_load(&lane->added);

	return claimed < added ? added - claimed : 0;
}

/* Puts the lane into the pool's queue, where it is at most once. False: the queue is full, and the owner must do the works. */
static bool offer(struct srdma_seal_lane *lane)
{
	if (atomic_exchange(&lane->queued, true))
		return true;
	atomic_fetch_add(&lane->references, 1);
	if (srdma_seal_pool_offer(lane->pool, lane))
		return true;
	atomic_store(&lane->queued, false);
	atomic_fetch_sub(&lane->references, 1); /* never the last one: the caller has its own */
	return false;
}

void srdma_seal_lane_serve(struct srdma_seal_lane *lane, unsigned thread)
{
	uint64_t first, count;

	atomic_fetch_add(&lane->users, 1);
	/* Before the claim, so that a work that is added from here on puts the lane into the queue again. */
	atomic_store(&lane->queued, false);
	if (!atomic_load(&lane->closed)) {
		count = claim(lane, &first);
		/* Behind the lanes of others, and before the work is done: another thread may join. */
		if (unclaimed(lane) > 0)
			offer(lane);
		for (uint64_t i = 0; i < count; i++)
			begin(lane, slot_of(lane, first + i), thread);
		/* Also when a work was given back: the owner must do it. */
		if (count > 0 && atomic_exchange(&lane->asleep, false))
			lane->wake(lane->arg);
	}
	atomic_fetch_sub(&lane->users, 1);
	srdma_seal_lane_unref(lane);
}

/* ---- the owner ---------------------------------------------------------------------------------------------------- */

void srdma_seal_lane_add(struct srdma_seal_lane *lane, const struct srdma_seal_work *work)
{
	uint64_t index = atomic_load_explicit(&lane->added, memory_order_relaxed);
	struct slot *slot = slot_of(lane, index);

	slot->work = *work;
	atomic_store(&slot->state, READY);
	atomic_store_explicit(&lane->run, work->length >= LONG_WORK ? 1 : SHORT_RUN, memory_order_relaxed);
	atomic_store(&lane->added, index + 1);
	/* The owner begins with the oldest itself, so only a second one is for the threads. */
	if (work->length >= WORTH_A_THREAD && unclaimed(lane) > 1 && !is_forked(lane))
		offer(lane);
}

enum srdma_seal_outcome srdma_seal_lane_look(const struct srdma_seal_lane *lane, const struct srdma_seal_work **work)
{
	const struct slot *slot = slot_of(lane, lane->oldest);

	if (srdma_seal_lane_count(lane) == 0)
		return SRDMA_SEAL_NONE;
	if (work)
		*work = &slot->work;
	switch (atomic_load(&slot->state)) {
	case READY: return SRDMA_SEAL_WAITING;
	case BUSY: return SRDMA_SEAL_BEGUN;
	case GOOD: return SRDMA_SEAL_DONE;
	default: return SRDMA_SEAL_FAILED;
	}
}

void srdma_seal_lane_pop(struct srdma_seal_lane *lane)
{
	uint64_t claimed = atomic_load(&lane->claimed);

	atomic_store(&slot_of(lane, lane->oldest)->state, FREE);
	lane->oldest++;
	/* The threads need not look for what the owner has done. */
	while (claimed < lane->oldest && !atomic_compare_exchange_weak(&lane->claimed, &claimed, lane->oldest))
		;
}

static bool find_waiting(const struct srdma_seal_lane *lane, uint64_t *index)
{
	uint64_t added = atomic_load_explicit(&lane->added, memory_order_relaxed);

	for (uint64_t i = lane->oldest; i < added; i++) {
		if (atomic_load(&slot_of(lane, i)->state) == READY) {
			*index = i;
			return true;
		}
	}
	return false;
}

bool srdma_seal_lane_can_help(const struct srdma_seal_lane *lane)
{
	uint64_t index;

	return find_waiting(lane, &index);
}

bool srdma_seal_lane_help(struct srdma_seal_lane *lane)
{
	uint64_t index;

	while (find_waiting(lane, &index))
		if (begin(lane, slot_of(lane, index), 0))
			return true;
	return false;
}

bool srdma_seal_lane_take_back(struct srdma_seal_lane *lane)
{
	unsigned expected = READY;

	if (srdma_seal_lane_count(lane) == 0 || !atomic_compare_exchange_strong(&slot_of(lane, lane->oldest)->state, &expected, FREE))
		return false;
	srdma_seal_lane_pop(lane);
	return true;
}

void srdma_seal_lane_await(struct srdma_seal_lane *lane)
{
	await_slot(lane, slot_of(lane, lane->oldest));
}

void srdma_seal_lane_settle(struct srdma_seal_lane *lane)
{
	uint64_t added = atomic_load_explicit(&lane->added, memory_order_relaxed);

	/* A thread that could not make its context gives its work back. */
	for (uint64_t i = lane->oldest; i < added; i++)
		while (atomic_load(&slot_of(lane, i)->state) < GOOD && !is_forked(lane))
			if (!begin(lane, slot_of(lane, i), 0))
				await_slot(lane, slot_of(lane, i));
}

void srdma_seal_lane_drop(struct srdma_seal_lane *lane)
{
	while (srdma_seal_lane_count(lane) > 0) {
		if (srdma_seal_lane_take_back(lane))
			continue;
		srdma_seal_lane_await(lane);
		if (atomic_load(&slot_of(lane, lane->oldest)->state) != READY)
			srdma_seal_lane_pop(lane);
	}
}

void srdma_seal_lane_arm(struct srdma_seal_lane *lane)
{
	atomic_store(&lane->asleep, true);
}

bool srdma_seal_lane_leave(struct srdma_seal_lane *lane)
{
	atomic_store(&lane->asleep, true);
	return !srdma_seal_lane_can_help(lane) || (unclaimed(lane) > 0 && !is_forked(lane) && offer(lane));
}
