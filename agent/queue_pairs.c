/* SPDX-License-Identifier: Apache-2.0 */
#include "queue_pairs.h"

#include "devices.h"
#include "log.h"
#include "program.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#define SIZE_FIRST 256

static size_t hash(const struct queue_pairs *table, uint32_t qpn)
{
	uint32_t mixed = (qpn ^ table->seed) * 0x9e3779b1u;

	return (mixed ^ mixed >> 15) & (table->size - 1);
}

static int grow(struct queue_pairs *table)
{
	struct queue_pairs grown = {.size = table->size ? 2 * table->size : SIZE_FIRST, .count = table->count, .seed = table->seed};

	grown.buckets = calloc(grown.size, sizeof(void *));
	if (!grown.buckets)
		return srdma_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; i < table->size; i++) {
		struct queue_pair *next;

		for (struct queue_pair *pair = table->buckets[i]; pair; pair = next) {
			struct queue_pair **bucket = &grown.buckets[hash(&grown, pair->qpn)];

			next = pair->next;
			pair->next = *bucket;
			*bucket = pair;
		}
	}
	free(table->buckets);
	*table = grown;
	return 0;
}

int queue_pairs_add(struct queue_pairs *table, const struct queue_pair *values, struct queue_pair **out)
{
	int ret = table->count < table->size ? 0 : grow(table);
	struct queue_pair *pair = ret == 0 ? malloc(sizeof *pair) : NULL, **bucket;

	if (!pair)
		return ret != 0 ? ret : srdma_fail(-ENOMEM, "out of memory");
	*pair = *values;
	bucket = &table->buckets[hash(table, pair->qpn)];
	pair->next = *bucket;
	*bucket = pair;
	pair->link_own = &pair->program->queue_pairs;
	pair->next_own = *pair->link_own;
	if (pair->next_own)
		pair->next_own->link_own = &pair->next_own;
	*pair->link_own = pair;
	pair->program->user->queue_pairs++;
	table->count++;
	*out = pair;
	return 0;
}

void queue_pairs_remove(struct queue_pairs *table, struct queue_pair *pair)
{
	struct queue_pair **at = &table->buckets[hash(table, pair->qpn)];

	while (*at != pair)
		at = &(*at)->next;
	*at = pair->next;
	*pair->link_own = pair->next_own;
	if (pair->next_own)
		pair->next_own->link_own = pair->link_own;
	pair->program->user->queue_pairs--;
	table->count--;
	OPENSSL_cleanse(pair, sizeof *pair);
	free(pair);
}

struct queue_pair *queue_pairs_first(const struct queue_pairs *table, uint32_t qpn)
{
	struct queue_pair *pair = table->size ? table->buckets[hash(table, qpn)] : NULL;

	while (pair && pair->qpn != qpn)
		pair = pair->next;
	return pair;
}

struct queue_pair *queue_pairs_next(const struct queue_pair *pair)
{
	struct queue_pair *next = pair->next;

	while (next && next->qpn != pair->qpn)
		next = next->next;
	return next;
}

void queue_pairs_free(struct queue_pairs *table)
{
	free(table->buckets);
	*table = (struct queue_pairs){0};
}
