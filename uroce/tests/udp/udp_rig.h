/* SPDX-License-Identifier: Apache-2.0 */
/* Links over the real kernel, several in one process. cmocka.h must come first. */
#ifndef UDP_RIG_H
#define UDP_RIG_H

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block.h"
#include "steer.h"
#include "udp.h"

enum { PATIENCE_MS = 10000, SETTLE_SECONDS = 60, QUIET_MS = 20, MOST = 4096, ROOM = WIRE_MAX_HEADER + WIRE_MAX_MTU };

/* Of this process alone: other runs may go on at the same time. */
static char one_address[INET_ADDRSTRLEN];

struct got {
	size_t count;
	struct packet_path path; /* of the last */
	struct {
		size_t length;
		uint8_t bytes[ROOM];
	} packet[MOST];
};

struct end {
	struct counters counters;
	struct udp_link *udp;
	uint32_t qpn;
	struct got *got;
};

/* All that are open: packets of one may come to another, which must pass them on. */
enum { MOST_ENDS = 8 };
static struct end *ends[MOST_ENDS];
static size_t end_count;

static inline void deliver(void *arg, const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	struct got *got = arg;
	assert_true(got->count < MOST);
	assert_true(length <= ROOM);
	got->packet[got->count].length = length;
	memcpy(got->packet[got->count].bytes, bytes, length);
	got->count++;
	got->path = *path;
}

static inline struct end *open_end(const char *addresses, const char *fault)
{
	struct end *end = calloc(1, sizeof *end);
	assert_non_null(end);
	end->got = malloc(sizeof *end->got);
	assert_non_null(end->got);
	end->got->count = 0;
	struct udp_config config = {
		.addresses = addresses,
		.fault = fault,
		.counters = &end->counters,
		.deliver = deliver,
		.arg = end->got,
	};
	assert_int_equal(udp_open(&config, &end->udp), 0);
	assert_int_equal(udp_claim_block(end->udp, &end->qpn), 0);
	end->qpn += 77;
	assert_true(end_count < MOST_ENDS);
	ends[end_count++] = end;
	return end;
}

static inline void close_end(struct end *end)
{
	for (size_t i = 0; i < end_count; i++)
		if (ends[i] == end)
			ends[i--] = ends[--end_count];
	udp_close(&end->udp);
	assert_null(end->udp);
	free(end->got);
	free(end);
}

/* What a failed test has left. */
static inline int close_all(void **state)
{
	(void)state;
	while (end_count > 0)
		close_end(ends[0]);
	return 0;
}

static inline bool pump_within(int ms)
{
	struct pollfd fds[MOST_ENDS];
	for (size_t i = 0; i < end_count; i++)
		fds[i] = (struct pollfd){ .fd = udp_fd(ends[i]->udp), .events = POLLIN };
	if (poll(fds, end_count, ms) < 1)
		return false;
	for (size_t i = 0; i < end_count; i++)
		udp_receive(ends[i]->udp, 512);
	return true;
}

static inline bool pump(void)
{
	return pump_within(PATIENCE_MS);
}

/* Until `count` packets have come; false when they do not. */
static inline bool receive(struct end *end, size_t count)
{
	while (end->got->count < count)
		if (!pump())
			return false;
	return true;
}

/* A packet whose opcode is the driver's own, as wire_encode would write it. */
static inline void make(const struct end *from, const struct end *to, uint8_t opcode, struct packet_out *out)
{
	*out = (struct packet_out){
		.dgid = *udp_gid(to->udp, 0),
		.dqpn = to->qpn,
		.sqpn = from->qpn,
		.header_length = WIRE_BTH,
	};
	out->header[0] = opcode;
	out->header[2] = out->header[3] = 0xff;
	out->header[5] = (uint8_t)(to->qpn >> 16);
	out->header[6] = (uint8_t)(to->qpn >> 8);
	out->header[7] = (uint8_t)to->qpn;
}

static inline void set_payload(struct packet_out *packet, const void *bytes, size_t length)
{
	packet->header[1] = (uint8_t)((-length & 3) << 4);
	packet->pieces = length > 0;
	packet->piece[0] = (struct iovec){ (void *)(uintptr_t)bytes, length };
	packet->payload_length = (uint32_t)length;
}

static inline void send_one(struct end *from, const struct packet_out *packet)
{
	struct link *link = udp_link_of(from->udp);
	assert_true(link_ready(link));
	link_send(link, packet);
	link_flush(link);
}

static inline uint64_t forwarded(void)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < end_count; i++)
		sum += ends[i]->counters.rx_forwarded;
	return sum;
}

/* Whether the kernel takes a program for a group of sockets. What stands in for a kernel may not: qemu-user does not. */
static inline bool kernel_steers(void)
{
	static const struct steer_map nobody;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
	int error = steer_attach(fd, &nobody);
	close(fd);
	return error == 0;
}

/* Until the kernel gives every end its packets directly. It must come to that. Where it can't, a burst overflows the inboxes by which
 * packets are passed on, and what can't bear a loss can't be tested. */
static inline void settle(struct end *from)
{
	struct packet_out packet;
	uint64_t before;
	struct timespec began, now;

	if (!kernel_steers())
		skip();
	clock_gettime(CLOCK_MONOTONIC, &began);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
		assert_true(now.tv_sec - began.tv_sec < SETTLE_SECONDS);
		before = forwarded();
		for (size_t i = 0; i < end_count; i++) {
			size_t count = ends[i]->got->count;
			make(from, ends[i], OP_SEND_ONLY, &packet);
			send_one(from, &packet);
			assert_true(receive(ends[i], count + 1));
			ends[i]->got->count = 0;
		}
		/* What an end still learns can change where packets go. */
		while (pump_within(QUIET_MS))
			;
	} while (forwarded() != before);
}

static inline void check_packet(const struct got *got, size_t index, const void *bytes, size_t length)
{
	size_t padded = (length + 3) & ~(size_t)3;
	const uint8_t *packet = got->packet[index].bytes;
	assert_int_equal(got->packet[index].length, WIRE_BTH + padded);
	assert_memory_equal(packet + WIRE_BTH, bytes, length);
	for (size_t i = length; i < padded; i++)
		assert_int_equal(packet[WIRE_BTH + i], 0);
}

static inline void choose_address(void)
{
	unsigned pid = (unsigned)getpid();
	snprintf(one_address, sizeof one_address, "127.%u.%u.%u", 92 + (pid >> 16 & 63), pid >> 8 & 255, pid & 255);
}

#endif
