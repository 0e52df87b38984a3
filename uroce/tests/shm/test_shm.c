/* SPDX-License-Identifier: Apache-2.0 */
/* Paths through shared memory: dialed, refused, and ended by either side. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block.h"
#include "packet_ring.h"
#include "shm_parts.h"

enum { PATIENCE_MS = 10000 };

/* A device as far as these layers know one. */
struct end {
	struct counters counters;
	struct udp_link *udp;
	struct shm *shm;
	uint32_t qpn;
	unsigned packets;
	struct packet last;
	struct packet_path from;
	uint8_t payload[RING_PAYLOAD];
	struct shm_path *ended; /* the last of which an event was told */
	enum shm_event event;
};

static void nothing(void *arg, const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	(void)arg;
	(void)bytes;
	(void)length;
	(void)path;
}

static void deliver(void *arg, const struct packet *packet, const struct packet_path *path)
{
	struct end *end = arg;
	end->packets++;
	end->last = *packet;
	end->from = *path;
	memcpy(end->payload, packet->payload, packet->payload_length);
}

static void notify(void *arg, struct shm_path *path, enum shm_event event)
{
	struct end *end = arg;
	end->ended = path;
	end->event = event;
}

static void open_end(struct end *end, const char *addresses)
{
	memset(end, 0, sizeof *end);
	struct udp_config udp = { .addresses = addresses, .counters = &end->counters, .deliver = nothing };
	assert_int_equal(udp_open(&udp, &end->udp), 0);
	struct shm_config shm = {
		.udp = end->udp,
		.loopback = !addresses,
		.counters = &end->counters,
		.deliver = deliver,
		.notify = notify,
		.arg = end,
	};
	assert_int_equal(shm_open_device(&shm, &end->shm), 0);
	assert_int_equal(udp_claim_block(end->udp, &end->qpn), 0);
	shm_listen(end->shm, end->qpn);
}

static void close_end(struct end *end)
{
	shm_close(&end->shm);
	udp_close(&end->udp);
}

static struct shm_path *dial(struct end *from, const struct end *to)
{
	struct shm_path *path = shm_path_to(from->shm, udp_gid(to->udp, 0), to->qpn);
	assert_non_null(path);
	return path;
}

static void send_bytes(struct end *from, struct shm_path *path, uint32_t qpn, const void *bytes, uint32_t length)
{
	struct packet packet = { .opcode = WIRE_RC | OP_SEND_ONLY, .pkey = WIRE_PKEY, .qpn = qpn, .psn = 5, .pad = (uint8_t)(-length & 3),
				 .payload_length = length };
	struct packet_out out = { .payload_length = length, .pieces = length > 0 };
	out.header_length = wire_encode(&packet, out.header);
	out.piece[0] = (struct iovec){ (void *)(uintptr_t)bytes, length };
	assert_true(shm_ready(path));
	assert_true(shm_send(path, &out, NULL));
	shm_flush(from->shm);
}

/* Looks until there is something new. */
static void wait_for(struct end *end, unsigned packets)
{
	for (int left = PATIENCE_MS; end->packets < packets && left > 0; left--) {
		if (shm_receive(end->shm, 64, true) == 0 && shm_sleep(end->shm)) {
			struct pollfd fd = { .fd = shm_fd(end->shm), .events = POLLIN };
			poll(&fd, 1, 1);
		}
	}
	assert_int_equal(end->packets, packets);
}

static void wait_for_event(struct end *end, const struct shm_path *path, enum shm_event event)
{
	for (int left = PATIENCE_MS; !end->ended && left > 0; left--) {
		struct pollfd fd = { .fd = shm_fd(end->shm), .events = POLLIN };
		poll(&fd, 1, 1);
		shm_receive(end->shm, 64, true);
	}
	assert_ptr_equal(end->ended, path);
	assert_int_equal(end->event, event);
}

/* ---- packets ---- */

