/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over a queue pair: rings of registered slots, credits, sealing, and the account of everything that is on its send
 * queue, from which what was lost with a queue pair is sent again on the next one. Knows nothing of TLS. docs/PROTOCOL.md,
 * "Messages", gives the rules and the argument why no receive is ever missing. */
#ifndef SRDMA_STREAM_H
#define SRDMA_STREAM_H

#include "qp.h"
#include "region.h"
#include "seal.h"

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
 * the last one (srdma_stream_flush). */
#define SRDMA_CREDIT_RESERVE 3
/* Sealed writes and reads (sealed_rdma.h), in one direction: chunks under way, records that announced them, records that ask for reads. */
#define SRDMA_SEALED_CHUNKS 32
#define SRDMA_SEALED_RECORDS 8
#define SRDMA_SEALED_READS 4
/* Receives for their control records: announcements, their acknowledgements, and the reads asked for. */
#define SRDMA_CONTROL_RESERVE (2 * SRDMA_SEALED_RECORDS + SRDMA_SEALED_READS)

/* Work requests that are posted together. */
#define SRDMA_SUBMIT_MAX 8

enum srdma_op_kind {
	SRDMA_OP_MESSAGE,
	SRDMA_OP_CREDIT,
	SRDMA_OP_CONTROL,
	SRDMA_OP_POSTED, /* RDMA write or read: the program collects it */
	SRDMA_OP_WAITED, /* the same: a call waits for it */
	SRDMA_OP_PULL,   /* an RDMA read of chunks, sealed_rdma.c's */
};

/* One work request on the send queue, with all that is needed to post it again. RC completes them in the order of posting. */
struct srdma_op {
	enum srdma_op_kind kind;
	bool uses_slot;  /* its bytes lie in a send slot */
	bool is_inline;
	bool write;      /* POSTED, WAITED */
	bool executed;   /* the peer has it, though no completion will say so: it was lost with the queue pair */
	uint32_t imm;    /* MESSAGE, CREDIT, CONTROL; network order */
	uint32_t length;
	uint32_t lkey, rkey; /* rkey: PULL; the region's is the stream's */
	uint64_t local, remote;
	uint64_t send;   /* MESSAGE, CREDIT, CONTROL: its number among all sends */
	uint64_t cookie; /* POSTED */
};

struct srdma_arrival {
	uint32_t slot;
	uint32_t length; /* with the tag, while sealed */
	uint32_t imm;
	bool sealed;     /* not opened yet */
	uint64_t number;
};

struct srdma_stream_shape {
	uint32_t message_size, depth, rdma_depth;
	bool sealed;
};

struct srdma_stream {
	struct srdma_qp *qp;
	struct ibv_cq *send_cq, *recv_cq;
	struct srdma_region ring; /* receive slots, then send slots; local access only */
	uint32_t stride;          /* bytes per slot */
	uint32_t recv_slots, send_slots;
	uint32_t message_size, depth, rdma_depth; /* as agreed */
	uint32_t overhead;        /* bytes that sealing adds */
	uint32_t region_rkey;     /* the peer's */

	struct srdma_op *ops; /* ring of op_room entries */
	uint8_t *copies;      /* of inline data, copy_size bytes for each op: a lost one is posted again */
	uint32_t copy_size;
	uint32_t op_room, op_head, op_count;
	uint64_t op_sequence;          /* of the oldest; its work request id, with the generation */
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
	uint64_t sends_posted, sends_arrived; /* all kinds; the numbers of their records, too */
	uint64_t sends_completed;
	uint64_t stale_sends; /* of the peer's: those below are repetitions, whose credits count no more */

	/* ---- renewal of the queue pair ---- */
	uint16_t generation;      /* of the queue pair; completions of others are of no interest */
	uint32_t receives_posted; /* and not completed */
	bool receives_left;       /* completions, by the last look: no event tells of them */
	bool held;                /* nothing new is posted but what a quiesce needs */
	bool stopped;             /* the queue pair is in ERROR: it has, or will have, nothing posted any more */
	bool over;                /* so is the connection: srdma_stream_end */
	uint64_t psns_used;       /* in this epoch */
	uint64_t psn_limit;       /* UINT64_MAX: none */
	uint32_t mtu;

	/* ---- sealing ---- */
	struct srdma_sealer *sealer; /* NULL: plain */
	struct srdma_opener *opener;
	int (*on_control)(void *arg, const void *data, uint32_t length); /* a control record came */
	void (*on_pulled)(void *arg);                                  /* the oldest PULL is done */
	void *arg;

	unsigned failed_status; /* enum ibv_wc_status of the completion that ended it; 0: none did */
	bool failed_here;       /* that was this end's own mistake: a new queue pair would not fix it */
	struct srdma_counters counters;
};

/* Depths of the queues. */
uint32_t srdma_stream_send_depth(const struct srdma_stream_shape *shape);
uint32_t srdma_stream_recv_depth(const struct srdma_stream_shape *shape);
/* Bytes of both rings. */
size_t srdma_stream_ring_size(const struct srdma_stream_shape *shape);

