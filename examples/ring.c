/* SPDX-License-Identifier: Apache-2.0 */
/* One rank of a ring: it connects to the next rank and accepts the one before, with one certificate for both, which
 * `securdma cert peer --name HOST` makes. Rank 0 sends a token round; each rank adds itself. Then all leave at the same time.
 * usage: ring RANK HOST PORT...   all ranks are on HOST, each at its own port, with ca.crt, peer.crt and peer.key in the working folder */
#include <errno.h>
#include <poll.h>
#include <securdma.h>
#include <stdio.h>
#include <stdlib.h>

enum { NEXT, BEFORE };

struct rank {
	int number, count;
	const char *host;
	char **ports;
	struct srdma_device *device;
	struct srdma_tls_context *client, *server;
	struct srdma_listener *listener;
	struct srdma_connect *connect; /* to the next one */
	struct srdma_accept *accept;   /* of the one before */
	struct srdma_conn *conns[2];
};

static int open_rank(struct rank *rank)
{
	struct srdma_tls_client_options client;
	struct srdma_tls_server_options server;
	int ret;

	srdma_tls_client_options_init(&client);
	client.ca_file = "ca.crt";
	client.cert_file = "peer.crt";
	client.key_file = "peer.key";
	srdma_tls_server_options_init(&server);
	server.client_ca_file = "ca.crt";
	server.cert_file = "peer.crt";
	server.key_file = "peer.key";
	ret = srdma_tls_client_new(&client, &rank->client);
	if (ret == 0)
		ret = srdma_tls_server_new(&server, &rank->server);
	if (ret == 0)
		ret = srdma_device_open(NULL, &rank->device);
	return ret == 0 ? srdma_listener_listen(NULL, rank->ports[rank->number], &rank->listener) : ret;
}

/* 0, -EAGAIN, or an error. The next rank may not listen yet. */
static int go_on_connecting(struct rank *rank)
{
	int ret = 0;

	if (rank->conns[NEXT])
		return 0;
	if (!rank->connect)
		ret = srdma_conn_connect_start(rank->host, rank->ports[(rank->number + 1) % rank->count], rank->client, rank->device, NULL,
					       &rank->connect);
	if (ret == 0)
		ret = srdma_connect_step(rank->connect, &rank->conns[NEXT]);
	if (ret != -EAGAIN)
		srdma_connect_free(&rank->connect);
	return ret == -ECONNREFUSED ? -EAGAIN : ret;
}

static int go_on_accepting(struct rank *rank)
{
	int ret = 0;

	if (rank->conns[BEFORE])
		return 0;
	if (!rank->accept) {
		int socket = srdma_listener_accept(rank->listener, 0);

		if (socket < 0)
			return socket;
		ret = srdma_conn_accept_start(socket, rank->server, rank->device, NULL, NULL, NULL, &rank->accept);
	}
	if (ret == 0)
		ret = srdma_accept_step(rank->accept, &rank->conns[BEFORE]);
	if (ret != -EAGAIN)
		srdma_accept_free(&rank->accept);
	return ret;
}

/* Both at once: if each rank first connected and then accepted, none would be accepted. */
static int come_up(struct rank *rank)
{
	for (;;) {
		int next = go_on_connecting(rank), before = go_on_accepting(rank);

		if (next != -EAGAIN && before != -EAGAIN)
			return next != 0 ? next : before;
		if ((next != 0 && next != -EAGAIN) || (before != 0 && before != -EAGAIN))
			return next != 0 && next != -EAGAIN ? next : before;
		struct pollfd fds[] = {
			{.fd = rank->connect ? srdma_connect_fd(rank->connect) : -1, .events = POLLIN},
			{.fd = rank->accept ? srdma_accept_fd(rank->accept) : srdma_listener_fd(rank->listener),
			 .events = rank->accept ? srdma_accept_events(rank->accept) : POLLIN},
		};
		poll(fds, 2, 50);
	}
}

static int pass_token(struct rank *rank)
{
	char token[64];
	size_t length = 0;
	int ret = 0;

	if (rank->number > 0)
		ret = srdma_conn_recv(rank->conns[BEFORE], token, sizeof token - 1, &length, SRDMA_DEFAULT_TIMEOUT);
	token[length++] = (char)('0' + rank->number);
	if (ret == 0)
		ret = srdma_conn_send(rank->conns[NEXT], token, length, SRDMA_DEFAULT_TIMEOUT);
	if (ret == 0 && rank->number == 0)
		ret = srdma_conn_recv(rank->conns[BEFORE], token, sizeof token, &length, SRDMA_DEFAULT_TIMEOUT);
	if (ret == 0)
		printf("%.*s\n", (int)length, token);
	return ret;
}

int main(int argc, char **argv)
{
	struct rank rank = {.number = argc > 3 ? atoi(argv[1]) : -1, .count = argc - 3, .host = argc > 3 ? argv[2] : NULL, .ports = argv + 3};
	int ret;

	if (rank.number < 0 || rank.number >= rank.count || rank.count > 10) {
		fprintf(stderr, "usage: ring RANK HOST PORT...\n");
		return 2;
	}
	ret = open_rank(&rank);
	if (ret == 0)
		ret = come_up(&rank);
	if (ret == 0)
		ret = pass_token(&rank);
	if (ret == 0)
		ret = srdma_conn_disconnect_all(rank.conns, 2, "done", SRDMA_DEFAULT_TIMEOUT);
	if (ret != 0)
		fprintf(stderr, "ring: %s\n", srdma_error_text());
	srdma_conn_free(&rank.conns[NEXT]);
	srdma_conn_free(&rank.conns[BEFORE]);
	srdma_connect_free(&rank.connect);
	srdma_accept_free(&rank.accept);
	srdma_listener_free(&rank.listener);
	srdma_device_unref(&rank.device);
	srdma_tls_context_unref(&rank.client);
	srdma_tls_context_unref(&rank.server);
	return ret != 0;
}
