/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP link: what is let in, and links that share an address. */
#include "check.h"

#include "udp_rig.h"

#include <errno.h>

#include "icrc.h"

/* ---- what must not get in ---- */

struct stranger {
	int fd;
	struct icrc_flow flow;
	struct sockaddr_in to;
};

static void stranger_open(struct stranger *stranger, const char *from, uint16_t port, const char *to)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t length = sizeof address;

	memset(stranger, 0, sizeof *stranger);
	stranger->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(stranger->fd >= 0);
	assert_int_equal(inet_pton(AF_INET, from, &address.sin_addr), 1);
	assert_int_equal(bind(stranger->fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(stranger->fd, (struct sockaddr *)&address, &length), 0);
	stranger->to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(WIRE_PORT) };
	assert_int_equal(inet_pton(AF_INET, to, &stranger->to.sin_addr), 1);
	stranger->flow.src.raw[10] = stranger->flow.src.raw[11] = 0xff;
	stranger->flow.dst = stranger->flow.src;
	memcpy(stranger->flow.src.raw + 12, &address.sin_addr, 4);
	memcpy(stranger->flow.dst.raw + 12, &stranger->to.sin_addr, 4);
	stranger->flow.src_port = ntohs(address.sin_port);
	stranger->flow.dst_port = WIRE_PORT;
}

/* Sends a packet of `length` bytes whose ICRC is made for an identification, and spoiled by `flip`. */
static void stranger_send(const struct stranger *stranger, uint32_t qpn, uint16_t id, size_t length, uint32_t flip)
{
	uint8_t bytes[256] = {
		OP_SEND_ONLY, 0, 0xff, 0xff, 0, (uint8_t)(qpn >> 16), (uint8_t)(qpn >> 8), (uint8_t)qpn };
	struct iovec covered = { bytes, length };
	uint32_t icrc = icrc_compute(&stranger->flow, id, &covered, 1) ^ flip;
	memcpy(bytes + length, &icrc, sizeof icrc);
	assert_int_equal(sendto(stranger->fd, bytes, length + 4, 0, (const struct sockaddr *)&stranger->to,
				sizeof stranger->to), length + 4);
}

static uint64_t arrived(const struct end *end)
{
	return end->counters.rx_packets;
}

static void let_in(struct end *end, uint64_t packets)
{
	while (arrived(end) < packets) {
		struct pollfd fd = { .fd = udp_fd(end->udp), .events = POLLIN };
		assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
		udp_receive(end->udp, 512);
	}
}

static void damaged_and_short_packets_are_counted_and_dropped(void **state)
{
	(void)state;
	struct end *a = open_end(one_address, NULL);
	struct stranger s;

	stranger_open(&s, "127.0.0.8", 0, one_address);
	stranger_send(&s, a->qpn, 0, 32, 0);
	stranger_send(&s, a->qpn, 0, 32, 1);
	stranger_send(&s, a->qpn, 0, 11, 0);
	stranger_send(&s, a->qpn, 63, 32, 0);
	let_in(a, 4);
	assert_int_equal(a->got->count, 2);
	assert_int_equal(a->counters.drop_icrc, 1);
	assert_int_equal(a->counters.drop_malformed, 1);
	close(s.fd);
	close_end(a);
}

static void sender_that_numbers_its_packets_is_learned(void **state)
{
	(void)state;
	static const struct {
		uint16_t id;
		bool accepted;
	} packets[] = {
		{ 65000, true }, { 65001, true },  { 65500, true }, { 100, true },    { 90, true }, { 30000, false },
		{ 101, true },   { 40000, false }, { 20, true },    { 50000, false }, { 50001, true },
	};
	struct end *a = open_end(one_address, NULL);
	struct stranger s, other;
	size_t accepted = 0, count = sizeof packets / sizeof packets[0];

	stranger_open(&s, "127.0.0.8", 0, one_address);
	stranger_open(&other, "127.0.0.7", 0, one_address);
	for (size_t i = 0; i < count; i++) {
		stranger_send(&s, a->qpn, packets[i].id, 32, 0);
		let_in(a, i + 1);
		accepted += packets[i].accepted;
		assert_int_equal(a->got->count, accepted);
	}
	/* Another address starts anew, and is held to it. */
	stranger_send(&other, a->qpn, 20002, 32, 0);
	let_in(a, count + 1);
	assert_int_equal(a->got->count, ++accepted);
	stranger_send(&other, a->qpn, 50002, 32, 0);
	let_in(a, count + 2);
	assert_int_equal(a->got->count, accepted);
	close(s.fd);
	close(other.fd);
	close_end(a);
}

static void loopback_takes_packets_of_blocks_only(void **state)
{
	(void)state;
	struct end *a = open_end(NULL, NULL);
	char to[INET_ADDRSTRLEN];
	struct in_addr carrier = block_carrier(block_of(a->qpn));
	struct stranger s;

	assert_non_null(inet_ntop(AF_INET, &carrier, to, sizeof to));
	stranger_open(&s, "127.0.0.1", 0, to);
	stranger_send(&s, a->qpn, 0, 32, 0);
	let_in(a, 1);
	assert_int_equal(a->got->count, 0);
	assert_int_equal(a->counters.drop_source, 1);
	close(s.fd);
	close_end(a);
}

