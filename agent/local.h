/* SPDX-License-Identifier: Apache-2.0 */
/* What a wrapped program and its host's agent say to each other, over a Unix socket of the kind SOCK_SEQPACKET: one structure a packet, in
 * the host's byte order, because both ends are on one host. The agent checks every field of a request; a program trusts its agent. A
 * program has one socket a process; a child after fork(2) opens its own. */
#ifndef SECURDMA_AGENT_LOCAL_H
#define SECURDMA_AGENT_LOCAL_H

#include <stdint.h>

/* Both ends must be of one version: a program of another is told so and refused. */
#define LOCAL_VERSION 1
#define LOCAL_MAGIC UINT32_C(0x53574150)
/* Where the agent listens, after $XDG_RUNTIME_DIR (a user's agent) or /run (the host's); SECURDMA_AGENT names another path. */
#define LOCAL_SOCKET "securdma/agent.sock"
#define LOCAL_TEXT 512
#define LOCAL_NAME 64
#define LOCAL_GIDS 64 /* in one packet; more of a device follow in further packets */

enum local_type {
	LOCAL_HELLO = 1,      /* program: the first packet. Answered by LOCAL_WELCOME */
	LOCAL_DEVICE = 2,     /* program: a device and its GIDs, before its first queue pair, and again when the table changed */
	LOCAL_REGISTER = 3,   /* program: a queue pair goes to INIT. Answered with its starting PSN */
	LOCAL_CONNECT = 4,    /* program: a queue pair wants to go to RTR. Answered with the peer's PSN */
	LOCAL_FORGET = 5,     /* program: a queue pair was reset, destroyed, or failed to reach INIT. No answer */
	LOCAL_ADDRESS = 6,    /* program: an address handle (UD) to a GID. Answered */
	LOCAL_EVENT = 7,      /* program: something that was refused or seen at the program itself, for the log. No answer */
	LOCAL_RESTORE = 8,    /* program, to an agent that has come back: a queue pair that was registered before. Answered */
	LOCAL_WELCOME = 64,   /* agent */
	LOCAL_ANSWER = 65,    /* agent: to one request */
	LOCAL_REVOKE = 66,    /* agent, unasked: this queue pair must be put into the error state, and why */
};

enum local_mode {
	LOCAL_ENFORCE = 1, /* what the agent can't vouch for is refused */
	LOCAL_OBSERVE = 2, /* it is let through, and told of */
};

struct local_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;     /* enum local_type */
	uint32_t length;   /* of the whole packet */
	uint32_t request;  /* chosen by the program, and repeated in the answer; 0 where there is none */
};

struct local_hello {
	struct local_header header;
	uint32_t mode;     /* enum local_mode that `securdma wrap` was asked for; the agent's own policy can only be stricter */
	uint32_t require_encryption; /* the same */
	char program[LOCAL_NAME];
};

struct local_welcome {
	struct local_header header;
	uint32_t mode;               /* what holds for this program */
	uint32_t require_encryption;
	uint32_t status;             /* 0, or an errno: this program is refused as a whole, `text` says why */
	char name[LOCAL_NAME];       /* of this agent, as its certificate has it */
	char text[LOCAL_TEXT];
};

struct local_device {
	struct local_header header;
	char device[LOCAL_NAME];
	uint32_t port;
	uint32_t link_layer; /* IBV_LINK_LAYER_* */
	uint32_t lid;
	uint32_t kernel;     /* 1: the kernel knows the device (it is in /sys/class/infiniband); 0: uroce and the like. The agent looks itself */
	uint32_t first;      /* index of gids[0] */
	uint32_t count;
	uint8_t gids[LOCAL_GIDS][16]; /* all zero: an empty place */
};

/* LOCAL_REGISTER, LOCAL_FORGET, LOCAL_RESTORE. */
struct local_queue_pair {
	struct local_header header;
	char device[LOCAL_NAME];
	uint32_t port;
	uint32_t qpn;
	uint32_t type;      /* enum ibv_qp_type */
	uint32_t psn;       /* LOCAL_RESTORE: what the agent drew at LOCAL_REGISTER */
	uint32_t connected; /* LOCAL_RESTORE: whether it was in RTR or beyond; then peer_* are set */
	uint32_t peer_qpn, peer_psn;
	uint32_t peer_lid;  /* of a connection without GIDs; else 0 */
	uint8_t gid[16], peer_gid[16];
};

struct local_connect {
	struct local_header header;
	char device[LOCAL_NAME];
	uint32_t port;
	uint32_t qpn;
	uint32_t gid_index;
	uint32_t peer_qpn;
	uint32_t peer_lid;
	uint32_t psn_would_be;      /* rq_psn as the program passed it: for the report and for refusing a constant in no case */
	uint8_t gid[16], peer_gid[16]; /* peer_gid all zero: without GRH (InfiniBand); then peer_lid tells the port */
};

struct local_address {
	struct local_header header;
	char device[LOCAL_NAME];
	uint32_t port;
	uint32_t peer_lid;
	uint8_t gid[16], peer_gid[16];
};

struct local_event {
	struct local_header header;
	uint32_t refused; /* 0: observed only */
	char what[LOCAL_NAME]; /* "rdma_cm", "devx", "ud", ... */
	char text[LOCAL_TEXT];
};

struct local_answer {
	struct local_header header;
	uint32_t status;   /* 0, or an errno: EACCES refused by policy or by the peer, ETIMEDOUT, EBUSY, ... `text` says why and what to do */
	uint32_t observed; /* 1: would have been refused under enforce; `text` says why */
	uint32_t vouched;  /* 1: `psn` is one that agents drew; 0: the program's own, which an observing one goes on with */
	uint32_t psn;      /* LOCAL_REGISTER: the own one. LOCAL_CONNECT: the peer's */
	char peer[LOCAL_NAME];      /* the name that the peer's certificate has */
	char encryption[LOCAL_NAME]; /* what was checked: "macsec enp1s0.m", "wireguard wg0", "ipsec offload", "the packets do not leave this host", ""; for the report */
	char text[LOCAL_TEXT];
};

struct local_revoke {
	struct local_header header;
	char device[LOCAL_NAME];
	uint32_t qpn;
	uint32_t psn; /* of the registration that is meant: a later one of the same QPN is not */
	char text[LOCAL_TEXT];
};

#endif
