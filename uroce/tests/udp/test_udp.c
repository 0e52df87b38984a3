/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP link: names, blocks, what is sent, and a kernel that does not take it. */
#include "check.h"

#include "udp_rig.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "timer.h"

static int refusal;          /* what sendmmsg says, or 0 */
static unsigned refuse_from; /* messages that it takes before that */
static bool refuse_runs;     /* only those of several packets */

/* ---- loopback ---- */

static void loopback_has_two_names(void **state)
{
	(void)state;
	union ibv_gid one = { .raw = { [15] = 1 } };
	union ibv_gid other = { .raw = { [10] = 0xff, 0xff, 10, 0, 0, 1 } };
	struct end *a = open_end(NULL, NULL);

	assert_int_equal(udp_gid_count(a->udp), 2);
	assert_memory_equal(udp_gid(a->udp, 0)->raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
	assert_memory_equal(udp_gid(a->udp, 1), &one, 16);
	assert_null(udp_gid(a->udp, 2));
	assert_int_equal(udp_mtu(a->udp), IBV_MTU_4096);
	assert_true(udp_gid_ifindex(a->udp, 0) > 0);
	assert_true(udp_receive_buffer(a->udp) > 65536);
	assert_true(udp_same_peer(a->udp, &one, udp_gid(a->udp, 0)));
	assert_false(udp_same_peer(a->udp, &one, &other));
	assert_true(udp_reachable(a->udp, 1, udp_gid(a->udp, 0)));
	assert_false(udp_reachable(a->udp, 0, &other));
	assert_false(udp_reachable(a->udp, 2, &one));
	close_end(a);
}

static void blocks_are_distinct_and_given_back(void **state)
{
	(void)state;
	bool seen[BLOCK_COUNT] = { false };
	struct end *a = open_end(NULL, NULL), *b = open_end("", NULL);

	seen[block_of(a->qpn)] = true;
	assert_false(seen[block_of(b->qpn)]);
	seen[block_of(b->qpn)] = true;
	for (unsigned i = 0; i < 40; i++) {
		uint32_t first;
		assert_int_equal(udp_claim_block(i % 2 ? a->udp : b->udp, &first), 0);
		assert_true(first >= 1u << UDP_BLOCK_BITS && first < (1u << 24) - (1u << UDP_BLOCK_BITS));
		assert_int_equal(first & ((1u << UDP_BLOCK_BITS) - 1), 0);
		assert_false(seen[block_of(first)]);
		seen[block_of(first)] = true;
	}
	close_end(a);
	close_end(b);
}

static int claim_the_rest(void *arg, unsigned block)
{
	bool *taken = arg;
	if (taken[block])
		return -EADDRINUSE;
	taken[block] = true;
	return 0;
}

static void every_block_is_found_before_there_are_none(void **state)
{
	(void)state;
	bool taken[BLOCK_COUNT] = { false };
	unsigned block;

	for (int i = 0; i < BLOCK_LAST; i++)
		assert_int_equal(block_choose(claim_the_rest, taken, &block), 0);
	assert_int_equal(block_choose(claim_the_rest, taken, &block), -ENOSPC);
	assert_false(taken[0]);
	assert_false(taken[BLOCK_COUNT - 1]);
}

static void sizes_and_pieces_arrive_whole(void **state)
{
	const char *addresses = *state;
	static const size_t sizes[] = { 0, 1, 2, 3, 4, 63, 1023, 1024, 1025, 1026, 1027, 4093, 4096 };
	uint8_t bytes[WIRE_MAX_MTU];
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
		for (unsigned opcode = OP_SEND_ONLY; opcode <= OP_READ_ONLY; opcode += OP_READ_ONLY - OP_SEND_ONLY) {
			make(a, b, (uint8_t)opcode, &packet);
			packet.may_change = opcode == OP_READ_ONLY;
			set_payload(&packet, bytes, sizes[s]);
			packet.pieces = sizes[s] < LINK_MAX_PIECES ? sizes[s] : LINK_MAX_PIECES;
			for (size_t p = 0, at = 0; p < packet.pieces; p++) {
				size_t n = p + 1 == packet.pieces ? sizes[s] - at : sizes[s] / packet.pieces;
				packet.piece[p] = (struct iovec){ bytes + at, n };
				at += n;
			}
			b->got->count = 0;
			send_one(a, &packet);
			assert_true(receive(b, 1));
			check_packet(b->got, 0, bytes, sizes[s]);
			assert_int_equal(b->got->packet[0].bytes[0], opcode);
		}
	}
	assert_int_equal(b->counters.drop_icrc, 0);
	assert_int_equal(a->counters.tx_packets, b->counters.rx_packets);
	assert_int_equal(a->counters.tx_bytes, b->counters.rx_bytes);
	assert_int_equal(a->counters.tx_errors, 0);
	close_end(a);
	close_end(b);
}

