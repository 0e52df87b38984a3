/* SPDX-License-Identifier: Apache-2.0 */
/* A key-value server. A client sets a value by a message, and gets one by reading the server's table with RDMA: the server's program
 * takes no part in that. Each client has a table of its own to read, since each has a region of its own.
 * usage: kv PORT                       serves until its standard input ends; ca.crt, server.crt and server.key lie in the working folder
 *        kv HOST PORT set KEY VALUE    ca.crt, client.crt and client.key lie in the working folder
 *        kv HOST PORT get KEY */
#include <errno.h>
#include <securdma_server.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 512, CLIENTS = 10 };

/* A reader may see a slot that is being written: then the sum is wrong, and it reads once more. */
struct slot {
	char key[24], value[96];
	uint64_t sum;
};

static uint64_t sum_of(const void *data, size_t length)
{
	uint64_t sum = 14695981039346656037u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		sum = (sum ^ ((const unsigned char *)data)[i]) * 1099511628211u;
	return sum;
}

static size_t slot_of(const char *key)
{
	return sum_of(key, strlen(key)) % SLOTS;
}

/* ---- the server: one worker, so its functions need no lock ------------------------------------------------------ */

static struct slot table[SLOTS];
static struct srdma_conn *clients[CLIENTS];

static int greet(struct srdma_conn *conn, void **client_arg, void *arg)
{
	(void)arg;
	for (int i = 0; i < CLIENTS; i++) {
		if (clients[i])
			continue;
		clients[i] = conn;
		*client_arg = &clients[i];
		memcpy(srdma_conn_region(conn), table, sizeof table);
		return srdma_conn_send(conn, "ready", 5, 0);
	}
	return -ENOSPC;
}

static void forget(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	(void)conn, (void)status, (void)arg;
	if (client_arg)
		*(struct srdma_conn **)client_arg = NULL;
}

static int set(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct slot slot = {.sum = 0};
	size_t i;

	(void)client_arg, (void)arg;
	memcpy(&slot, data, length < offsetof(struct slot, sum) ? length : offsetof(struct slot, sum));
	slot.key[sizeof slot.key - 1] = slot.value[sizeof slot.value - 1] = '\0';
	i = slot_of(slot.key);
	if (table[i].key[0] && strcmp(table[i].key, slot.key) != 0) {
		snprintf(reason, 128, "the place of '%s' is taken", slot.key);
		return -EEXIST;
	}
	slot.sum = sum_of(&slot, offsetof(struct slot, sum));
	table[i] = slot;
	for (int c = 0; c < CLIENTS; c++)
		if (clients[c])
			((struct slot *)srdma_conn_region(clients[c]))[i] = slot;
	/* Last, because the client may read as soon as it knows. With -EAGAIN the function is called again, and writes the same. */
	return srdma_conn_send(conn, "set", 3, 0);
}

static int serve(const char *port, struct srdma_device *device)
{
	struct srdma_tls_server_options tls;
	struct srdma_conn_options conn;
	struct srdma_server_options options;
	struct srdma_tls_context *context = NULL;
	struct srdma_server *server = NULL;
	int ret;

	srdma_tls_server_options_init(&tls);
	tls.cert_file = "server.crt";
	tls.key_file = "server.key";
	tls.client_ca_file = "ca.crt";
	srdma_server_conn_options_init(&conn);
	conn.region_size = sizeof table;
	conn.region_access = IBV_ACCESS_REMOTE_READ;
	srdma_server_options_init(&options);
	options.port = port;
	options.conn = &conn;
	options.workers = 1;
	options.on_connect = greet;
	options.on_message = set;
	options.on_disconnect = forget;
	ret = srdma_tls_server_new(&tls, &context);
	if (ret == 0)
		ret = srdma_server_start(&options, context, device, &server);
	srdma_tls_context_unref(&context);
	while (ret == 0 && getchar() != EOF)
		;
	return srdma_server_stop(&server) == 0 ? ret : -EIO;
}

/* ---- the client ------------------------------------------------------------------------------------------------- */

static int get(struct srdma_conn *conn, const char *key)
{
	struct slot slot;
	int ret;

	do
		ret = srdma_conn_read(conn, &slot, sizeof slot, slot_of(key) * sizeof slot, SRDMA_DEFAULT_TIMEOUT);
	while (ret == 0 && slot.key[0] && slot.sum != sum_of(&slot, offsetof(struct slot, sum)));
	if (ret == 0)
		printf("%s\n", strcmp(slot.key, key) == 0 ? slot.value : "not set");
	return ret;
}

static int use(int argc, char **argv, struct srdma_conn *conn)
{
	struct slot slot = {.sum = 0};
	char answer[8];
	size_t length;
	int ret = srdma_conn_recv(conn, answer, sizeof answer, &length, SRDMA_DEFAULT_TIMEOUT); /* ready */

	if (ret == 0 && argc == 6) {
		snprintf(slot.key, sizeof slot.key, "%s", argv[4]);
		snprintf(slot.value, sizeof slot.value, "%s", argv[5]);
		ret = srdma_conn_send(conn, &slot, offsetof(struct slot, sum), SRDMA_DEFAULT_TIMEOUT);
		if (ret == 0)
			ret = srdma_conn_recv(conn, answer, sizeof answer, &length, SRDMA_DEFAULT_TIMEOUT);
	}
	if (ret == 0)
		ret = get(conn, argv[4]);
	return ret == 0 ? srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT) : ret;
}

static int ask(int argc, char **argv, struct srdma_device *device)
{
	struct srdma_tls_client_options tls;
	struct srdma_tls_context *context = NULL;
	struct srdma_conn *conn = NULL;
	int ret;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	ret = srdma_tls_client_new(&tls, &context);
	if (ret == 0)
		ret = srdma_conn_connect(argv[1], argv[2], context, device, NULL, &conn);
	if (ret == 0)
		ret = use(argc, argv, conn);
	srdma_conn_free(&conn);
	srdma_tls_context_unref(&context);
	return ret;
}

int main(int argc, char **argv)
{
	struct srdma_device *device = NULL;
	int ret, known = argc == 2 || (argc == 5 && strcmp(argv[3], "get") == 0) || (argc == 6 && strcmp(argv[3], "set") == 0);

	if (!known) {
		fprintf(stderr, "usage: kv PORT | kv HOST PORT set KEY VALUE | kv HOST PORT get KEY\n");
		return 2;
	}
	ret = srdma_device_open(NULL, &device);
	if (ret == 0)
		ret = argc == 2 ? serve(argv[1], device) : ask(argc, argv, device);
	if (ret != 0)
		fprintf(stderr, "kv: %s\n", srdma_error_text());
	srdma_device_unref(&device);
	return ret != 0;
}
