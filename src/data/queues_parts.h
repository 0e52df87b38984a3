/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that the files of the queues share: queues.c (their life), queues_send.c (the send queue), queues_receive.c (the receive
 * queue) and queues_renew.c (the replacement of the queue pair). */
#ifndef SRDMA_QUEUES_PARTS_H
#define SRDMA_QUEUES_PARTS_H

#include "cursor.h"
#include "queues.h"

/* Immediate data of every send: kind in the top byte, credits returned in the rest. */
#define IMM_MESSAGE 1u
#define IMM_CREDIT 2u
#define IMM_CONTROL 3u
#define IMM_NOTICE 4u /* sealed: as a message, of NOTICE_SIZE bytes */
#define NOTICE_SIZE 12u
#define IMM_KIND_SHIFT 24
#define IMM_CREDITS_MASK 0xffffffu

#define POLL_BATCH 16
/* A work request's id has the generation of the queue pair above this bit, and a sequence number or a slot below it. */
#define GENERATION_SHIFT 48
#define SEQUENCE_MASK ((UINT64_C(1) << GENERATION_SHIFT) - 1)

/* Receive slots first, then send slots. */
static inline char *srdma_queues_slot(const struct srdma_queues *queues, uint32_t slot)
{
	return (char *)queues->memory.address + (size_t)slot * queues->stride;
}

/* The op `index` places after the oldest one; at op_ring.count lies the next op to be posted. */
static inline struct srdma_op *srdma_queues_op(const struct srdma_queues *queues, uint32_t index)
{
	return &queues->ops[srdma_ring_at(&queues->op_ring, index)];
}

/* Whether a completion belongs to the present queue pair. */
static inline bool srdma_queues_is_current(const struct srdma_queues *queues, const struct ibv_wc *wc)
{
	return wc->wr_id >> GENERATION_SHIFT == queues->generation;
}

/* Packets of a send or write, or of the response to a read: what the requester's PSN advances by. IBTA vol 1, 9.7.4. */
static inline uint64_t srdma_queues_psns(const struct srdma_queues *queues, uint32_t length)
{
	return length == 0 ? 1 : ((uint64_t)length + queues->mtu - 1) / queues->mtu;
}

/* Whether the epoch has PSNs left for `length` bytes, and `kept` more. */
static inline bool srdma_queues_has_psns(const struct srdma_queues *queues, uint32_t length, uint32_t kept)
{
	return queues->psns_used + srdma_queues_psns(queues, length) + kept <= queues->psn_limit;
}

static inline void srdma_put_notice(uint8_t bytes[NOTICE_SIZE], uint32_t value, uint64_t length)
{
	struct srdma_writer w;

	srdma_writer_init(&w, bytes, NOTICE_SIZE);
	srdma_put_u32(&w, value);
	srdma_put_u64(&w, length);
}

/* queues.c */
/* Handles a completion with an error. More follow the first one, because the queue pair is in ERROR. */
int srdma_queues_fail_completion(struct srdma_queues *queues, const struct ibv_wc *wc, const char *what);

/* queues_send.c */
/* Posts the work requests of `count` ops from `first` on, counted from the oldest. */
int srdma_queues_submit(struct srdma_queues *queues, uint32_t first, uint32_t count, bool signaled);
int srdma_queues_send_credits(struct srdma_queues *queues);
void srdma_queues_complete_op(struct srdma_queues *queues);
int srdma_queues_poll_sends(struct srdma_queues *queues);

/* Sends credits alone if half the depth is owed and no message of ours took them along. */
static inline int srdma_queues_return_credits(struct srdma_queues *queues)
{
	if (queues->closing || queues->held || queues->stopped || queues->owed < (queues->depth + 1) / 2 ||
	    queues->op_ring.count >= queues->op_ring.room || !srdma_queues_has_psns(queues, 0, 1))
		return 0;
	return srdma_queues_send_credits(queues);
}

/* queues_receive.c */
int srdma_queues_post_receive(struct srdma_queues *queues, uint32_t slot);

#endif
