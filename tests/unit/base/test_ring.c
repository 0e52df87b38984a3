/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "ring.h"

enum { LARGEST = 9, STEPS = 2000 };

/* Beside a queue that is kept in order by moving it, for rings of every small size. */
TEST(entries_come_out_in_the_order_in_which_they_went_in)
{
	unsigned seed = 1;

	for (uint32_t room = 1; room <= LARGEST; room++) {
		struct srdma_ring ring = {.room = room};
		unsigned entries[LARGEST], queue[LARGEST], count = 0;

		for (unsigned step = 0; step < STEPS; step++) {
			if (count < room && (count == 0 || rand_r(&seed) % 2)) {
				entries[srdma_ring_push(&ring)] = queue[count] = step;
				count++;
			} else {
				assert_int_equal(entries[srdma_ring_pop(&ring)], queue[0]);
				count--;
				for (unsigned i = 0; i < count; i++)
					queue[i] = queue[i + 1];
			}
			assert_int_equal(ring.count, count);
			for (unsigned i = 0; i < count; i++)
				assert_int_equal(entries[srdma_ring_at(&ring, i)], queue[i]);
			/* Where the next one goes, even when the oldest must go first. */
			assert_int_equal(srdma_ring_at(&ring, count), (ring.first + count) % room);
		}
	}
}

RUN_TESTS(NULL, NULL)
