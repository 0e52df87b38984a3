/* SPDX-License-Identifier: Apache-2.0 */
/* The section [tunnel-targets] of the configuration: names, and where the server connects to for each. */
#ifndef CLI_TUNNEL_TARGETS_H
#define CLI_TUNNEL_TARGETS_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TUNNEL_NAME_MAX 63
#define TUNNEL_TARGETS_MAX 1024

struct tunnel_target {
	char *name, *address; /* "HOST:PORT", as in the file */
	struct addrinfo *found; /* of tunnel_targets_resolve; NULL: not looked up */
};

struct tunnel_targets {
	struct tunnel_target *items;
	size_t count;
};

/* Adds a target. False: *problem (of `size` bytes) has the error. */
bool tunnel_targets_add(struct tunnel_targets *targets, const char *name, const char *address, char *problem, size_t size);
/* NULL: there is none. */
const struct tunnel_target *tunnel_targets_find(const struct tunnel_targets *targets, const char *name);
/* Looks up all addresses, which may take as long as the resolver's time-outs. False: *problem has the error. */
bool tunnel_targets_resolve(struct tunnel_targets *targets, char *problem, size_t size);
/* The port of all addresses of a target that was looked up. */
uint16_t tunnel_target_port(const struct tunnel_target *target);
/* Whether it is one of these. */
bool tunnel_target_is_on(const struct tunnel_target *target, const uint16_t *ports, size_t count);
bool tunnel_targets_equal(const struct tunnel_targets *a, const struct tunnel_targets *b);
void tunnel_targets_free(struct tunnel_targets *targets);

/* Whether a list as "pg,web" has the name; "*" has all. NULL: it has none. */
bool tunnel_list_has(const char *list, const char *name);

#endif
