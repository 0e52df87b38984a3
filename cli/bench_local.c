/* SPDX-License-Identifier: Apache-2.0 */
/* The server inside `securdma bench`, with credentials that live as long as the run. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bench_local {
	char directory[64];
	char address[INET6_ADDRSTRLEN];
	bool own_gid; /* the address is one of the device's GIDs */
	struct srdma_tls_context *context;
	struct srdma_server *server;
};

static const char *const file_names[] = {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"};

static int on_message(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	const char *bytes = data;

	(void)reason, (void)client_arg, (void)arg;
	if (length > 0 && bytes[0] == BENCH_DROP)
		return 0;
	return srdma_conn_send(conn, data, length > 0 && bytes[0] == BENCH_LAST ? 1 : length, SRDMA_DEFAULT_TIMEOUT);
}

/* A GID of RoCE is an address of this host; TCP must use the same one, for the server checks that they agree. */
static void choose_address(struct bench *bench, struct bench_local *local)
{
	const struct ibv_port_attr *port = srdma_device_port_attr(bench->device);
	struct ibv_gid_entry entry = {0};

	snprintf(local->address, sizeof local->address, "127.0.0.1");
	for (uint32_t i = 0; i < (uint32_t)port->gid_tbl_len; i++) {
		const struct in6_addr *address = (const void *)entry.gid.raw;

		if (ibv_query_gid_ex(srdma_device_context(bench->device), srdma_device_port(bench->device), i, &entry, 0) != 0 ||
		    entry.gid_type != IBV_GID_TYPE_ROCE_V2 || !IN6_IS_ADDR_V4MAPPED(address))
			continue;
		inet_ntop(AF_INET, entry.gid.raw + 12, local->address, sizeof local->address);
		local->own_gid = true;
		return;
	}
}

static int make_cert(const struct bench_local *local, enum srdma_cert_kind kind, const char *role)
{
	char ca_cert[128], ca_key[128], cert[128], key[128];
	const char *names[] = {local->address};
	struct srdma_cert_request request;

	srdma_cert_request_init(&request);
	request.kind = kind;
	request.common_name = role;
	request.names = names;
	request.name_count = kind == SRDMA_CERT_SERVER ? 1 : 0;
	request.days = 1;
	request.cert_file = cert;
	request.key_file = key;
	snprintf(ca_cert, sizeof ca_cert, "%s/ca.crt", local->directory);
	snprintf(ca_key, sizeof ca_key, "%s/ca.key", local->directory);
	snprintf(cert, sizeof cert, "%s/%s.crt", local->directory, role);
	snprintf(key, sizeof key, "%s/%s.key", local->directory, role);
	if (kind != SRDMA_CERT_CA) {
		request.ca_cert_file = ca_cert;
		request.ca_key_file = ca_key;
	}
	return srdma_cert_make(&request);
}

static int make_contexts(struct bench *bench, struct bench_local *local)
{
	char ca[128], cert[128], key[128];
	struct srdma_tls_server_options server;
	struct srdma_tls_client_options client;
	int ret;

	snprintf(ca, sizeof ca, "%s/ca.crt", local->directory);
	snprintf(cert, sizeof cert, "%s/server.crt", local->directory);
	snprintf(key, sizeof key, "%s/server.key", local->directory);
	srdma_tls_server_options_init(&server);
	server.cert_file = cert;
	server.key_file = key;
	server.client_ca_file = ca;
	ret = srdma_tls_server_new(&server, &local->context);
	if (ret < 0)
		return ret;
	snprintf(cert, sizeof cert, "%s/client.crt", local->directory);
	snprintf(key, sizeof key, "%s/client.key", local->directory);
	srdma_tls_client_options_init(&client);
	client.ca_file = ca;
	client.cert_file = cert;
	client.key_file = key;
	return srdma_tls_client_new(&client, &bench->context);
}

int bench_local_new(struct bench *bench)
{
	const char *parent = getenv("TMPDIR");
	struct bench_local *local = calloc(1, sizeof *local);
	int ret;

	if (!local)
		return cli_fail(-ENOMEM, "bench");
	bench->local = local;
	if (!parent || strlen(parent) + 32 > sizeof local->directory)
		parent = "/tmp";
	snprintf(local->directory, sizeof local->directory, "%s/securdma-bench-XXXXXX", parent);
	if (!mkdtemp(local->directory)) {
		cli_error("cannot make the directory %s: %s; set TMPDIR to a writable one", local->directory, strerror(errno));
		local->directory[0] = '\0';
		return CLI_EXIT_FAILED;
	}
	choose_address(bench, local);
	ret = make_cert(local, SRDMA_CERT_CA, "ca");
	if (ret == 0)
		ret = make_cert(local, SRDMA_CERT_SERVER, "server");
	if (ret == 0)
		ret = make_cert(local, SRDMA_CERT_CLIENT, "client");
	if (ret == 0)
		ret = make_contexts(bench, local);
	return ret < 0 ? cli_fail(ret, "credentials") : CLI_EXIT_OK;
}

int bench_local_start(struct bench *bench, const struct srdma_conn_options *conn)
{
	struct bench_local *local = bench->local;
	struct srdma_server_options options;
	struct srdma_conn_options own = *conn;
	char target[INET6_ADDRSTRLEN + 16];
	int ret;

	srdma_server_options_init(&options);
	options.address = local->address;
	options.port = "0";
	options.conn = &own;
	/* Both ends are this process, so a foreign GID could be aimed at no other host. */
	if (!local->own_gid && !own.gid_networks)
		own.gid_networks = "0.0.0.0/0,::/0";
	options.on_message = on_message;
	ret = srdma_server_start(&options, local->context, bench->device, &local->server);
	if (ret < 0)
		return cli_fail(ret, "cannot start the server");
	snprintf(target, sizeof target, "%s:%u", local->address, srdma_server_port(local->server));
	ret = settings_set_target(&bench->settings, target);
	return ret < 0 ? cli_fail(ret, "bench") : CLI_EXIT_OK;
}

void bench_local_stop(struct bench *bench)
{
	if (bench->local && bench->local->server)
		srdma_server_stop(&bench->local->server);
}

void bench_local_delete(struct bench *bench)
{
	struct bench_local *local = bench->local;
	char path[128];

	if (!local)
		return;
	bench_local_stop(bench);
	srdma_tls_context_unref(&local->context);
	for (size_t i = 0; local->directory[0] && i < sizeof file_names / sizeof file_names[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", local->directory, file_names[i]);
		unlink(path);
	}
	if (local->directory[0])
		rmdir(local->directory);
	free(local);
	bench->local = NULL;
}

const char *bench_local_directory(const struct bench *bench)
{
	return bench->local->directory;
}