/* What is said to may change is sent as it was when it was handed over. Of what is not, a change makes a wrong ICRC. */
static void what_may_change_is_copied_at_once(void **state)
{
	const char *addresses = *state;
	uint8_t bytes[WIRE_MAX_MTU], before[WIRE_MAX_MTU];
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;

	memset(before, 1, sizeof before);
	for (int may_change = 1; may_change >= 0; may_change--) {
		memcpy(bytes, before, sizeof bytes);
		make(a, b, OP_READ_ONLY, &packet);
		set_payload(&packet, bytes, sizeof bytes);
		packet.may_change = may_change;
		b->got->count = 0;
		link_send(udp_link_of(a->udp), &packet);
		memset(bytes + 2000, 2, 100);
		link_flush(udp_link_of(a->udp));
		if (may_change) {
			assert_true(receive(b, 1));
			check_packet(b->got, 0, before, sizeof before);
			assert_int_equal(b->counters.drop_icrc, 0);
		} else {
			for (int i = 0; i < 100 && b->counters.drop_icrc == 0; i++)
				pump_within(20);
			assert_int_equal(b->counters.drop_icrc, 1);
			assert_int_equal(b->got->count, 0);
		}
	}
	close_end(a);
	close_end(b);
}

/* Runs of one size, shorter ones, longer ones, two destinations: in order for each, nothing lost or damaged. */
static void batches_keep_order(void **state)
{
	const char *addresses = *state;
	enum { COUNT = 600 };
	static const size_t pattern[] = {
		1040, 1040, 1040, 8, 2048, 2048, 4096, 4096, 4096, 4096, 4096, 500, 4, 0, 4096, 8 };
	const size_t patterns = sizeof pattern / sizeof pattern[0];
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL), *c = open_end(addresses, NULL);
	uint8_t (*bytes)[WIRE_MAX_MTU] = malloc(COUNT * sizeof *bytes);
	struct link *link = udp_link_of(a->udp);
	struct packet_out packet;
	size_t next[2] = { 0, 0 };

	assert_non_null(bytes);
	if (addresses)
		settle(a);
	uint64_t calls = a->counters.tx_calls;
	for (size_t i = 0; i < COUNT; i++) {
		memset(bytes[i], (int)i, sizeof bytes[i]);
		memcpy(bytes[i], &(uint32_t){ (uint32_t)i }, 4);
	}
	for (size_t i = 0; i < COUNT; i++) {
		struct end *to = i / 40 % 2 ? b : c;
		make(a, to, OP_WRITE_MIDDLE, &packet);
		set_payload(&packet, bytes[i], pattern[i % patterns]);
		link_send(link, &packet);
		/* As much as goes into a receive buffer at once. */
		if (i % 100 == 99) {
			link_flush(link);
			while (b->got->count + c->got->count <= i)
				assert_true(pump());
		}
	}
	assert_true(receive(b, COUNT / 40 / 2 * 40));
	assert_true(receive(c, COUNT - COUNT / 40 / 2 * 40));
	for (size_t i = 0; i < COUNT; i++) {
		int which = i / 40 % 2 ? 0 : 1;
		check_packet(which ? c->got : b->got, next[which]++, bytes[i], pattern[i % patterns]);
	}
	assert_int_equal(b->counters.drop_icrc + c->counters.drop_icrc, 0);
	assert_true(a->counters.tx_calls - calls < COUNT / 4);
	free(bytes);
	close_end(a);
	close_end(b);
	close_end(c);
}

