/* SPDX-License-Identifier: Apache-2.0 */
/* The attacker's program: its options, and one function for each of its commands. */
#ifndef ATTACK_FORGE_H
#define ATTACK_FORGE_H

#include "roce.h"

/* More than the payloads that --replay remembers. */
#define FORGE_REPLAY 128u

struct forge_range {
	uint32_t first, count;
};

struct forge {
	struct roce_flow flow;
	struct roce_packet packet;
	struct forge_range qpn, psn, rkey;
	uint64_t rate;     /* packets a second; 0: as fast as it goes */
	uint64_t limit_us; /* 0: none */
	uint64_t count;    /* 0: no limit, or one */
	const char *find, *put;
	uint64_t flip; /* a bit of each payload that is at least this long; 0: none */
	uint64_t replay; /* each payload becomes that of so many packets before; 0: none */
	uint64_t skip; /* so many of these are left as they are */
	enum { FORGE_BOTH, FORGE_FORTH, FORGE_BACK } way; /* what is flipped, or replayed: LEFT to RIGHT is forth */
	uint64_t suppress, swap; /* which SEND, from 1, of those that go forth; 0: none */
	uint64_t every_us;
	bool put_qpn, put_psn; /* were given */
	bool stale;    /* leaves the old ICRC */
	char **words;
	int word_count;
};

uint64_t forge_now_us(void);

/* Each is the rest of the program: returns its exit status. */
int forge_send(struct forge *forge);
int forge_sniff(struct forge *forge);
int forge_play(struct forge *forge);
int forge_relay(struct forge *forge);
int forge_kill(struct forge *forge);
int forge_cut(struct forge *forge);

#endif
