/* SPDX-License-Identifier: Apache-2.0 */
/* Connects by the steps of the library, and waits between them. */
#ifndef TEST_DIAL_TO_H
#define TEST_DIAL_TO_H

#include "clock.h"
#include "dial.h"
#include "net.h"

#include <errno.h>
#include <poll.h>

static inline int dial_to(const char *host, const char *port, uint64_t deadline, int *out)
{
	struct srdma_dial *dial = NULL;
	struct srdma_watch watch;
	int ret = srdma_watch_open(&watch);

	if (ret == 0)
		ret = srdma_dial_start(host, port, "server", deadline, &watch, &dial);
	while (ret == 0 && (ret = srdma_dial_step(dial, out)) == -EAGAIN)
		ret = srdma_net_wait(watch.fd, POLLIN, srdma_dial_due(dial)) == -EINVAL;
	srdma_dial_free(&dial);
	srdma_watch_close(&watch);
	return ret;
}

#endif
