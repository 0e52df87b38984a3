/* SPDX-License-Identifier: Apache-2.0 */
/* Polling and arming of completion queues: an application that polls drives the protocol. */
#include "engine.h"
#include "verbs.h"
#include "wake.h"

int cq_poll(struct ibv_cq *ibv_cq, int count, struct ibv_wc *wc)
{
	struct cq *cq = cq_of(ibv_cq);
	if (count <= 0)
		return 0;
	uint32_t got = cq_take_wcs(cq, (uint32_t)count, wc);
	if (got == 0) {
		engine_poll(cq->device);
		got = cq_take_wcs(cq, (uint32_t)count, wc);
	}
	return (int)got;
}

int cq_req_notify(struct ibv_cq *ibv_cq, int solicited_only)
{
	struct cq *cq = cq_of(ibv_cq);
	lock_take(&cq->lock);
	if (!solicited_only)
		cq->armed = CQ_ARMED;
	else if (cq->armed == CQ_QUIET)
		cq->armed = CQ_ARMED_SOLICITED;
	lock_give(&cq->lock);
	wake_on_arming(cq->device);
	return 0;
}
