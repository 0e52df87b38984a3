/* SPDX-License-Identifier: Apache-2.0 */
/* A server that tells what its clients' packets have brought about: each message, and at the end what is in the region. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REGION (1u << 20)

enum { MESSAGE = 1024, WAIT_MS = 1000 };

static void print_text(const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		putchar(bytes[i] < ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\' ? '.' : bytes[i]);
}

/* Tells the number of a long message, and how many of its other bytes are not those that the client sent. */
static int show_long(const unsigned char *data)
{
	unsigned char *right = malloc(GUEST_LONG);
	size_t other = 0;

	if (right == NULL)
		return -ENOMEM;
	guest_fill(right, GUEST_LONG);
	for (size_t i = GUEST_NUMBER; i < GUEST_LONG; i++)
		other += data[i] != right[i];
	printf("{\"event\": \"message\", \"text\": \"");
	print_text(data, GUEST_NUMBER);
	printf("\", \"other\": %zu}\n", other);
	free(right);
	/* As slow as a program may be: meanwhile the seal threads open the messages behind it. */
	nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	return 0;
}

/* And is echoed as the built-in service does. */
static int show(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	char answer[SRDMA_ECHO_OVERHEAD + MESSAGE] = "";

	(void)reason, (void)client_arg, (void)arg;
	if (length == GUEST_LONG)
		return show_long(data);
	if (length > MESSAGE)
		return -EMSGSIZE;
	memcpy(answer + SRDMA_ECHO_OVERHEAD, data, length);
	printf("{\"event\": \"message\", \"text\": \"");
	print_text(data, length);
	puts("\"}");
	return srdma_conn_send(conn, answer, SRDMA_ECHO_OVERHEAD + length, WAIT_MS);
}

/* Its region is still there. */
static void show_end(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	(void)client_arg, (void)arg;
	printf("{\"event\": \"ended\", \"error\": %d, ", status);
	guest_print_bytes(srdma_conn_region(conn), REGION);
	guest_print_seal_bytes(conn);
	puts("}");
}

int guest_host(int argc, char **argv)
{
	struct srdma_tls_server_options tls;
	struct srdma_device_options any;
	struct srdma_server_options options;
	struct srdma_conn_options conn;
	struct srdma_qp_options qp;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_server *server;
	char ca[256], cert[256], key[256];

	snprintf(ca, sizeof(ca), "%s/ca.crt", argv[1]);
	snprintf(cert, sizeof(cert), "%s/%s.crt", argv[1], argv[2]);
	snprintf(key, sizeof(key), "%s/%s.key", argv[1], argv[2]);
	srdma_tls_server_options_init(&tls);
	tls.client_ca_file = ca;
	tls.cert_file = cert;
	tls.key_file = key;
	srdma_device_options_init(&any);
	any.name = getenv("GUEST_DEVICE");
	srdma_server_options_init(&options);
	options.port = argv[4];
	options.workers = 1; /* one event after the other */
	guest_options(&conn, &qp, argc, argv);
	conn.region_size = REGION;
	conn.region_access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
	options.on_message = show;
	options.on_disconnect = show_end;
	options.conn = &conn;
	guest_check(srdma_tls_server_new(&tls, &context), "certificates");
	guest_check(srdma_device_open(&any, &device), "device");
	guest_check(srdma_server_start(&options, context, device, &server), "start");
	printf("{\"event\": \"listening\", \"port\": %u}\n", srdma_server_port(server));
	while (getchar() != EOF)
		;
	srdma_server_stop(&server);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return 0;
}
