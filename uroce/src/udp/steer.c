/* SPDX-License-Identifier: Apache-2.0 */
#include "steer.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>

static const char MAGIC[4] = { 'u', 'r', 'o', 'c' };

void steer_write_probe(const struct steer_probe *probe, uint8_t bytes[STEER_PROBE_BYTES])
{
	memset(bytes, 0, STEER_PROBE_BYTES);
	bytes[0] = STEER_PROBE_OPCODE;
	bytes[2] = (uint8_t)(probe->socket >> 8);
	bytes[3] = (uint8_t)probe->socket;
	bytes[4] = (uint8_t)(probe->block >> 8);
	bytes[5] = (uint8_t)probe->block;
	memcpy(bytes + 8, &probe->nonce, sizeof probe->nonce); /* only this host reads it */
	memcpy(bytes + 12, MAGIC, sizeof MAGIC);
}

bool steer_read_probe(const uint8_t *bytes, size_t length, struct steer_probe *probe)
{
	if (length != STEER_PROBE_BYTES || bytes[0] != STEER_PROBE_OPCODE ||
	    memcmp(bytes + 12, MAGIC, sizeof MAGIC) != 0)
		return false;
	probe->socket = (uint16_t)(bytes[2] << 8 | bytes[3]);
	probe->block = (uint16_t)(bytes[4] << 8 | bytes[5]);
	memcpy(&probe->nonce, bytes + 8, sizeof probe->nonce);
	return probe->block >= BLOCK_FIRST && probe->block <= BLOCK_LAST;
}

int steer_attach(int fd, const struct steer_map *map)
{
	struct sock_filter code[7 + 2 * BLOCK_COUNT];
	unsigned n = 0;

	/* The program sees the UDP payload. A number beyond the group's size leaves the choice to the kernel. */
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, STEER_PROBE_OPCODE, 0, 2);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
	/* The upper 16 of the 24 bits of the destination's QPN. */
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 5);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, UDP_BLOCK_BITS - 8);
	for (unsigned block = BLOCK_FIRST; block <= BLOCK_LAST; block++) {
		if (map->socket[block] == 0)
			continue;
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, block, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, map->socket[block] - 1u);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0xffffffff);
	struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0 ? 0 : -errno;
}