/* Makes the rings and posts all receives; the queue pair is in INIT. */
int srdma_stream_new(struct srdma_stream *stream, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, const struct srdma_stream_shape *shape);
/* What both ends settled on; sizes not above what srdma_stream_new got. */
void srdma_stream_agree(struct srdma_stream *stream, uint32_t message_size, uint32_t depth, uint32_t mtu);
/* Every record is sealed from here on. Takes both. */
void srdma_stream_seal(struct srdma_stream *stream, struct srdma_sealer *sealer, struct srdma_opener *opener);
void srdma_stream_release(struct srdma_stream *stream);

/* Takes completions off both queues and returns credits when due. SRDMA_EVERBS (failed_status, failed_here tell more),
 * SRDMA_EPROTOCOL or SRDMA_ESEAL. */
int srdma_stream_poll(struct srdma_stream *stream);
/* The same for receives only: a latency-bound wait repeats it. Takes as many as there are slots, and the rest at the next call. */
int srdma_stream_poll_receives(struct srdma_stream *stream);

/* The connection is over: nothing is posted any more, nor posted again; what the programs' memory was used for is forgotten; no control
 * record is executed. Messages and credits that have arrived can still be read. */
void srdma_stream_end(struct srdma_stream *stream);

/* Nothing new will be sent: returns the credits that are owed, so that the peer knows which of its messages were taken, and
 * none after that; makes sure that every work request on the send queue will be seen to complete. op_count then falls to 0. */
int srdma_stream_flush(struct srdma_stream *stream);

bool srdma_stream_can_send(const struct srdma_stream *stream);
/* The caller has checked srdma_stream_can_send and the length. */
int srdma_stream_send(struct srdma_stream *stream, const void *data, uint32_t length);

/* The oldest message that is not consumed: 1, or 0 when there is none, or SRDMA_ESEAL. */
int srdma_stream_peek(struct srdma_stream *stream, const void **data, uint32_t *length);
/* Its length alone. */
bool srdma_stream_next_length(const struct srdma_stream *stream, uint32_t *length);
/* Copies it, or opens it straight into `buffer`, which is long enough. */
int srdma_stream_read(struct srdma_stream *stream, void *buffer);
/* Is done with it: its receive is posted again. */
int srdma_stream_consume(struct srdma_stream *stream);
/* The same when the queue pair is no more. */
void srdma_stream_drop(struct srdma_stream *stream);

/* Whether a write or read of `length` bytes may be posted now. */
bool srdma_stream_can_post_rdma(const struct srdma_stream *stream, uint32_t length);
/* Posts a one-sided request; the caller has checked everything. */
int srdma_stream_post_rdma(struct srdma_stream *stream, const struct srdma_op *op);
/* Whether a write or read that is posted has memory of this key. */
bool srdma_stream_uses(const struct srdma_stream *stream, uint32_t lkey);
/* How many pulls of at most `length` bytes may be posted now, SRDMA_SUBMIT_MAX at most; and posts them, as one list: a device
 * that is told once has less to do than one that is told of each. */
uint32_t srdma_stream_room_for_pulls(const struct srdma_stream *stream, uint32_t length);
int srdma_stream_post_pulls(struct srdma_stream *stream, const struct srdma_op *ops, uint32_t count);
/* Its bookkeeping, where the write or read was not one work request. */
void srdma_stream_complete_rdma(struct srdma_stream *stream, enum srdma_op_kind kind, uint64_t cookie);

/* Whether a control record may be posted now. */
bool srdma_stream_can_control(const struct srdma_stream *stream);
/* At most message_size bytes. */
int srdma_stream_send_control(struct srdma_stream *stream, const void *data, uint32_t length);

/* ---- renewal (stream_renew.c) ---- */

/* Posts what makes every work request complete visibly. False: there is no room for it yet. */
int srdma_stream_quiesce(struct srdma_stream *stream, bool *done);
/* The queue pair is in ERROR from here on: completions with errors are expected. */
void srdma_stream_stop(struct srdma_stream *stream);
/* Whether all that the old queue pair had is off the completion queues. */
bool srdma_stream_is_drained(const struct srdma_stream *stream);
/* The queue pair is a new one, in INIT: posts receives. */
int srdma_stream_restart(struct srdma_stream *stream);
/* What the peer says of ours: `arrived` of our sends, `consumed` of our messages. SRDMA_EPROTOCOL when that can't be. */
int srdma_stream_settle(struct srdma_stream *stream, uint64_t arrived, uint64_t consumed);
/* In RTS, and the peer is in RTR: posts again what did not arrive, and lets new work be posted. */
int srdma_stream_resume(struct srdma_stream *stream);

/* Shared by both files. */
uint64_t srdma_stream_psns(const struct srdma_stream *stream, uint32_t length);
int srdma_stream_post_receive(struct srdma_stream *stream, uint32_t slot);
/* Posts the work requests of `count` ops from `first` on, counted from the oldest. */
int srdma_stream_submit(struct srdma_stream *stream, uint32_t first, uint32_t count, bool signaled);
int srdma_stream_send_credits(struct srdma_stream *stream);
void srdma_stream_complete_op(struct srdma_stream *stream);

#endif
