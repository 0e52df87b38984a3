/* SPDX-License-Identifier: Apache-2.0 */
/* usage: client [HOST [PORT]]   with ca.crt, client.crt and client.key in the working folder */
#include <securdma.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	const char *host = argc > 1 ? argv[1] : "localhost", *port = argc > 2 ? argv[2] : SRDMA_DEFAULT_PORT;
	struct srdma_tls_client_options tls;
	struct srdma_device_options any;
	struct srdma_conn_options options;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;
	struct srdma_conn *conn = NULL;
	char reply[4097] = "", region[6] = "";
	size_t length = 0;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	srdma_device_options_init(&any);
	srdma_conn_options_init(&options);
	int failed = srdma_tls_client_new(&tls, &context) || srdma_device_open(&any, &device) ||
		     srdma_conn_connect(host, port, context, device, &options, &conn) ||
		     srdma_conn_send(conn, "hello", 5, -1) ||                       /* a message */
		     srdma_conn_recv(conn, reply, sizeof reply - 1, &length, -1) || /* client id, then the echo */
		     srdma_conn_write(conn, "world", 5, 0, -1) || /* RDMA write to our region of the server */
		     srdma_conn_read(conn, region, 5, 0, -1) ||   /* RDMA read */
		     srdma_conn_disconnect(conn, "done", -1);
	if (failed)
		fprintf(stderr, "client: %s\n", srdma_error_text());
	else
		printf("echo: %s, region: %s\n", reply + SRDMA_ECHO_OVERHEAD, region);
	srdma_conn_delete(&conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return failed;
}
