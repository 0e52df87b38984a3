/* SPDX-License-Identifier: Apache-2.0 */
/* The agents of other hosts: which session leads where, and how many strangers may knock. */
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "session.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* The time that a peer has at least for its handshake while others wait for its place. */
#define GRACE_US 100000u
/* How long a host that could not be reached is not tried again. */
#define FAILURE_US 500000u
/* The same, of a host whose agent was there less than LOST_US ago. */
#define FAILURE_LOST_US 100000u
#define LOST_US 10000000u
/* Of one peer, by its name: one in each direction, and those that a network's failure left behind. */
#define SESSIONS_A_PEER 4
/* Connections taken in one turn, so that a crowd at the door does not hold up the sessions. */
#define ACCEPTS 4

static const uint8_t no_gid[16];

/* ---- routes ---------------------------------------------------------------------------------------------------- */

static struct route **bucket(struct agent *agent, const uint8_t gid[16])
{
	uint32_t hash = 2166136261u;

	for (int i = 0; i < 16; i++)
		hash = (hash ^ gid[i]) * 16777619u;
	return &agent->routes[hash % ROUTE_BUCKETS];
}

static struct route *find_route(struct agent *agent, const uint8_t gid[16])
{
	struct route *route = *bucket(agent, gid);

	while (route && memcmp(route->gid, gid, sizeof route->gid) != 0)
		route = route->next;
	return route;
}

void peers_forget_routes(struct session *session)
{
	for (size_t i = 0; i < session->host.count; i++) {
		struct route **at = bucket(session->agent, session->host.gids[i]);

		while (*at && ((*at)->session != session || memcmp((*at)->gid, session->host.gids[i], 16) != 0))
			at = &(*at)->next;
		if (*at) {
			struct route *old = *at;

			*at = old->next;
			free(old);
		}
	}
}

static bool add_route(struct session *session, const uint8_t gid[16])
{
	struct route *route = find_route(session->agent, gid), **at = bucket(session->agent, gid);

	if (!route) {
		route = calloc(1, sizeof *route);
		if (!route)
			return false;
		memcpy(route->gid, gid, sizeof route->gid);
		route->next = *at;
		*at = route;
	}
	route->session = session;
	return true;
}

static unsigned count_sessions(const struct session *session)
{
	unsigned count = 0;

	for (const struct session *at = session->agent->sessions; at; at = at->next)
		count += at != session && at->state == SESSION_OPEN && strcmp(at->name, session->name) == 0;
	return count;
}

/* Both ends may dial at once: then either session will do. The newest is the route, since the peer may have lost an older one. An agent that
 * was started again has another instance: its new session takes the old one's place. */
bool peers_greet(struct session *session, const struct peer_hello *hello, const char **reason)
{
	struct agent *agent = session->agent;
	struct session *old = NULL;

	memcpy(session->instance, hello->instance, sizeof session->instance);
	if (memcmp(hello->instance, agent->instance, sizeof agent->instance) == 0) {
		*reason = "it leads to this host's own agent";
		return false;
	}
	if (count_sessions(session) >= SESSIONS_A_PEER) {
		*reason = "this peer has too many sessions already";
		return false;
	}
	for (unsigned i = 0; i < hello->count; i++) {
		struct route *route = find_route(agent, hello->gids[i]);

		if (!host_names_have(&session->host, hello->gids[i])) {
			*reason = "the peer claims an address that its certificate does not have";
			return false;
		}
		if (route && memcmp(route->session->instance, hello->instance, sizeof hello->instance) != 0)
			old = route->session;
		if (!add_route(session, hello->gids[i])) {
			*reason = "out of memory";
			return false;
		}
	}
	if (old)
		session_end(old, REFUSAL_COUNT, "the peer's agent was started again");
	return true;
}

/* ---- hosts that are gone ---------------------------------------------------------------------------------------- */

static void note_lost(struct agent *agent, const char *host)
{
	struct lost *lost = &agent->lost[agent->next_lost++ % LOST];

	snprintf(lost->host, sizeof lost->host, "%s", host);
	lost->until = srdma_clock_us() + LOST_US;
}

void peers_note_lost(struct agent *agent, const struct session *session)
{
	char text[64];

	for (size_t i = 0; i < session->host.count && i < PEER_GIDS; i++) {
		struct peer_end end = {0};

		memcpy(end.gid, session->host.gids[i], sizeof end.gid);
		note_lost(agent, peer_end_format(&end, text));
	}
	if (session->outgoing)
		note_lost(agent, session->target);
}

