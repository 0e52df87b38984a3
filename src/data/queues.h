/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over a queue pair: registered slots, credits, sealing, and the account of everything on the send queue, from which the
 * queues post again the requests that were lost with a queue pair. They do not use TLS. docs/PROTOCOL.md, "Messages", has the rules,
 * and explains why a receive is never missing. */
#ifndef SRDMA_QUEUES_H
#define SRDMA_QUEUES_H

#include "qp.h"
#include "region.h"
#include "ring.h"
#include "seal.h"
#include "seal_lane.h"

#include <stdatomic.h>

/* Written by the connection's thread, readable by any. */
struct srdma_counters {
	atomic_uint_fast64_t messages_sent, messages_received;
	atomic_uint_fast64_t messages_acknowledged; /* sent messages whose credits came back */
	atomic_uint_fast64_t bytes_sent, bytes_received;
	atomic_uint_fast64_t bytes_written, bytes_read;
};

static inline uint64_t srdma_counter_read(const atomic_uint_fast64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Only one thread writes, so a plain addition is enough and saves a locked instruction. */
static inline void srdma_counter_add(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, srdma_counter_read(counter) + n, memory_order_relaxed);
}

/* Receives beyond the depth, for messages that only return credits: at most two of them can be unprocessed, and the last one
 * (srdma_queues_flush). */
#define SRDMA_CREDIT_RESERVE 3
/* Sealed writes and reads (sealed_rdma.h), in one direction: chunks under way, records that announced them, records that ask for reads. */
#define SRDMA_SEALED_CHUNKS 32
#define SRDMA_SEALED_RECORDS 8
#define SRDMA_SEALED_READS 4
/* Receives for their control records: announcements, their acknowledgements, and the reads asked for. */
#define SRDMA_CONTROL_RESERVE (2 * SRDMA_SEALED_RECORDS + SRDMA_SEALED_READS)

/* Bytes sealed, opened or copied between two looks at the device: on a device in software a look costs several system calls. */
#define SRDMA_POLL_BYTES (128u * 1024)

/* Work requests that are posted together. */
#define SRDMA_SUBMIT_MAX 8
/* Binds of memory windows that are posted at once. */
#define SRDMA_BINDS_MAX 64

enum srdma_op_kind {
	SRDMA_OP_MESSAGE,
	SRDMA_OP_CREDIT,
	SRDMA_OP_CONTROL,
	SRDMA_OP_POSTED, /* RDMA write or read: the program collects it */
	SRDMA_OP_WAITED, /* the same: a call waits for it */
	SRDMA_OP_PART,   /* a part of a sealed request, which completes with a later one */
	SRDMA_OP_NOTICE, /* an RDMA write with immediate: a POSTED that takes a receive of the peer's, as a message does */
	SRDMA_OP_PULL,   /* an RDMA read of chunks, for sealed_rdma.c */
	SRDMA_OP_BIND,   /* of a memory window: nothing goes out */
};

enum srdma_op_atomic { SRDMA_ATOMIC_NONE, SRDMA_ATOMIC_FETCH_ADD, SRDMA_ATOMIC_COMPARE_SWAP };

/* One work request on the send queue, with all that is needed to post it again. RC completes them in the order of posting. */
struct srdma_op {
	enum srdma_op_kind kind;
	bool uses_slot;  /* its bytes lie in a send slot */
	bool is_inline;
	bool write;      /* POSTED, WAITED, NOTICE */
	enum srdma_op_atomic atomic; /* POSTED */
	uint16_t region; /* POSTED, NOTICE: the peer's region by its id; 0: the one that HELLO describes */
	uint32_t pieces; /* POSTED, NOTICE: of memory, in the queues' `pieces`; 0: it has `local` and `lkey` */
	bool executed;   /* the peer has executed it, but its completion was lost with the queue pair */
	uint32_t imm;    /* MESSAGE, CREDIT, CONTROL, NOTICE; network order */
	uint32_t length;
	uint32_t lkey, rkey; /* rkey: PULL, and of a region with an id, whose renewals change it; that of the region 0 is the queues' */
	uint64_t local, remote;
	uint64_t send;   /* MESSAGE, CREDIT, CONTROL, NOTICE: its number among all sends */
	uint64_t cookie; /* POSTED, NOTICE */
	uint64_t operand, compare; /* of an atomic operation */
};