static void path_tells_names_class_and_hops(void **state)
{
	const char *addresses = *state;
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;

	udp_report_path(a->udp);
	udp_report_path(b->udp);
	make(a, b, OP_SEND_ONLY, &packet);
	packet.tclass = 0x6a; /* with a bit for routers that mark */
	packet.hop_limit = 9;
	send_one(a, &packet);
	assert_true(receive(b, 1));
	assert_memory_equal(&b->got->path.sgid, udp_gid(a->udp, 0), 16);
	assert_memory_equal(&b->got->path.dgid, udp_gid(b->udp, 0), 16);
	assert_int_equal(b->got->path.sgid_index, 0);
	assert_int_equal(b->got->path.tclass, 0x6a);
	assert_int_equal(b->got->path.hop_limit, 9);
	close_end(a);
	close_end(b);
}

/* What a packet waits in the socket is told from when it came; on the loopback of all processes nobody asks. */
static void the_time_of_arrival_is_that_of_the_kernel(void **state)
{
	const char *addresses = *state;
	enum { WAIT_NS = 20000000, TRIES = 50 };
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;
	uint64_t sent, arrived;
	unsigned tries = 0;

	if (addresses)
		settle(a);
	make(a, b, OP_SEND_ONLY, &packet);
	/* A busy machine may halt this process between the two clocks that are read: the time is then too late, once. */
	do {
		size_t count = b->got->count;
		send_one(a, &packet);
		sent = clock_ns(CLOCK_MONOTONIC);
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
		assert_true(receive(b, count + 1));
		arrived = b->got->path.arrived;
	} while (arrived > sent + WAIT_NS / 2 && ++tries < TRIES);
	assert_true(tries < TRIES);
	if (addresses)
		assert_true(arrived + WAIT_NS > sent);
	else
		assert_int_equal(arrived, 0);
	close_end(a);
	close_end(b);
}

static void second_block_works_as_the_first(void **state)
{
	const char *addresses = *state;
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;

	assert_int_equal(udp_claim_block(b->udp, &b->qpn), 0);
	assert_int_equal(udp_claim_block(a->udp, &a->qpn), 0);
	make(a, b, OP_SEND_ONLY, &packet);
	send_one(a, &packet);
	assert_true(receive(b, 1));
	make(b, a, OP_SEND_ONLY, &packet);
	send_one(b, &packet);
	assert_true(receive(a, 1));
	/* To oneself. */
	make(b, b, OP_SEND_ONLY, &packet);
	send_one(b, &packet);
	assert_true(receive(b, 2));
	close_end(a);
	close_end(b);
}

/* ---- a kernel that does not take it ---- */

static int clean_up(void **state)
{
	refusal = 0;
	refuse_runs = false;
	return close_all(state);
}

#ifdef __GLIBC__
typedef int flags_type;
#else
typedef unsigned flags_type; /* musl */
#endif