static bool is_lost(const struct agent *agent, const char *host)
{
	uint64_t now = srdma_clock_us();

	for (unsigned i = 0; i < LOST; i++)
		if (agent->lost[i].until > now && strcmp(agent->lost[i].host, host) == 0)
			return true;
	return false;
}

/* ---- hosts that cannot be reached ------------------------------------------------------------------------------- */

void peers_note_failure(struct agent *agent, const struct session *session, enum refusal reason, const char *text)
{
	struct failure *failure = &agent->failures[agent->next_failure++ % FAILURES];

	snprintf(failure->host, sizeof failure->host, "%s", session->target);
	snprintf(failure->port, sizeof failure->port, "%s", session->port);
	snprintf(failure->text, sizeof failure->text, "%s", text);
	failure->reason = reason;
	failure->until = srdma_clock_us() + (is_lost(agent, session->target) ? FAILURE_LOST_US : FAILURE_US);
}

static const struct failure *find_failure(const struct agent *agent, const char *host, const char *port)
{
	uint64_t now = srdma_clock_us();

	for (unsigned i = 0; i < FAILURES; i++) {
		const struct failure *failure = &agent->failures[i];

		if (failure->until > now && strcmp(failure->host, host) == 0 && strcmp(failure->port, port) == 0)
			return failure;
	}
	return NULL;
}

/* ---- reaching a host ------------------------------------------------------------------------------------------- */

struct target {
	const char *host, *port, *expected;
	char room[64 + IF_NAMESIZE + 1];
};

static int find_target(const struct agent *agent, const struct peer_end *own, const struct peer_end *end, struct target *target)
{
	bool has_gid = memcmp(end->gid, no_gid, sizeof no_gid) != 0;
	const struct gid_map_entry *entry = has_gid ? gid_map_find(agent->rules.map, end->gid) : gid_map_find_lid(agent->rules.map, end->lid);
	char text[64], interface[IF_NAMESIZE];
	union ibv_gid gid;

	target->port = agent->peer_port;
	if (entry) {
		target->host = entry->host;
		target->expected = entry->name;
		if (entry->port)
			target->port = entry->port;
		return 0;
	}
	if (!has_gid)
		return srdma_fail(-EHOSTUNREACH, "no line of the map file says which host has LID %u; add 'lid %u HOST' to it (--map)", end->lid, end->lid);
	memcpy(gid.raw, end->gid, sizeof gid.raw);
	snprintf(target->room, sizeof target->room, "%s", peer_end_format(end, text));
	if (srdma_net_gid_is_link_local(&gid) && address_interface(own->gid, interface))
		snprintf(target->room, sizeof target->room, "%s%%%s", text, interface);
	target->host = target->expected = target->room;
	return 0;
}

bool peers_lead_here(struct agent *agent, const struct peer_end *end)
{
	bool has_gid = memcmp(end->gid, no_gid, sizeof no_gid) != 0;

	return has_gid && !gid_map_find(agent->rules.map, end->gid) && (unsigned)atoi(agent->peer_port) == srdma_listener_port(agent->listener) &&
	       addresses_contain(&agent->addresses, end->gid);
}

bool peers_were_here(const struct agent *agent, const struct peer_end *own, const struct peer_end *end)
{
	struct target target;

	return find_target(agent, own, end, &target) == 0 && is_lost(agent, target.host);
}

static struct session *find_dialed(const struct agent *agent, const char *host, const char *port)
{
	for (struct session *at = agent->sessions; at; at = at->next)
		if (at->outgoing && at->state != SESSION_LINGER && strcmp(at->target, host) == 0 && strcmp(at->port, port) == 0)
			return at;
	return NULL;
}

struct session *peers_find(const struct agent *agent, const struct peer_end *end)
{
	struct route *route = memcmp(end->gid, no_gid, sizeof no_gid) != 0 ? find_route((struct agent *)(uintptr_t)agent, end->gid) : NULL;
	const struct peer_end nowhere = {0};
	struct target target;
	struct session *session;

	if (route)
		return route->session;
	if (find_target(agent, &nowhere, end, &target) != 0)
		return NULL;
	session = find_dialed(agent, target.host, target.port);
	return session && session->state == SESSION_OPEN ? session : NULL;
}