static void test_packets_go_both_ways(void **state)
{
	(void)state;
	static struct end a, b;
	static uint8_t bytes[RING_PAYLOAD];
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *there = dial(&a, &b), *back = dial(&b, &a);
	for (unsigned i = 0; i < 1000; i++) {
		memset(bytes, (int)i, sizeof bytes);
		uint32_t length = i * 17 % (RING_PAYLOAD + 1);
		send_bytes(&a, there, b.qpn, bytes, length);
		wait_for(&b, i + 1);
		assert_int_equal(b.last.payload_length, length);
		assert_memory_equal(b.payload, bytes, length);
		assert_true(b.last.local);
		assert_memory_equal(&b.from.sgid, udp_gid(a.udp, 0), sizeof b.from.sgid);
		send_bytes(&b, back, a.qpn, bytes, 4);
		wait_for(&a, i + 1);
	}
	assert_true(shm_drained(there));
	assert_int_equal(a.counters.tx_local, 1000);
	assert_int_equal(a.counters.rx_local, 1000);
	close_end(&a);
	close_end(&b);
}

/* One entry with a packet, and an acknowledgement that comes after it. */
static void test_acknowledgement_goes_with_a_packet(void **state)
{
	(void)state;
	static struct end a, b;
	static const uint32_t lengths[] = { 0, 3, 64, 1000, 4096 };
	static uint8_t bytes[4096];
	memset(bytes, 7, sizeof bytes);
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *path = dial(&a, &b);
	for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		uint32_t length = lengths[i];
		uint8_t ack[WIRE_MAX_HEADER];
		struct packet packet = { .opcode = OP_SEND_ONLY, .pkey = WIRE_PKEY, .pad = (uint8_t)(-length & 3) };
		struct packet answer = { .opcode = OP_ACK, .pkey = WIRE_PKEY, .psn = 0x123456, .qpn = 7, .msn = 9 };
		struct packet_out out = { .payload_length = length, .pieces = 1, .piece = { { bytes, length } } };
		out.header_length = wire_encode(&packet, out.header);
		assert_int_equal(wire_encode(&answer, ack), WIRE_ACK);
		assert_true(shm_send(path, &out, ack));
		shm_flush(a.shm);
		memset(b.payload, 0, sizeof b.payload);
		wait_for(&b, 2 * (i + 1));
		assert_int_equal(b.last.opcode, OP_ACK);
		assert_int_equal(b.last.psn, 0x123456);
		assert_int_equal(b.last.qpn, 7);
		assert_int_equal(b.last.msn, 9);
		assert_memory_equal(b.payload, bytes, length);
		assert_int_equal(b.payload[length], 0);
	}
	assert_int_equal(a.counters.tx_packets, b.counters.rx_packets);
	close_end(&a);
	close_end(&b);
}

static void test_process_reaches_itself(void **state)
{
	(void)state;
	static struct end a;
	open_end(&a, NULL);
	send_bytes(&a, dial(&a, &a), a.qpn, "hello", 5);
	wait_for(&a, 1);
	assert_memory_equal(a.payload, "hello", 5);
	close_end(&a);
}

/* What does not fit waits until there is room, and the sender is told. */
static void test_sender_is_told_of_room(void **state)
{
	(void)state;
	static struct end a, b;
	static const uint8_t bytes[RING_PAYLOAD];
	unsigned sent = 0;
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *path = dial(&a, &b);
	for (; shm_ready(path); sent++)
		send_bytes(&a, path, b.qpn, bytes, sizeof bytes);
	struct pollfd fd = { .fd = shm_fd(a.shm), .events = POLLIN };
	assert_int_equal(poll(&fd, 1, 0), 0);
	wait_for(&b, sent);
	assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	shm_receive(a.shm, 64, true);
	assert_true(shm_ready(path));
	close_end(&a);
	close_end(&b);
}

static bool has_news(const struct end *end)
{
	struct pollfd fd = { .fd = shm_fd(end->shm), .events = POLLIN };
	return poll(&fd, 1, 0) == 1;
}

