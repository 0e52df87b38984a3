/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol: a requester and a responder per connected queue pair, and datagrams. The device's lock is held in all. */
#ifndef UROCE_TRANSPORT_H
#define UROCE_TRANSPORT_H

#include "engine.h"
#include "qp.h"

/* RESET to INIT, INIT to RTR (rq_psn, max_dest_rd_atomic...), RTR to RTS (sq_psn, timeout, retries): qp_modify.c calls
 * these after it has stored the attributes. */
void requester_start(struct qp *qp);
int responder_start(struct qp *qp); /* 0 or -ENOMEM */
/* On the way to RESET or ERR, or at destruction: timers off, rings of saved results freed and wiped. */
void requester_stop(struct qp *qp);
void responder_stop(struct qp *qp);

/* New work has been posted at sq.tail: starts it, or leaves it to be sent with what comes next. */
void requester_post(struct qp *qp);

/* Sends up to `budget` packets. True when more is ready to go. */
bool requester_pump(struct qp *qp, unsigned budget);
bool responder_pump(struct qp *qp, unsigned budget);
bool datagram_pump(struct qp *qp, unsigned budget);

/* A packet for this queue pair; transport (RC, UC, UD) and source have been checked. */
void requester_receive(struct qp *qp, const struct packet *packet);
void responder_receive(struct qp *qp, const struct packet *packet);
void datagram_receive(struct qp *qp, const struct packet *packet, const struct packet_path *path);

/* Copies into a posted receive's entries from `offset`. IBV_WC_SUCCESS, _LOC_LEN_ERR, _LOC_PROT_ERR. */
enum ibv_wc_status receive_scatter(const struct recv_queue *rq, const struct recv_taken *receive, uint32_t offset,
				   const uint8_t *from, uint32_t length);
/* Pieces of a send's message: bytes offset to offset + length, as at most LINK_MAX_PIECES pieces. -EFAULT: a local key. */
int send_gather(struct qp *qp, struct send_wqe *wqe, uint32_t offset, uint32_t length, struct packet_out *out);
/* Copies into a send's entries: READ and atomic results. False: a local key. */
bool send_scatter(struct qp *qp, const struct send_wqe *wqe, uint32_t offset, const uint8_t *from, uint32_t length);

#endif
