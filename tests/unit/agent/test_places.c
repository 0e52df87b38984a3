/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "places.h"
#include "log.h"
#include "peer_frames.h"

static struct peer_end place(uint32_t number, uint16_t lid)
{
	struct peer_end end = {.lid = lid, .qpn = number}; /* which does not matter */

	if (lid == 0) {
		end.gid[0] = 0xfd;
		memcpy(end.gid + 12, &number, sizeof number);
	}
	return end;
}

TEST(each_place_counts_its_devices)
{
	struct places places = {.seed = 0x12345};
	struct peer_end one = place(1, 0), other = place(1, 7);

	assert_false(places_have(&places, &one));
	for (int i = 0; i < 2; i++)
		assert_int_equal(places_add(&places, &one), 0);
	assert_int_equal(places_add(&places, &other), 0);
	places_remove(&places, &one);
	assert_true(places_have(&places, &one));
	places_remove(&places, &one);
	assert_false(places_have(&places, &one));
	one.qpn = 99;
	other.qpn = 99;
	assert_true(places_have(&places, &other));
	assert_int_equal(places.count, 1);
	places_remove(&places, &other);
	places_free(&places);
}

TEST(many_places_are_found_and_forgotten)
{
	struct places places = {.seed = 0x6789};
	enum { MANY = 20000 };

	for (uint32_t i = 0; i < MANY; i++) {
		struct peer_end end = place(i, 0);

		assert_int_equal(places_add(&places, &end), 0);
	}
	assert_int_equal(places.count, MANY);
	assert_true(places.size >= MANY / 2);
	for (uint32_t i = 0; i < MANY; i++) {
		struct peer_end end = place(i, 0), absent = place(i + MANY, 0);

		assert_true(places_have(&places, &end));
		assert_false(places_have(&places, &absent));
		places_remove(&places, &end);
	}
	assert_int_equal(places.count, 0);
	places_free(&places);
}

RUN_TESTS(NULL, NULL)
