/* SPDX-License-Identifier: Apache-2.0 */
/* The lists that a client is in: first on its way to a thread, then among that thread's clients. */
#include "server.h"

void srdma_clients_append(struct srdma_client_list *list, struct srdma_client *client)
{
	client->next = NULL;
	client->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = client;
	list->last = client;
}

void srdma_clients_remove(struct srdma_client_list *list, struct srdma_client *client)
{
	*(client->previous ? &client->previous->next : &list->first) = client->next;
	*(client->next ? &client->next->previous : &list->last) = client->previous;
}

void srdma_arrivals_add(srdma_arrivals *arrivals, struct srdma_client *client)
{
	client->next = atomic_load(arrivals);
	while (!atomic_compare_exchange_weak(arrivals, &client->next, client))
		;
}

struct srdma_client *srdma_arrivals_take(srdma_arrivals *arrivals)
{
	struct srdma_client *latest = atomic_exchange(arrivals, NULL), *oldest = NULL;

	while (latest) {
		struct srdma_client *before = latest->next;

		latest->next = oldest;
		oldest = latest;
		latest = before;
	}
	return oldest;
}
