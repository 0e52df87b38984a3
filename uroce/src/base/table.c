/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing. Never more than three quarters of the slots are used. */
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wipe.h"

enum { FIRST_SIZE = 16 };

static char gone;
#define TABLE_GONE ((void *)&gone)

static struct table_slot *table_slot_of(const struct table *table, uint32_t number)
{
	if (table->size == 0)
		return NULL;
	for (size_t i = table_home(table, number);; i = (i + 1) & (table->size - 1)) {
		struct table_slot *slot = &table->slot[i];
		if (!slot->thing)
			return NULL;
		if (slot->number == number && slot->thing != TABLE_GONE)
			return slot;
	}
}

/* Enters a number that is not there. */
static void table_enter(struct table *table, uint32_t number, void *thing)
{
	size_t i = table_home(table, number);

	while (table->slot[i].thing && table->slot[i].thing != TABLE_GONE)
		i = (i + 1) & (table->size - 1);
	table->used += !table->slot[i].thing;
	table->count++;
	table->slot[i].number = number;
	table->slot[i].thing = thing;
}

/* Moves to a table of the right size for one more, without the removed ones. */
static int table_rebuild(struct table *table)
{
	struct table bigger = {.size = FIRST_SIZE};

	while (bigger.size < 2 * (table->count + 1))
		bigger.size *= 2;
	bigger.slot = calloc(bigger.size, sizeof *bigger.slot);
	if (!bigger.slot)
		return -ENOMEM;
	for (size_t i = 0; i < table->size; i++)
		if (table->slot[i].thing && table->slot[i].thing != TABLE_GONE)
			table_enter(&bigger, table->slot[i].number, table->slot[i].thing);
	table_clear(table);
	*table = bigger;
	return 0;
}

int table_add(struct table *table, uint32_t number, void *thing)
{
	if (table_slot_of(table, number))
		return -EEXIST;
	if (4 * (table->used + 1) > 3 * table->size) {
		int error = table_rebuild(table);
		if (error != 0)
			return error;
	}
	table_enter(table, number, thing);
	return 0;
}

void *table_search(const struct table *table, uint32_t number)
{
	const struct table_slot *slot = table_slot_of(table, number);

	return slot ? slot->thing : NULL;
}

void table_remove(struct table *table, uint32_t number)
{
	struct table_slot *slot = table_slot_of(table, number);

	if (!slot)
		return;
	table->count--;
	slot->number = 0;
	slot->thing = TABLE_GONE;
	/* Before a free slot nothing needs to be stepped over. */
	size_t i = (size_t)(slot - table->slot);
	if (table->slot[(i + 1) & (table->size - 1)].thing)
		return;
	for (; table->slot[i].thing == TABLE_GONE; i = (i - 1) & (table->size - 1)) {
		table->slot[i].thing = NULL;
		table->used--;
	}
}

void table_clear(struct table *table)
{
	/* The numbers are QPNs and keys. */
	wipe_free(table->slot, table->size * sizeof *table->slot);
	memset(table, 0, sizeof *table);
}