/* The receiver has just looked whether the sender waits, and takes no packet after that. */
static void test_sender_that_begins_to_wait_behind_the_last_packet_is_told(void **state)
{
	(void)state;
	static struct end a, b;
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *path = dial(&a, &b);
	for (unsigned polls = 0; polls < 2; polls++) {
		send_bytes(&a, path, b.qpn, "hello", 5);
		wait_for(&b, polls + 1);
		send_bytes(&a, path, b.qpn, "hello", 5);
		assert_int_equal(shm_receive_briefly(b.shm, 64), 1);
		b.packets = polls + 1;
		atomic_store(&path->ring.shared->waits, 1);
		assert_false(has_news(&a));
		/* It looks once more, or sleeps. */
		if (polls == 0)
			assert_int_equal(shm_receive(b.shm, 64, false), 0);
		else
			assert_true(shm_sleep(b.shm));
		assert_true(has_news(&a));
		shm_receive(a.shm, 64, true);
		assert_false(has_news(&a));
	}
	close_end(&a);
	close_end(&b);
}

/* What is taken briefly is counted with the rest. */
static void test_packets_that_were_taken_briefly_are_counted(void **state)
{
	(void)state;
	static struct end a, b;
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *path = dial(&a, &b);
	send_bytes(&a, path, b.qpn, "hello", 5);
	wait_for(&b, 1);
	send_bytes(&a, path, b.qpn, "hello", 5);
	assert_false(shm_is_silent(b.shm));
	assert_int_equal(shm_receive_briefly(b.shm, 64), 1);
	assert_true(shm_is_silent(b.shm));
	shm_receive(b.shm, 64, false);
	assert_int_equal(b.counters.rx_packets, 2);
	close_end(&a);
	close_end(&b);
}

/* What may be lost waits for a slow receiver, and not for one that is stopped. */
static void test_path_without_room_is_stuck_after_a_while(void **state)
{
	(void)state;
	struct end a, b;
	uint8_t bytes[4096] = { 0 };
	uint64_t until, begin = 5000;
	open_end(&a, NULL);
	open_end(&b, NULL);
	struct shm_path *path = dial(&a, &b);
	assert_ptr_equal(shm_known_path(a.shm, udp_gid(b.udp, 0), b.qpn), path);
	unsigned sent = 0;
	for (; shm_ready(path); sent++)
		send_bytes(&a, path, b.qpn, bytes, sizeof bytes);
	assert_false(shm_is_stuck(path, begin, &until));
	assert_true(until > begin);
	assert_false(shm_is_stuck(path, until - 1, &until));
	assert_true(shm_is_stuck(path, until, &until));
	/* When it has taken something, the next has its time again. */
	wait_for(&b, sent);
	assert_true(shm_ready(path));
	assert_false(shm_is_stuck(path, until, &until));
	close_end(&a);
	close_end(&b);
}

static void test_no_path_to_nobody(void **state)
{
	(void)state;
	static struct end a, b;
	open_end(&a, NULL);
	open_end(&b, NULL);
	uint32_t qpn = b.qpn;
	close_end(&b);
	assert_null(shm_path_to(a.shm, udp_gid(a.udp, 0), qpn));
	close_end(&a);
}

/* A process of this host may have the block of a queue pair of another host. */
static void test_address_that_is_not_of_this_host(void **state)
{
	(void)state;
	static struct end a, b;
	union ibv_gid elsewhere;
	open_end(&a, "127.0.0.21");
	open_end(&b, "127.0.0.22");
	gid_map_v4(&elsewhere, htonl(0xc0000201)); /* 192.0.2.1, for documentation */
	assert_null(shm_path_to(a.shm, &elsewhere, b.qpn));
	close_end(&a);
	close_end(&b);
}