static inline bool srdma_op_is_send(const struct srdma_op *op)
{
	return op->kind == SRDMA_OP_MESSAGE || op->kind == SRDMA_OP_CREDIT || op->kind == SRDMA_OP_CONTROL || op->kind == SRDMA_OP_NOTICE;
}

struct srdma_arrival {
	uint32_t slot;
	uint32_t length; /* with the tag, while sealed */
	uint32_t imm;
	bool sealed;     /* not opened yet */
	bool ahead;      /* in the lane */
	bool notice;     /* no message */
	uint64_t number;
};

struct srdma_queues_shape {
	uint32_t message_size, depth, rdma_depth;
	bool sealed;
	bool binds;      /* windows, while others use the queues */
	uint32_t pieces; /* of memory in one request; 0: 1 */
};

struct srdma_queues {
	struct srdma_qp *qp;
	struct ibv_cq *send_cq, *recv_cq;
	struct srdma_region memory; /* receive slots, then send slots; local access only */
	uint32_t stride;          /* bytes per slot */
	uint32_t recv_slots;
	struct srdma_ring send_slots; /* counted from the first slot behind the receive slots */
	uint32_t message_size, depth, rdma_depth; /* as agreed */
	uint32_t overhead;        /* bytes that sealing adds */
	uint32_t region_rkey;     /* the peer's */

	struct srdma_op *ops;     /* by op_ring */
	struct srdma_ring op_ring;
	struct ibv_sge *pieces;   /* pieces_most for each op; NULL: none has any */
	uint32_t pieces_most;
	uint8_t *copies;          /* inline data, copy_size bytes for each op, for posting a lost op again */
	uint32_t copy_size;
	uint64_t op_sequence;          /* of the oldest; its work request id, with the generation */
	uint32_t unsignaled;           /* number of the youngest that raise no completion of their own */
	uint32_t signal_interval;
	bool closing;                  /* the queues return no more credits, since the peer will send nothing */
	bool flushed;                  /* the queues have sent their last credit-only message */
	uint32_t messages_queued, rdma_queued; /* of these */

	uint32_t credits; /* receives of the peer that we may use */
	uint32_t credits_kept; /* of these, for notices that are still to be sent */
	bool notices;     /* the ends agreed on notices */
	uint32_t owed;    /* receives posted again, not reported to the peer yet */
	struct srdma_arrival *arrivals; /* by arrival_ring: messages not yet consumed */
	struct srdma_ring arrival_ring;

	uint64_t *done; /* by done_ring: cookies of POSTED operations that are complete */
	struct srdma_ring done_ring;
	uint64_t waited_done; /* WAITED operations completed so far */
	uint64_t binds_posted, binds_done; /* of windows, so far; they complete in order */

	uint32_t unpolled; /* bytes opened or copied since the device was last looked at */

	uint64_t messages_arrived;
	uint64_t sends_posted, sends_arrived; /* of all kinds; also the numbers of their records */
	uint64_t sends_completed;
	uint64_t stale_sends; /* the peer's sends below this number are repetitions, whose credits do not count again */

	/* ---- renewal of the queue pair ---- */
	uint16_t generation;      /* of the queue pair; completions of other generations are ignored */
	uint32_t receives_posted; /* and not completed */
	bool receives_left;       /* the last look left completions, which no event announces */
	bool held;                /* the queues post nothing new, except for a quiesce */
	bool stopped;             /* the queue pair is in ERROR, which flushes everything that is posted */
	bool over;                /* the connection has ended: srdma_queues_end */
	uint64_t psns_used;       /* in this epoch */
	uint64_t psn_limit;       /* UINT64_MAX: none */
	uint32_t mtu;

	/* ---- sealing ---- */
	struct srdma_sealer *sealer; /* NULL: plain */
	struct srdma_opener *opener;
	uint32_t last_imm; /* of the peer's */
	struct srdma_seal_lane *open_lane; /* NULL: the program's calls open messages. Its works are the arrivals that are `ahead` */
	int (*on_control)(void *arg, const void *data, uint32_t length); /* a control record came */
	void (*on_pulled)(void *arg);                                  /* the oldest PULL is done */
	void *arg;

