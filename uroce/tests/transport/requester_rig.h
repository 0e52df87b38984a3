/* SPDX-License-Identifier: Apache-2.0 */
/* The requester, packet by packet: the test is the responder. Rules of IBTA volume 1, 9.7 and 9.9. */
#ifndef UROCE_TESTS_REQUESTER_RIG_H
#define UROCE_TESTS_REQUESTER_RIG_H

#include "sim.h"

enum { PSN = 0xfffffd, MTU = 1024 };

static struct sim_node *node;
static struct sim_end end;
static const struct sim_end *peer = &end; /* whose address and key one-sided requests carry */

static inline struct sim_options usual(void)
{
	struct sim_options options = sim_defaults();
	options.psn = PSN;
	return options;
}

static inline void begin_with(const struct sim_options *options)
{
	sim_start(1);
	node = sim_node();
	sim_open(&end, node, options);
	script_connect(&end);
}

static inline void begin(void)
{
	struct sim_options options = usual();
	begin_with(&options);
}

static inline void finish(void)
{
	sim_close(&end);
	sim_stop();
}

/* Lets the packets out, but no timer fire. */
static inline void let_out(void)
{
	sim_run(10 * US);
}

static inline void ack(uint32_t n)
{
	script_ack(&end, PSN + n, AETH_ACK);
}

static inline void answer_read(uint8_t opcode, uint32_t n, const void *data, uint32_t length)
{
	struct packet packet = {.opcode = opcode, .psn = psn_add(PSN, n), .syndrome = AETH_ACK};
	script_send(&end, packet, data, length);
}

static inline void answer_atomic(uint32_t n, uint64_t original)
{
	struct packet packet = {.opcode = OP_ATOMIC_ACK, .psn = psn_add(PSN, n), .syndrome = AETH_ACK};
	packet.original = original;
	script_send(&end, packet, NULL, 0);
}

#endif
