/* SPDX-License-Identifier: Apache-2.0 */
/* A server that greets its clients and answers each message, and whose handlers never wait. */
#include <securdma_server.h>

int greet(struct srdma_conn *conn, void **client_arg, void *arg)
{
	(void)client_arg;
	(void)arg;
	return srdma_conn_send(conn, "welcome", 7, 0);
}

int answer(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	(void)reason;
	(void)client_arg;
	(void)arg;
	/* -EAGAIN: it is called with this message again when there is room to send. */
	return srdma_conn_send(conn, data, length, 0);
}

int start(struct srdma_tls_context *tls, struct srdma_device *device, struct srdma_server **out)
{
	struct srdma_server_options options;

	srdma_server_options_init(&options);
	options.workers = SRDMA_WORKERS_AUTO;
	options.on_connect = greet;
	options.on_message = answer;
	return srdma_server_start(&options, tls, device, out);
}
