/* SPDX-License-Identifier: Apache-2.0 */
#include "notifier.h"

#include "conn.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int srdma_notifier_init(struct srdma_notifier *notifier, struct srdma_device *device, int wake_fd)
{
	struct ibv_comp_channel *channel = ibv_create_comp_channel(srdma_device_context(device));
	int flags = channel ? fcntl(channel->fd, F_GETFL) : -1;

	if (flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
		int error = errno;

		if (channel)
			ibv_destroy_comp_channel(channel);
		return srdma_fail(SRDMA_EVERBS, "cannot make a completion channel on %s: %s", srdma_device_name(device),
				  strerror(error));
	}
	*notifier = (struct srdma_notifier){.channel = channel, .wake_fd = wake_fd};
	return 0;
}

void srdma_notifier_release(struct srdma_notifier *notifier)
{
	if (notifier->channel && ibv_destroy_comp_channel(notifier->channel) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot destroy a completion channel: %s", strerror(errno));
	notifier->channel = NULL;
}

void srdma_notifier_add(struct srdma_notifier *notifier, struct srdma_conn *conn)
{
	if (conn->noted)
		return;
	conn->noted = true;
	conn->next_noted = NULL;
	if (notifier->last)
		notifier->last->next_noted = conn;
	else
		notifier->first = conn;
	notifier->last = conn;
}

struct srdma_conn *srdma_notifier_next(struct srdma_notifier *notifier)
{
	struct srdma_conn *conn = notifier->first;

	if (conn)
		srdma_notifier_remove(notifier, conn);
	return conn;
}

void srdma_notifier_remove(struct srdma_notifier *notifier, struct srdma_conn *conn)
{
	struct srdma_conn *before = NULL;

	if (!conn->noted)
		return;
	for (struct srdma_conn *at = notifier->first; at != conn; at = at->next_noted)
		before = at;
	if (before)
		before->next_noted = conn->next_noted;
	else
		notifier->first = conn->next_noted;
	if (notifier->last == conn)
		notifier->last = before;
	conn->noted = false;
}

void srdma_notifier_take(struct srdma_notifier *notifier)
{
	struct srdma_conn *conn;

	while ((conn = srdma_conn_take_cq_event(notifier->channel)) != NULL)
		srdma_notifier_add(notifier, conn);
}
