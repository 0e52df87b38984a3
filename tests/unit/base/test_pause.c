/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap for RAND_bytes: what it draws is the test's. */
#include "pause.h"

#include <limits.h>
#include <openssl/rand.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint32_t drawn;
static int drawn_result = 1;

int __wrap_RAND_bytes(unsigned char *out, int size);

int __wrap_RAND_bytes(unsigned char *out, int size)
{
	assert_int_equal(size, sizeof drawn);
	memcpy(out, &drawn, sizeof drawn);
	return drawn_result;
}

static void pause_is_spread_over_its_whole_range(void **state)
{
	(void)state;
	drawn = 0;
	assert_int_equal(srdma_pause_below(1000), 0);
	assert_int_equal(srdma_pause_growing(1000, 5000, 0), 500);
	drawn = UINT32_MAX;
	assert_int_equal(srdma_pause_below(1000), 1000);
	assert_int_equal(srdma_pause_growing(1000, 5000, 0), 1500);
	drawn = UINT32_MAX / 4;
	assert_in_range(srdma_pause_below(1000), 249, 250);
}

static void pause_doubles_up_to_its_limit(void **state)
{
	static const int middles[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};

	(void)state;
	drawn = 0;
	for (unsigned i = 0; i < sizeof middles / sizeof *middles; i++)
		assert_int_equal(srdma_pause_growing(100, 5000, i), middles[i] / 2);
	/* Without running over, however often it was tried. */
	assert_int_equal(srdma_pause_growing(1, INT_MAX, 1000000), 65536 / 2);
	assert_int_equal(srdma_pause_growing(INT_MAX, INT_MAX / 2, UINT_MAX), INT_MAX / 2 / 2);
	drawn = UINT32_MAX;
	assert_int_equal(srdma_pause_growing(INT_MAX, INT_MAX, UINT_MAX), INT_MAX);
}

static void without_random_numbers_the_middle_will_do(void **state)
{
	(void)state;
	drawn = 12345;
	drawn_result = 0;
	assert_in_range(srdma_pause_below(1000), 499, 500);
	assert_in_range(srdma_pause_growing(1000, 5000, 0), 999, 1000);
	drawn_result = 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pause_is_spread_over_its_whole_range),
		cmocka_unit_test(pause_doubles_up_to_its_limit),
		cmocka_unit_test(without_random_numbers_the_middle_will_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
