/* SPDX-License-Identifier: Apache-2.0 */
/* Polls of a thread that can be cancelled, while another process writes to a ring: it can be cancelled after each of them. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "../device.h"
#include "engine.h"
#include "guard.h"
#include "shm_parts.h"
#include "wake.h"

/* A device that receives through shared memory, and its peer. */
static struct {
	struct bare bare;
	struct progress progress;
	struct counters counters;
	struct udp_link *udp[2];
	struct shm *shm[2];
	uint32_t qpn[2];
	unsigned packets;
} world;

static void no_datagram(void *arg, const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	(void)arg, (void)bytes, (void)length, (void)path;
}

static void count(void *arg, const struct packet *packet, const struct packet_path *path)
{
	(void)arg, (void)packet, (void)path;
	world.packets++;
}

static void no_event(void *arg, struct shm_path *path, enum shm_event event)
{
	(void)arg, (void)path, (void)event;
}

static int begin(void **state)
{
	(void)state;
	memset(&world, 0, sizeof world);
	for (unsigned i = 0; i < 2; i++) {
		struct udp_config udp = {.counters = &world.counters, .deliver = no_datagram};
		assert_int_equal(udp_open(&udp, &world.udp[i]), 0);
		struct shm_config shm = {.udp = world.udp[i], .loopback = true, .counters = &world.counters, .deliver = count, .notify = no_event};
		assert_int_equal(shm_open_device(&shm, &world.shm[i]), 0);
		assert_int_equal(udp_claim_block(world.udp[i], &world.qpn[i]), 0);
		shm_listen(world.shm[i], world.qpn[i]);
	}
	bare_open(&world.bare);
	world.bare.device.shm = world.shm[0];
	world.bare.device.progress = &world.progress;
	world.progress.wake_fd = -1;
	guard_install(bare_clock());
	return 0;
}

static int end(void **state)
{
	(void)state;
	test_device_close(&world.bare.device, &world.bare.context);
	for (unsigned i = 0; i < 2; i++) {
		shm_close(&world.shm[i]);
		udp_close(&world.udp[i]);
	}
	return 0;
}

/* A packet, so that the device looks at the ring from now on. */
static struct shm_path *reach(void)
{
	struct packet packet = {.opcode = WIRE_RC | OP_SEND_ONLY, .pkey = WIRE_PKEY, .qpn = world.qpn[0]};
	struct packet_out out = {.header_length = 0};
	struct shm_path *path = shm_path_to(world.shm[1], udp_gid(world.udp[0], 0), world.qpn[0]);

	assert_non_null(path);
	out.header_length = wire_encode(&packet, out.header);
	assert_true(shm_ready(path));
	assert_true(shm_send(path, &out, NULL));
	shm_flush(world.shm[1]);
	for (unsigned i = 0; i < 1000000 && world.packets == 0; i++)
		shm_receive(world.shm[0], 64, true);
	assert_int_equal(world.packets, 1);
	return path;
}

/* The sender goes on at the start of the ring, and has written no packet there yet. */
static void go_to_start(struct shm_path *path)
{
	const struct ring_word word = {.kind = RING_WRAP};
	uint64_t whole;

	memcpy(&whole, &word, sizeof whole);
	atomic_store((_Atomic uint64_t *)(void *)path->ring.shared->bytes, 0);
	atomic_store((_Atomic uint64_t *)(void *)(path->ring.shared->bytes + path->ring.head % RING_BYTES), whole);
	path->ring.head += RING_BYTES - path->ring.head % RING_BYTES;
}

static void poll_and_check(bool naps)
{
	int before;

	atomic_store(&world.progress.poll_ns, 0);
	atomic_store(&world.progress.napping, naps);
	world.bare.device.glances = 0; /* the next one is brief, if it can be */
	go_to_start(reach());
	assert_false(shm_is_silent(world.shm[0]));
	engine_poll(&world.bare.device);
	assert_true(shm_is_silent(world.shm[0]));
	assert_int_equal(world.packets, 1);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
	assert_int_equal(before, PTHREAD_CANCEL_ENABLE);
}

static void brief_poll_without_a_packet_leaves_the_thread_cancelable(void **state)
{
	(void)state;
	poll_and_check(true);
}

static void whole_poll_after_it_does_too(void **state)
{
	(void)state;
	poll_and_check(false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(brief_poll_without_a_packet_leaves_the_thread_cancelable),
		TEST(whole_poll_after_it_does_too),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
