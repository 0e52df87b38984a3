/* SPDX-License-Identifier: Apache-2.0 */
/* The queue pairs of this host's programs. */
#ifndef AGENT_QUEUE_PAIRS_H
#define AGENT_QUEUE_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct program;
struct device;
struct ask;

enum queue_pair_state {
	QUEUE_PAIR_IDLE,      /* registered; nobody has asked for it */
	QUEUE_PAIR_EXPECTED,  /* another queue pair asked for it: peer_* say which, and its program must name the same */
	QUEUE_PAIR_ASKING,    /* its program named peer_*, and the peer's agent has not answered yet */
	QUEUE_PAIR_CONNECTED, /* both agree */
	QUEUE_PAIR_REFUSED,   /* until its program resets it, since its PSN was told to somebody */
};

/* One of up to millions: its size counts. */
struct queue_pair {
	struct queue_pair *next;                 /* with the same hash */
	struct queue_pair *next_own, **link_own; /* of the same program */
	struct program *program;
	struct device *device; /* the program's, with the port */
	struct ask *ask;       /* under way for it; NULL: none */
	uint8_t gid[16], peer_gid[16]; /* of a connection; its own GID is known once it asks, or another one asks for it */
	uint32_t qpn, psn, peer_qpn, peer_psn;
	uint32_t expected_at; /* seconds on the clock */
	uint16_t peer_lid;
	uint8_t type;  /* enum ibv_qp_type */
	uint8_t state; /* enum queue_pair_state */
	bool has_peer_psn;
	bool told;  /* its PSN, to the host of peer_gid or peer_lid */
	bool owned; /* the kernel said that it is the program's */
};

/* A hash table by number: lookups take the same time, however many there are. */
struct queue_pairs {
	struct queue_pair **buckets;
	size_t size;  /* a power of two, or 0 */
	size_t count;
	uint32_t seed; /* random: nobody can choose numbers that have the same hash */
};

/* Adds one, of which number, program and device are set. Errors: -ENOMEM. */
int queue_pairs_add(struct queue_pairs *table, const struct queue_pair *values, struct queue_pair **out);
/* Removes and frees it. */
void queue_pairs_remove(struct queue_pairs *table, struct queue_pair *pair);
/* The first with this number, and the next one: several devices, or programs on devices of their own, may have the same. */
struct queue_pair *queue_pairs_first(const struct queue_pairs *table, uint32_t qpn);
struct queue_pair *queue_pairs_next(const struct queue_pair *pair);
void queue_pairs_free(struct queue_pairs *table);

#endif
