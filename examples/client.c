/* SPDX-License-Identifier: Apache-2.0 */
/* usage: client [HOST [PORT]]   with ca.crt, client.crt and client.key in the working folder */
#include <securdma.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	const char *host = argc > 1 ? argv[1] : "localhost", *port = argc > 2 ? argv[2] : SRDMA_DEFAULT_PORT;
	struct srdma_tls_client_options tls;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;
	struct srdma_conn *conn = NULL;
	char reply[4097] = "", region[6] = "";
	size_t length = 0;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	int failed = srdma_tls_client_new(&tls, &context) || srdma_device_open(NULL, &device) || /* any device */
		     srdma_conn_connect(host, port, context, device, NULL, &conn) ||
		     srdma_conn_send(conn, "hello", 5, SRDMA_DEFAULT_TIMEOUT) || /* a message */
		     srdma_conn_recv(conn, reply, sizeof reply - 1, &length, SRDMA_DEFAULT_TIMEOUT) || /* id and echo */
		     srdma_conn_write(conn, "world", 5, 0, SRDMA_DEFAULT_TIMEOUT) || /* RDMA write to our region of the server */
		     srdma_conn_read(conn, region, 5, 0, SRDMA_DEFAULT_TIMEOUT) ||   /* RDMA read */
		     srdma_conn_disconnect(conn, "done", SRDMA_DEFAULT_TIMEOUT);
	if (failed)
		fprintf(stderr, "client: %s\n", srdma_error_text());
	else
		printf("echo: %s, region: %s\n", reply + SRDMA_ECHO_OVERHEAD, region);
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return failed;
}
