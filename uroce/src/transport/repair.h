/* SPDX-License-Identifier: Apache-2.0 */
/* What a requester knows to be missing of its flight, though later packets have arrived: requests, from the reports of a peer that
 * keeps what comes ahead of a gap (hold.c), and answers to READs, which it takes ahead of a gap itself. Only what is missing is sent,
 * or asked for, again. The device's lock is held in all. */
#ifndef UROCE_REPAIR_H
#define UROCE_REPAIR_H

#include "qp.h"

/* A report of the peer. */
void repair_take_report(struct qp *qp, const struct packet *packet);
/* The answer to a READ came ahead of others: takes it. False: it is none, or there is no memory, and the flight must go back. */
bool repair_take_answer(struct qp *qp, const struct packet *packet);
/* Whether the next packet that is awaited has been taken already: then it is done with. */
bool repair_has_answer(struct qp *qp, uint32_t psn);
/* What lies before answers that have been taken, and needs none itself, has been executed. */
void repair_acknowledge(struct qp *qp);
/* All up to `psn` has been executed, but answers to READs or atomics before it are missing. False: the flight must go back. */
bool repair_miss_answers(struct qp *qp, uint32_t psn);
/* The request, or answer, at `psn` is missing, and all behind it may be. False: the flight must go back. */
bool repair_miss(struct qp *qp, uint32_t psn);
/* The same, without a doubt: it is sent again at once. */
bool repair_probe(struct qp *qp);
/* The flight has advanced by `answered` packets. Returns how many of them were known to have arrived. */
uint32_t repair_advance(struct qp *qp, uint32_t answered);
/* The flight goes back: nothing is known any more. */
void repair_forget(struct qp *qp);
void repair_free(struct qp *qp);

/* Packets of the flight that have arrived, or are lost and were not sent again: they are not on their way. */
uint32_t repair_landed(const struct requester *req);
/* Sends what is due. True: there is more, and the link was not ready. */
bool repair_pump(struct qp *qp);
/* When something is due; UINT64_MAX: nothing. */
uint64_t repair_next(const struct qp *qp);

#endif
