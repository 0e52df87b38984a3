/* SPDX-License-Identifier: Apache-2.0 */
/* The messages that cross the TLS channel, as docs/PROTOCOL.md describes them: encode, decode, validate. No I/O here. */
#ifndef SRDMA_FRAMES_H
#define SRDMA_FRAMES_H

#include "securdma.h"

#define SRDMA_PROTOCOL_VERSION 1

#define SRDMA_FRAME_HEADER 4    /* length 2, version 1, type 1 */
#define SRDMA_FRAME_BODY_MAX 512
#define SRDMA_FRAME_MAX (SRDMA_FRAME_HEADER + SRDMA_FRAME_BODY_MAX)
#define SRDMA_HELLO_BODY 80

enum srdma_frame_type {
	SRDMA_FRAME_HELLO = 1,
	SRDMA_FRAME_WELCOME = 2,
	SRDMA_FRAME_REJECT = 3,
	SRDMA_FRAME_READY = 4,
	SRDMA_FRAME_DISCONNECT = 5,
	SRDMA_FRAME_DISCONNECT_ACK = 6,
	SRDMA_FRAME_FINISH = 7,
	SRDMA_FRAME_EPOCH_REQUEST = 8,
	SRDMA_FRAME_EPOCH_BEGIN = 9,
	SRDMA_FRAME_EPOCH_PARAMETERS = 10,
	SRDMA_FRAME_EPOCH_READY = 11,
	SRDMA_FRAME_WITHDRAW = 12,
	SRDMA_FRAME_PRIVATE_DATA = 13,
	SRDMA_FRAME_CONTROL_MESSAGE = 14,
	SRDMA_FRAME_CONTROL_TAKEN = 15,
	SRDMA_FRAME_REGION_OFFER = 16,
	SRDMA_FRAME_REGION_WITHDRAW = 17,
	SRDMA_FRAME_REGION_RELEASED = 18,
	SRDMA_FRAME_REGION_KEYS = 19,
};

struct srdma_frame_header {
	uint16_t length; /* of the body */
	uint8_t version;
	uint8_t type;
};

#define SRDMA_FEATURE_MESSAGES (1u << 0) /* message rings; without it the connection is raw */
#define SRDMA_FEATURE_EPOCHS (1u << 1)   /* can renew the queue pair; needs both ends */
#define SRDMA_FEATURE_SEALED (1u << 2)   /* requires sealed traffic on the queue pair; both ends or neither */
#define SRDMA_FEATURE_CHACHA (1u << 3)   /* has no fast AES */
#define SRDMA_FEATURE_WINDOW (1u << 4)   /* HELLO only: the region's rkey comes with READY */
#define SRDMA_FEATURE_PRIVATE_DATA (1u << 5) /* a frame PRIVATE_DATA follows this one */
#define SRDMA_FEATURE_CONTROL (1u << 6)  /* control messages over the TLS channel; needs both ends */
#define SRDMA_FEATURE_REGIONS (1u << 7)  /* regions with names, and notices; needs both ends */
#define SRDMA_FEATURE_REGION_KEYS (1u << 8) /* takes the new rkeys of named regions at a renewal; needs both ends */
/* WELCOME has these only when HELLO had them. */
#define SRDMA_FEATURES_OFFERED (SRDMA_FEATURE_PRIVATE_DATA | SRDMA_FEATURE_CONTROL | SRDMA_FEATURE_REGIONS | SRDMA_FEATURE_REGION_KEYS)
#define SRDMA_FEATURES_KNOWN                                                                                             \
	(SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_EPOCHS | SRDMA_FEATURE_SEALED | SRDMA_FEATURE_CHACHA | SRDMA_FEATURE_WINDOW | \
	 SRDMA_FEATURES_OFFERED)

#define SRDMA_MESSAGE_SIZE_MIN 64u
#define SRDMA_MESSAGE_SIZE_MAX (1u << 20)
#define SRDMA_DEPTH_MAX 4096u
#define SRDMA_REASON_MAX 127

/* HELLO and WELCOME: the parameters of one end. */
struct srdma_hello {
	uint8_t link_layer;    /* IBV_LINK_LAYER_* */
	uint8_t path_mtu;      /* enum ibv_mtu */
	uint16_t lid;
	union ibv_gid gid;
	uint32_t qpn;
	uint32_t psn;
	uint32_t features;
	uint32_t message_size; /* 0 when raw */
	uint16_t depth;        /* 0 when raw */
	uint8_t rd_initiator;  /* RDMA reads it wants to have outstanding */
	uint8_t rd_responder;  /* RDMA reads it can answer at once */
	uint64_t region_address;
	uint64_t region_size;  /* 0: none is offered */
	uint32_t region_rkey;
	uint32_t region_access; /* IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ */
	uint64_t client_id;    /* WELCOME only; 0 in HELLO */
};

