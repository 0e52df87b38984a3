/* SPDX-License-Identifier: Apache-2.0 */
/* The program by which the kernel picks the socket of a group (SO_ATTACH_REUSEPORT_CBPF). The kernel numbers the
 * sockets of a group in the order in which they were bound, and moves the last into the place of one that is closed,
 * without telling. So the program gives a probe to the socket whose number is in it: a process that gets it learns its
 * socket's number. */
#ifndef UROCE_STEER_H
#define UROCE_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"

enum {
	STEER_PROBE_BYTES = 16,
	/* Not an opcode of InfiniBand: those from 0xc0 are left to manufacturers. */
	STEER_PROBE_OPCODE = 0xff,
};

/* Blocks to numbers of sockets; 0: not known, else the number plus one. */
struct steer_map {
	uint16_t socket[BLOCK_COUNT];
};

struct steer_probe {
	uint16_t socket;
	uint16_t block; /* of the process that asks */
	uint32_t nonce;
};

void steer_write_probe(const struct steer_probe *probe, uint8_t bytes[STEER_PROBE_BYTES]);
bool steer_read_probe(const uint8_t *bytes, size_t length, struct steer_probe *probe);

/* Gives the group of a socket its program. 0 or a negative errno. */
int steer_attach(int fd, const struct steer_map *map);

#endif
