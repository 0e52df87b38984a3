/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's parts, for its own files. */
#ifndef AGENT_PARTS_H
#define AGENT_PARTS_H

#include "agent.h"
#include "allowance.h"
#include "devices.h"
#include "event_loop.h"
#include "host_names.h"
#include "places.h"
#include "program.h"
#include "queue_pairs.h"

#include <stdatomic.h>

#define ASK_BUCKETS 4096u
#define ROUTE_BUCKETS 4096u
#define WAITING_BUCKETS 256u

/* Why something was refused: the words of the metrics and of the log's field "reason". */
enum refusal {
	REFUSED_POLICY,      /* the operator's rules */
	REFUSED_NO_AGENT,    /* no agent answers at the destination, or no line of the map names one */
	REFUSED_CERTIFICATE, /* a certificate that does not verify, or lacks a name */
	REFUSED_GID,         /* a GID that is not the host's that claims it */
	REFUSED_OWNER,       /* a queue pair of another process */
	REFUSED_MISMATCH,    /* the two programs name different queue pairs */
	REFUSED_UNKNOWN,     /* no such queue pair */
	REFUSED_TAKEN,       /* it belongs to another connection */
	REFUSED_LIMIT,
	REFUSED_ENCRYPTION,
	REFUSED_PROGRAM,     /* by the program's own library: rdma_cm, devx */
	REFUSED_LOST,        /* the other agent went away, or did not answer in time */
	REFUSED_INVALID,     /* a request that makes no sense */
	REFUSAL_COUNT
};

enum agent_counter {
	COUNT_PROGRAMS,
	COUNT_REGISTERED,
	COUNT_CONNECTED,
	COUNT_CONNECTED_HERE, /* both ends on this host */
	COUNT_QUERIES_SENT,
	COUNT_QUERIES_RECEIVED,
	COUNT_QUERIES_DELAYED, /* times that a peer was held up for its rate */
	COUNT_REVOKED,
	COUNT_OBSERVED,
	COUNT_SESSIONS,
	COUNT_SESSIONS_LOST,
	COUNT_HANDSHAKES_FAILED,
	COUNT_HANDSHAKES_EVICTED,
	COUNTER_COUNT
};

/* A question of a program that needs time. */
struct ask {
	struct ask *next, **link; /* of all */
	struct ask *next_same;    /* with the same hash of the id */
	struct ask *next_here, **link_here; /* of those that wait for a queue pair of this host; NULL: it does not */
	struct program *program;
	struct queue_pair *pair;  /* NULL: it is for an address handle */
	const struct device *device; /* the program's */
	struct session *session;  /* on which it waits, or is sent; NULL: it waits for a queue pair of this host */
	bool sent;
	uint8_t tries;
	uint32_t id, request, psn_would_be;
	struct peer_end own, peer; /* without an address handle's numbers */
	uint64_t deadline, grace_until;
	uint64_t retry_at; /* the peer's agent was there a moment ago, and is asked again then; 0: no */
	bool judged; /* its path, by an observing program's: nothing encrypts it */
	char encryption[LOCAL_NAME];
	char *observed; /* what an observing program is told when its question is answered; NULL: nothing */
};

/* A peer's query for a queue pair that is not registered yet. */
struct waiting {
	struct waiting *next, **link;
	struct session *session;
	struct peer_query query;
	uint64_t until;
};

/* A program's wish to register a number that another process still has. */
struct registration {
	struct registration *next;
	struct program *program;
	struct local_queue_pair request;
	uint64_t until;
};

struct route {
	struct route *next;
	uint8_t gid[16];
	struct session *session;
};

/* A host that could not be reached a moment ago. */
struct failure {
	char host[264], port[8];
	uint64_t until;
	enum refusal reason;
	char text[256];
};
#define FAILURES 64

/* A host whose agent was there a moment ago, by the address or name at which it is reached. */
struct lost {
	char host[64];
	uint64_t until;
};
#define LOST 256

struct agent {
	struct event_loop loop;
	struct agent_rules rules;
	struct host_names own;
	struct addresses addresses;
	struct places places; /* of all programs' devices */
	uint8_t instance[PEER_INSTANCE];
	int owner_fd;
	struct allowance searches; /* of an owner among all queue pairs of a device */
	bool owner_told; /* that the kernel cannot be asked */
	char *peer_port;
	uint64_t started_at, ticked_at;
	bool stopping;

	struct source local;
	struct program *programs;
	struct user *users;
	unsigned program_count;
	struct queue_pairs queue_pairs;

	struct srdma_listener *listener;
	struct source door;
	struct session *sessions;
	unsigned session_count, handshake_count;
	bool restless; /* a session is being made or held up, or the door is closed: deadlines are near */
	struct allowance strangers; /* handshakes that may begin */
	struct route *routes[ROUTE_BUCKETS];
	struct failure failures[FAILURES];
	unsigned next_failure;
	struct lost lost[LOST];
	unsigned next_lost;

	struct ask *asks;
	struct ask *ask_buckets[ASK_BUCKETS];
	unsigned ask_count;
	uint32_t last_id;
	struct ask *here[WAITING_BUCKETS]; /* by the number that they wait for */
	struct waiting *waitings[WAITING_BUCKETS];
	unsigned waiting_count;
	struct registration *registrations; /* the oldest first */
	unsigned registration_count;
	uint64_t swept_at;