/* Alone, in a run, and each after one of the other. */
static void loopback_shows_the_gid_of_the_sender(void **state)
{
	(void)state;
	struct end *a = open_end(NULL, NULL), *b = open_end(NULL, NULL);
	uint8_t bytes[2000] = { 9 };
	size_t count = 0;

	for (uint8_t gid = 0; gid < 4; gid++) {
		struct packet_out packet;
		make(a, b, OP_SEND_ONLY, &packet);
		set_payload(&packet, bytes, sizeof bytes);
		packet.sgid_index = gid % 2;
		for (size_t i = 0; i <= 3u * gid; i++, count++)
			link_send(udp_link_of(a->udp), &packet);
		link_flush(udp_link_of(a->udp));
		assert_true(receive(b, count));
		assert_int_equal(b->got->path.sgid_index, gid % 2);
		assert_memory_equal(&b->got->path.sgid, udp_gid(b->udp, gid % 2), 16);
		assert_memory_equal(&b->got->path.dgid, udp_gid(b->udp, gid % 2), 16);
	}
	assert_int_equal(b->counters.drop_icrc, 0);
	close_end(a);
	close_end(b);
}

static void port_that_is_taken_is_reported(void **state)
{
	(void)state;
	struct counters counters = { 0 };
	struct udp_config config = { .addresses = one_address, .counters = &counters, .deliver = deliver };
	struct udp_link *udp = NULL;
	struct stranger s;

	stranger_open(&s, one_address, WIRE_PORT, one_address);
	assert_int_equal(udp_open(&config, &udp), -EADDRINUSE);
	close(s.fd);
}

/* ---- one address, several links ---- */

static void every_pair_on_one_address_reaches_the_other(void **state)
{
	(void)state;
	enum { ENDS = 5 };
	struct packet_out packet;
	uint8_t bytes[2000] = { 9 };

	for (size_t i = 0; i < ENDS; i++)
		open_end(one_address, NULL);
	/* Before and after one has left: others' packets must not go with it, however the kernel fills the gap. */
	for (size_t round = 0; round < 3; round++) {
		for (size_t i = 0; i < end_count; i++) {
			for (size_t j = 0; j < end_count; j++) {
				make(ends[i], ends[j], OP_SEND_ONLY, &packet);
				set_payload(&packet, bytes, sizeof bytes);
				size_t before = ends[j]->got->count;
				send_one(ends[i], &packet);
				assert_true(receive(ends[j], before + 1));
				check_packet(ends[j]->got, before, bytes, sizeof bytes);
				assert_memory_equal(&ends[j]->got->path.sgid, udp_gid(ends[i]->udp, 0), 16);
			}
		}
		close_end(ends[1]);
	}
	close_all(NULL);
}

static void steering_is_learned_and_learned_again(void **state)
{
	(void)state;
	enum { ENDS = 6 };
	for (size_t i = 0; i < ENDS; i++)
		open_end(one_address, NULL);
	settle(ends[0]);
	close_end(ends[2]);
	settle(ends[1]);
	open_end(one_address, NULL);
	settle(ends[1]);
	uint32_t first;
	assert_int_equal(udp_claim_block(ends[3]->udp, &first), 0);
	ends[3]->qpn = first + 1;
	settle(ends[1]);
	close_all(NULL);
}

static void packets_for_nobody_are_dropped(void **state)
{
	(void)state;
	struct end *a = open_end(one_address, NULL);
	struct stranger s;
	uint32_t nobody = block_of(a->qpn) == 5 ? 6 : 5;

	stranger_open(&s, "127.0.0.8", 0, one_address);
	stranger_send(&s, nobody << UDP_BLOCK_BITS, 0, 32, 0);
	stranger_send(&s, a->qpn, 0, 32, 0);
	assert_true(receive(a, 1));
	assert_int_equal(a->counters.drop_qpn, 1);
	close(s.fd);
	close_end(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(damaged_and_short_packets_are_counted_and_dropped, close_all),
		cmocka_unit_test_teardown(sender_that_numbers_its_packets_is_learned, close_all),
		cmocka_unit_test_teardown(loopback_takes_packets_of_blocks_only, close_all),
		cmocka_unit_test_teardown(loopback_shows_the_gid_of_the_sender, close_all),
		cmocka_unit_test_teardown(port_that_is_taken_is_reported, close_all),
		cmocka_unit_test_teardown(every_pair_on_one_address_reaches_the_other, close_all),
		cmocka_unit_test_teardown(steering_is_learned_and_learned_again, close_all),
		cmocka_unit_test_teardown(packets_for_nobody_are_dropped, close_all),
	};
	choose_address();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
