#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a completion queue armed for solicited events is silent when a send fails.
#
# Guess: "solicited only" filters successful receives; a completion with an error always makes an event, as the manual of
#        ibv_req_notify_cq and the InfiniBand specification say. So one who waits for failures may arm for solicited ones alone.
# True:  the failed send is in the queue, and no event comes. Only a flushed receive makes one.
# Version: Linux 6.1.176 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   WRITE with a wrong key: remote access error, event 0
#   flushed receive: Work Request Flushed Error, event 1
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	struct ibv_cq *cq;
	void *context;
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	int status, event, flushed, flush_event;

	open_device();
	connect_ends(&a, &b, 4);
	must(!ibv_req_notify_cq(a.cq, 1), "req_notify_cq");
	must(!post_send(&a, IBV_WR_RDMA_WRITE, IBV_SEND_SIGNALED, 8, mr->rkey ^ 0x7f00), "post_send");
	status = next_status(&a, 5000);
	usleep(1000000);
	event = !ibv_get_cq_event(a.channel, &cq, &context);
	printf("WRITE with a wrong key: %s, event %d\n", text(status), event);

	connect_ends(&a, &b, 4);
	must(!post_recv(&b, 8), "post_recv");
	must(!ibv_req_notify_cq(b.cq, 1), "req_notify_cq");
	must(!ibv_modify_qp(b.qp, &error, IBV_QP_STATE), "ERR");
	flushed = next_status(&b, 5000);
	usleep(1000000);
	flush_event = !ibv_get_cq_event(b.channel, &cq, &context);
	printf("flushed receive: %s, event %d\n", text(flushed), flush_event);
	return !(status == IBV_WC_REM_ACCESS_ERR && !event && flushed == IBV_WC_WR_FLUSH_ERR && flush_event);
}
END