	/* Read by the thread of the metrics. */
	atomic_ullong counters[COUNTER_COUNT], refusals[REFUSAL_COUNT];
	atomic_uint gauge_programs, gauge_queue_pairs, gauge_sessions, gauge_asks;
	atomic_llong not_after;
};

static inline void agent_count(struct agent *agent, enum agent_counter counter)
{
	atomic_fetch_add_explicit(&agent->counters[counter], 1, memory_order_relaxed);
}

/* Until when a question waits for a queue pair that is not registered: a moment, since its program may tell the number before the agent has
 * read of it; longer after this agent's start, when programs register again what they had. */
uint64_t agent_wait_for_pair(const struct agent *agent);

/* refusals.c: logs a refusal, once, and counts it. `program`, `peer` (a name) and `pair` may be NULL. */
void agent_refused(struct agent *agent, enum refusal reason, bool observed, const struct program *program, const struct queue_pair *pair, const char *peer,
		   const char *text);
const char *refusal_name(enum refusal reason);

/* registrations.c */
void pairing_register(struct program *program, const struct local_queue_pair *request);
/* A queue pair with this number is gone, for which another program may wait; 0: any. */
void registrations_try(struct agent *agent, uint32_t qpn);
/* The program does not want it any more, or has gone. */
void registrations_forget(struct program *program, const struct local_queue_pair *request);
void registrations_leave(struct program *program);
void registrations_tick(struct agent *agent, uint64_t now);

/* pairing.c: what programs ask for. */
/* Removes a queue pair, whose peer's agent hears of it. */
void pairing_forget(struct agent *agent, struct queue_pair *pair);
/* The same, because its program says so. */
void pairing_give_up(struct program *program, struct queue_pair *pair);
struct queue_pair *pairing_find_own(const struct program *program, const char *device, uint32_t port, uint32_t qpn);
/* The queue pair of this host that an end means; NULL: it is not registered. */
struct queue_pair *pairing_find(const struct agent *agent, const struct peer_end *end);
/* Whether another program claims the same number at the same address: then nobody can tell whose it is. `found`: of pairing_find(). */
bool pairing_is_contested(const struct agent *agent, const struct queue_pair *found, const struct peer_end *end);
/* A queue pair with this number was registered: questions of this host's programs may wait for it. */
void pairing_registered(struct agent *agent, uint32_t qpn);
void pairing_connect(struct program *program, const struct local_connect *request);
void pairing_address(struct program *program, const struct local_address *request);
/* A program's end. */
void pairing_leave(struct program *program);

/* expectations.c: what other hosts say of this host's queue pairs. */
struct peer_end pair_end(const struct queue_pair *pair);
bool pair_has_peer(const struct queue_pair *pair, const struct peer_end *peer);
void pair_set_peer(struct queue_pair *pair, const struct peer_end *own, const struct peer_end *peer);
void pairing_query(struct session *session, const struct peer_query *query);
void pairing_revoke(struct session *session, const struct peer_notice *notice);
void pairing_release(struct session *session, const struct peer_notice *notice);
/* A queue pair with this number was registered: queries may wait for it. */
void expectations_registered(struct agent *agent, uint32_t qpn);
void expectations_session_ended(struct session *session);
/* The peer's queue pair with this PSN is gone. */
void expectation_drop(struct queue_pair *pair, uint32_t peer_psn);
/* This queue pair goes: its peer's agent hears of it. */
void expectation_released(struct agent *agent, const struct queue_pair *pair);
/* Its program names another peer than the one that asked for it: both are refused. */
void expectation_broken(struct agent *agent, struct queue_pair *pair, const char *text);
/* Asks the kernel, unless it has said so before. False: it was another process's, and is forgotten. */
bool expectation_is_owned(struct agent *agent, struct queue_pair *pair);
void expectations_tick(struct agent *agent, uint64_t now);

/* asks.c: questions that need another host's answer. */
struct ask *ask_new(struct program *program, struct queue_pair *pair, const struct device *device, uint32_t request, const struct peer_end *own,
		    const struct peer_end *peer);
void ask_free(struct ask *ask);
/* Its program has reset or destroyed the queue pair: the thread that still waits hears of it. */
void ask_cancel(struct ask *ask);
/* Begins, or begins again: finds the session to the destination's host. It may end the ask. */
void ask_begin(struct ask *ask);
/* It waits for a queue pair of this host. */
void ask_wait_here(struct ask *ask);
/* The peer's agent has told its PSN before. */
void ask_confirm(struct ask *ask);
/* The session is open. */
void ask_send(struct ask *ask);
void ask_answered(struct session *session, const struct peer_answer *answer);
void ask_grant(struct ask *ask, const char *peer, uint32_t psn);
/* The peer is on this host. */
void ask_grant_here(struct ask *ask, uint32_t psn);
void ask_refuse(struct ask *ask, enum refusal reason, int error, const char *peer, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* For what this host forbids, though the peer's agent may answer: refuses it, or, if the program observes, notes it. Returns whether to go on. */
bool ask_object(struct ask *ask, enum refusal reason, const char *peer, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* A session that has ended, or could not be made, with its reason. */
void asks_of_session_ended(struct session *session, enum refusal reason, const char *text);
void asks_of_session_open(struct session *session);
void asks_tick(struct agent *agent, uint64_t now);
void program_refuse(struct program *program, uint32_t request, const struct queue_pair *pair, uint32_t psn, enum refusal reason, int error, const char *peer,
		    const char *format, ...) __attribute__((format(printf, 8, 9)));

#endif
