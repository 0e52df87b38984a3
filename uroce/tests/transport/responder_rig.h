/* SPDX-License-Identifier: Apache-2.0 */
/* The responder, packet by packet: the test is the requester. Rules of IBTA volume 1, 9.7. */
#ifndef UROCE_TESTS_RESPONDER_RIG_H
#define UROCE_TESTS_RESPONDER_RIG_H

#include "sim.h"

enum { PSN = 0xfffffe, MTU = 256, GUARD = 0x5a }; /* the PSN wraps on the third packet */

static struct sim_node *node;
static struct sim_end end;
static uint8_t data[8192];

static inline void begin_with(struct sim_options options)
{
	options.psn = PSN;
	sim_start(1);
	node = sim_node();
	sim_open(&end, node, &options);
	script_connect(&end);
	memset(end.memory, GUARD, end.size);
	sim_fill(data, sizeof data, 99);
}

static inline struct sim_options small(void)
{
	struct sim_options options = sim_defaults();
	options.mtu = IBV_MTU_256;
	return options;
}

static inline void begin(void)
{
	begin_with(small());
}

static inline void finish(void)
{
	script_expect_none();
	sim_close(&end);
	sim_stop();
}

/* A request n packets after the first PSN. */
static inline struct packet request(uint8_t opcode, uint32_t n)
{
	return (struct packet){.opcode = opcode, .psn = psn_add(PSN, n), .ack_req = true};
}

static inline void send_data(uint8_t opcode, uint32_t n, uint32_t length)
{
	script_send(&end, request(opcode, n), data, length);
}

static inline struct packet one_sided(uint8_t opcode, uint32_t n, size_t at, uint32_t length)
{
	struct packet packet = request(opcode, n);
	packet.va = (uintptr_t)end.memory + at;
	packet.rkey = end.mr->rkey;
	packet.length = length;
	return packet;
}

static inline void write_only(uint32_t n, size_t at, uint32_t length)
{
	script_send(&end, one_sided(OP_WRITE_ONLY, n, at, length), data, length);
}

static inline void fetch_add(uint32_t n, size_t at, uint64_t add)
{
	struct packet packet = one_sided(OP_FETCH_ADD, n, at, 8);
	packet.swap_add = add;
	script_send(&end, packet, NULL, 0);
}

static inline uint64_t word_at(size_t at)
{
	uint64_t word;
	memcpy(&word, end.memory + at, 8);
	return word;
}

static inline bool untouched(void)
{
	for (size_t i = 0; i < end.size; i++)
		if (end.memory[i] != GUARD)
			return false;
	return true;
}

/* Refused: this NAK for packet n, the queue pair in error, nothing more answered. */
static inline void expect_refusal(uint8_t syndrome, uint32_t n)
{
	script_expect_ack(syndrome, PSN + n);
	assert_int_equal(sim_state(&end), IBV_QPS_ERR);
	write_only(n, 0, 4);
	write_only(n + 1, 0, 4);
	script_expect_none();
}

#endif
