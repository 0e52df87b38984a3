/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "slots.h"

#include <stdatomic.h>
#include <unistd.h>

#define THREADS 16
#define ROUNDS  2000
#define LIMIT   5

/* As many as a test needs. Each is its own client. */
static struct srdma_slot clients[THREADS * ROUNDS];

static struct srdma_slots table(unsigned max)
{
	struct srdma_slots slots;

	memset(clients, 0, sizeof clients);
	srdma_slots_init(&slots, max);
	return slots;
}

static int try(struct srdma_slots *slots, struct srdma_slot *client)
{
	client->client = client;
	return srdma_slots_take(slots, client, NULL, NULL);
}

static uint64_t take(struct srdma_slots *slots, struct srdma_slot *client)
{
	assert_int_equal(try(slots, client), 0);
	assert_true(client->id > 0);
	return client->id;
}

static void count_client(void *client, void *arg)
{
	assert_non_null(client);
	++*(unsigned *)arg;
}

static unsigned visited(struct srdma_slots *slots)
{
	unsigned count = 0;

	srdma_slots_each(slots, count_client, &count);
	return count;
}

TEST(one_more_than_the_limit_is_busy)
{
	struct srdma_slots slots = table(3);

	assert_int_equal(srdma_slots_used(&slots), 0);
	for (int i = 0; i < 3; i++)
		take(&slots, &clients[i]);
	assert_int_equal(try(&slots, &clients[3]), -EBUSY);
	assert_int_equal(clients[3].id, 0);
	assert_int_equal(srdma_slots_used(&slots), 3);
	assert_int_equal(visited(&slots), 3);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(srdma_slots_used(&slots), 2);
	take(&slots, &clients[3]);
	assert_int_equal(try(&slots, &clients[1]), -EBUSY);
	srdma_slots_destroy(&slots);
}

TEST(turned_away_client_uses_up_no_id)
{
	struct srdma_slots slots = table(1);
	uint64_t first = take(&slots, &clients[0]);

	assert_int_equal(first, 1);
	for (int i = 0; i < 10; i++)
		assert_int_equal(try(&slots, &clients[1]), -EBUSY);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(take(&slots, &clients[1]), first + 1);
	srdma_slots_destroy(&slots);
}

TEST(closed_table_lets_nobody_in)
{
	struct srdma_slots slots = table(2);

	take(&slots, &clients[0]);
	srdma_slots_close(&slots);
	assert_int_equal(try(&slots, &clients[1]), -ESHUTDOWN);
	/* Who is in stays, and can leave. */
	assert_int_equal(visited(&slots), 1);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(srdma_slots_used(&slots), 0);
	assert_int_equal(try(&slots, &clients[1]), -ESHUTDOWN);
	/* Shutting down is the better reason when it is full as well. */
	slots.max = 0;
	assert_int_equal(try(&slots, &clients[1]), -ESHUTDOWN);
	srdma_slots_destroy(&slots);
}

TEST(ids_are_never_used_again)
{
	struct srdma_slots slots = table(4);
	uint64_t last = 0;

	take(&slots, &clients[10001]);
	for (int i = 0; i < 10000; i++) {
		uint64_t id = take(&slots, &clients[i]);

		assert_true(id > last);
		last = id;
		srdma_slots_release(&slots, &clients[i]);
	}
	assert_int_equal(srdma_slots_used(&slots), 1);
	srdma_slots_destroy(&slots);
}

TEST(releasing_a_stranger_changes_nothing)
{
	struct srdma_slots slots = table(2);

	take(&slots, &clients[0]);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(srdma_slots_used(&slots), 1);
	srdma_slots_release(&slots, &clients[0]);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(srdma_slots_used(&slots), 0);
	srdma_slots_destroy(&slots);
}

TEST(raised_limit_lets_more_in)
{
	struct srdma_slots slots = table(1);

	take(&slots, &clients[0]);
	assert_int_equal(try(&slots, &clients[1]), -EBUSY);
	slots.max = 1000;
	for (int i = 1; i < 1000; i++)
		take(&slots, &clients[i]);
	assert_int_equal(try(&slots, &clients[1000]), -EBUSY);
	assert_int_equal(visited(&slots), 1000);
	srdma_slots_destroy(&slots);
}

TEST(lowered_limit_leaves_those_who_are_in)
{
	struct srdma_slots slots = table(4);

	for (int i = 0; i < 4; i++)
		take(&slots, &clients[i]);
	slots.max = 2;
	assert_int_equal(srdma_slots_used(&slots), 4);
	assert_int_equal(visited(&slots), 4);
	/* Two must go before the next one gets in. */
	srdma_slots_release(&slots, &clients[0]);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(try(&slots, &clients[4]), -EBUSY);
	srdma_slots_release(&slots, &clients[2]);
	take(&slots, &clients[4]);
	assert_int_equal(try(&slots, &clients[5]), -EBUSY);
	/* And up again, within and beyond what it once was. */
	slots.max = 6;
	for (int i = 5; i < 9; i++)
		take(&slots, &clients[i]);
	assert_int_equal(try(&slots, &clients[9]), -EBUSY);
	srdma_slots_destroy(&slots);
}