	unsigned failed_status; /* enum ibv_wc_status of the completion that ended the queues; 0: none */
	bool failed_here;       /* this end caused the failure, so a new queue pair would not help */
	struct srdma_counters counters;
};

uint32_t srdma_queues_send_depth(const struct srdma_queues_shape *shape);
uint32_t srdma_queues_recv_depth(const struct srdma_queues_shape *shape);
/* Bytes of all slots. */
size_t srdma_queues_ring_size(const struct srdma_queues_shape *shape);

/* Makes the slots and posts all receives; the queue pair is in INIT. */
int srdma_queues_new(struct srdma_queues *queues, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, const struct srdma_queues_shape *shape);
/* Sets the sizes that both ends agreed on, which do not exceed those of srdma_queues_new. */
void srdma_queues_agree(struct srdma_queues *queues, uint32_t message_size, uint32_t depth, uint32_t mtu);
/* Seals every record from here on. Takes over both. */
void srdma_queues_seal(struct srdma_queues *queues, struct srdma_sealer *sealer, struct srdma_opener *opener);
/* Lets the pool's threads open messages that have arrived, in their slots, while the program is at earlier ones. The pool must outlive
 * the queues. */
int srdma_queues_share(struct srdma_queues *queues, struct srdma_seal_pool *pool, void (*wake)(void *arg), void *arg);
void srdma_queues_release(struct srdma_queues *queues);

/* Takes completions off both queues and returns credits when due. SRDMA_EVERBS (failed_status, failed_here have the details),
 * SRDMA_EPROTOCOL or SRDMA_ESEAL. */
int srdma_queues_poll(struct srdma_queues *queues);
/* The same for receives only: a latency-bound waiter repeats it. It takes as many as there are slots, and leaves the rest to the next call. */
int srdma_queues_poll_receives(struct srdma_queues *queues);

/* For the end of the connection: the queues post nothing any more, forget the requests that use the program's memory, and pass on
 * no control record. The program can still take messages and credits that have arrived. */
void srdma_queues_end(struct srdma_queues *queues);

/* For an end that sends nothing new: returns the owed credits, and none after that, so that the peer knows which of its messages were
 * taken. Makes sure that each work request on the send queue completes visibly, so that op_ring becomes empty. */
int srdma_queues_flush(struct srdma_queues *queues);

bool srdma_queues_can_send(const struct srdma_queues *queues);
/* The caller has checked srdma_queues_can_send and the length. */
int srdma_queues_send(struct srdma_queues *queues, const void *data, uint32_t length);

static inline bool srdma_queues_has_message(const struct srdma_queues *queues)
{
	return queues->arrival_ring.count > 0;
}

/* Whether the oldest arrival is a notice, which srdma_queues_peek_notice must take apart; srdma_queues_peek and srdma_queues_read are for
 * messages. */
static inline bool srdma_queues_next_is_notice(const struct srdma_queues *queues)
{
	return queues->arrival_ring.count > 0 && queues->arrivals[queues->arrival_ring.first].notice;
}

/* What the oldest arrival, a notice, says: 0, or SRDMA_ESEAL or SRDMA_EPROTOCOL. srdma_queues_consume takes it. */
int srdma_queues_peek_notice(struct srdma_queues *queues, uint32_t *value, uint64_t *length);
/* Sealed: sends a notice, for which a credit was kept (credits_kept). */
bool srdma_queues_can_send_notice(const struct srdma_queues *queues);
int srdma_queues_send_notice(struct srdma_queues *queues, uint32_t value, uint64_t length);

/* The oldest message that is not consumed: 1, or 0 when there is none, or SRDMA_ESEAL. */
int srdma_queues_peek(struct srdma_queues *queues, const void **data, uint32_t *length);
/* Returns only the length of that message. */
bool srdma_queues_next_length(const struct srdma_queues *queues, uint32_t *length);
/* Copies that message, or opens it straight into `buffer`, which must be long enough. */
int srdma_queues_read(struct srdma_queues *queues, void *buffer);
/* Posts the receive of a message again, after the program has used the message. */
int srdma_queues_consume(struct srdma_queues *queues);
/* Whether the device should be looked at before the next message is taken: a device in software may make progress only when it is polled,
 * and the peer waits for it. */
