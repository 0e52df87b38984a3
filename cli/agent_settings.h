/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of `securdma agent`: the section [agent] and the sections [peer NAME] of the configuration file. */
#ifndef CLI_AGENT_SETTINGS_H
#define CLI_AGENT_SETTINGS_H

#include "option.h"

struct agent_settings {
	char *socket, *control, *map, *users;
	char *listen, *port, *peer_port, *metrics, *user, *group;
	int64_t mode; /* enum local_mode */
	bool require_encryption, only_listed_peers, no_sandbox;
	int64_t queue_pairs_per_user, programs_per_user, queries_per_second;
	int64_t max_sessions, max_handshakes, max_handshakes_per_second;
	int64_t connect_timeout_ms, keepalive_ms, idle_timeout_ms;
};

/* A section [peer NAME]: another host, by the name that its certificate has. */
struct agent_peer {
	char *name, *users;
	int line;
	bool deny, require_encryption;
};

struct agent_peers {
	struct agent_peer *items;
	size_t count;
};

/* The keys of a section [peer NAME]; their offsets are in struct agent_peer. */
extern const struct option agent_peer_options[];
extern const size_t agent_peer_option_count;

void agent_settings_init(struct agent_settings *settings);
/* Adds a peer with nothing set; the pointer is valid until the next one is added. NULL: *problem (of `size` bytes) has the error. */
struct agent_peer *agent_peers_add(struct agent_peers *peers, const char *name, int line, char *problem, size_t size);
void agent_peers_free(struct agent_peers *peers);

#endif
