/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap for RAND_bytes: the test chooses the random bytes. */
#include "test.h"

#include "pause.h"

#include <openssl/rand.h>
static uint32_t drawn;
static int drawn_result = 1;

int __wrap_RAND_bytes(unsigned char *out, int size)
{
	assert_int_equal(size, sizeof drawn);
	memcpy(out, &drawn, sizeof drawn);
	return drawn_result;
}

TEST(pause_is_spread_over_its_whole_range)
{
	drawn = 0;
	assert_int_equal(srdma_pause_below(1000), 0);
	assert_int_equal(srdma_pause_growing(1000, 5000, 0), 500);
	drawn = UINT32_MAX;
	assert_int_equal(srdma_pause_below(1000), 1000);
	assert_int_equal(srdma_pause_growing(1000, 5000, 0), 1500);
	drawn = UINT32_MAX / 4;
	assert_uint_in_range(srdma_pause_below(1000), 249, 250);
}

TEST(pause_doubles_up_to_its_limit)
{
	static const int middles[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};

	drawn = 0;
	for (unsigned i = 0; i < COUNT(middles); i++)
		assert_int_equal(srdma_pause_growing(100, 5000, i), middles[i] / 2);
	/* Without running over, however often it was tried. */
	assert_int_equal(srdma_pause_growing(1, INT_MAX, 1000000), 65536 / 2);
	assert_int_equal(srdma_pause_growing(INT_MAX, INT_MAX / 2, UINT_MAX), INT_MAX / 2 / 2);
	drawn = UINT32_MAX;
	assert_int_equal(srdma_pause_growing(INT_MAX, INT_MAX, UINT_MAX), INT_MAX);
}

TEST(without_random_numbers_the_middle_will_do)
{
	drawn = 12345;
	drawn_result = 0;
	assert_uint_in_range(srdma_pause_below(1000), 499, 500);
	assert_uint_in_range(srdma_pause_growing(1000, 5000, 0), 999, 1000);
	drawn_result = 1;
}

RUN_TESTS(NULL, NULL)
