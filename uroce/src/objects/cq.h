/* SPDX-License-Identifier: Apache-2.0 */
/* Completion queues. */
#ifndef UROCE_CQ_H
#define UROCE_CQ_H

#include "channel.h"

struct cqe {
	struct ibv_wc wc; /* `opcode`, `qp_num` and all others are set even when the status is an error */
	/* Set by cq_push, for queues that want them. */
	uint64_t timestamp; /* nanoseconds of the device's clock, CLOCK_MONOTONIC */
	uint64_t wallclock; /* nanoseconds of CLOCK_REALTIME */
};

struct cq {
	union {
		struct ibv_cq ibv;
		struct ibv_cq_ex ex;
	};
	struct device *device;
	struct context *context;
	struct lock lock; /* guards the ring, the arming and the polling position */
	struct cqe *ring;
	uint32_t size; /* a power of two; ibv.cqe says the same */
	uint32_t head; /* next to take */
	uint32_t tail; /* next to fill */
	atomic_bool some; /* it is not empty: written with the lock, and read without it by polls, most of which find nothing */
	uint32_t touched; /* slots that have ever held something, and must be wiped */
	bool overrun;
	bool ignore_overrun; /* wanted: the newest takes the place of the oldest */
	enum { CQ_QUIET, CQ_ARMED_SOLICITED, CQ_ARMED } armed;
	atomic_uint uses; /* QPs: destroy fails with EBUSY while there are any */
	bool extended;
	bool single_threaded;
	bool timestamp; /* wanted: a clock read per completion */
	bool wallclock; /* wanted: one more */
	/* From start_poll to end_poll. The queue's own lock can't be held that long: the application posts between the two,
	 * and the thread that holds the device's lock may have a completion to push. */
	struct lock poll_lock;
	struct cqe current; /* the completion that the read functions read */
	struct cq_events events;
};

/* Adds a completion, and an event if the queue is armed for it (`solicited`: a solicited receive, or an error). Full: the
 * queue is overrun: IBV_EVENT_CQ_ERR, and nothing is added any more. Any lock above the queue's may be held. */
void cq_push(struct cq *cq, const struct cqe *cqe, bool solicited);
/* Takes a queue pair's completions out: it is being destroyed or reset. */
void cq_remove(struct cq *cq, uint32_t qpn, const struct ibv_srq *keep_srq);

/* The common part of both ways of creation. NULL and errno. */
struct cq *cq_new(struct ibv_context *context, uint32_t cqe, void *cq_context, struct ibv_comp_channel *channel,
		  uint32_t vector);
/* The oldest completions: how many, at most `count`. */
uint32_t cq_take_wcs(struct cq *cq, uint32_t count, struct ibv_wc *wc);
/* The oldest completion with its time; false when there is none. */
bool cq_take(struct cq *cq, struct cqe *out);
/* The verbs, but for those that drive the protocol: poll.c, cq_ex.c. */
struct ibv_cq *cq_create(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			 int vector);
int cq_resize(struct ibv_cq *cq, int cqe);
int cq_destroy(struct ibv_cq *cq);

static inline struct cq *cq_of(struct ibv_cq *cq)
{
	return (struct cq *)cq;
}

#endif
