/* SPDX-License-Identifier: Apache-2.0 */
/* One TCP stream (CUBIC, RFC 9438; SACK, RACK, HyStart; bursts as Linux sends them) over the narrow place of a node: a model, for what a
 * queue pair gets beside it and what it would get in its place. It has no data and no set-up; each segment is acknowledged at once. */
#ifndef UROCE_TESTS_SIM_TCP_H
#define UROCE_TESTS_SIM_TCP_H

#include "sim.h"

struct sim_tcp;

/* From one node to the other, at once and for ever. `mtu` is that of the link. */
struct sim_tcp *sim_tcp_start(struct sim_node *from, struct sim_node *to, uint32_t mtu);
/* Bytes that have arrived, in their order. */
uint64_t sim_tcp_arrived(const struct sim_tcp *tcp);
/* It sends nothing more; to be freed when nothing is in flight. */
void sim_tcp_stop(struct sim_tcp *tcp);
void sim_tcp_free(struct sim_tcp *tcp);

#endif
