/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the simulation have in common, and tests do not use. */
#ifndef UROCE_TESTS_SIM_WORLD_H
#define UROCE_TESTS_SIM_WORLD_H

#include "sim.h"

enum { SCRIPT_NODE = 100 }; /* the test itself; nodes count from 0 */

/* The address of the node with that number, from 1. */
union ibv_gid sim_gid(uint8_t last);
/* It arrives at packet->time; its owner is the world then. */
void sim_fly(struct sim_packet *packet);
/* Delivers what arrives at this moment, and lets each node do what it can. */
void sim_step(void);

/* Of the test as the peer, with the world. */
void script_start(void);
void script_stop(void);
/* A packet for the test, which owns it from now on. */
void script_arrived(struct sim_packet *packet);

#endif