/* In place of the library's. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, flags_type flags)
{
	unsigned most = count;
	for (unsigned i = 0; refusal != 0 && i < most; i++)
		if (refuse_runs ? messages[i].msg_hdr.msg_controllen > 0 : i >= refuse_from)
			most = i;
	if (refusal != 0 && !refuse_runs)
		refuse_from -= most;
	if (most == 0) {
		errno = refusal;
		return -1;
	}
	return (int)syscall(SYS_sendmmsg, fd, messages, most, flags);
}

static void full_socket_keeps_copies_and_tells_when_it_goes_on(void **state)
{
	const char *addresses = *state;
	enum { COUNT = 24 };
	static const size_t sizes[] = { 4096, 200, 1500, 0 };
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct link *link = udp_link_of(a->udp);
	uint8_t bytes[COUNT][WIRE_MAX_MTU], copy[COUNT][WIRE_MAX_MTU];
	struct packet_out packet;

	if (addresses)
		settle(a);
	uint64_t already = a->counters.tx_packets;
	refusal = EAGAIN;
	refuse_from = 5;
	for (size_t i = 0; i < COUNT; i++) {
		memset(bytes[i], (int)i + 1, sizeof bytes[i]);
		make(a, b, OP_WRITE_MIDDLE, &packet);
		set_payload(&packet, bytes[i], sizes[i % 4]);
		link_send(link, &packet);
	}
	link_flush(link);
	assert_false(link_ready(link));
	assert_int_equal(a->counters.tx_blocked, 1);
	/* Nothing of the application's may be read any more. */
	memcpy(copy, bytes, sizeof copy);
	memset(bytes, 0xee, sizeof bytes);
	link_flush(link);
	assert_false(link_ready(link));

	refusal = 0;
	struct pollfd fd = { .fd = udp_fd(a->udp), .events = POLLIN };
	assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	assert_true(link_ready(link));
	assert_true(receive(b, COUNT));
	for (size_t i = 0; i < COUNT; i++)
		check_packet(b->got, i, copy[i], sizes[i % 4]);
	assert_int_equal(a->counters.tx_packets - already, COUNT);
	assert_int_equal(a->counters.tx_errors + b->counters.drop_icrc, 0);
	/* Writable for ever is no news. */
	assert_int_equal(poll(&fd, 1, 0), 0);
}

static void full_socket_and_full_batch_lose_the_rest(void **state)
{
	(void)state;
	enum { COUNT = 3000 };
	struct end *a = open_end(NULL, NULL), *b = open_end(NULL, NULL);
	struct link *link = udp_link_of(a->udp);
	uint8_t bytes[WIRE_MAX_MTU] = { 3 };
	struct packet_out packet;

	refusal = EAGAIN;
	refuse_from = 0;
	make(a, b, OP_WRITE_MIDDLE, &packet);
	for (size_t i = 0; i < COUNT; i++) {
		set_payload(&packet, bytes, i % 3 ? sizeof bytes : 700);
		link_send(link, &packet);
		if (i % 7 == 0)
			link_flush(link);
	}
	link_flush(link);
	assert_int_equal(a->counters.tx_blocked, 1);
	refusal = 0;
	link_flush(link);
	assert_true(link_ready(link));
	assert_true(a->counters.tx_errors > 0);
	assert_int_equal(a->counters.tx_packets + a->counters.tx_errors, COUNT);
	assert_true(receive(b, a->counters.tx_packets));
	assert_int_equal(b->counters.drop_icrc, 0);
}

static void kernel_without_segmentation_gets_packets_one_by_one(void **state)
{
	const char *addresses = *state;
	enum { COUNT = 60 };
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct link *link = udp_link_of(a->udp);
	uint8_t bytes[COUNT][WIRE_MAX_MTU];
	struct packet_out packet;

	if (addresses)
		settle(a);
	refusal = EIO;
	refuse_runs = true;
	for (size_t i = 0; i < COUNT; i++) {
		memset(bytes[i], (int)i + 1, sizeof bytes[i]);
		make(a, b, OP_WRITE_MIDDLE, &packet);
		set_payload(&packet, bytes[i], i < 20 ? 300 : sizeof bytes[i]);
		link_send(link, &packet);
		if (i % 20 == 19)
			link_flush(link);
	}
	assert_true(receive(b, COUNT));
	refusal = 0;
	refuse_runs = false;
	for (size_t i = 0; i < COUNT; i++)
		check_packet(b->got, i, bytes[i], i < 20 ? 300 : sizeof bytes[i]);
	assert_int_equal(a->counters.tx_errors + b->counters.drop_icrc, 0);
}

static void refused_packets_are_lost_and_nothing_else(void **state)
{
	(void)state;
	struct end *a = open_end(NULL, NULL), *b = open_end(NULL, NULL);
	struct packet_out packet;

	refusal = ENETUNREACH;
	refuse_from = 0;
	make(a, b, OP_SEND_ONLY, &packet);
	send_one(a, &packet);
	refusal = 0;
	assert_int_equal(a->counters.tx_errors, 1);
	send_one(a, &packet);
	assert_true(receive(b, 1));
}

