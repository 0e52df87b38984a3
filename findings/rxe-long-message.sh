#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a message longer than its receive is not a length error at either end.
#
# Guess: the receiver gets IBV_WC_LOC_LEN_ERR and the sender IBV_WC_REM_INV_REQ_ERR, as the specification and hardware have it.
# True:  the receiver gets IBV_WC_LOC_QP_OP_ERR, the sender IBV_WC_REM_OP_ERR: neither says that a size is wrong.
# Version: Linux 6.1.176 of Debian 12; 6.12 and 7.2 do the same.
#
# Output seen:
#   64 bytes into a receive of 8: sender "remote operation error", receiver "local QP operation error"
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	int sender, receiver;

	open_device();
	connect_ends(&a, &b, 4);
	must(!post_recv(&b, 8), "post_recv");
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 64, 0), "post_send");
	sender = next_status(&a, 5000), receiver = next_status(&b, 5000);
	printf("64 bytes into a receive of 8: sender \"%s\", receiver \"%s\"\n", text(sender), text(receiver));
	return !(sender == IBV_WC_REM_OP_ERR && receiver == IBV_WC_LOC_QP_OP_ERR);
}
END
