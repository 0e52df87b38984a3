/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a sealed connection, the library's own from its calls down to the channel, on a device and a TLS channel of this rig's.
 * The test is the peer, which has all keys, and controls when the device acts. It is linked with --wrap for
 * the functions of the TLS channel (end_wraps in meson.build); the verbs that need a library of the device's are defined here. */
#ifndef TEST_END_RIG_H
#define TEST_END_RIG_H

#include "conn.h"

enum {
	RIG_MESSAGE_SIZE = 4096,
	RIG_DEPTH = 4,
	RIG_RDMA_DEPTH = 4,
	RIG_REQUESTS = 128, /* on its send queue; more than it has room for */
	RIG_RECEIVES = 64,
	RIG_COMPLETIONS = 256,
	RIG_REGIONS = 8,
	RIG_KEY = 0x7e57,   /* of the peer's staging ring */
};

enum rig_kind { RIG_MESSAGE = 1, RIG_CREDIT = 2, RIG_CONTROL = 3 };

/* On the end's send queue. */
struct rig_request {
	bool read; /* an RDMA read; else a send */
	bool signaled;
	uint64_t id, local, remote;
	uint32_t length, rkey, imm;
};

struct rig_receive {
	uint64_t id, address;
	uint32_t length;
};

struct rig_queue {
	struct ibv_wc wc[RIG_COMPLETIONS];
	unsigned first, count;
};

struct end_rig {
	struct srdma_conn *conn;
	struct ibv_context context;
	struct ibv_qp qp;
	struct ibv_cq send_cq, recv_cq;
	struct rig_request requests[RIG_REQUESTS];
	unsigned request_first, request_count;
	struct rig_receive receives[RIG_RECEIVES];
	unsigned receive_first, receive_count;
	struct rig_queue sent, received;
	bool failed; /* the queue pair is in ERROR */
	int tls;     /* the result of a look at its TLS channel: -EAGAIN: no frame; SRDMA_ECLOSED: closed */
	unsigned late_looks; /* at the TLS channel, after the end of the connection */

	/* the peer */
	struct srdma_sealer *messages_out, *chunks_out;
	struct srdma_opener *messages_in, *chunks_in;
	uint64_t messages_opened, chunks_opened;
	uint8_t *staging; /* SRDMA_SEALED_RING bytes, which stay from one rig to the next: what RDMA reads with RIG_KEY fetch */
	/* The end posts a record; `data` is its content, which the rig owns. NULL: no callback. */
	void (*on_record)(void *arg, enum rig_kind kind, const uint8_t *data, uint32_t length);
	/* The device has fetched something. */
	void (*on_fetched)(void *arg, uint64_t remote, uint32_t rkey, uint32_t length);
	/* The end sends a frame over its TLS channel. NULL: no callback. */
	void (*on_frame)(void *arg, const uint8_t *frame, size_t length);
	uint8_t frame[SRDMA_FRAME_MAX]; /* the peer's, which the end takes when it looks at its TLS channel */
	size_t frame_length;            /* 0: there is none */
	void *arg;
};

/* Connected, with a region of its own and one of the peer's, each with all rights. */
void rig_new(struct end_rig *rig, size_t region_size, size_t peer_region_size);
void rig_delete(struct end_rig *rig);
/* A record of the peer's arrives, and is not looked at yet. False: no receive is posted, or the queue pair has failed. */
bool rig_deliver(struct end_rig *rig, enum rig_kind kind, const void *data, uint32_t length);
/* The device is done with the oldest request. False: there is none. */
bool rig_execute(struct end_rig *rig);
/* All that the end can do now. */
void rig_settle(struct end_rig *rig);
/* Bytes of the end's staging ring that the peer may read with this rkey; NULL: it may not read so many. */
const uint8_t *rig_remote(uint32_t rkey, uint64_t address, uint32_t length);

#endif
