/* SPDX-License-Identifier: Apache-2.0 */
/* What a server's tunnels go by: a copy of the settings, since those change at a reload. */
#ifndef CLI_TUNNEL_CONFIG_H
#define CLI_TUNNEL_CONFIG_H

#include "settings.h"

#include <sys/socket.h>

#define TUNNEL_ADDRESSES_MAX 8

struct tunnel_address {
	struct sockaddr_storage address;
	socklen_t length;
};

/* A target with the addresses to try. */
struct tunnel_offer {
	char name[TUNNEL_NAME_MAX + 1];
	struct tunnel_address addresses[TUNNEL_ADDRESSES_MAX];
	unsigned count;
};

/* What the clients with one name may use. */
struct tunnel_grant {
	char *name, *list;
};

struct tunnel_config {
	struct tunnel_offer *offers;
	size_t offer_count;
	char *list; /* for clients without a grant of their own; NULL: nothing */
	struct tunnel_grant *grants;
	size_t grant_count;
	int connect_timeout_ms, idle_timeout_ms;
};

/* NULL: out of memory. */
struct tunnel_config *tunnel_config_new(const struct settings *settings);
/* The target of this name, whoever may use it. NULL: there is none. */
const struct tunnel_offer *tunnel_config_offer(const struct tunnel_config *config, const char *name);
/* Of the targets, whose offers `config` has, those on other ports than these become what they are in `old` (NULL: nothing), or go. */
void tunnel_config_keep(struct tunnel_config *config, const struct tunnel_targets *targets, const uint16_t *ports, size_t port_count,
			const struct tunnel_config *old);
/* The target, if clients with this name may use it. A client without a name, which showed no certificate, may use none. */
const struct tunnel_offer *tunnel_config_find(const struct tunnel_config *config, const char *peer_name, const char *target);
void tunnel_config_free(struct tunnel_config *config);

#endif
