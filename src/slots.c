/* SPDX-License-Identifier: Apache-2.0 */
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int srdma_slots_init(struct srdma_slots *slots, unsigned max)
{
	*slots = (struct srdma_slots){.max = max, .capacity = max, .next_id = 1};
	slots->clients = calloc(max ? max : 1, sizeof *slots->clients);
	if (!slots->clients)
		return -ENOMEM;
	pthread_mutex_init(&slots->mutex, NULL);
	return 0;
}

void srdma_slots_destroy(struct srdma_slots *slots)
{
	pthread_mutex_destroy(&slots->mutex);
	free(slots->clients);
	slots->clients = NULL;
}

int srdma_slots_set_max(struct srdma_slots *slots, unsigned max)
{
	int ret = 0;

	pthread_mutex_lock(&slots->mutex);
	if (max > slots->capacity) {
		void **grown = realloc(slots->clients, max * sizeof *grown);

		if (grown) {
			memset(grown + slots->capacity, 0, (max - slots->capacity) * sizeof *grown);
			slots->clients = grown;
			slots->capacity = max;
		} else {
			ret = -ENOMEM;
		}
	}
	if (ret == 0)
		slots->max = max;
	pthread_mutex_unlock(&slots->mutex);
	return ret;
}

int srdma_slots_take(struct srdma_slots *slots, void *client, uint64_t *id)
{
	int ret = 0;

	pthread_mutex_lock(&slots->mutex);
	if (slots->closed) {
		ret = -ESHUTDOWN;
	} else if (slots->used >= slots->max) {
		ret = -EBUSY;
	} else {
		unsigned i = 0;

		/* used < max <= capacity: there is a free one. */
		while (slots->clients[i])
			i++;
		slots->clients[i] = client;
		slots->used++;
		*id = slots->next_id++;
	}
	pthread_mutex_unlock(&slots->mutex);
	return ret;
}

void srdma_slots_release(struct srdma_slots *slots, void *client)
{
	pthread_mutex_lock(&slots->mutex);
	for (unsigned i = 0; i < slots->capacity; i++) {
		if (slots->clients[i] == client) {
			slots->clients[i] = NULL;
			slots->used--;
			break;
		}
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
	for (unsigned i = 0; i < slots->capacity; i++)
		if (slots->clients[i])
			visit(slots->clients[i], arg);
	pthread_mutex_unlock(&slots->mutex);
}
