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

static struct srdma_slots slots;

static void open_table(unsigned max)
{
	memset(clients, 0, sizeof clients);
	srdma_slots_init(&slots, max);
}

static int close_table(void **state)
{
	srdma_slots_destroy(&slots);
	return 0;
}

static int try(struct srdma_slot *client)
{
	client->client = client;
	return srdma_slots_take(&slots, client, NULL, NULL);
}

static uint64_t take(struct srdma_slot *client)
{
	assert_int_equal(try(client), 0);
	assert_true(client->id > 0);
	return client->id;
}

static void count_client(void *client, void *arg)
{
	assert_non_null(client);
	++*(unsigned *)arg;
}

static unsigned visited(void)
{
	unsigned count = 0;

	srdma_slots_each(&slots, count_client, &count);
	return count;
}

TEST(one_more_than_the_limit_is_busy)
{
	open_table(3);
	assert_int_equal(srdma_slots_used(&slots), 0);
	for (int i = 0; i < 3; i++)
		take(&clients[i]);
	assert_int_equal(try(&clients[3]), -EBUSY);
	assert_int_equal(clients[3].id, 0);
	assert_int_equal(srdma_slots_used(&slots), 3);
	assert_int_equal(visited(), 3);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(srdma_slots_used(&slots), 2);
	take(&clients[3]);
	assert_int_equal(try(&clients[1]), -EBUSY);
}

TEST(turned_away_client_uses_up_no_id)
{
	uint64_t first;

	open_table(1);
	first = take(&clients[0]);
	assert_int_equal(first, 1);
	for (int i = 0; i < 10; i++)
		assert_int_equal(try(&clients[1]), -EBUSY);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(take(&clients[1]), first + 1);
}

TEST(closed_table_lets_nobody_in)
{
	open_table(2);
	take(&clients[0]);
	srdma_slots_close(&slots);
	assert_int_equal(try(&clients[1]), -ESHUTDOWN);
	/* A client that has a slot keeps it, and can leave. */
	assert_int_equal(visited(), 1);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(srdma_slots_used(&slots), 0);
	assert_int_equal(try(&clients[1]), -ESHUTDOWN);
	/* Shutting down is the better reason when it is full as well. */
	slots.max = 0;
	assert_int_equal(try(&clients[1]), -ESHUTDOWN);
}

TEST(ids_are_never_used_again)
{
	uint64_t last = 0;

	open_table(4);
	take(&clients[10001]);
	for (int i = 0; i < 10000; i++) {
		uint64_t id = take(&clients[i]);

		assert_true(id > last);
		last = id;
		srdma_slots_release(&slots, &clients[i]);
	}
	assert_int_equal(srdma_slots_used(&slots), 1);
}

TEST(releasing_a_stranger_changes_nothing)
{
	open_table(2);
	take(&clients[0]);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(srdma_slots_used(&slots), 1);
	srdma_slots_release(&slots, &clients[0]);
	srdma_slots_release(&slots, &clients[0]);
	assert_int_equal(srdma_slots_used(&slots), 0);
}

TEST(raised_limit_lets_more_in)
{
	open_table(1);
	take(&clients[0]);
	assert_int_equal(try(&clients[1]), -EBUSY);
	slots.max = 1000;
	for (int i = 1; i < 1000; i++)
		take(&clients[i]);
	assert_int_equal(try(&clients[1000]), -EBUSY);
	assert_int_equal(visited(), 1000);
}

TEST(lowered_limit_leaves_present_clients_in)
{
	open_table(4);
	for (int i = 0; i < 4; i++)
		take(&clients[i]);
	slots.max = 2;
	assert_int_equal(srdma_slots_used(&slots), 4);
	assert_int_equal(visited(), 4);
	/* Two must go before the next one gets in. */
	srdma_slots_release(&slots, &clients[0]);
	srdma_slots_release(&slots, &clients[1]);
	assert_int_equal(try(&clients[4]), -EBUSY);
	srdma_slots_release(&slots, &clients[2]);
	take(&clients[4]);
	assert_int_equal(try(&clients[5]), -EBUSY);
	/* And up again, within and beyond what it once was. */
	slots.max = 6;
	for (int i = 5; i < 9; i++)
		take(&clients[i]);
	assert_int_equal(try(&clients[9]), -EBUSY);
}

TEST(table_grows_and_shrinks_with_use)
{
	unsigned most;

	open_table(THREADS * ROUNDS);
	assert_int_equal(slots.capacity, 0);
	for (int i = 0; i < 10000; i++)
		take(&clients[i]);
	most = slots.capacity;
	assert_uint_in_range(most, 10000, 20000);
	/* In an order that leaves holes everywhere. */
	for (int step = 0; step < 7; step++)
		for (int i = step; i < 10000; i += 7)
			srdma_slots_release(&slots, &clients[i]);
	assert_int_equal(srdma_slots_used(&slots), 0);
	assert_true(slots.capacity <= 64);
}

static int refuse(struct srdma_slots *table, void *arg)
{
	assert_int_equal(table->used, *(unsigned *)arg);
	return -EPERM;
}

TEST(client_that_is_refused_gets_no_slot)
{
	unsigned used = 1;

	open_table(3);
	take(&clients[0]);
	assert_int_equal(srdma_slots_take(&slots, &clients[1], refuse, &used), -EPERM);
	assert_int_equal(srdma_slots_used(&slots), 1);
	assert_int_equal(take(&clients[1]), 2);
}

TEST(empty_table_can_be_opened_later)
{
	open_table(0);
	assert_int_equal(try(&clients[0]), -EBUSY);
	slots.max = 1;
	take(&clients[0]);
}

/* ---- many threads ---------------------------------------------------------------------------------------------- */

static struct {
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
		int ret = try(client);

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
		srdma_slots_release(&slots, client);
		i++;
	}
	return NULL;
}

/* The table never has more than there is room for, and every client in it knows its place. */
static void *watch_table(void *arg)
{
	while (!atomic_load(&crowd.over)) {
		unsigned used = srdma_slots_used(&slots);

		pthread_mutex_lock(&slots.mutex);
		for (unsigned i = 0; i < slots.used; i++)
			if (slots.taken[i]->index != i || slots.taken[i]->id == 0)
				atomic_fetch_add(&crowd.failures, 1);
		if (used > LIMIT || slots.used > LIMIT)
			atomic_fetch_add(&crowd.failures, 1);
		pthread_mutex_unlock(&slots.mutex);
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

	open_table(LIMIT);
	assert_int_equal(pthread_create(&watcher, NULL, watch_table, NULL), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)i), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&crowd.over, true);
	pthread_join(watcher, NULL);
	assert_int_equal(crowd.failures, 0);
	assert_uint_in_range(crowd.most, 1, LIMIT);
	assert_int_equal(srdma_slots_used(&slots), 0);
	assert_int_equal(visited(), 0);
	qsort(ids, THREADS * ROUNDS, sizeof *ids, by_value);
	for (size_t i = 0; i < THREADS * ROUNDS; i++)
		assert_int_equal(ids[i], i + 1);
}

RUN_TESTS_EACH(NULL, close_table)