/* ---- faults, errors, fork ---- */

static void faults_lose_and_delay(void **state)
{
	(void)state;
	struct end *a = open_end(NULL, "loss=100%"), *b = open_end(NULL, NULL);
	struct end *c = open_end(NULL, "delay=20ms,duplicate=100%");
	struct packet_out packet;
	uint8_t bytes[3000] = { 1, 2, 3 };

	make(a, b, OP_SEND_ONLY, &packet);
	set_payload(&packet, bytes, sizeof bytes);
	send_one(a, &packet);
	assert_int_equal(a->counters.fault_loss, 1);
	assert_int_equal(a->counters.tx_packets, 0);

	make(c, b, OP_SEND_ONLY, &packet);
	set_payload(&packet, bytes, sizeof bytes);
	send_one(c, &packet);
	assert_int_equal(b->got->count, 0);
	/* The sender's own descriptor wakes it when it is time. */
	while (c->counters.tx_packets < 2) {
		struct pollfd fd = { .fd = udp_fd(c->udp), .events = POLLIN };
		assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
		udp_receive(c->udp, 1);
	}
	assert_true(receive(b, 2));
	check_packet(b->got, 1, bytes, sizeof bytes);
	close_end(a);
	close_end(b);
	close_end(c);
}

static void bad_configurations_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *addresses;
		const char *fault;
		int error;
	} bad[] = {
		{ "192.0.2.77", NULL, -EADDRNOTAVAIL }, { "nosuch0", NULL, -EINVAL }, { "127.0.0.1,,", NULL, -EINVAL },
		{ "fe80::1", NULL, -EINVAL },           { ",", NULL, -EINVAL },       { NULL, "loss=many", -EINVAL },
	};
	struct counters counters = { 0 };

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct udp_link *udp = NULL;
		struct udp_config config = {
			.addresses = bad[i].addresses,
			.fault = bad[i].fault,
			.counters = &counters,
			.deliver = deliver,
		};
		assert_int_equal(udp_open(&config, &udp), bad[i].error);
		assert_null(udp);
	}
}

static void child_gives_up_the_parents_addresses(void **state)
{
	const char *addresses = *state;
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL);
	struct packet_out packet;
	unsigned block_a = block_of(a->qpn), block_b = block_of(b->qpn);
	int status;

	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		udp_abandon(a->udp);
		udp_abandon(b->udp);
		close_all(NULL); /* which must not close what has been opened since */
		struct end *c = open_end(addresses, NULL);
		_exit(block_of(c->qpn) == block_a || block_of(c->qpn) == block_b);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	make(a, b, OP_SEND_ONLY, &packet);
	send_one(a, &packet);
	assert_true(receive(b, 1));
	close_end(a);
	close_end(b);
}

/* ---- multicast ---- */

/* Of this process alone. */
static union ibv_gid group_of_ours(bool v4)
{
	uint32_t pid = (uint32_t)getpid();
	union ibv_gid gid = { .raw = { 0xff, 0x0e, [2] = 0x5a } };

	if (v4)
		gid_map_v4(&gid, htonl(0xef000000 | (pid & 0xffffff)));
	else
		memcpy(gid.raw + 12, &pid, sizeof pid);
	return gid;
}

static void make_for_group(const struct end *from, const union ibv_gid *group, struct packet_out *out)
{
	make(from, from, OP_SEND_ONLY, out);
	out->dgid = *group;
	out->dqpn = WIRE_MULTICAST_QPN;
	out->sgid_index = !gid_is_v4(group);
	memset(out->header + 5, 0xff, 3);
}

