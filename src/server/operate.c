/* SPDX-License-Identifier: Apache-2.0 */
/* An operator's calls on a running server: status, clients, limits, certificate, drain. Any thread may call them. */
#include "clock.h"
#include "identities.h"
#include "listener.h"
#include "log.h"
#include "server.h"
#include "server_limits.h"
#include "sized.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t sum(const uint64_t *counts, unsigned number)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < number; i++)
		all += counts[i];
	return all;
}

void srdma_server_get_status_sized(struct srdma_server *server, struct srdma_server_status *status, size_t size)
{
	struct srdma_server_status own = {0};

	pthread_mutex_lock(&server->mutex);
	own.accepted = server->totals.accepted;
	own.rejected = sum(server->totals.rejected, SRDMA_REJECT_REASONS);
	own.failed = sum(server->totals.failed, SRDMA_SETUP_FAILURES);
	own.lost = server->lost;
	own.pending = server->pending;
	pthread_mutex_unlock(&server->mutex);
	own.clients = srdma_slots_used(&server->slots);
	pthread_mutex_lock(&server->slots.mutex);
	own.max_clients = server->slots.max;
	pthread_mutex_unlock(&server->slots.mutex);
	own.device_failed = atomic_load(&server->device_failed);
	own.draining = atomic_load(&server->draining);
	own.drained = atomic_load(&server->drained);
	srdma_sized_fill(status, size, &own, sizeof own);
}

uint16_t srdma_server_port(const struct srdma_server *server)
{
	return srdma_listener_port(server->listeners[0]);
}

int srdma_server_address(const struct srdma_server *server, unsigned index, char *text, size_t size)
{
	/* A caller that lists all addresses stops here, so no error is recorded. */
	if (index >= server->listener_count)
		return -ENOENT;
	snprintf(text, size, "%s", srdma_listener_name(server->listeners[index]));
	return 0;
}

int srdma_server_set_tls(struct srdma_server *server, struct srdma_tls_context *context)
{
	struct srdma_tls_context *old;
	int ret = srdma_tls_context_check(context, true);

	if (ret != 0)
		return ret;
	srdma_tls_context_ref(context);
	pthread_mutex_lock(&server->mutex);
	old = server->context;
	server->context = context;
	pthread_mutex_unlock(&server->mutex);
	srdma_tls_context_unref(&old);
	return 0;
}

struct visitor {
	srdma_visit_fn *visit;
	void *arg;
	struct srdma_conn_info *info; /* in the layout of the program's structure */
	size_t size;
};

static void visit_client(void *entry, void *arg)
{
	struct srdma_client *client = entry;
	struct visitor *visitor = arg;

	if (!client->conn)
		return;
	srdma_conn_read_counters(client->conn, &client->info);
	client->info.connected_at = client->connected_at;
	client->info.worker = client->worker->number;
	srdma_sized_fill(visitor->info, visitor->size, &client->info, sizeof client->info);
	visitor->visit(visitor->info, visitor->arg);
}

int srdma_server_each_sized(struct srdma_server *server, srdma_visit_fn *visit, void *arg, size_t size)
{
	size_t room = size > sizeof(struct srdma_conn_info) ? size : sizeof(struct srdma_conn_info);
	struct visitor visitor = {visit, arg, calloc(1, room), size};

	if (!visitor.info)
		return srdma_fail(-ENOMEM, "out of memory");
	srdma_slots_each(&server->slots, visit_client, &visitor);
	OPENSSL_cleanse(visitor.info, room); /* the PSNs */
	free(visitor.info);
	return 0;
}

int srdma_server_event_fd(const struct srdma_server *server)
{
	return server->event_fd;
}

/* The slot table is locked, so that neither the client nor its worker is freed meanwhile. `limit`: as in the client, or NULL. */
static void kick(struct srdma_client *client, const char *limit, const char *reason)
{
	/* The first reason must stay, because the worker may be reading it. */
	if (!atomic_load(&client->kicked)) {
		client->kick_limit = limit;
		snprintf(client->kick_reason, sizeof client->kick_reason, "%s", reason);
		atomic_store_explicit(&client->kicked, true, memory_order_release);
	}
	srdma_worker_wake(client->worker);
}

int srdma_server_kick(struct srdma_server *server, uint64_t client_id, const char *reason)
{
	bool found = false;

	pthread_mutex_lock(&server->slots.mutex);
	for (unsigned i = 0; i < server->slots.used && !found; i++) {
		struct srdma_client *client = server->slots.taken[i]->client;

		/* A client without a connection is still in set-up; srdma_server_each does not show it either. */
		found = client->slot.id == client_id && client->conn;
		if (found)
			kick(client, NULL, reason && reason[0] ? reason : "disconnected by the operator");
	}
	pthread_mutex_unlock(&server->slots.mutex);
	return found ? 0 : srdma_fail(-ENOENT, "no client %llu is connected", (unsigned long long)client_id);
}

void srdma_server_recheck(struct srdma_client *client)
{
	struct srdma_server *server = client->server;
	struct srdma_policy policy;

	pthread_mutex_lock(&server->mutex);
	srdma_policy_find(&server->limits, &client->conn->names, &policy);
	pthread_mutex_unlock(&server->mutex);
	if (policy.refused)
		kick(client, policy.refused, srdma_policy_text(&policy));
}

static void recheck_connected(void *entry, void *arg)
{
	struct srdma_client *client = entry;

	(void)arg;
	/* A client in set-up is checked when it is connected. */
	if (client->conn)
		srdma_server_recheck(client);
}

int srdma_server_set_limits(struct srdma_server *server, const struct srdma_server_limits *limits)
{
	struct srdma_server_limits given, fresh, old;
	int ret = srdma_limits_complete(limits, &given);

	if (ret == 0)
		ret = srdma_limits_take(&given, &server->options, server->device, false, &fresh);
	if (ret != 0)
		return ret;
	pthread_mutex_lock(&server->slots.mutex);
	server->slots.max = fresh.max_clients;
	pthread_mutex_lock(&server->mutex);
	old = server->limits;
	server->limits = fresh;
	pthread_mutex_unlock(&server->mutex);
	pthread_mutex_unlock(&server->slots.mutex);
	srdma_limits_free(&old);
	srdma_slots_each(&server->slots, recheck_connected, NULL);
	/* The new limits may have room for a client that waits to be accepted. */
	srdma_server_nudge(server);
	return 0;
}

int srdma_server_drain(struct srdma_server *server, int timeout_ms)
{
	if (timeout_ms < 0)
		return srdma_fail(-EINVAL, "the time-out of a drain must not be negative");
	atomic_store(&server->drain_deadline, srdma_deadline(timeout_ms));
	/* Clients that have a slot stay. The set-up thread rejects those that have none yet. */
	srdma_slots_close(&server->slots);
	atomic_store(&server->draining, true);
	srdma_server_nudge(server);
	return 0;
}
