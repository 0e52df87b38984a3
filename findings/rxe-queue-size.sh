#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: ibv_create_qp says that the queue is as long as asked; ibv_query_qp says longer, and the longer one is true.
#
# Guess: create writes the size that it really gave into the caller's cap (its manual says so), query says the same, and the
#        post after that many fails with ENOMEM.
# True:  asked for 4, create leaves 4, query says 7 and 7 requests are taken: the ring is rounded up to a power of two less one. Code
#        that finds its limit by ENOMEM, or sizes a completion queue by cap, is wrong here.
# Version: Linux 6.1.176 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   asked 4, create says 4, query says 7; taken: 7 sends, 7 receives
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	int sends = 0, receives = 0;

	open_device();
	create(&a, 4), create(&b, 4);
	to_init(&a), to_init(&b);
	to_rtr(&a, &b);
	retry_cnt = 6; /* b is not ready, so nothing completes meanwhile */
	to_rts(&a);
	must(!ibv_query_qp(a.qp, &attr, IBV_QP_CAP, &init), "query_qp");
	while (sends < 100 && !post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0))
		sends++;
	while (receives < 100 && !post_recv(&b, 8))
		receives++;
	printf("asked 4, create says %u, query says %u; taken: %d sends, %d receives\n", a.cap.max_send_wr, init.cap.max_send_wr, sends, receives);
	return !(a.cap.max_send_wr == 4 && init.cap.max_send_wr == 7 && sends == 7 && receives == 7);
}
END
