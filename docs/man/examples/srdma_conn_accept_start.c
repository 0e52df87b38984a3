/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for what the next step needs: the events and the time change from step to step. */
#include <errno.h>
#include <poll.h>
#include <securdma.h>

int accept_whole(struct srdma_accept **accept, struct srdma_conn **conn)
{
	int ret;

	while ((ret = srdma_accept_step(*accept, conn)) == -EAGAIN) {
		struct pollfd fd = {srdma_accept_fd(*accept), srdma_accept_events(*accept), 0};

		poll(&fd, 1, srdma_accept_left_ms(*accept));
	}
	srdma_accept_free(accept);
	return ret;
}
