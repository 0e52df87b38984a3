/* SPDX-License-Identifier: Apache-2.0 */
/* A client's thread: set-up, service, end. */
#include "log.h"
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a full table makes sense to wait for. */
#define RETRY_AFTER_MS 1000

/* ---- set-up ---------------------------------------------------------------------------------------------------- */

static int admit(const char *peer_name, const struct sockaddr *peer, uint64_t *client_id, struct srdma_reject *reject,
		 void *arg)
{
	struct srdma_client *client = arg;
	struct srdma_server *server = client->server;
	int ret = srdma_slots_take(&server->slots, client, &client->id);

	(void)peer_name;
	(void)peer;
	*client_id = client->id;
	if (ret == -EBUSY)
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, RETRY_AFTER_MS,
					"the server is full: %u clients are connected, the most it takes",
					srdma_slots_used(&server->slots));
	if (ret != 0)
		return srdma_reject_set(reject, SRDMA_REJECT_DRAINING, 0, "the server is shutting down");
	return 0;
}

static int set_up(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	struct srdma_conn *conn;
	int ret = srdma_conn_accept_until(client->socket, server->context, server->device, &server->options.conn, admit,
					  client, server->stop_fd, &conn);

	client->socket = -1;
	pthread_mutex_lock(&server->mutex);
	server->pending--;
	if (ret == 0)
		server->counts.accepted++;
	else if (ret == SRDMA_EREJECTED)
		server->counts.rejected++;
	else
		server->counts.failed++;
	pthread_mutex_unlock(&server->mutex);
	if (ret != 0) {
		srdma_log(SRDMA_LOG_WARN, "client at %s: not connected: %s", client->address, srdma_error_text());
		return ret;
	}
	srdma_conn_info(conn, &client->info);
	pthread_mutex_lock(&server->slots.mutex);
	client->conn = conn;
	pthread_mutex_unlock(&server->slots.mutex);
	srdma_log(SRDMA_LOG_INFO, "client %llu: connected from %s as '%s', QPN 0x%06x to 0x%06x, %s, set up in %llu us",
		  (unsigned long long)client->id, client->address, client->info.peer_name, client->info.qpn,
		  client->info.peer_qpn, client->info.tls_version, (unsigned long long)client->info.timing.total);
	return 0;
}

/* ---- service --------------------------------------------------------------------------------------------------- */

/* Hands over all messages that are there. */
static int serve_messages(struct srdma_client *client, char *reason, void *client_arg)
{
	const struct srdma_server_options *o = &client->server->options;
	const void *data;
	uint32_t length;
	int ret = 0;

	while (ret == 0 && srdma_conn_peek(client->conn, &data, &length)) {
		if (o->handlers.on_message)
			ret = o->handlers.on_message(client->conn, data, length, reason, client_arg, o->arg);
		if (ret == 0)
			ret = srdma_channel_consume(&client->conn->channel);
		if (ret != 0)
			return ret;
		if (atomic_load_explicit(&client->server->stopping, memory_order_relaxed))
			break;
	}
	return srdma_conn_check(client->conn);
}

/* The program, not the connection, came to the end: the client is told why. Such a client is not lost. */
static void dismiss(struct srdma_client *client, const char *reason)
{
	if (srdma_conn_disconnect(client->conn, reason, client->server->options.drain_timeout_ms) != 0)
		return;
	client->lost = false;
	srdma_fail(SRDMA_ECLOSED, "disconnected by this server: %s", reason);
}

/* Until the client goes, the server stops, or something fails. Returns 0 for an end in order. */
static int serve(struct srdma_client *client, void *client_arg)
{
	struct srdma_server *server = client->server;
	char reason[SRDMA_REASON_MAX + 1] = "";
	int ret;

	do {
		if (atomic_load(&server->stopping))
			return srdma_conn_disconnect(client->conn, "the server is shutting down",
						     server->options.drain_timeout_ms);
		ret = srdma_conn_wait(client->conn, -1);
		if (ret == 0)
			ret = serve_messages(client, reason, client_arg);
	} while (ret == 0 || ret == -EINTR || ret == -ETIMEDOUT);
	if (ret == SRDMA_ECLOSED)
		return srdma_conn_disconnect(client->conn, NULL, server->options.drain_timeout_ms);
	if (srdma_conn_check(client->conn) == 0)
		dismiss(client, reason[0] ? reason : "ended by the server");
	return ret;
}

static void log_end(const struct srdma_client *client, int status, const char *text)
{
	struct srdma_conn_info info;

	srdma_conn_info(client->conn, &info);
	if (status == 0)
		srdma_log(SRDMA_LOG_INFO, "client %llu: disconnected%s%s; %llu messages in, %llu out",
			  (unsigned long long)client->id, info.close_reason[0] ? ": " : "", info.close_reason,
			  (unsigned long long)info.messages_received, (unsigned long long)info.messages_sent);
	else
		srdma_log(SRDMA_LOG_WARN, "client %llu at %s: %s: %s", (unsigned long long)client->id, client->address,
			  srdma_strerror(status), text);
}

static void run_client(struct srdma_client *client)
{
	const struct srdma_server_options *o = &client->server->options;
	char text[512];
	void *client_arg = NULL;
	int ret = 0;

	client->lost = true;
	if (o->handlers.on_connect)
		ret = o->handlers.on_connect(client->conn, &client_arg, o->arg);
	if (ret == 0)
		ret = serve(client, client_arg);
	else
		dismiss(client, "refused by the server");
	if (ret == 0)
		client->lost = false;
	snprintf(text, sizeof text, "%s", srdma_error_text());
	if (o->handlers.on_disconnect)
		o->handlers.on_disconnect(client->conn, ret, client_arg, o->arg);
	log_end(client, ret, text);
}

/* ---- end ------------------------------------------------------------------------------------------------------- */

/* Before the slot is released: who sees the client gone sees it counted, and a stop that begins then is not to blame. */
static void account(const struct srdma_client *client)
{
	struct srdma_server *server = client->server;

	if (!client->lost)
		return;
	pthread_mutex_lock(&server->mutex);
	server->counts.lost++;
	if (atomic_load(&server->stopping))
		server->unclean++;
	pthread_mutex_unlock(&server->mutex);
}

static void retire(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	uint64_t one = 1;

	pthread_mutex_lock(&server->mutex);
	client->next = server->finished;
	server->finished = client;
	pthread_cond_broadcast(&server->ended);
	pthread_mutex_unlock(&server->mutex);
	if (write(server->reap_fd, &one, sizeof one) < 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot signal the listener: %s", strerror(errno));
}

void *srdma_worker_main(void *arg)
{
	struct srdma_client *client = arg;
	struct srdma_slots *slots = &client->server->slots;
	struct srdma_conn *conn;

	if (set_up(client) == 0) {
		run_client(client);
		account(client);
		pthread_mutex_lock(&slots->mutex);
		conn = client->conn;
		client->conn = NULL;
		pthread_mutex_unlock(&slots->mutex);
		/* First the objects, then the slot, then the channel: a client that sees it close can come again at once. */
		srdma_conn_release_verbs(conn);
		srdma_slots_release(slots, client);
		srdma_conn_delete(&conn);
	} else if (client->id != 0) {
		srdma_slots_release(slots, client);
	}
	retire(client);
	return NULL;
}
