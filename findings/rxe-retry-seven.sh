#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: retry_cnt = 7 means for ever.
#
# Guess: 7 is for ever for rnr_retry alone; retry_cnt counts, so 7 retries end with IBV_WC_RETRY_EXC_ERR about one timeout later than 6.
# True:  with 7, the value that most programs use, a send to a peer that is gone never completes. With 6 it does.
# Version: Linux 6.1.176 of Debian 12. (20 s were waited, where eight time-outs of 67 ms would have been enough.)
#
# Output seen:
#   retry_cnt 6: transport retry counter exceeded
#   retry_cnt 7: none
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	int status[8];

	open_device();
	for (retry_cnt = 6; retry_cnt <= 7; retry_cnt++) {
		create(&a, 4), create(&b, 4);
		to_init(&a), to_init(&b);
		to_rtr(&a, &b);
		to_rts(&a);
		must(!ibv_destroy_qp(b.qp), "destroy_qp"); /* nobody will answer */
		must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0), "post_send");
		status[retry_cnt] = next_status(&a, 20000); /* the timeout is 67 ms: 8 tries take less than 1 s */
		printf("retry_cnt %d: %s\n", retry_cnt, text(status[retry_cnt]));
	}
	return !(status[6] == IBV_WC_RETRY_EXC_ERR && status[7] == -1);
}
END
