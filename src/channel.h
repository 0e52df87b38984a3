/* SPDX-License-Identifier: Apache-2.0 */
/* Message rings with credits over one queue pair, and the account of everything that is on its send queue. Knows nothing
 * of TLS. docs/PROTOCOL.md, "Messages", gives the rules and the argument why no receive is ever missing. */
#ifndef SRDMA_CHANNEL_H
#define SRDMA_CHANNEL_H

#include "qp.h"
#include "region.h"

#include <stdatomic.h>

/* Written by the connection's thread, readable by any. */
struct srdma_counters {
	atomic_uint_fast64_t messages_sent, messages_received;
	atomic_uint_fast64_t messages_acknowledged; /* of those sent: credits that came back */
	atomic_uint_fast64_t bytes_sent, bytes_received;
	atomic_uint_fast64_t bytes_written, bytes_read;
};

static inline uint64_t srdma_counter_read(const atomic_uint_fast64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* One thread writes: a plain addition is enough, and costs no locked instruction. */
static inline void srdma_counter_add(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, srdma_counter_read(counter) + n, memory_order_relaxed);
}

/* Receives beyond the depth, for messages that only return credits: at most two that return some can be unprocessed, and
 * the last one (srdma_channel_flush). */
#define SRDMA_CREDIT_RESERVE 3

enum srdma_op_kind { SRDMA_OP_MESSAGE, SRDMA_OP_CREDIT, SRDMA_OP_POSTED, SRDMA_OP_WAITED };

/* One work request on the send queue. RC completes them in the order of posting. */
struct srdma_op {
	enum srdma_op_kind kind;
	bool uses_slot;  /* MESSAGE: its bytes lie in a send slot */
	uint64_t cookie; /* POSTED */
};

struct srdma_arrival {
	uint32_t slot;
	uint32_t length;
};

struct srdma_channel {
	struct srdma_qp *qp;
	struct ibv_cq *send_cq, *recv_cq;
	struct srdma_region ring; /* receive slots, then send slots; local access only */
	uint32_t stride;          /* bytes per slot */
	uint32_t recv_slots, send_slots;
	uint32_t message_size, depth, rdma_depth; /* as agreed */

	struct srdma_op *ops; /* ring of op_room entries */
	uint32_t op_room, op_head, op_count;
	uint64_t op_sequence;          /* work request id of the oldest */
	uint32_t unsignaled;           /* how many of the youngest will raise no completion of their own */
	uint32_t signal_interval;
	bool closing;                  /* no more credits are returned: the peer will send nothing */
	bool flushed;                  /* the last credit-only message is out */
	uint32_t messages_queued, rdma_queued; /* of these */
	uint32_t slot_next, slots_used;

	uint32_t credits; /* receives of the peer that we may use */
	uint32_t owed;    /* receives posted again that the peer does not know of */
	struct srdma_arrival *arrivals; /* ring of recv_slots entries: messages not yet consumed */
	uint32_t arrival_head, arrival_count;

	uint64_t *done; /* ring of rdma_depth cookies: POSTED operations that are complete */
	uint32_t done_head, done_count;
	uint64_t waited_done; /* WAITED operations completed so far */

	uint64_t messages_arrived;
	unsigned failed_status; /* enum ibv_wc_status of the completion that ended it; 0: none did */
	struct srdma_counters counters;
};

/* Depths of the queues for these options. */
uint32_t srdma_channel_send_depth(uint32_t depth, uint32_t rdma_depth);
uint32_t srdma_channel_recv_depth(uint32_t depth);
/* Bytes of both rings. */
size_t srdma_channel_ring_size(uint32_t message_size, uint32_t depth);

/* Makes the rings and posts all receives; the queue pair is in INIT. */
int srdma_channel_new(struct srdma_channel *channel, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, uint32_t message_size, uint32_t depth, uint32_t rdma_depth);
/* What both ends settled on; not above what srdma_channel_new got. */
void srdma_channel_agree(struct srdma_channel *channel, uint32_t message_size, uint32_t depth);
void srdma_channel_release(struct srdma_channel *channel);

/* Takes completions off both queues and returns credits when due. SRDMA_EVERBS or SRDMA_EPROTOCOL end the connection. */
int srdma_channel_poll(struct srdma_channel *channel);
/* The same for receives only: what a latency-bound waiter repeats. */
int srdma_channel_poll_receives(struct srdma_channel *channel);

/* Nothing new will be sent: returns the credits that are owed, so that the peer knows which of its messages were taken, and
 * none after that; makes sure that every work request on the send queue will be seen to complete. op_count then falls to 0. */
int srdma_channel_flush(struct srdma_channel *channel);

bool srdma_channel_can_send(const struct srdma_channel *channel);
/* The caller has checked srdma_channel_can_send and the length. */
int srdma_channel_send(struct srdma_channel *channel, const void *data, uint32_t length);

/* The oldest message that is not consumed; false when there is none. */
bool srdma_channel_peek(const struct srdma_channel *channel, const void **data, uint32_t *length);
/* Is done with it: its receive is posted again. */
int srdma_channel_consume(struct srdma_channel *channel);
/* The same when the queue pair is no more. */
void srdma_channel_drop(struct srdma_channel *channel);

bool srdma_channel_can_post_rdma(const struct srdma_channel *channel);
/* Posts a one-sided request; the caller has checked everything. */
int srdma_channel_post_rdma(struct srdma_channel *channel, struct ibv_send_wr *wr, enum srdma_op_kind kind,
			    uint64_t cookie);

#endif
