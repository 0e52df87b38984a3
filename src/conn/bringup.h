/* SPDX-License-Identifier: Apache-2.0 */
/* What the two sides of the set-up share: bringup.c (the steps of either, and the connecting side) and accept.c. */
#ifndef SRDMA_BRINGUP_H
#define SRDMA_BRINGUP_H

#include "conn.h"

struct srdma_setup {
	struct srdma_conn *conn;
	uint64_t start;
	uint64_t deadline;
};

int srdma_setup_describe_peer(struct srdma_setup *setup, int fd);
/* GID, PSN and verbs objects of this end; accounts the time to the QP phase. */
int srdma_setup_prepare_self(struct srdma_setup *setup, uint32_t message_size, uint32_t depth);
/* Both ends are known: settles the common limits, then RTR and RTS. */
int srdma_setup_connect_queue_pair(struct srdma_setup *setup);
/* The last step at either end: keys, epochs, what to wait on. */
int srdma_setup_finish(struct srdma_setup *setup);
/* Whether the peer's HELLO or WELCOME fits this end; fills *reject. */
int srdma_setup_check_fit(const struct srdma_setup *setup, struct srdma_reject *reject);
/* A peer may name no other host than itself as the one to send to. */
int srdma_setup_check_gid(const struct srdma_setup *setup, struct srdma_reject *reject);
/* Sends HELLO or WELCOME, waiting for room until `deadline`. */
int srdma_setup_send_self(struct srdma_setup *setup, enum srdma_frame_type type, uint64_t deadline);
void srdma_setup_finish_timing(struct srdma_setup *setup);

#endif