/* An address of this host, but none of that process: it refuses, and says so. */
static void test_address_of_another_process_is_refused(void **state)
{
	(void)state;
	static struct end a, b;
	union ibv_gid other;
	open_end(&a, "127.0.0.21");
	open_end(&b, "127.0.0.22");
	gid_map_v4(&other, htonl(0x7f000017));
	struct shm_path *path = shm_path_to(a.shm, &other, b.qpn);
	assert_non_null(path);
	shm_hold(path);
	send_bytes(&a, path, b.qpn, "x", 1);
	shm_receive(b.shm, 64, true);
	assert_int_equal(b.packets, 0);
	wait_for_event(&a, path, SHM_REFUSED);
	shm_release(path);
	close_end(&a);
	close_end(&b);
}

/* ---- ends ---- */

enum how { KILLED, LEAVES };

/* The other process sends a last packet, and ends. */
static void end_of_peer(enum how how)
{
	static struct end a;
	int tell[2];
	uint32_t qpn;
	assert_int_equal(pipe(tell), 0);
	open_end(&a, NULL);
	pid_t child = fork();
	if (child == 0) {
		static struct end b;
		alarm(60);
		open_end(&b, NULL);
		if (write(tell[1], &b.qpn, sizeof b.qpn) != sizeof b.qpn)
			_exit(1);
		wait_for(&b, 1);
		send_bytes(&b, dial(&b, &a), a.qpn, "bye", 3);
		if (how == LEAVES) {
			shm_leave(b.shm);
			_exit(0);
		}
		raise(SIGKILL);
	}
	assert_int_equal(read(tell[0], &qpn, sizeof qpn), sizeof qpn);
	struct shm_path *path = shm_path_to(a.shm, udp_gid(a.udp, 0), qpn);
	assert_non_null(path);
	shm_hold(path);
	send_bytes(&a, path, qpn, "hello", 5);
	assert_int_equal(waitpid(child, NULL, 0), child);
	wait_for_event(&a, path, how == KILLED ? SHM_KILLED : SHM_LEFT);
	/* Its last words come before its end. */
	assert_int_equal(a.packets, 1);
	assert_memory_equal(a.payload, "bye", 3);
	assert_int_equal(shm_was_killed(path), how == KILLED);
	/* What is sent now is lost, and hurts nobody. */
	send_bytes(&a, path, qpn, "hello", 5);
	shm_release(path);
	assert_null(shm_path_to(a.shm, udp_gid(a.udp, 0), qpn));
	close_end(&a);
	close(tell[0]);
	close(tell[1]);
}

static void test_killed_process_is_noticed(void **state)
{
	(void)state;
	end_of_peer(KILLED);
}

static void test_process_that_leaves_is_noticed(void **state)
{
	(void)state;
	end_of_peer(LEAVES);
}

/* ---- strangers ---- */

/* Of another user, on this host: the test must be root to be one. */
static void test_another_user_has_no_path(void **state)
{
	(void)state;
	static struct end a;
	int tell[2], status;
	const struct passwd *nobody = getpwnam("nobody");
	if (getuid() != 0 || !nobody)
		skip();
	assert_int_equal(pipe(tell), 0);
	open_end(&a, NULL);
	pid_t child = fork();
	if (child == 0) {
		static struct end b;
		alarm(60);
		if (setresuid(nobody->pw_uid, nobody->pw_uid, nobody->pw_uid) != 0)
			_exit(2);
		open_end(&b, NULL);
		if (write(tell[1], &b.qpn, sizeof b.qpn) != sizeof b.qpn)
			_exit(3);
		/* Until the parent has tried. */
		_exit(shm_path_to(b.shm, udp_gid(b.udp, 0), a.qpn) != NULL || pause() == 0);
	}
	uint32_t qpn;
	assert_int_equal(read(tell[0], &qpn, sizeof qpn), sizeof qpn);
	assert_null(shm_path_to(a.shm, udp_gid(a.udp, 0), qpn));
	/* It did not get one either: else it had ended. */
	struct timespec moment = { .tv_nsec = 50000000 };
	nanosleep(&moment, NULL);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close_end(&a);
	close(tell[0]);
	close(tell[1]);
}

static int call(const struct end *end)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "uroce-ring-lo-%u", block_of(end->qpn));
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)), 0);
	return fd;
}

