/* SPDX-License-Identifier: Apache-2.0 */
/* Between messages and the scatter/gather lists of work requests. The device's lock is held in all. */
#ifndef UROCE_GATHER_H
#define UROCE_GATHER_H

#include "qp.h"

/* Pieces of a send's message: bytes offset to offset + length, as at most LINK_MAX_PIECES pieces. -EFAULT: a local key. */
int send_gather(struct qp *qp, struct send_wqe *wqe, uint32_t offset, uint32_t length, struct packet_out *out);
/* Copies into a send's entries: READ and atomic results. False: a local key. */
bool send_scatter(struct qp *qp, const struct send_wqe *wqe, uint32_t offset, const uint8_t *from, uint32_t length);
/* Copies into a posted receive's entries from `offset`. IBV_WC_SUCCESS, _LOC_LEN_ERR, _LOC_PROT_ERR. */
enum ibv_wc_status receive_scatter(const struct recv_queue *rq, const struct recv_taken *receive, uint32_t offset,
				   const uint8_t *from, uint32_t length);

#endif
