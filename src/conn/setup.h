/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a set-up that both ends take: connect.c and accept.c have the others. docs/PROTOCOL.md. */
#ifndef SRDMA_SETUP_H
#define SRDMA_SETUP_H

#include "conn.h"

struct srdma_setup {
	struct srdma_conn *conn;
	uint64_t start;
	uint64_t deadline;
};

/* Chooses the GID, draws the PSN and makes the verbs objects of this end; adds the time to the QP phase. */
int srdma_setup_prepare_self(struct srdma_setup *setup, uint32_t message_size, uint32_t depth);
/* Settles the parameters that both ends agree on, then takes the queue pair to RTR and RTS. */
int srdma_setup_connect_queue_pair(struct srdma_setup *setup);
/* The server's: takes over what the client offered, and this end wants too. */
void srdma_setup_answer_offers(struct srdma_setup *setup);
/* Takes the frame PRIVATE_DATA that the peer announced, from the inbox. */
int srdma_setup_take_private_data(struct srdma_setup *setup);
/* The last step at either end: keys, epochs, descriptors to wait on. */
int srdma_setup_finish(struct srdma_setup *setup);
/* Whether the peer's HELLO or WELCOME fits this end; fills *reject. */
int srdma_setup_check_fit(const struct srdma_setup *setup, struct srdma_reject *reject);
/* Whether the peer may name this GID: a peer must not make this end send to any host but the peer's own. */
int srdma_setup_check_gid(const struct srdma_setup *setup, struct srdma_reject *reject);
/* Queues HELLO or WELCOME and the private data that it announces in the outbox, and sends what there is room for. */
int srdma_setup_send_self(struct srdma_setup *setup, enum srdma_frame_type type);
void srdma_setup_finish_timing(struct srdma_setup *setup);

#endif
