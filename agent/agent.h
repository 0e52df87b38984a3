/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of a host: it vouches for the queue pairs of programs, to them and to the agents of other hosts. One thread, which never waits;
 * it opens no RDMA device. */
#ifndef AGENT_H
#define AGENT_H

#include "policy.h"

#include "securdma.h"

#include <stdio.h>

#define AGENT_DEFAULT_PORT "4434"

struct agent;
struct srdma_listener;
struct gid_map;

/* What a reload can change; the agent takes it over. */
struct agent_rules {
	struct policy policy;
	struct gid_map *map; /* NULL: none */
	struct srdma_tls_context *server, *client; /* of the same certificate */
};
void agent_rules_free(struct agent_rules *rules);
/* Makes both contexts speak the agents' protocol and reads the certificate's names. Errors: SRDMA_ECONFIG when the certificate has no name;
 * -EINVAL, -ENOMEM. `identity_from`: as for a server; NULL: the default. */
int agent_rules_prepare(struct agent_rules *rules, const char *identity_from);

struct agent_options {
	int local_fd;                    /* listens for programs; taken over */
	struct srdma_listener *listener; /* for other agents; taken over */
	const char *peer_port;           /* where other agents listen, unless the map says otherwise */
	int owner_fd;                    /* owner.h; taken over; below 0: the kernel cannot be asked yet */
};

/* Takes over what `options` and `rules` have, even when it fails. Errors: -ENOMEM, -EMFILE; SRDMA_ERANDOM. */
int agent_new(const struct agent_options *options, struct agent_rules *rules, struct agent **out);
/* Closes all sessions in order, and frees. */
void agent_free(struct agent **agent);

/* Readable when agent_step has something to do, before the time of agent_timeout_ms as well as then. */
int agent_fd(const struct agent *agent);
int agent_timeout_ms(const struct agent *agent);
/* Never waits. */
void agent_step(struct agent *agent);
/* Takes the rules over and puts them into force. Sessions are made anew, so that every peer is verified by the new rules. Errors: -ENOMEM;
 * then the old ones stay. */
int agent_reload(struct agent *agent, struct agent_rules *rules);

/* The name in the agent's certificate. */
const char *agent_name(const struct agent *agent);
/* Where it listens for other agents, "10.0.0.1:4434" or "*:4434". */
const char *agent_address(const struct agent *agent);

/* status.c. The JSON object of `securdma status --agent`; NULL: out of memory. */
struct json_t *agent_status(const struct agent *agent);
/* metrics.c, in Prometheus' text format. Thread-safe. */
void agent_metrics_print(const struct agent *agent, FILE *file);
/* Counts, for the line at the end. */
struct agent_totals {
	uint64_t programs, queue_pairs, sessions, connected, refused;
};
void agent_get_totals(const struct agent *agent, struct agent_totals *out);

#endif
