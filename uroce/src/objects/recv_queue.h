/* SPDX-License-Identifier: Apache-2.0 */
/* The ring behind a queue pair's own receives and behind shared ones. */
#ifndef UROCE_RECV_QUEUE_H
#define UROCE_RECV_QUEUE_H

#include "cq.h"
#include "memory.h"

struct recv_wqe {
	uint64_t wr_id;
	uint32_t length; /* sum of the entries */
	uint32_t sges;
	struct ibv_sge sge[]; /* room for the queue's max_sge */
};

/* A queue pair's own, or a shared one. */
struct recv_queue {
	struct lock lock; /* of those who post; guards all but `head` */
	struct pd *pd; /* that the entries' keys belong to */
	uint8_t *ring; /* recv_wqe, `stride` bytes each */
	size_t stride;
	uint32_t size; /* a power of two, at least max_wr */
	uint32_t max_wr;
	uint32_t max_sge;
	_Atomic uint32_t head; /* next to take; changed with the device's lock, under which alone others change what is taken from */
	_Atomic uint32_t tail; /* next to fill */
	bool closed;   /* the queue pair is in RESET: nothing may be posted; never set for a shared one */
	bool dead;     /* the queue pair is in ERR: a post is flushed at once; never set for a shared one */
	_Atomic uint32_t limit; /* shared: below it, one IBV_EVENT_SRQ_LIMIT_REACHED; 0: none */
	struct srq *srq; /* that it is part of; NULL: a queue pair's own */
	/* Of the queue pair whose own queue it is: flushed receives complete there, with this number. */
	struct cq *cq;
	uint32_t qpn;
};

struct srq {
	struct ibv_srq ibv;
	struct context *context;
	struct recv_queue rq;
	atomic_uint uses;
	bool has_number; /* for pyverbs: XRC is not offered */
};

enum recv_answer {
	RECV_TAKEN,
	RECV_NONE,
	RECV_TOO_SHORT,
};

/* A receive that was taken out of its queue. */
struct recv_taken {
	uint64_t wr_id;
	uint32_t length;
	uint32_t sges;
	struct ibv_sge sge[MAX_SGE];
};

/* 0 or -ENOMEM. rq->max_wr becomes the number of receives that the ring holds. */
int recv_queue_init(struct recv_queue *rq, struct pd *pd, uint32_t max_wr, uint32_t max_sge);
/* Wipes and frees. A queue of zeros is fine too. */
void recv_queue_clear(struct recv_queue *rq);
/* 0, -EINVAL when more are waiting than would fit, -ENOMEM. Both locks are taken. */
int recv_queue_resize(struct recv_queue *rq, uint32_t max_wr);
/* 0 or a positive errno, as ibv_post_recv(3) says. */
int recv_queue_post(struct recv_queue *rq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
/* Takes the oldest. False when there is none. Raises the limit event of a shared queue. The device's lock is held. */
bool recv_queue_take(struct recv_queue *rq, struct recv_taken *out);
/* The same for a message of that length: leaves a shorter receive where it is. */
enum recv_answer recv_queue_take_for(struct recv_queue *rq, uint32_t length, struct recv_taken *out);

/* Completes a receive of the queue pair whose own queue this is with a flush error. */
void recv_queue_push_flushed(const struct recv_queue *rq, uint64_t wr_id);
/* The states of a queue pair, as its own receive queue sees them. */
void recv_queue_open(struct recv_queue *rq);
void recv_queue_close(struct recv_queue *rq); /* drops the posted receives */
void recv_queue_flush(struct recv_queue *rq); /* from now on all receives complete with a flush error */

/* The verbs of a shared one. */
struct ibv_srq *srq_create(struct ibv_pd *pd, struct ibv_srq_init_attr *attr);
struct ibv_srq *srq_create_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr);
int srq_modify(struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask);
int srq_query(struct ibv_srq *srq, struct ibv_srq_attr *attr);
int srq_destroy(struct ibv_srq *srq);
int srq_post_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

#endif
