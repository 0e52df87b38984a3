/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that wait for another process of the host, in simulated time: when they are tried again, and what becomes of them. */
#include "check.h"

#include <errno.h>
#include <sys/un.h>

#include "../device.h"
#include "gsi_parts.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static struct {
	struct bare bare;
	struct gsi gsi;
	/* Instead of the kernel. */
	bool has_room;
	bool listens;
	unsigned tries; /* of requests */
	unsigned refused;
	unsigned messages;
	uint8_t got[256]; /* first bytes of notes, in the order of their arrival */
	unsigned notes;
} world;

static const struct sockaddr_un receiver = {.sun_family = AF_UNIX, .sun_path = "\0receiver"};
static const socklen_t receiver_length = offsetof(struct sockaddr_un, sun_path) + 9;

int gsi_try_notes(struct gsi *gsi, const struct gsi_note *notes, size_t count, const struct sockaddr_un *name, socklen_t length)
{
	(void)gsi;
	assert_int_equal(length, receiver_length);
	assert_memory_equal(name, &receiver, length);
	if (!world.has_room)
		return -EAGAIN;
	world.messages++;
	for (size_t i = 0; i < count; i++)
		world.got[world.notes++ % sizeof world.got] = notes[i].tclass;
	return 0;
}

bool gsi_try_owner(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note)
{
	(void)gsi, (void)note;
	assert_int_equal(mad->kind, MAD_REQ);
	world.tries++;
	return world.listens;
}

void gsi_refuse(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note)
{
	(void)gsi, (void)mad, (void)note;
	world.refused++;
}

static int begin(void **state)
{
	(void)state;
	memset(&world, 0, sizeof world);
	bare_open(&world.bare);
	world.bare.device.now = SECOND;
	world.gsi.device = &world.bare.device;
	assert_int_equal(timers_reserve(&world.bare.device.timers, DEVICE_TIMERS), 0);
	gsi_wait_open(&world.gsi);
	return 0;
}

static void run(uint64_t ns)
{
	struct device *device = &world.bare.device;
	uint64_t until = device->now + ns;

	while (timers_next(&device->timers) <= until) {
		device->now = timers_next(&device->timers);
		timers_run(&device->timers, device->now);
	}
	device->now = until;
}

/* Nothing is left behind: all that waits ends within seconds. */
static int end(void **state)
{
	(void)state;
	run(2 * SECOND);
	assert_null(world.gsi.wait.first);
	assert_true(timers_next(&world.bare.device.timers) == UINT64_MAX);
	test_device_close(&world.bare.device, &world.bare.context);
	return 0;
}

static struct gsi_note request(void)
{
	const struct mad mad = {.kind = MAD_REQ, .service = 7, .local = 9, .qpn = 0x111111, .mtu = IBV_MTU_1024};
	struct gsi_note note = {.version = 1};

	mad_encode(&mad, note.bytes);
	return note;
}

static bool send_one(uint8_t what)
{
	return gsi_send_note(&world.gsi, &(struct gsi_note){.version = 1, .tclass = what}, &receiver, receiver_length);
}

static void notes_keep_their_order_and_go_together(void **state)
{
	(void)state;
	for (uint8_t i = 0; i < 100; i++) {
		assert_true(send_one(i));
		run(MS / 10);
	}
	assert_int_equal(world.notes, 0);
	world.has_room = true;
	assert_true(send_one(100)); /* not before the others */
	run(10 * MS);
	assert_int_equal(world.notes, 101);
	for (uint8_t i = 0; i < 101; i++)
		assert_int_equal(world.got[i], i);
	assert_in_range(world.messages, 1, 5);
}

static void notes_that_find_no_room_are_counted_as_lost(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		assert_true(send_one(0));
	assert_int_equal(world.bare.counters.drop_inbox, 5000 - 4096);
	run(2 * SECOND);
	assert_int_equal(world.bare.counters.drop_inbox, 5000);
}

static void request_is_delivered_when_somebody_listens(void **state)
{
	(void)state;
	const struct gsi_note note = request();
	assert_true(gsi_keep_request(&world.gsi, &note));
	run(20 * MS);
	assert_in_range(world.tries, 1, 10);
	world.listens = true;
	run(40 * MS);
	assert_null(world.gsi.wait.first);
	assert_int_equal(world.refused, 0);
}

static void request_is_refused_when_nobody_listens(void **state)
{
	(void)state;
	const struct gsi_note note = request();
	assert_true(gsi_keep_request(&world.gsi, &note));
	run(190 * MS);
	assert_int_equal(world.refused, 0);
	run(20 * MS);
	assert_int_equal(world.refused, 1);
}

/* A peer that sends one after the other must not keep this process busy, whatever else waits. */
static void requests_that_nobody_listens_for_are_tried_seldom(void **state)
{
	(void)state;
	const struct gsi_note note = request();
	unsigned kept = 0;
	for (unsigned i = 0; i < 2000; i++) {
		kept += gsi_keep_request(&world.gsi, &note);
		world.has_room = i % 2 == 0;
		send_one(0);
		run(MS);
	}
	run(SECOND);
	assert_int_equal(kept, 2000);
	assert_int_equal(world.refused, 2000);
	assert_in_range(world.tries, 2000, 10 * 2000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(notes_keep_their_order_and_go_together),
		TEST(notes_that_find_no_room_are_counted_as_lost),
		TEST(request_is_delivered_when_somebody_listens),
		TEST(request_is_refused_when_nobody_listens),
		TEST(requests_that_nobody_listens_for_are_tried_seldom),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