int peers_reach(struct agent *agent, const struct peer_end *own, const struct peer_end *end, struct session **out, enum refusal *reason)
{
	struct route *route = memcmp(end->gid, no_gid, sizeof no_gid) != 0 ? find_route(agent, end->gid) : NULL;
	const struct failure *failure;
	struct target target;
	int ret;

	*reason = REFUSED_NO_AGENT;
	if (route) {
		*out = route->session;
		return 0;
	}
	ret = find_target(agent, own, end, &target);
	if (ret != 0)
		return ret;
	*out = find_dialed(agent, target.host, target.port);
	if (*out)
		return 0;
	failure = find_failure(agent, target.host, target.port);
	if (failure) {
		*reason = failure->reason;
		return srdma_fail(-EHOSTUNREACH, "%s", failure->text);
	}
	if (agent->session_count - agent->handshake_count >= agent->rules.policy.sessions) {
		*reason = REFUSED_LIMIT;
		return srdma_fail(-EBUSY, "this agent has %u sessions, which is the maximum (max-sessions)", agent->rules.policy.sessions);
	}
	return session_dial(agent, target.host, target.port, target.expected, out);
}

/* ---- the door -------------------------------------------------------------------------------------------------- */

static bool is_stranger(const struct session *session)
{
	return session->counted;
}

/* How many strangers share the address of this one. */
static unsigned count_network(const struct session *session)
{
	unsigned count = 0;

	for (const struct session *at = session->agent->sessions; at; at = at->next)
		count += is_stranger(at) && memcmp(at->network, session->network, sizeof at->network) == 0;
	return count;
}

/* A stranger that had its time: of the address that has most, the oldest one. NULL: all are new. */
static struct session *find_victim(struct agent *agent)
{
	uint64_t now = srdma_clock_us();
	struct session *victim = NULL;
	unsigned most = 0;

	for (struct session *at = agent->sessions; at; at = at->next) {
		unsigned count;

		if (!is_stranger(at) || now - at->began < GRACE_US)
			continue;
		count = count_network(at);
		if (count > most || (count == most && victim && at->began < victim->began)) {
			victim = at;
			most = count;
		}
	}
	return victim;
}

static bool make_room(struct agent *agent)
{
	struct session *victim;

	if (agent->handshake_count < agent->rules.policy.handshakes)
		return true;
	victim = find_victim(agent);
	if (!victim)
		return false;
	agent_count(agent, COUNT_HANDSHAKES_EVICTED);
	session_end(victim, REFUSED_LIMIT, "others wait for its place, and it has not authenticated");
	return true;
}

static void open_door(struct agent *agent, bool open)
{
	if (!open)
		agent->restless = true;
	if (agent->door.fd >= 0)
		event_loop_watch(&agent->loop, &agent->door, open ? EPOLLIN : 0);
}

void peers_note_room(struct agent *agent)
{
	open_door(agent, true);
}

static void knock(struct source *source, uint32_t events)
{
	struct agent *agent = (struct agent *)(void *)((char *)source - offsetof(struct agent, door));

	(void)events;
	for (int i = 0; i < ACCEPTS; i++) {
		struct sockaddr_storage peer;
		int fd;

		/* A handshake costs this end more than the other, so that only so many begin in a second. The tick opens the door again; until
		 * then they wait in the kernel. */
		if (agent->session_count >= agent->rules.policy.sessions + agent->rules.policy.handshakes || !make_room(agent) || !allowance_take(&agent->strangers, agent->rules.policy.handshakes_per_second)) {
			open_door(agent, false);
			return;
		}
		fd = srdma_listener_accept_from(agent->listener, 0, &peer);
		if (fd == -EAGAIN)
			return;
		if (fd < 0) {
			srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
			open_door(agent, false);
			return;
		}
		if (session_accept(agent, fd, (struct sockaddr *)&peer) != 0)
			srdma_log(SRDMA_LOG_ERROR, "cannot take a connection of another agent: %s", srdma_error_text());
	}
}

int peers_open(struct agent *agent, struct srdma_listener *listener)
{
	agent->listener = listener;
	agent->door = (struct source){.ready = knock, .fd = srdma_listener_fd(listener)};
	allowance_init(&agent->strangers, agent->rules.policy.handshakes_per_second);
	return event_loop_watch(&agent->loop, &agent->door, EPOLLIN);
}

void peers_tick(struct agent *agent, uint64_t now)
{
	struct session *next;

	agent->restless = false;
	for (struct session *session = agent->sessions; session; session = next) {
		next = session->next;
		/* It may end the session. */
		agent->restless |= session->state != SESSION_OPEN || session->held;
		session_tick(session, now);
	}
	open_door(agent, true);
}

void peers_close(struct agent *agent)
{
	if (agent->door.fd >= 0)
		event_loop_watch(&agent->loop, &agent->door, 0);
	agent->door.fd = -1;
	while (agent->sessions)
		session_end(agent->sessions, REFUSAL_COUNT, "this agent stops");
	srdma_listener_free(&agent->listener);
}
