/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to things: open addressing, keyed by a 32-bit number that is never 0. */
#ifndef UROCE_TABLE_H
#define UROCE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table {
	struct table_slot {
		uint32_t number;
		void *thing; /* NULL: free; TABLE_GONE: removed */
	} *slot;
	size_t size; /* a power of two, or 0 */
	size_t used; /* slots that are not free */
	size_t count;
};

int table_add(struct table *table, uint32_t number, void *thing); /* 0, -EEXIST, -ENOMEM */
void *table_find(const struct table *table, uint32_t number);    /* NULL if none */
void table_remove(struct table *table, uint32_t number);
void table_clear(struct table *table);

#endif
