/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in service: every message comes back behind the client's id. Writes and reads on the client's region need no
 * code: the device serves them. */
#include "cursor.h"
#include "server.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int echo_connect(struct srdma_conn *conn, void **client_arg, void *arg)
{
	(void)arg;
	*client_arg = malloc(conn->queues.message_size);
	return *client_arg ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

static int echo_message(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct srdma_writer reply;
	size_t most = conn->queues.message_size - SRDMA_ECHO_OVERHEAD;
	int ret;

	(void)arg;
	if (length > most) {
		snprintf(reason, SRDMA_REASON_MAX + 1, "a message of %zu byte%s cannot be echoed: at most %zu", length, SRDMA_S(length), most);
		return -EMSGSIZE;
	}
	srdma_writer_init(&reply, client_arg, conn->queues.message_size);
	srdma_put_u64(&reply, conn->client_id);
	srdma_put_bytes(&reply, data, length);
	/* Without room the server keeps the message and hands it over again when there is room, so that other clients need not wait. */
	ret = srdma_conn_send(conn, client_arg, srdma_writer_length(&reply), 0);
	if (ret != 0 && ret != -EAGAIN)
		snprintf(reason, SRDMA_REASON_MAX + 1, "the echo could not be sent: %s", srdma_strerror(ret));
	return ret;
}

static void echo_disconnect(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	(void)conn;
	(void)status;
	(void)arg;
	free(client_arg);
}

void srdma_echo_use(struct srdma_server_options *options)
{
	options->on_connect = echo_connect;
	options->on_message = echo_message;
	options->on_disconnect = echo_disconnect;
}
