/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to things: open addressing, keyed by a 32-bit number that is never 0. */
#ifndef UROCE_TABLE_H
#define UROCE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table {
	struct table_slot {
		uint32_t number; /* 0 where there is no thing */
		void *thing; /* NULL: free; TABLE_GONE: removed */
	} *slot;
	size_t size; /* a power of two, or 0 */
	size_t used; /* slots that are not free */
	size_t count;
};

int table_add(struct table *table, uint32_t number, void *thing); /* 0, -EEXIST, -ENOMEM */
void table_remove(struct table *table, uint32_t number);
void table_clear(struct table *table);
/* The same as table_find, without its short cut. */
void *table_search(const struct table *table, uint32_t number);

/* Numbers may be multiples of something: the product's upper half depends on all their bits. */
static inline size_t table_home(const struct table *table, uint32_t number)
{
	return (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (table->size - 1);
}

/* NULL if none. */
static inline void *table_find(const struct table *table, uint32_t number)
{
	if (table->size == 0)
		return NULL;
	const struct table_slot *home = &table->slot[table_home(table, number)];
	return home->number == number && number != 0 ? home->thing : table_search(table, number);
}

#endif
