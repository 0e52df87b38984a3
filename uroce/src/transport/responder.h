/* SPDX-License-Identifier: Apache-2.0 */
/* The responder of a connected queue pair: executes its peer's requests. The device's lock is held in all. */
#ifndef UROCE_RESPONDER_H
#define UROCE_RESPONDER_H

#include "qp.h"

/* INIT to RTR: rq_psn, max_dest_rd_atomic and others have been stored. 0 or -ENOMEM. */
int responder_start(struct qp *qp);
/* Sends up to `budget` packets. True when more is ready to go. */
bool responder_pump(struct qp *qp, unsigned budget);
/* A request for this queue pair; its transport (RC or UC) and its source have been checked. */
void responder_receive(struct qp *qp, const struct packet *packet);

#endif
