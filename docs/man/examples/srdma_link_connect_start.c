/* SPDX-License-Identifier: Apache-2.0 */
/* Sends over a link in an event loop, and leaves pauses and new connections to it. */
#include <errno.h>
#include <securdma_link.h>

/* Whenever srdma_link_fd() is readable. 0: the message is on its way. */
int send_when_possible(struct srdma_link *link, const void *data, size_t length)
{
	int ret = srdma_link_send(link, data, length, 0, NULL);

	/* There is a new connection, and this message was not sent. */
	if (ret == SRDMA_ERECONNECTED)
		ret = srdma_link_send(link, data, length, 0, NULL);
	return ret;
}
