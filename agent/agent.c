/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_parts.h"
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "owner.h"
#include "session.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Deadlines are looked at this often: while something has one soon, while there are sessions, and otherwise. */
#define TICK_MS 20
#define OPEN_TICK_MS 100
#define IDLE_TICK_MS 500
#define EVENTS_A_STEP 256
/* How long a question waits for a queue pair to be registered. */
#define PAIR_US 200000u

void agent_rules_free(struct agent_rules *rules)
{
	policy_free(&rules->policy);
	gid_map_free(&rules->map);
	srdma_tls_context_unref(&rules->server);
	srdma_tls_context_unref(&rules->client);
}

int agent_rules_prepare(struct agent_rules *rules, const char *identity_from)
{
	struct srdma_name_order order;
	struct srdma_peer_names names;
	int ret = srdma_name_order_parse(identity_from, &order);

	if (ret == 0)
		ret = srdma_tls_context_set_alpn(rules->server, PEER_ALPN);
	if (ret == 0)
		ret = srdma_tls_context_set_alpn(rules->client, PEER_ALPN);
	if (ret != 0)
		return ret;
	srdma_tls_context_set_wrong_name(rules->client, "the agent's certificate is not for this name or address; make one with it for that host "
							 "(securdma cert peer --name), or name the host in the map file (--map)");
	srdma_tls_context_set_name_order(rules->client, &order);
	srdma_tls_context_set_name_order(rules->server, &order);
	ret = srdma_tls_context_own_names(rules->server, &names);
	if (ret != 0)
		return ret;
	ret = names.count > 0 ? 0 : srdma_fail(SRDMA_ECONFIG, "the certificate has no name; make one with the addresses of this host (securdma cert peer --name ADDRESS)");
	srdma_peer_names_clear(&names);
	policy_sort(&rules->policy);
	return ret;
}

static int read_own_names(const struct agent_rules *rules, struct host_names *own)
{
	struct srdma_peer_names names;
	int ret = srdma_tls_context_own_names(rules->server, &names);

	return ret == 0 ? host_names_take(&names, own) : ret;
}

static int draw(struct agent *agent)
{
	if (RAND_bytes(agent->instance, sizeof agent->instance) == 1 &&
	    RAND_bytes((unsigned char *)&agent->queue_pairs.seed, sizeof agent->queue_pairs.seed) == 1 &&
	    RAND_bytes((unsigned char *)&agent->places.seed, sizeof agent->places.seed) == 1)
		return 0;
	return srdma_fail_openssl(SRDMA_ERANDOM, "cannot start: the random generator failed");
}

int agent_new(const struct agent_options *options, struct agent_rules *rules, struct agent **out)
{
	struct agent *agent = calloc(1, sizeof *agent);
	struct srdma_listener *listener = options->listener;
	int ret;

	if (!agent) {
		close(options->local_fd);
		srdma_listener_free(&listener);
		agent_rules_free(rules);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	agent->loop.epoll_fd = agent->door.fd = -1;
	agent->local.fd = options->local_fd;
	agent->listener = listener;
	agent->owner_fd = options->owner_fd;
	agent->started_at = srdma_clock_us();
	agent->rules = *rules;
	*rules = (struct agent_rules){0};
	agent->peer_port = strdup(options->peer_port);
	atomic_store(&agent->not_after, srdma_tls_context_not_after(agent->rules.server));
	ret = agent->peer_port ? draw(agent) : srdma_fail(-ENOMEM, "out of memory");
	if (ret == 0)
		ret = read_own_names(&agent->rules, &agent->own);
	if (ret == 0)
		ret = event_loop_open(&agent->loop);
	if (ret == 0)
		ret = local_server_open(agent, options->local_fd);
	if (ret == 0)
		ret = peers_open(agent, listener);
	if (ret != 0) {
		agent_free(&agent);
		return ret;
	}
	*out = agent;
	return 0;
}

void agent_free(struct agent **out)
{
	struct agent *agent = *out;

	*out = NULL;
	if (!agent)
		return;
	agent->stopping = true;
	local_server_close(agent);
	peers_close(agent);
	event_loop_close(&agent->loop);
	queue_pairs_free(&agent->queue_pairs);
	host_names_clear(&agent->own);
	addresses_free(&agent->addresses);
	places_free(&agent->places);
	if (agent->owner_fd >= 0)
		close(agent->owner_fd);
	agent_rules_free(&agent->rules);
	free(agent->peer_port);
	free(agent);
}

uint64_t agent_wait_for_pair(const struct agent *agent)
{
	/* Three quarters of the time that a program waits, so that it hears why there is none. */
	uint64_t soon = srdma_clock_us() + PAIR_US, settled = agent->started_at + (uint64_t)agent->rules.policy.connect_timeout_ms * 750;

	return settled > soon ? settled : soon;
}

int agent_fd(const struct agent *agent)
{
	return agent->loop.epoll_fd;
}

static int tick_ms(const struct agent *agent)
{
	if (agent->ask_count > 0 || agent->waiting_count > 0 || agent->registration_count > 0 || agent->restless)
		return TICK_MS;
	return agent->session_count > 0 ? OPEN_TICK_MS : IDLE_TICK_MS;
}

int agent_timeout_ms(const struct agent *agent)
{
	return srdma_deadline_left_ms(agent->ticked_at + (uint64_t)tick_ms(agent) * 1000);
}

void agent_step(struct agent *agent)
{
	uint64_t now;

	event_loop_serve(&agent->loop, EVENTS_A_STEP);
	now = srdma_clock_us();
	if (now < agent->ticked_at + (uint64_t)tick_ms(agent) * 1000)
		return;
	agent->ticked_at = now;
	asks_tick(agent, now);
	registrations_tick(agent, now);
	expectations_tick(agent, now);
	peers_tick(agent, now);
	local_server_tick(agent, now);
}

int agent_reload(struct agent *agent, struct agent_rules *rules)
{
	struct host_names own;
	int ret = read_own_names(rules, &own);

	if (ret != 0)
		return ret;
	agent_rules_free(&agent->rules);
	agent->rules = *rules;
	*rules = (struct agent_rules){0};
	atomic_store(&agent->not_after, srdma_tls_context_not_after(agent->rules.server));
	memset(agent->failures, 0, sizeof agent->failures);
	/* Peers are verified by the new rules; their questions go on in new sessions. The routes go with the old sessions, and the old
	 * certificate's names with them. */
	for (struct session *session = agent->sessions, *next; session; session = next) {
		next = session->next;
		session_end(session, REFUSAL_COUNT, "this agent has read its certificates again");
	}
	host_names_clear(&agent->own);
	agent->own = own;
	return 0;
}

const char *agent_name(const struct agent *agent)
{
	return agent->own.names.identity;
}

const char *agent_address(const struct agent *agent)
{
	return srdma_listener_name(agent->listener);
}

void agent_get_totals(const struct agent *agent, struct agent_totals *out)
{
	*out = (struct agent_totals){
		.programs = agent->program_count,
		.queue_pairs = agent->queue_pairs.count,
		.sessions = agent->session_count - agent->handshake_count,
		.connected = atomic_load(&agent->counters[COUNT_CONNECTED]),
	};
	for (int i = 0; i < REFUSAL_COUNT; i++)
		out->refused += atomic_load(&agent->refusals[i]);
}