struct srdma_disconnect {
	uint64_t messages_sent; /* on this connection, by the sender of the frame */
	char reason[SRDMA_REASON_MAX + 1];
};

/* Why a queue pair is renewed. */
enum srdma_epoch_reason {
	SRDMA_EPOCH_COUNT = 1, /* a direction has consumed its PSNs */
	SRDMA_EPOCH_ASKED = 2, /* the program asked for it */
	SRDMA_EPOCH_TIME = 3,
	SRDMA_EPOCH_SWEEP = 4, /* the device's counters show that an attacker is trying PSNs */
	SRDMA_EPOCH_BROKEN = 5, /* the queue pair has failed */
};
#define SRDMA_EPOCH_REASONS 6

/* The frames of a renewal; each has some of the fields. */
struct srdma_epoch_frame {
	uint32_t number;   /* of the epoch to come */
	uint8_t reason;    /* EPOCH_REQUEST, EPOCH_BEGIN: enum srdma_epoch_reason */
	bool broken;       /* EPOCH_BEGIN, EPOCH_PARAMETERS: the sender's queue pair has failed */
	uint32_t qpn, psn; /* EPOCH_PARAMETERS: the sender's new ones */
	uint64_t sends;    /* EPOCH_BEGIN: posted by the sender so far; EPOCH_PARAMETERS: of the receiver's, arrived at the sender */
	uint64_t consumed; /* EPOCH_PARAMETERS: messages of the receiver's that the sender's program has taken */
	uint32_t rkey;     /* EPOCH_READY: of the sender's region; 0: none */
};

/* Encoders write a whole frame into `frame` (SRDMA_FRAME_MAX bytes) and return its length. */
size_t srdma_hello_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_hello *hello);
size_t srdma_reject_encode(uint8_t *frame, const struct srdma_reject *reject);
size_t srdma_disconnect_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_disconnect *disconnect);
size_t srdma_empty_encode(uint8_t *frame, enum srdma_frame_type type);
/* PRIVATE_DATA or CONTROL_MESSAGE: `length` bytes of the program's, up to SRDMA_FRAME_BODY_MAX. Whatever a body holds is valid. */
size_t srdma_program_encode(uint8_t *frame, enum srdma_frame_type type, const void *data, size_t length);
/* CONTROL_TAKEN: how many control messages the sender's program has taken so far. */
size_t srdma_taken_encode(uint8_t *frame, uint64_t count);
/* READY, with the region's rkey if HELLO announced it. */
size_t srdma_ready_encode(uint8_t *frame, bool with_rkey, uint32_t rkey);
size_t srdma_epoch_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_epoch_frame *epoch);

/* Decoders return 0 or SRDMA_EPROTOCOL. They fill the structure only when the body has the right form; srdma_hello_validate
 * checks its values. */
int srdma_frame_header_decode(const uint8_t bytes[SRDMA_FRAME_HEADER], struct srdma_frame_header *header);
int srdma_hello_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_hello *hello);
int srdma_reject_decode(const uint8_t *body, size_t length, struct srdma_reject *reject);
int srdma_disconnect_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_disconnect *disconnect);
int srdma_ready_decode(const uint8_t *body, size_t length, bool with_rkey, uint32_t *rkey);
int srdma_taken_decode(const uint8_t *body, size_t length, uint64_t *count);
/* Also checks the values: reason, QPN, PSN. */
int srdma_epoch_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_epoch_frame *epoch);

/* Checks every field of a HELLO (or, `welcome`, a WELCOME). Returns 0, or SRDMA_EPROTOCOL with the reason and the field's
 * name and value in *reject. */
int srdma_hello_validate(const struct srdma_hello *hello, bool welcome, struct srdma_reject *reject);

/* Fills a REJECT. Returns SRDMA_EREJECTED, so that a refusing function can return the call. */
int srdma_reject_set(struct srdma_reject *reject, enum srdma_reject_reason reason, uint32_t retry_after_ms,
		     const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Fills a REJECT of a malformed frame, and is SRDMA_EPROTOCOL. */
#define SRDMA_MALFORMED(reject, ...) (srdma_reject_set(reject, SRDMA_REJECT_MALFORMED, 0, __VA_ARGS__), SRDMA_EPROTOCOL)

#endif
