/* SPDX-License-Identifier: Apache-2.0 */
/* usage: server [PORT]   serves until its standard input ends, with ca.crt, server.crt and server.key in the working folder */
#include <securdma_server.h>
#include <stdio.h>

/* Replies 8 bytes about the client, then its message, as the built-in service does. Runs in the client's thread. */
static int answer(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct srdma_conn_info info;
	char reply[4096];
	(void)reason, (void)client_arg, (void)arg;
	srdma_conn_get_info(conn, &info);
	int n = snprintf(reply, sizeof reply, "%-8.8s%.*s", info.peer_name, (int)length, (const char *)data);
	return srdma_conn_send(conn, reply, n < (int)sizeof reply ? (size_t)n : sizeof reply - 1, SRDMA_DEFAULT_TIMEOUT);
}

int main(int argc, char **argv)
{
	struct srdma_tls_server_options tls;
	struct srdma_server_options options;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;
	struct srdma_server *server = NULL;
	srdma_tls_server_options_init(&tls);
	tls.cert_file = "server.crt";
	tls.key_file = "server.key";
	tls.client_ca_file = "ca.crt";
	srdma_server_options_init(&options);
	options.port = argc > 1 ? argv[1] : options.port;
	options.on_message = answer;
	int failed = srdma_tls_server_new(&tls, &context) || srdma_device_open(NULL, &device) ||
		     srdma_server_start(&options, context, device, &server);
	if (failed)
		fprintf(stderr, "server: %s\n", srdma_error_text());
	while (!failed && getchar() != EOF);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return srdma_server_stop(&server) != 0 || failed;
}