static void groups_reach_all_that_have_joined(void **state)
{
	const char *addresses = *state;
	struct end *a = open_end(addresses, NULL), *b = open_end(addresses, NULL), *c = open_end(addresses, NULL);
	struct packet_out packet;

	for (int v4 = 1; v4 >= (addresses ? 1 : 0); v4--) {
		union ibv_gid group = group_of_ours(v4);
		assert_int_equal(udp_join(a->udp, &group), 0);
		assert_int_equal(udp_join(b->udp, &group), 0);
		assert_int_equal(udp_join(b->udp, &group), 0);
		a->got->count = b->got->count = c->got->count = 0;
		/* From one that has joined, who gets it too, and from one that has not. */
		make_for_group(a, &group, &packet);
		send_one(a, &packet);
		make_for_group(c, &group, &packet);
		send_one(c, &packet);
		assert_true(receive(a, 2));
		assert_true(receive(b, 2));
		assert_memory_equal(&a->got->path.dgid, &group, sizeof group);
		assert_memory_equal(&a->got->path.sgid, udp_gid(c->udp, v4 ? 0 : 1), sizeof group);
		/* A queue pair's own number is not for a group. */
		make(c, a, OP_SEND_ONLY, &packet);
		packet.dgid = group;
		send_one(c, &packet);
		udp_leave(a->udp, &group);
		udp_leave(b->udp, &group); /* once less than it has joined */
		make_for_group(c, &group, &packet);
		send_one(c, &packet);
		assert_true(receive(b, 3));
		assert_true(b->counters.drop_qpn > 0);
		assert_int_equal(a->got->count, 2);
		assert_int_equal(c->got->count, 0);
		udp_leave(b->udp, &group);
	}
	close_end(a);
	close_end(b);
	close_end(c);
}

static void what_is_no_group_is_not_joined(void **state)
{
	(void)state;
	struct end *a = open_end(one_address, NULL);
	union ibv_gid v4 = group_of_ours(true), v6 = group_of_ours(false);

	assert_int_equal(udp_join(a->udp, udp_gid(a->udp, 0)), -EINVAL);
	assert_int_equal(udp_join(a->udp, &v6), -EINVAL); /* no address of the family */
	udp_leave(a->udp, &v6);
	assert_true(udp_reaches_group(a->udp, 0, &v4));
	assert_false(udp_reaches_group(a->udp, 0, &v6));
	assert_false(udp_reaches_group(a->udp, 1, &v4));
	assert_false(udp_reachable(a->udp, 0, &v4));
	for (uint32_t i = 0;; i++) {
		gid_map_v4(&v4, htonl(0xef5a0000 + i));
		int error = udp_join(a->udp, &v4);
		if (error == 0)
			continue;
		assert_int_equal(error, -ENOSPC);
		assert_int_equal(i, 256);
		break;
	}
	close_end(a);
}

#define ON_BOTH(test) \
	{ #test " on loopback", test, NULL, clean_up, NULL }, \
	{ #test " on an address", test, NULL, clean_up, one_address }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(loopback_has_two_names, clean_up),
		cmocka_unit_test_teardown(blocks_are_distinct_and_given_back, clean_up),
		cmocka_unit_test_teardown(every_block_is_found_before_there_are_none, clean_up),
		ON_BOTH(sizes_and_pieces_arrive_whole),
		ON_BOTH(what_may_change_is_copied_at_once),
		ON_BOTH(batches_keep_order),
		ON_BOTH(path_tells_names_class_and_hops),
		ON_BOTH(the_time_of_arrival_is_that_of_the_kernel),
		ON_BOTH(second_block_works_as_the_first),
		ON_BOTH(child_gives_up_the_parents_addresses),
		ON_BOTH(groups_reach_all_that_have_joined),
		cmocka_unit_test_teardown(what_is_no_group_is_not_joined, clean_up),
		ON_BOTH(full_socket_keeps_copies_and_tells_when_it_goes_on),
		ON_BOTH(kernel_without_segmentation_gets_packets_one_by_one),
		cmocka_unit_test_teardown(full_socket_and_full_batch_lose_the_rest, clean_up),
		cmocka_unit_test_teardown(refused_packets_are_lost_and_nothing_else, clean_up),
		cmocka_unit_test_teardown(faults_lose_and_delay, clean_up),
		cmocka_unit_test_teardown(bad_configurations_are_refused, clean_up),
	};
	choose_address();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
