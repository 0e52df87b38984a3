/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_command.h"

#include "agent.h"
#include "cli.h"
#include "gid_map.h"
#include "local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void log_warning(const struct srdma_check *check, void *arg)
{
	(void)arg;
	if (check->result == SRDMA_CHECK_WARN)
		cli_log(SRDMA_LOG_WARN, "%s%s%s", check->text, check->advice ? "; " : "", check->advice ? check->advice : "");
}

/* One certificate for both directions: an agent accepts and connects. */
static int load_credentials(const struct settings *settings, struct agent_rules *rules)
{
	struct srdma_tls_client_options client;
	struct srdma_tls_server_options server;
	int ret;

	settings_client_tls(settings, &client);
	settings_server_tls(settings, &server);
	client.allow_tls12 = server.allow_tls12 = false;
	client.pin = NULL;
	client.server_name = NULL;
	server.client_ca_file = client.ca_file;
	server.client_crl_file = client.crl_file;
	server.insecure_anonymous_clients = false;
	ret = srdma_tls_server_check(&server, log_warning, NULL);
	/* The same files: only what a client needs beyond that. */
	if (ret == 0)
		ret = srdma_tls_client_check(&client, NULL, NULL);
	if (ret == 0)
		ret = srdma_tls_server_new(&server, &rules->server);
	if (ret == 0)
		ret = srdma_tls_client_new(&client, &rules->client);
	return ret;
}

static int add_peers(const struct settings *settings, struct policy *policy)
{
	const struct agent_peers *peers = &settings->agent_peers;
	int ret = 0;

	policy->peers = calloc(peers->count + 1, sizeof *policy->peers);
	if (!policy->peers)
		return cli_fail(-ENOMEM, "policy");
	for (size_t i = 0; i < peers->count; i++) {
		const struct agent_peer *peer = &peers->items[i];
		struct policy_peer *out = &policy->peers[policy->peer_count++];

		*out = (struct policy_peer){.name = strdup(peer->name), .deny = peer->deny, .require_encryption = peer->require_encryption};
		ret = out->name ? policy_users_parse(peer->users, &out->users) : -ENOMEM;
		if (ret != 0)
			return cli_failed(CLI_EXIT_USAGE, "[peer %s] users: %s", peer->name, ret == -ENOMEM ? "out of memory" : srdma_error_text());
	}
	return CLI_EXIT_OK;
}

static int load_policy(const struct settings *settings, struct policy *policy)
{
	const struct agent_settings *agent = &settings->agent;

	*policy = (struct policy){
		.observe = agent->mode == LOCAL_OBSERVE,
		.require_encryption = agent->require_encryption,
		.only_listed_peers = agent->only_listed_peers,
		.queue_pairs_per_user = (unsigned)agent->queue_pairs_per_user,
		.programs_per_user = (unsigned)agent->programs_per_user,
		.queries_per_second = (unsigned)agent->queries_per_second,
		.sessions = (unsigned)agent->max_sessions,
		.handshakes = (unsigned)agent->max_handshakes,
		.handshakes_per_second = (unsigned)agent->max_handshakes_per_second,
		.connect_timeout_ms = (int)agent->connect_timeout_ms,
		.keepalive_ms = (int)agent->keepalive_ms,
		.idle_timeout_ms = (int)agent->idle_timeout_ms,
	};
	if (policy_users_parse(agent->users, &policy->users) != 0)
		return cli_failed(CLI_EXIT_USAGE, "[agent] users: %s", srdma_error_text());
	return add_peers(settings, policy);
}

int agent_rules_load(const struct settings *settings, struct agent_rules *out)
{
	struct agent_rules rules = {0};
	int ret, code;

	if (!settings->cert_file || !settings->key_file || !settings->client_tls.ca_file)
		return cli_usage("agent", "give --cert, --key and --ca; 'securdma cert ca' and 'securdma cert peer' make them");
	code = load_policy(settings, &rules.policy);
	if (code == CLI_EXIT_OK && settings->agent.map) {
		ret = gid_map_load(settings->agent.map, &rules.map);
		if (ret != 0)
			code = cli_failed(CLI_EXIT_USAGE, "map: %s", srdma_error_text());
	}
	if (code == CLI_EXIT_OK) {
		ret = load_credentials(settings, &rules);
		if (ret == 0)
			ret = agent_rules_prepare(&rules, settings->server_tls.identity_from);
		if (ret != 0)
			code = cli_failed(CLI_EXIT_USAGE, "agent credentials: %s", srdma_error_text());
	}
	if (code == CLI_EXIT_OK)
		*out = rules;
	else
		agent_rules_free(&rules);
	return code;
}
