/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of sealed writes and reads know of each other: sealed_rdma.c, which moves them on, sealed_rdma_send.c (chunks of ours), sealed_rdma_take.c
 * (chunks of the peer's). */
#ifndef SRDMA_SEALED_RDMA_PARTS_H
#define SRDMA_SEALED_RDMA_PARTS_H

#include "sealed_rdma.h"

/* sealed_rdma.c */
void srdma_sealed_rdma_note_activity(struct srdma_sealed_rdma *rdma, uint32_t length);
/* In the order of posting. */
void srdma_sealed_rdma_complete_jobs(struct srdma_sealed_rdma *rdma);
/* A ring, when it is first used. */
int srdma_sealed_rdma_make_memory(struct srdma_sealed_rdma *rdma, int access, struct srdma_region *ring);
/* A claim that is settled already: can't be, since what holds one keeps its job from being over. */
int srdma_sealed_rdma_fail_account(void);

/* sealed_rdma_send.c */
bool srdma_sealed_rdma_can_send(const struct srdma_sealed_rdma *rdma);
/* Seals the next chunk of an answer or of a write, or asks for reads. 1; 0: there is nothing that can be sent; or an error. */
int srdma_sealed_rdma_send_next(struct srdma_sealed_rdma *rdma);
/* The chunks that are sealed, if it is time. */
int srdma_sealed_rdma_announce(struct srdma_sealed_rdma *rdma);
int srdma_sealed_rdma_take_ack(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header);

/* sealed_rdma_take.c */
/* A control record of the peer's. */
int srdma_sealed_rdma_execute(struct srdma_sealed_rdma *rdma, const void *data, uint32_t length);
/* Fetches announced chunks. */
int srdma_sealed_rdma_post_pulls(struct srdma_sealed_rdma *rdma);
/* What the oldest read of them fetched has arrived: RC completes in order. */
void srdma_sealed_rdma_finish_pull(void *arg);
bool srdma_sealed_rdma_has_arrived(const struct srdma_sealed_rdma *rdma);
/* Opens the next chunk that has arrived. 1; 0: there is none; or an error. */
int srdma_sealed_rdma_open_next(struct srdma_sealed_rdma *rdma);
int srdma_sealed_rdma_send_acks(struct srdma_sealed_rdma *rdma);

#endif
