/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that the files of a stream share: stream.c (its life), stream_send.c (the send queue), stream_receive.c (the receive
 * queue) and stream_renew.c (the replacement of the queue pair). */
#ifndef SRDMA_STREAM_PARTS_H
#define SRDMA_STREAM_PARTS_H

#include "stream.h"

/* Immediate data of every send: kind in the top byte, credits returned in the rest. */
#define IMM_MESSAGE 1u
#define IMM_CREDIT 2u
#define IMM_CONTROL 3u
#define IMM_KIND_SHIFT 24
#define IMM_CREDITS_MASK 0xffffffu

#define POLL_BATCH 16
/* A work request's id has the generation of the queue pair above this bit, and a sequence number or a slot below it. */
#define GENERATION_SHIFT 48
#define SEQUENCE_MASK ((UINT64_C(1) << GENERATION_SHIFT) - 1)

/* Receive slots first, then send slots. */
static inline char *srdma_stream_slot(const struct srdma_stream *stream, uint32_t slot)
{
	return (char *)stream->memory.address + (size_t)slot * stream->stride;
}

/* The op `index` places after the oldest one; at op_ring.count lies the next op to be posted. */
static inline struct srdma_op *srdma_stream_op(const struct srdma_stream *stream, uint32_t index)
{
	return &stream->ops[srdma_ring_at(&stream->op_ring, index)];
}

/* Whether a completion belongs to the present queue pair. */
static inline bool srdma_stream_is_current(const struct srdma_stream *stream, const struct ibv_wc *wc)
{
	return wc->wr_id >> GENERATION_SHIFT == stream->generation;
}

/* Packets of a send or write, or of the response to a read: what the requester's PSN advances by. IBTA vol 1, 9.7.4. */
static inline uint64_t srdma_stream_psns(const struct srdma_stream *stream, uint32_t length)
{
	return length == 0 ? 1 : ((uint64_t)length + stream->mtu - 1) / stream->mtu;
}

/* Whether the epoch has PSNs left for `length` bytes, and `kept` more. */
static inline bool srdma_stream_has_psns(const struct srdma_stream *stream, uint32_t length, uint32_t kept)
{
	return stream->psns_used + srdma_stream_psns(stream, length) + kept <= stream->psn_limit;
}

/* stream.c */
/* Handles a completion with an error. More follow the first one, because the queue pair is in ERROR. */
int srdma_stream_fail_completion(struct srdma_stream *stream, const struct ibv_wc *wc, const char *what);

/* stream_send.c */
/* Posts the work requests of `count` ops from `first` on, counted from the oldest. */
int srdma_stream_submit(struct srdma_stream *stream, uint32_t first, uint32_t count, bool signaled);
int srdma_stream_send_credits(struct srdma_stream *stream);
void srdma_stream_complete_op(struct srdma_stream *stream);
int srdma_stream_poll_sends(struct srdma_stream *stream);

/* Sends credits alone if half the depth is owed and no message of ours took them along. */
static inline int srdma_stream_return_credits(struct srdma_stream *stream)
{
	if (stream->closing || stream->held || stream->stopped || stream->owed < (stream->depth + 1) / 2 ||
	    stream->op_ring.count >= stream->op_ring.room || !srdma_stream_has_psns(stream, 0, 1))
		return 0;
	return srdma_stream_send_credits(stream);
}

/* stream_receive.c */
int srdma_stream_post_receive(struct srdma_stream *stream, uint32_t slot);

#endif