static void expect_refusal(struct end *end, int fd)
{
	char byte = 0;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	for (int left = 100; poll(&ready, 1, 1) == 0 && left > 0; left--)
		shm_receive(end->shm, 64, true);
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(byte, 'R');
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
	close(fd);
}

/* Of this user, but another program, or another version. */
static void test_callers_that_say_nonsense_are_refused(void **state)
{
	(void)state;
	static struct end a;
	static const uint8_t zeros[512];
	open_end(&a, NULL);
	for (size_t length = 1; length <= sizeof zeros; length += 73) {
		int fd = call(&a);
		assert_int_equal(send(fd, zeros, length, MSG_NOSIGNAL), (ssize_t)length);
		expect_refusal(&a, fd);
	}
	/* One that says nothing is waited for, and one that goes is forgotten. */
	int silent = call(&a), gone = call(&a);
	shm_receive(a.shm, 64, true);
	close(gone);
	shm_receive(a.shm, 64, true);
	assert_int_equal(send(silent, zeros, 8, MSG_NOSIGNAL), 8);
	expect_refusal(&a, silent);
	close_end(&a);
}

/* What no packet is: no opcode; an acknowledgement that has none; no room for the acknowledgement that the word speaks of. */
static void send_nonsense(struct shm_path *path, unsigned kind)
{
	static const uint8_t no_opcode[WIRE_ACK] = { 0xff };
	struct packet_out out = { .header = { 0xff }, .header_length = WIRE_BTH };
	struct packet right = { .opcode = WIRE_RC | OP_SEND_ONLY, .pkey = WIRE_PKEY };
	if (kind == 2) {
		memset(ring_begin(&path->ring, WIRE_BTH), 0, WIRE_BTH);
		ring_publish(&path->ring, (struct ring_word){ .kind = RING_ACKED, .length = WIRE_BTH });
		return;
	}
	if (kind == 1)
		wire_encode(&right, out.header);
	assert_true(shm_send(path, &out, kind == 1 ? no_opcode : NULL));
}

/* A sender that breaks the rules loses its path, and nothing else happens. */
static void test_nonsense_in_the_ring_ends_the_path(void **state)
{
	(void)state;
	static struct end a, b;
	for (unsigned kind = 0; kind < 3; kind++) {
		open_end(&a, NULL);
		open_end(&b, NULL);
		struct shm_path *path = dial(&a, &b), *back = dial(&b, &a);
		shm_hold(path);
		send_nonsense(path, kind);
		shm_flush(a.shm);
		shm_receive(b.shm, 64, true);
		shm_receive(b.shm, 64, true);
		assert_int_equal(b.packets, kind == 1); /* what comes before the wrong acknowledgement is right */
		assert_int_equal(b.counters.drop_malformed, 1);
		wait_for_event(&a, path, SHM_KILLED);
		shm_release(path);
		send_bytes(&b, back, a.qpn, "x", 1);
		wait_for(&a, 1);
		close_end(&a);
		close_end(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packets_go_both_ways),
		cmocka_unit_test(test_acknowledgement_goes_with_a_packet),
		cmocka_unit_test(test_process_reaches_itself),
		cmocka_unit_test(test_sender_is_told_of_room),
		cmocka_unit_test(test_sender_that_begins_to_wait_behind_the_last_packet_is_told),
		cmocka_unit_test(test_packets_that_were_taken_briefly_are_counted),
		cmocka_unit_test(test_path_without_room_is_stuck_after_a_while),
		cmocka_unit_test(test_no_path_to_nobody),
		cmocka_unit_test(test_address_that_is_not_of_this_host),
		cmocka_unit_test(test_address_of_another_process_is_refused),
		cmocka_unit_test(test_killed_process_is_noticed),
		cmocka_unit_test(test_process_that_leaves_is_noticed),
		cmocka_unit_test(test_another_user_has_no_path),
		cmocka_unit_test(test_callers_that_say_nonsense_are_refused),
		cmocka_unit_test(test_nonsense_in_the_ring_ends_the_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