TEST(table_grows_and_shrinks_with_use)
{
	struct srdma_slots slots = table(THREADS * ROUNDS);
	unsigned most;

	assert_int_equal(slots.capacity, 0);
	for (int i = 0; i < 10000; i++)
		take(&slots, &clients[i]);
	most = slots.capacity;
	assert_uint_in_range(most, 10000, 20000);
	/* In an order that leaves holes everywhere. */
	for (int step = 0; step < 7; step++)
		for (int i = step; i < 10000; i += 7)
			srdma_slots_release(&slots, &clients[i]);
	assert_int_equal(srdma_slots_used(&slots), 0);
	assert_true(slots.capacity <= 64);
	srdma_slots_destroy(&slots);
}

static int refuse(struct srdma_slots *slots, void *arg)
{
	assert_int_equal(slots->used, *(unsigned *)arg);
	return -EPERM;
}

TEST(who_may_not_gets_no_slot)
{
	struct srdma_slots slots = table(3);
	unsigned used = 1;

	take(&slots, &clients[0]);
	assert_int_equal(srdma_slots_take(&slots, &clients[1], refuse, &used), -EPERM);
	assert_int_equal(srdma_slots_used(&slots), 1);
	assert_int_equal(take(&slots, &clients[1]), 2);
	srdma_slots_destroy(&slots);
}

TEST(empty_table_can_be_opened_later)
{
	struct srdma_slots slots = table(0);

	assert_int_equal(try(&slots, &clients[0]), -EBUSY);
	slots.max = 1;
	take(&slots, &clients[0]);
	srdma_slots_destroy(&slots);
}

/* ---- many threads ---------------------------------------------------------------------------------------------- */

static struct {
	struct srdma_slots slots;
	atomic_int inside;
	atomic_int most;      /* highest `inside` seen */
	atomic_uint failures; /* cmocka's assertions work in the main thread only */
	atomic_bool over;
	uint64_t ids[THREADS][ROUNDS];
} crowd;

static void note_inside(void)
{
	int now = atomic_fetch_add(&crowd.inside, 1) + 1, most = atomic_load(&crowd.most);

	while (now > most && !atomic_compare_exchange_weak(&crowd.most, &most, now))
		;
}

static void *come_and_go(void *arg)
{
	size_t self = (size_t)(uintptr_t)arg;

	for (size_t i = 0; i < ROUNDS;) {
		struct srdma_slot *client = &clients[self * ROUNDS + i];
		int ret = try(&crowd.slots, client);

		if (ret == -EBUSY) {
			usleep(10);
			continue;
		}
		if (ret != 0) {
			atomic_fetch_add(&crowd.failures, 1);
			break;
		}
		crowd.ids[self][i] = client->id;
		note_inside();
		if (i % 64 == 0)
			usleep(50);
		atomic_fetch_sub(&crowd.inside, 1);
		srdma_slots_release(&crowd.slots, client);
		i++;
	}
	return NULL;
}

/* The table never has more than there is room for, and everybody in it knows its place. */
static void *watch_table(void *arg)
{
	while (!atomic_load(&crowd.over)) {
		unsigned used = srdma_slots_used(&crowd.slots);

		pthread_mutex_lock(&crowd.slots.mutex);
		for (unsigned i = 0; i < crowd.slots.used; i++)
			if (crowd.slots.taken[i]->index != i || crowd.slots.taken[i]->id == 0)
				atomic_fetch_add(&crowd.failures, 1);
		if (used > LIMIT || crowd.slots.used > LIMIT)
			atomic_fetch_add(&crowd.failures, 1);
		pthread_mutex_unlock(&crowd.slots.mutex);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

TEST(threads_never_exceed_the_limit_nor_share_an_id)
{
	pthread_t threads[THREADS], watcher;
	uint64_t *ids = &crowd.ids[0][0];

	crowd.slots = table(LIMIT);
	assert_int_equal(pthread_create(&watcher, NULL, watch_table, NULL), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)i), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&crowd.over, true);
	pthread_join(watcher, NULL);
	assert_int_equal(crowd.failures, 0);
	assert_uint_in_range(crowd.most, 1, LIMIT);
	assert_int_equal(srdma_slots_used(&crowd.slots), 0);
	assert_int_equal(visited(&crowd.slots), 0);
	qsort(ids, THREADS * ROUNDS, sizeof *ids, by_value);
	for (size_t i = 0; i < THREADS * ROUNDS; i++)
		assert_int_equal(ids[i], i + 1);
	srdma_slots_destroy(&crowd.slots);
}

RUN_TESTS(NULL, NULL)
