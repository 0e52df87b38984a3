/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator allows: how strict the agent is, and which local users may connect to which hosts. */
#ifndef AGENT_POLICY_H
#define AGENT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A list of users, "alice, 1000, @hpc": names or numbers, and groups behind an @; "*": all. */
struct policy_users {
	bool all;
	uid_t *uids;
	gid_t *gids;
	size_t uid_count, gid_count;
};

/* Looks the names up. NULL: all users; "": none. Errors: -EINVAL, with the name that is unknown; -ENOMEM. */
int policy_users_parse(const char *text, struct policy_users *out);
void policy_users_free(struct policy_users *users);

/* What holds for one peer, by the name that its certificate has. */
struct policy_peer {
	char *name;
	bool deny;
	bool require_encryption;
	struct policy_users users;
};

struct policy {
	bool observe; /* let programs go on, and log what would have been refused */
	bool require_encryption;
	bool only_listed_peers;
	struct policy_users users; /* for peers that are not listed */
	struct policy_peer *peers; /* sorted by name: policy_sort */
	size_t peer_count;
	unsigned queue_pairs_per_user, programs_per_user;
	unsigned queries_per_second; /* of one peer */
	unsigned sessions, handshakes, handshakes_per_second;
	int connect_timeout_ms; /* from a program's question to its answer */
	int keepalive_ms;       /* of silence, before a session's other end is asked whether it is there */
	int idle_timeout_ms;    /* without a question, before a session is closed */
};

/* A local user, as the kernel tells of the process at the other end of a socket. */
struct policy_subject {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t group_count;
};

void policy_sort(struct policy *policy);
const struct policy_peer *policy_find(const struct policy *policy, const char *name);
/* Why a program's user may not connect to the peer, to follow "the policy of this host for NAME: "; NULL: it may. Static. */
const char *policy_problem(const struct policy *policy, const char *peer, const struct policy_subject *subject);
/* Whether the path to this peer must be encrypted. */
bool policy_requires_encryption(const struct policy *policy, const char *peer);
/* Whether there is any peer of which this is so. */
bool policy_requires_encryption_of_some(const struct policy *policy);
void policy_free(struct policy *policy);

#endif
