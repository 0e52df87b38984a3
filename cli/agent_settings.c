/* SPDX-License-Identifier: Apache-2.0 */
#include "agent_settings.h"

#include "securdma_server.h"

#include "local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) OPTION_AT(struct agent_peer, field)

const struct option agent_peer_options[] = {
	{NULL, "peer", "users", OPTION_TEXT, 0, AT(users), 0, 0, "USER,...", "local users, and @groups, that may connect to this host; *: all"},
	{NULL, "peer", "deny", OPTION_SWITCH, 0, AT(deny), 0, 0, NULL, "refuse connections with this host"},
	{NULL, "peer", "require-encryption", OPTION_SWITCH, 0, AT(require_encryption), 0, 0, NULL, "connect only over an encrypted path"},
};
const size_t agent_peer_option_count = sizeof agent_peer_options / sizeof *agent_peer_options;

void agent_settings_init(struct agent_settings *settings)
{
	*settings = (struct agent_settings){
		.mode = LOCAL_ENFORCE,
		.queue_pairs_per_user = 65536,
		.programs_per_user = 1024,
		.queries_per_second = 20000,
		.max_sessions = 4096,
		.max_handshakes = 64,
		.max_handshakes_per_second = 200,
		.connect_timeout_ms = 1800,
		.keepalive_ms = 5000,
		.idle_timeout_ms = 600000,
	};
}

struct agent_peer *agent_peers_add(struct agent_peers *peers, const char *name, int line, char *problem, size_t size)
{
	struct agent_peer *grown;

	if (!name[0]) {
		snprintf(problem, size, "give the peer a name: [peer NAME]");
		return NULL;
	}
	if (srdma_identity_check_name(name) != 0) {
		snprintf(problem, size, "%s", srdma_error_text());
		return NULL;
	}
	for (size_t i = 0; i < peers->count; i++)
		if (strcmp(peers->items[i].name, name) == 0) {
			snprintf(problem, size, "section [peer %s] exists already, in line %d", name, peers->items[i].line);
			return NULL;
		}
	snprintf(problem, size, "out of memory");
	grown = realloc(peers->items, (peers->count + 1) * sizeof *grown);
	if (!grown)
		return NULL;
	peers->items = grown;
	grown[peers->count] = (struct agent_peer){.name = strdup(name), .line = line};
	return grown[peers->count].name ? &grown[peers->count++] : NULL;
}

void agent_peers_free(struct agent_peers *peers)
{
	for (size_t i = 0; i < peers->count; i++) {
		free(peers->items[i].name);
		options_free(agent_peer_options, agent_peer_option_count, &peers->items[i]);
	}
	free(peers->items);
	*peers = (struct agent_peers){0};
}
