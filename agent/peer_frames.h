/* SPDX-License-Identifier: Apache-2.0 */
/* What two agents say to each other over TLS (docs/PROTOCOL.md, "Agents"): encoding, decoding, and the checks that need no table. */
#ifndef AGENT_PEER_FRAMES_H
#define AGENT_PEER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_ALPN "securdma-agent/1"
#define PEER_VERSION 1
#define PEER_HEADER 4
#define PEER_GIDS 64
#define PEER_TEXT 384
#define PEER_BODY_MAX (4 + 16 + PEER_GIDS * 16)
#define PEER_FRAME_MAX (PEER_HEADER + PEER_BODY_MAX)
#define PEER_INSTANCE 16

enum peer_frame_type {
	PEER_HELLO = 1,   /* each end, first */
	PEER_QUERY = 2,   /* a queue pair of the sender wants to be connected with one of the receiver */
	PEER_ANSWER = 3,  /* to a QUERY */
	PEER_REVOKE = 4,  /* a queue pair of the receiver must not go on */
	PEER_RELEASE = 5, /* a queue pair of the sender is gone */
	PEER_PING = 6,
	PEER_PONG = 7,
};

/* Of an ANSWER. */
enum peer_status {
	PEER_OK = 0,
	PEER_UNKNOWN = 1,  /* no such queue pair is registered */
	PEER_TAKEN = 2,    /* it is, or is to be, connected with another one */
	PEER_DENIED = 3,   /* policy, or a GID that is not the asker's */
	PEER_BUSY = 4,     /* a limit: try again */
};

struct peer_header {
	uint8_t type; /* enum peer_frame_type */
	uint16_t length; /* of the body */
};

struct peer_hello {
	uint16_t version, count;
	uint8_t instance[PEER_INSTANCE]; /* drawn by the agent at its start */
	uint8_t gids[PEER_GIDS][16];     /* for which it answers */
};

/* The queue pair of one end, as the other end knows it. */
struct peer_end {
	uint8_t gid[16]; /* all zero: none, `lid` says which port */
	uint16_t lid;    /* 0 where there is a GID */
	uint32_t qpn;
};

struct peer_query {
	uint32_t id;
	struct peer_end asker, asked;
	uint32_t psn; /* the asker's */
	uint8_t type; /* enum ibv_qp_type: RC or UC */
};

struct peer_answer {
	uint32_t id;
	uint8_t status; /* enum peer_status */
	uint32_t psn;   /* of the queue pair that was asked for; 0 unless PEER_OK */
	char text[PEER_TEXT]; /* why, for people; "" with PEER_OK */
};

/* REVOKE: `end` is the receiver's; RELEASE: `end` is the sender's, `other` the receiver's. */
struct peer_notice {
	struct peer_end end, other;
	uint32_t psn; /* of the registration of `end` that is meant */
	char text[PEER_TEXT];
};

struct peer_ping {
	uint64_t token;
};

/* Any frame. */
struct peer_frame {
	enum peer_frame_type type;
	union {
		struct peer_hello hello;
		struct peer_query query;
		struct peer_answer answer;
		struct peer_notice notice;
		struct peer_ping ping;
	};
};

/* The header of PEER_HEADER bytes. Errors: SRDMA_EPROTOCOL, with the reason: an unknown type, or a body longer than any. */
int peer_header_decode(const uint8_t *data, struct peer_header *out);
/* The body that a header announced. Every value is checked. Errors: SRDMA_EPROTOCOL, with the reason. */
int peer_frame_decode(const struct peer_header *header, const uint8_t *body, struct peer_frame *out);
/* Into PEER_FRAME_MAX bytes; returns the length. Texts are cut at their room. */
size_t peer_frame_encode(const struct peer_frame *frame, uint8_t out[PEER_FRAME_MAX]);

const char *peer_status_text(enum peer_status status);

#endif
