/* SPDX-License-Identifier: Apache-2.0 */
#include "slots.h"

#include <errno.h>
#include <stdlib.h>

#define FEWEST 16 /* entries that stay allocated even when they are free */

void srdma_slots_init(struct srdma_slots *slots, unsigned max)
{
	*slots = (struct srdma_slots){.max = max, .next_id = 1};
	pthread_mutex_init(&slots->mutex, NULL);
}

void srdma_slots_destroy(struct srdma_slots *slots)
{
	pthread_mutex_destroy(&slots->mutex);
	free(slots->taken);
	slots->taken = NULL;
}

static int resize(struct srdma_slots *slots, unsigned capacity)
{
	struct srdma_slot **taken = realloc(slots->taken, capacity * sizeof(struct srdma_slot *));

	if (!taken)
		return -ENOMEM;
	slots->taken = taken;
	slots->capacity = capacity;
	return 0;
}

int srdma_slots_take(struct srdma_slots *slots, struct srdma_slot *slot, int (*may)(struct srdma_slots *slots, void *arg), void *arg)
{
	int ret = 0;

	pthread_mutex_lock(&slots->mutex);
	if (slots->closed)
		ret = -ESHUTDOWN;
	else if (slots->used >= slots->max)
		ret = -EBUSY;
	else if (may)
		ret = may(slots, arg);
	if (ret == 0 && slots->used == slots->capacity)
		ret = resize(slots, slots->capacity ? slots->capacity * 2 : FEWEST);
	if (ret == 0) {
		slot->id = slots->next_id++;
		slot->index = slots->used;
		slots->taken[slots->used++] = slot;
	}
	pthread_mutex_unlock(&slots->mutex);
	return ret;
}

void srdma_slots_release(struct srdma_slots *slots, struct srdma_slot *slot)
{
	pthread_mutex_lock(&slots->mutex);
	if (slot->id != 0) {
		struct srdma_slot *last = slots->taken[--slots->used];

		last->index = slot->index;
		slots->taken[last->index] = last;
		slot->id = 0;
		/* Halves the table when three quarters are free, so that clients that come and go at one size cause no moves. A
		 * failure to shrink does no harm. */
		if (slots->capacity > FEWEST && slots->used <= slots->capacity / 4)
			resize(slots, slots->capacity / 2);
	}
	pthread_mutex_unlock(&slots->mutex);
}

void srdma_slots_close(struct srdma_slots *slots)
{
	pthread_mutex_lock(&slots->mutex);
	slots->closed = true;
	pthread_mutex_unlock(&slots->mutex);
}

unsigned srdma_slots_used(struct srdma_slots *slots)
{
	unsigned used;

	pthread_mutex_lock(&slots->mutex);
	used = slots->used;
	pthread_mutex_unlock(&slots->mutex);
	return used;
}

void srdma_slots_each(struct srdma_slots *slots, void (*visit)(void *client, void *arg), void *arg)
{
	pthread_mutex_lock(&slots->mutex);
	for (unsigned i = 0; i < slots->used; i++)
		visit(slots->taken[i]->client, arg);
	pthread_mutex_unlock(&slots->mutex);
}
