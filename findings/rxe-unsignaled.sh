#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a send queue never fills up with unsignaled requests, though nobody polls a completion.
#
# Guess: entries of unsignaled requests are free again only when a later signaled one's completion was polled, as with
#        hardware, so after max_send_wr of them the next post fails with ENOMEM for ever.
# True:  the kernel frees each entry when the peer acknowledges it, so a program without any signaled request runs on rxe for ever, and
#        stops on hardware.
# Version: Linux 6.1.176 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   queue of 4: 400 unsignaled WRITEs posted, 0 completions
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	struct ibv_wc wc;
	int posted = 0, tries, completions;

	open_device();
	connect_ends(&a, &b, 4);
	for (; posted < 400; posted++) {
		for (tries = 0; tries < 2000 && post_send(&a, IBV_WR_RDMA_WRITE, 0, 8, mr->rkey); tries++)
			usleep(1000);
		if (tries == 2000)
			break;
	}
	completions = ibv_poll_cq(a.cq, 1, &wc);
	printf("queue of %u: %d unsignaled WRITEs posted, %d completions\n", a.cap.max_send_wr, posted, completions);
	return !(posted == 400 && completions == 0);
}
END
