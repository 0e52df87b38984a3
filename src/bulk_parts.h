/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of sealed writes and reads know of each other: bulk.c, which moves them on, bulk_send.c (chunks of ours), bulk_take.c
 * (chunks of the peer's). */
#ifndef SRDMA_BULK_PARTS_H
#define SRDMA_BULK_PARTS_H

#include "conn.h"

/* bulk.c */
void srdma_bulk_note_activity(struct srdma_bulk *bulk, uint32_t length);
/* In the order of posting. */
void srdma_bulk_complete_jobs(struct srdma_conn *conn);
/* A ring, when it is first used. */
int srdma_bulk_make_memory(struct srdma_conn *conn, int access, struct srdma_region *ring);
/* A claim that is settled already: can't be, since what holds one keeps its job from being over. */
int srdma_bulk_fail_account(void);

/* bulk_send.c */
bool srdma_bulk_can_send(const struct srdma_conn *conn);
/* Seals the next chunk of an answer or of a write, or asks for reads. 1; 0: there is nothing that can be sent; or an error. */
int srdma_bulk_send_next(struct srdma_conn *conn);
/* The chunks that are sealed, if it is time. */
int srdma_bulk_announce(struct srdma_conn *conn);
int srdma_bulk_take_ack(struct srdma_conn *conn, const struct srdma_bulk_header *header);

/* bulk_take.c */
/* A control record of the peer's. */
int srdma_bulk_execute(struct srdma_conn *conn, const void *data, uint32_t length);
/* Fetches what was announced. */
int srdma_bulk_post_pulls(struct srdma_conn *conn);
/* What the oldest read of them fetched has arrived: RC completes in order. */
void srdma_bulk_finish_pull(void *arg);
bool srdma_bulk_has_arrived(const struct srdma_bulk *bulk);
/* Opens the next chunk that has arrived. 1; 0: there is none; or an error. */
int srdma_bulk_open_next(struct srdma_conn *conn);
int srdma_bulk_send_acks(struct srdma_conn *conn);

#endif