static inline bool srdma_queues_should_poll(const struct srdma_queues *queues)
{
	return queues->unpolled >= SRDMA_POLL_BYTES && queues->arrival_ring.count > 0;
}
/* Drops a message when no queue pair is left to post its receive on. */
void srdma_queues_drop(struct srdma_queues *queues);

/* Whether a write or read of `length` bytes may be posted now. */
bool srdma_queues_can_post_rdma(const struct srdma_queues *queues, uint32_t length);
/* Posts a one-sided request; the caller has checked everything. */
int srdma_queues_post_rdma(struct srdma_queues *queues, const struct srdma_op *op);
/* The same for a request of op->pieces pieces. A NOTICE needs a credit: srdma_queues_has_credit. */
int srdma_queues_post_pieces(struct srdma_queues *queues, const struct srdma_op *op, const struct ibv_sge *pieces);
/* Whether a credit is left for one more notice. */
static inline bool srdma_queues_has_credit(const struct srdma_queues *queues)
{
	return queues->credits > queues->credits_kept && queues->messages_queued < queues->depth;
}
/* Whether the bind of a window may be posted now. The second function posts one, whose completion `binds_done` counts. A renewal does not
 * repeat it: the window does not outlive the queue pair. */
bool srdma_queues_can_bind(const struct srdma_queues *queues);
int srdma_queues_post_bind(struct srdma_queues *queues, struct ibv_send_wr *wr);
/* The requests that are posted again concern the peer's region of this id by its new key. */
void srdma_queues_change_rkey(struct srdma_queues *queues, uint16_t region, uint32_t rkey);
/* Whether a request that is posted concerns the peer's region of this id, which is not 0. */
bool srdma_queues_uses_region(const struct srdma_queues *queues, uint16_t region);
/* Whether a write or read that is posted uses memory of this key. */
bool srdma_queues_uses(const struct srdma_queues *queues, uint32_t lkey);
/* Returns how many pulls of at most `length` bytes may be posted now, SRDMA_SUBMIT_MAX at most. The second function posts them as one
 * list, which costs the device less than posting them one by one. */
uint32_t srdma_queues_room_for_pulls(const struct srdma_queues *queues, uint32_t length);
int srdma_queues_post_pulls(struct srdma_queues *queues, const struct srdma_op *ops, uint32_t count);
/* Takes the cookie of the oldest POSTED write or read that is complete. False: there is none. */
static inline bool srdma_queues_take_done(struct srdma_queues *queues, uint64_t *cookie)
{
	if (queues->done_ring.count == 0)
		return false;
	*cookie = queues->done[srdma_ring_pop(&queues->done_ring)];
	queues->rdma_queued--;
	return true;
}

/* Counts a write or read that was more than one work request as complete. */
void srdma_queues_complete_rdma(struct srdma_queues *queues, enum srdma_op_kind kind, uint64_t cookie);

bool srdma_queues_can_control(const struct srdma_queues *queues);
/* At most message_size bytes. */
int srdma_queues_send_control(struct srdma_queues *queues, const void *data, uint32_t length);

/* Stops new work, and makes each work request complete visibly. *done is false when there is no room for that yet. */
int srdma_queues_quiesce(struct srdma_queues *queues, bool *done);
/* Notes that the queue pair is in ERROR from here on, so that completions with errors are expected. */
void srdma_queues_stop(struct srdma_queues *queues);
/* Whether all receives of the old queue pair have left the completion queue. */
bool srdma_queues_is_drained(const struct srdma_queues *queues);
/* Posts receives on a new queue pair, which is in INIT. */
int srdma_queues_restart(struct srdma_queues *queues);
/* Takes the peer's account: it has received `arrived` of our sends, and its program has taken `consumed` of our messages.
 * SRDMA_EPROTOCOL if that is impossible. */
int srdma_queues_settle(struct srdma_queues *queues, uint64_t arrived, uint64_t consumed);
/* Posts again the sends that did not arrive, and allows new work. The queue pair is in RTS, and the peer's in RTR. */
int srdma_queues_resume(struct srdma_queues *queues);

#endif
