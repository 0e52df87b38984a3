/* SPDX-License-Identifier: Apache-2.0 */
/* The heap: heap[1] is due first; the children of heap[i] are heap[2 * i] and heap[2 * i + 1]. */
#include "timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 16 };

int timers_reserve(struct timers *timers, size_t count)
{
	size_t room = timers->room ? timers->room : FIRST_ROOM;

	if (count <= timers->room)
		return 0;
	while (room < count)
		if (__builtin_mul_overflow(room, 2, &room))
			return -ENOMEM;
	struct timer **heap = reallocarray(timers->heap, room + 1, sizeof(struct timer *));
	if (!heap)
		return -ENOMEM;
	timers->heap = heap;
	timers->room = room;
	return 0;
}

void timers_clear(struct timers *timers)
{
	for (size_t i = 1; i <= timers->count; i++)
		timers->heap[i]->place = 0;
	free(timers->heap);
	memset(timers, 0, sizeof *timers);
}

static void heap_put(struct timers *timers, struct timer *timer, size_t place)
{
	timers->heap[place] = timer;
	timer->place = place;
}

/* Finds the place for a timer, from one that is free. */
static void heap_sift(struct timers *timers, struct timer *timer, size_t place)
{
	struct timer **heap = timers->heap;

	for (; place > 1 && heap[place / 2]->deadline > timer->deadline; place /= 2)
		heap_put(timers, heap[place / 2], place);
	for (size_t child; (child = 2 * place) <= timers->count; place = child) {
		if (child < timers->count && heap[child + 1]->deadline < heap[child]->deadline)
			child++;
		if (heap[child]->deadline >= timer->deadline)
			break;
		heap_put(timers, heap[child], place);
	}
	heap_put(timers, timer, place);
}

void timer_set(struct timers *timers, struct timer *timer, uint64_t deadline)
{
	timer->deadline = deadline;
	/* Upwards, the free place is compared with its parents only; so count may include it already. */
	heap_sift(timers, timer, timer->place ? timer->place : ++timers->count);
}

void timer_cancel(struct timers *timers, struct timer *timer)
{
	size_t place = timer->place;

	if (place == 0)
		return;
	timer->place = 0;
	struct timer *last = timers->heap[timers->count--];
	if (last != timer)
		heap_sift(timers, last, place);
}

uint64_t timers_next(const struct timers *timers)
{
	return timers->count == 0 ? UINT64_MAX : timers->heap[1]->deadline;
}

void timers_run(struct timers *timers, uint64_t now)
{
	/* A function may set its timer to a time that is past already: that one waits for the next call. */
	for (size_t left = timers->count; left > 0 && timers->count > 0; left--) {
		struct timer *timer = timers->heap[1];
		if (timer->deadline > now)
			return;
		timer_cancel(timers, timer);
		timer->fire(timer);
	}
}
