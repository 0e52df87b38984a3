/* SPDX-License-Identifier: Apache-2.0 */
/* Which clients may connect: by their names, the limits, and the number of clients in set-up. */
#include "events.h"
#include "identities.h"
#include "log.h"
#include "net.h"
#include "server.h"

#include <errno.h>
#include <string.h>

#define FULL_RETRY_MS 1000
#define BUSY_RETRY_MS 250

struct census {
	struct srdma_client *client;
	const struct srdma_policy *policy;
	unsigned same_name, same_address;
};

static int count_alike(struct srdma_slots *slots, void *arg)
{
	struct census *census = arg;
	const struct srdma_client *self = census->client;
	const struct srdma_policy *policy = census->policy;

	if (policy->max_same_name == 0 && policy->max_same_address == 0)
		return 0;
	for (unsigned i = 0; i < slots->used; i++) {
		const struct srdma_client *other = slots->taken[i]->client;

		census->same_name += strcmp(self->info.peer_name, other->info.peer_name) == 0;
		census->same_address += memcmp(&self->peer, &other->peer, sizeof self->peer) == 0;
	}
	if (policy->max_same_name != 0 && census->same_name >= policy->max_same_name)
		return -EUSERS;
	return policy->max_same_address != 0 && census->same_address >= policy->max_same_address ? -EDQUOT : 0;
}

static int take_slot(struct srdma_client *client, const struct srdma_policy *policy, struct srdma_reject *reject)
{
	struct srdma_server *server = client->server;
	struct census census = {.client = client, .policy = policy};
	unsigned used;

	switch (srdma_slots_take(&server->slots, &client->slot, count_alike, &census)) {
	case 0: return 0;
	case -EBUSY:
		used = srdma_slots_used(&server->slots);
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS,
					"the server is full: it has %u client%s, which is the maximum (max-clients)", used,
					SRDMA_S(used));
	case -EUSERS:
		client->limit = "identity";
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS, "the server has %u client%s %s, which is the maximum",
					policy->max_same_name, SRDMA_S(policy->max_same_name),
					client->info.peer_name[0] ? "with this certificate's name" : "without a certificate");
	case -EDQUOT:
		client->limit = "address";
		return srdma_reject_set(reject, SRDMA_REJECT_FULL, FULL_RETRY_MS,
					"the server has %u client%s from this address, which is the maximum",
					policy->max_same_address, SRDMA_S(policy->max_same_address));
	case -ENOMEM: return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, FULL_RETRY_MS, "the server is out of memory");
	default:
		return srdma_reject_set(reject, SRDMA_REJECT_DRAINING, 0, "the server is %s",
					atomic_load(&server->stopping) ? "shutting down" : "draining: it takes no new clients");
	}
}

/* False: this client is one too many; *most: the limit. */
static bool count_authenticated(struct srdma_client *client, unsigned *most)
{
	struct srdma_server *server = client->server;
	bool room;

	pthread_mutex_lock(&server->mutex);
	*most = server->limits.max_pending;
	server->authenticated += !client->authenticated && !client->turned_away;
	room = server->authenticated <= server->limits.max_pending && !client->turned_away;
	client->authenticated = !client->turned_away;
	pthread_mutex_unlock(&server->mutex);
	return room;
}

void srdma_admission_turn_away(struct srdma_client *client)
{
	struct srdma_server *server = client->server;

	pthread_mutex_lock(&server->mutex);
	server->authenticated -= client->authenticated;
	client->authenticated = false;
	client->turned_away = true;
	pthread_mutex_unlock(&server->mutex);
}

static void find_policy(struct srdma_server *server, const struct srdma_peer_names *names, struct srdma_policy *policy)
{
	pthread_mutex_lock(&server->mutex);
	srdma_policy_find(&server->limits, names, policy);
	pthread_mutex_unlock(&server->mutex);
}

void srdma_admission_note_identity(struct srdma_client *client)
{
	const struct srdma_accept *accept = client->accept;
	struct srdma_policy policy;
	unsigned most;

	find_policy(client->server, srdma_accept_peer_names(accept), &policy);
	if (policy.refused)
		srdma_admission_turn_away(client);
	else
		count_authenticated(client, &most);
}

void srdma_admission_note_address(struct srdma_client *client, const struct sockaddr *proxied)
{
	if (!proxied || client->proxy[0])
		return;
	memcpy(client->proxy, client->address, sizeof client->proxy);
	srdma_net_format(proxied, client->address, sizeof client->address);
	srdma_net_gid_of(proxied, &client->peer);
}

int srdma_admission_decide(struct srdma_conn *conn, struct srdma_reject *reject, void *arg)
{
	struct srdma_client *client = arg;
	struct srdma_server *server = client->server;
	struct srdma_policy policy;
	unsigned most;
	int ret;

	/* One step may read the PROXY header and HELLO, so the address may not be noted yet. */
	srdma_admission_note_address(client, srdma_accept_proxied(client->accept));
	find_policy(server, &conn->names, &policy);
	if (policy.refused) {
		srdma_admission_turn_away(client);
		client->limit = policy.refused;
		return srdma_reject_set(reject, SRDMA_REJECT_REFUSED, 0, "%s", srdma_policy_text(&policy));
	}
	if (!count_authenticated(client, &most)) {
		srdma_admission_turn_away(client);
		return srdma_reject_set(reject, SRDMA_REJECT_BUSY, BUSY_RETRY_MS,
					"the server is setting up %u client%s, which is the maximum (max-pending)", most, SRDMA_S(most));
	}
	if (server->options.on_admit) {
		ret = srdma_accept_ask(conn, server->options.on_admit, reject, server->options.arg);
		if (ret != 0) {
			srdma_admission_turn_away(client);
			return ret;
		}
	}
	memcpy(client->info.peer_name, conn->names.identity, sizeof client->info.peer_name);
	ret = take_slot(client, &policy, reject);
	if (ret != 0)
		return ret;
	ret = srdma_worker_choose(server, &client->worker);
	if (ret != 0) {
		srdma_log(SRDMA_LOG_ERROR, "cannot start a thread for a client: %s", srdma_error_text());
		return srdma_reject_set(reject, SRDMA_REJECT_RESOURCES, FULL_RETRY_MS, "the server has no thread to spare");
	}
	conn->client_id = client->slot.id;
	conn->notifier = &client->worker->notifier;
	conn->seal_pool = client->server->seal_pool;
	conn->owner = client;
	srdma_policy_apply(&policy, &conn->options);
	return 0;
}
