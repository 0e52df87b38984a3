/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that the files of sealed writes and reads share: sealed_rdma.c drives them, sealed_rdma_send.c sends this end's
 * chunks, sealed_rdma_take.c takes the peer's. */
#ifndef SRDMA_SEALED_RDMA_PARTS_H
#define SRDMA_SEALED_RDMA_PARTS_H

#include "sealed_rdma.h"

/* sealed_rdma.c */
void srdma_sealed_rdma_note_activity(struct srdma_sealed_rdma *rdma, uint32_t length);
/* A region that this end offers; NULL: it offers none of this id. */
const struct srdma_region *srdma_sealed_rdma_region(const struct srdma_sealed_rdma *rdma, uint16_t id);
/* Completes the jobs that are over, in the order of posting. One that notifies the peer first sends the notice, when it can. */
int srdma_sealed_rdma_complete_jobs(struct srdma_sealed_rdma *rdma);
/* Makes the memory of a ring, unless it exists. */
int srdma_sealed_rdma_make_memory(struct srdma_sealed_rdma *rdma, int access, struct srdma_region *ring);
/* Records the error of a claim on a job that is over, and returns it. */
int srdma_sealed_rdma_fail_account(void);

/* sealed_rdma_send.c */
bool srdma_sealed_rdma_can_send(const struct srdma_sealed_rdma *rdma);
/* Seals the next chunk of an answer or of a write, or asks for reads. 1; 0: nothing can be sent now; or an error. */
int srdma_sealed_rdma_send_next(struct srdma_sealed_rdma *rdma);
/* Puts the chunks that other threads or this one have sealed into the announcement to come, in their order. */
int srdma_sealed_rdma_gather(struct srdma_sealed_rdma *rdma);
/* Whether srdma_sealed_rdma_gather would find any. */
bool srdma_sealed_rdma_can_gather(const struct srdma_sealed_rdma *rdma);
/* Announces the chunks that are sealed, if it is time. */
int srdma_sealed_rdma_announce(struct srdma_sealed_rdma *rdma);
int srdma_sealed_rdma_take_ack(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_header *header);

/* sealed_rdma_take.c */
/* Executes a control record of the peer's. */
int srdma_sealed_rdma_execute(struct srdma_sealed_rdma *rdma, const void *data, uint32_t length);
/* Posts RDMA reads of the chunks that the peer has announced. */
int srdma_sealed_rdma_post_pulls(struct srdma_sealed_rdma *rdma);
/* The oldest of these reads has completed. RC completes in order. */
void srdma_sealed_rdma_finish_pull(void *arg);
/* Whether srdma_sealed_rdma_open_next would do anything. */
bool srdma_sealed_rdma_can_open(const struct srdma_sealed_rdma *rdma);
/* Opens the next chunk that has arrived, or hands it to the lane; or takes one that the lane has opened. 1; 0: there is none; or an
 * error. */
int srdma_sealed_rdma_open_next(struct srdma_sealed_rdma *rdma);
int srdma_sealed_rdma_send_acks(struct srdma_sealed_rdma *rdma);

#endif
