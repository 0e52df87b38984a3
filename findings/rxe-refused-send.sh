#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a send that ibv_post_send refused, since the queue pair was not in RTS, is sent later all the same.
#
# Guess: a return of EINVAL means that the request was not queued; the caller may post it again or give its buffer back.
# True:  the user-space driver queues the request first and then asks the kernel, which says EINVAL; the request stays in the
#        queue, and all of them leave with the first post in RTS, with completions. A program that posts again sends twice.
# Version: Linux 6.1.176 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   post_send in INIT: Invalid argument, in RTR: Invalid argument
#   in RTS, before another post: none
#   after one more post: 3 sends completed, 3 messages received
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	int in_init, in_rtr, sends = 0, receives = 0, status;

	open_device();
	create(&a, 8), create(&b, 8);
	to_init(&a), to_init(&b);
	for (int i = 0; i < 4; i++)
		must(!post_recv(&b, 64), "post_recv");
	in_init = post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0);
	to_rtr(&a, &b), to_rtr(&b, &a);
	in_rtr = post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0);
	to_rts(&a), to_rts(&b);
	printf("post_send in INIT: %s, in RTR: %s\n", strerror(in_init), strerror(in_rtr));
	printf("in RTS, before another post: %s\n", text(next_status(&a, 1000)));
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0), "post_send");
	while ((status = next_status(&a, 1000)) == IBV_WC_SUCCESS)
		sends++;
	while ((status = next_status(&b, 1000)) == IBV_WC_SUCCESS)
		receives++;
	printf("after one more post: %d sends completed, %d messages received\n", sends, receives);
	return !(in_init == EINVAL && in_rtr == EINVAL && sends == 3 && receives == 3);
}
END
