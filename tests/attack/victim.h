/* SPDX-License-Identifier: Apache-2.0 */
/* A verbs program as there are many: numbers exchanged over plain TCP, PSN 0 unless told otherwise. See victim.c. */
#ifndef ATTACK_VICTIM_H
#define ATTACK_VICTIM_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MESSAGE = 256, RECEIVES = 64, MAX_CLIENTS = 64, SEND_ID = 1 << 20, SPENDING = 8 };

/* What the ends tell each other. */
struct numbers {
	uint32_t qpn, psn, rkey;
	uint64_t va;
	union ibv_gid gid;
};

/* One queue pair, for ever; connections come and go on it. */
struct end {
	int tcp; /* -1: not connected */
	bool broken;
	uint32_t posted; /* receives, in all */
	struct ibv_pd *pd;
	struct ibv_qp *qp;
	struct ibv_mr *buffers_mr, *region_mr;
	struct ibv_mw *window;
	uint8_t *buffers; /* RECEIVES messages, then one to send, and one for what was read */
	uint8_t *region;
	struct numbers own, peer;
};

struct victim {
	/* options */
	const char *device, *address;
	bool random_psn, shared_pd, windows;
	uint32_t region_size, mtu;
	unsigned clients;

	struct ibv_context *context;
	struct ibv_pd *pd; /* the shared one */
	struct ibv_cq *cq;
	uint8_t gid_index;
	union ibv_gid gid;
	struct end end[MAX_CLIENTS];
};

/* All exit the program when they fail. */
void victim_die(const char *what);
void victim_open(struct victim *victim);
void victim_make(struct victim *victim, unsigned index);
/* New own numbers for the next connection on this queue pair, which is reset. */
void victim_renew(struct victim *victim, unsigned index);
/* To RTS with the peer's numbers. */
void victim_connect(struct victim *victim, unsigned index);
void victim_receive(struct end *end, uint32_t slot);
/* SEND, RDMA WRITE or READ of bytes that lie in the slot after the receives. False: not accepted. */
bool victim_post(struct end *end, enum ibv_wr_opcode opcode, uint32_t length, uint32_t rkey, uint64_t va);
/* An RDMA WRITE of the own region onto the peer's. */
bool victim_spend(struct end *end, uint32_t length);
uint8_t *victim_out(struct end *end);

#endif
