/* SPDX-License-Identifier: Apache-2.0 */
/* The requester of a connected queue pair: sends posted requests. The device's lock is held in all. */
#ifndef UROCE_REQUESTER_H
#define UROCE_REQUESTER_H

#include "qp.h"

/* RTR to RTS: sq_psn, timeout, retries and others have been stored. */
void requester_start(struct qp *qp);
/* Requests have been posted at sq.tail: starts them, or leaves them to be sent with the next ones. */
void requester_post(struct qp *qp);
/* Sends up to `budget` packets. True when more is ready to go. */
bool requester_pump(struct qp *qp, unsigned budget);
/* A response for this queue pair; its transport and its source have been checked. */
void requester_receive(struct qp *qp, const struct packet *packet);

#endif
