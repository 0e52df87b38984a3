/* SPDX-License-Identifier: Apache-2.0 */
/* The table of numbers and the heap of timers, against the simplest thing that does the same. */
#include "check.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "table.h"
#include "timer.h"

enum { NUMBERS = 300, ROUNDS = 200000, TIMERS = 200 };

static uint32_t seed;

static uint32_t any(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)seed * below >> 32);
}

static void table_is_as_an_array(void **state)
{
	(void)state;
	static char things[NUMBERS];
	bool there[NUMBERS] = {false};
	struct table table = {0};
	size_t count = 0;

	seed = 1;
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t i = any(NUMBERS), number = (i + 1) << 14; /* as queue pairs of many blocks */
		switch (any(3)) {
		case 0:
			assert_int_equal(table_add(&table, number, &things[i]), there[i] ? -EEXIST : 0);
			count += !there[i];
			there[i] = true;
			break;
		case 1:
			table_remove(&table, number);
			count -= there[i];
			there[i] = false;
			break;
		default:
			assert_ptr_equal(table_find(&table, number), there[i] ? &things[i] : NULL);
		}
		assert_int_equal(table.count, count);
	}
	/* What is removed does not stay in the way for ever. */
	assert_true(table.size <= 4096);
	table_clear(&table);
	assert_null(table_find(&table, 1 << 14));
}

static struct timers timers;
static uint64_t due[TIMERS];
static struct timer all[TIMERS];
static uint64_t clock_now, last_fired;
static size_t fired;

static void fire(struct timer *timer)
{
	size_t i = (size_t)(timer - all);

	assert_true(due[i] != UINT64_MAX && due[i] <= clock_now && due[i] >= last_fired);
	assert_int_equal(timer->place, 0);
	last_fired = due[i];
	due[i] = UINT64_MAX;
	fired++;
	/* Some are set again from within. */
	if (any(4) == 0) {
		due[i] = clock_now + 1 + any(1000);
		timer_set(&timers, timer, due[i]);
	}
}

static void timers_fire_in_order_and_once(void **state)
{
	(void)state;
	seed = 2;
	for (size_t i = 0; i < TIMERS; i++) {
		assert_int_equal(timers_reserve(&timers, i + 1), 0);
		all[i].fire = fire;
		due[i] = UINT64_MAX;
	}
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t i = any(TIMERS);
		uint64_t first = UINT64_MAX;
		switch (any(8)) {
		case 0:
			clock_now += any(300);
			last_fired = 0;
			timers_run(&timers, clock_now);
			for (size_t j = 0; j < TIMERS; j++)
				assert_true(due[j] > clock_now);
			break;
		case 1:
			timer_cancel(&timers, &all[i]);
			due[i] = UINT64_MAX;
			break;
		default:
			due[i] = clock_now + any(1000);
			timer_set(&timers, &all[i], due[i]);
		}
		if (round % 16 != 0)
			continue;
		for (size_t j = 0; j < TIMERS; j++)
			first = due[j] < first ? due[j] : first;
		assert_true(timers_next(&timers) == first);
	}
	assert_true(fired > ROUNDS / 20);
	for (size_t i = 0; i < TIMERS; i++)
		timer_cancel(&timers, &all[i]);
	assert_true(timers_next(&timers) == UINT64_MAX);
	timers_clear(&timers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_as_an_array),
		cmocka_unit_test(timers_fire_in_order_and_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
