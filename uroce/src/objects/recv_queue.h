/* SPDX-License-Identifier: Apache-2.0 */
/* The ring behind a queue pair's own receives and behind shared ones. */
#ifndef UROCE_RECV_QUEUE_H
#define UROCE_RECV_QUEUE_H

#include "qp.h"

/* Size of the ring that `max_wr` receives get: a power of two. */
uint32_t queue_size(uint32_t max_wr);

/* 0 or -ENOMEM. `max_wr` becomes what the ring holds. */
int recv_queue_init(struct recv_queue *rq, struct pd *pd, uint32_t max_wr, uint32_t max_sge);
/* Wipes and frees. A queue of zeros is fine too. */
void recv_queue_clear(struct recv_queue *rq);
/* 0, -EINVAL when more are waiting than would fit, -ENOMEM. The lock is taken. */
int recv_queue_resize(struct recv_queue *rq, uint32_t max_wr);
/* 0 or a positive errno, as ibv_post_recv(3) says. `qp` has the completion queue for posts to a dead queue. */
int recv_queue_post(struct recv_queue *rq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad, const struct qp *qp);

/* The states of a queue pair, as its own receive queue sees them. */
void recv_queue_open(struct recv_queue *rq);
void recv_queue_close(struct recv_queue *rq); /* drops what is posted */
void recv_queue_flush(struct qp *qp);         /* completes what is posted, and what will be, with a flush error */

#endif
