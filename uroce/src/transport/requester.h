/* SPDX-License-Identifier: Apache-2.0 */
/* The requester of a connected queue pair: sends posted requests (requester.c), and takes the answers (answer.c). The device's lock
 * is held in all. */
#ifndef UROCE_REQUESTER_H
#define UROCE_REQUESTER_H

#include "qp.h"

/* Whether the state lets requests out, and answers in. */
static inline bool requester_may_send(const struct qp *qp)
{
	return qp->state == IBV_QPS_RTS || qp->state == IBV_QPS_SQD;
}

/* RTR to RTS: sq_psn, timeout, retries and others have been stored. */
void requester_start(struct qp *qp);
/* Requests have been posted at sq.tail: starts them, or leaves them to be sent with the next ones. */
void requester_post(struct qp *qp);
/* Sends up to `budget` packets. True when more is ready to go. */
bool requester_pump(struct qp *qp, unsigned budget);
/* The operation of a packet of a SEND or WRITE: of its first, of its last, or of both. */
uint8_t requester_operation(const struct send_wqe *wqe, bool first, bool last);
/* Whether the next packet must wait for its time; then a timer is set. */
bool requester_must_pace(struct qp *qp);
/* Sends `count` packets of a request again, from `psn` on; of a READ, asks for them again. False: that can't be done, or memory of the
 * payload is not there. */
bool requester_repeat(struct qp *qp, struct send_wqe *wqe, uint32_t psn, uint32_t count);
/* A response for this queue pair; its transport and its source have been checked. */
void requester_receive(struct qp *qp, const struct packet *packet);

#endif
