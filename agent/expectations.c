/* SPDX-License-Identifier: Apache-2.0 */
/* What other hosts say of this host's queue pairs: each may have one peer, and its program must name the same. */
#include "clock.h"
#include "log.h"
#include "owner.h"
#include "promises.h"
#include "session.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Queries that wait for a queue pair, of one session. */
#define WAITINGS_MAX 1024u
/* How long an expectation of a host that is gone stays. */
#define GONE_S 60u

struct peer_end pair_end(const struct queue_pair *pair)
{
	struct peer_end end = {.qpn = pair->qpn};

	/* A connection without GIDs is one between LIDs at both ends. */
	if (pair->peer_lid != 0)
		end.lid = pair->device->lid;
	else
		memcpy(end.gid, pair->gid, sizeof end.gid);
	return end;
}

bool pair_has_peer(const struct queue_pair *pair, const struct peer_end *peer)
{
	return pair->peer_qpn == peer->qpn && pair->peer_lid == peer->lid && memcmp(pair->peer_gid, peer->gid, sizeof peer->gid) == 0;
}

void pair_set_peer(struct queue_pair *pair, const struct peer_end *own, const struct peer_end *peer)
{
	memcpy(pair->gid, own->gid, sizeof pair->gid);
	memcpy(pair->peer_gid, peer->gid, sizeof pair->peer_gid);
	pair->peer_lid = peer->lid;
	pair->peer_qpn = peer->qpn;
}

/* ---- queries ---------------------------------------------------------------------------------------------------- */

static void answer(struct session *session, uint32_t id, enum peer_status status, uint32_t psn, const char *format, ...) __attribute__((format(printf, 5, 6)));
static void answer(struct session *session, uint32_t id, enum peer_status status, uint32_t psn, const char *format, ...)
{
	struct peer_frame frame = {.type = PEER_ANSWER, .answer = {.id = id, .status = (uint8_t)status, .psn = psn}};
	va_list args;

	va_start(args, format);
	vsnprintf(frame.answer.text, sizeof frame.answer.text, format, args);
	va_end(args);
	session_send(session, &frame);
}

static void refuse(struct session *session, const struct peer_query *query, const struct queue_pair *pair, enum refusal reason, enum peer_status status,
		   const char *text)
{
	char asker[64], asked[64], line[LOCAL_TEXT];

	snprintf(line, sizeof line, "%s asks for queue pair %u at %s, to connect it with queue pair %u at %s: %s", session->name, query->asked.qpn,
		 peer_end_format(&query->asked, asked), query->asker.qpn, peer_end_format(&query->asker, asker), text);
	agent_refused(session->agent, reason, false, pair ? pair->program : NULL, pair, session->name, line);
	answer(session, query->id, status, 0, "%s", text);
}

/* Whether the queue pair is its program's, as far as the kernel says. One that is another's is forgotten. */
static bool is_owned(struct agent *agent, struct queue_pair *pair)
{
	struct device *device = pair->device;

	if (!device->kernel || pair->owned)
		return true;
	switch (program_owns(pair->program, device, pair->qpn)) {
	case OWNER_IS: pair->owned = true; return true;
	case OWNER_UNKNOWN: return true;
	case OWNER_IS_NOT: break;
	}
	agent_refused(agent, REFUSED_OWNER, false, pair->program, pair, NULL, "it registered a queue pair that, as the kernel says, belongs to another process");
	program_revoke(pair->program, pair, "the queue pair belongs to another process, as the kernel says");
	pairing_forget(agent, pair);
	return false;
}

/* The state of a queue pair that another one asks for: NULL: it may be told its PSN. */
static const char *problem_of(const struct queue_pair *pair, const struct peer_query *query)
{
	bool same = pair_has_peer(pair, &query->asker);

	switch ((enum queue_pair_state)pair->state) {
	case QUEUE_PAIR_IDLE:
		/* Its PSN was told to a host that released it. No other host may have the same. */
		return pair->told && (memcmp(pair->peer_gid, query->asker.gid, 16) != 0 || pair->peer_lid != query->asker.lid)
			       ? "its PSN was told to another host; its program must reset it first"
			       : NULL;
	case QUEUE_PAIR_EXPECTED: return same ? NULL : "another queue pair has asked for it before";
	case QUEUE_PAIR_ASKING: return same ? NULL : "its program names another queue pair";
	case QUEUE_PAIR_CONNECTED: return same ? NULL : "it is connected with another queue pair";
	case QUEUE_PAIR_REFUSED: return "its connection was refused; its program must reset it first";
	}
	return "its state is not known";
}

static void grant(struct session *session, struct queue_pair *pair, const struct peer_query *query)
{
	bool was_idle = pair->state == QUEUE_PAIR_IDLE;

	if (was_idle)
		pair_set_peer(pair, &query->asked, &query->asker);
	if (was_idle)
		pair->state = QUEUE_PAIR_EXPECTED;
	pair->told = true;
	pair->peer_psn = query->psn;
	pair->has_peer_psn = true;
	pair->expected_at = (uint32_t)(srdma_clock_us() / 1000000);
	answer(session, query->id, PEER_OK, pair->psn, "%s", "");
}

/* The asker was reset, and this queue pair, which is to follow, is still connected with what it was. */
static void promise(struct session *session, const struct queue_pair *pair, const struct peer_query *query)
{
	char text[PEER_TEXT];
	uint32_t psn;

	if (promise_make(pair, &query->asked, &query->asker, query->psn, &psn) == 0) {
		answer(session, query->id, PEER_OK, psn, "%s", "");
		return;
	}
	snprintf(text, sizeof text, "it is connected with an earlier queue pair of this number, and %.100s; reset both ends first", srdma_error_text());
	refuse(session, query, pair, REFUSED_LIMIT, PEER_BUSY, text);
}

/* Returns false if there is no such queue pair yet. */
static bool decide(struct session *session, const struct peer_query *query)
{
	struct agent *agent = session->agent;
	struct queue_pair *pair = pairing_find(agent, &query->asked);
	const char *problem;
	char text[LOCAL_NAME + 128];

	while (pair && !is_owned(agent, pair))
		pair = pairing_find(agent, &query->asked);
	if (!pair)
		return false;
	if (pairing_is_contested(agent, pair, &query->asked)) {
		refuse(session, query, pair, REFUSED_OWNER, PEER_DENIED, "two programs of that host claim this number, each on a device of its own");
		return true;
	}
	problem = policy_problem(&agent->rules.policy, session->name, &pair->program->subject);
	if (problem)
		snprintf(text, sizeof text, "the policy of %s host for %s: %s", pair->program->observe ? "this" : "that", session->name, problem);
	if (problem && pair->program->observe) {
		agent_refused(agent, REFUSED_POLICY, true, pair->program, pair, session->name, text);
	} else if (problem) {
		refuse(session, query, pair, REFUSED_POLICY, PEER_DENIED, text);
		return true;
	}
	if (pair->type != query->type) {
		refuse(session, query, pair, REFUSED_MISMATCH, PEER_DENIED, "one queue pair is RC and the other one UC");
		return true;
	}
	problem = problem_of(pair, query);
	if (problem)
		refuse(session, query, pair, REFUSED_TAKEN, PEER_TAKEN, problem);
	else if (pair->state == QUEUE_PAIR_CONNECTED && pair->peer_psn != query->psn)
		promise(session, pair, query);
	else
		grant(session, pair, query);
	return true;
}

static void waiting_free(struct waiting *waiting)
{
	struct agent *agent = waiting->session->agent;

	*waiting->link = waiting->next;
	if (waiting->next)
		waiting->next->link = waiting->link;
	waiting->session->waitings--;
	agent->waiting_count--;
	OPENSSL_cleanse(waiting, sizeof *waiting);
	free(waiting);
}

/* A program may tell its peer the number of a queue pair before its agent has read of it. */
static void wait_for_pair(struct session *session, const struct peer_query *query)
{
	struct agent *agent = session->agent;
	struct waiting *waiting = session->waitings < WAITINGS_MAX ? calloc(1, sizeof *waiting) : NULL, **first;

	if (!waiting) {
		refuse(session, query, NULL, REFUSED_LIMIT, PEER_BUSY, "too many queries wait for queue pairs that are not registered");
		return;
	}
	first = &agent->waitings[query->asked.qpn % WAITING_BUCKETS];
	*waiting = (struct waiting){.session = session, .query = *query, .until = agent_wait_for_pair(agent), .link = first, .next = *first};
	if (waiting->next)
		waiting->next->link = &waiting->next;
	*first = waiting;
	session->waitings++;
	agent->waiting_count++;
}

void pairing_query(struct session *session, const struct peer_query *query)
{
	if (!host_names_cover(&session->host, session->agent->rules.map, &query->asker)) {
		refuse(session, query, NULL, REFUSED_GID, PEER_DENIED, "the asker's address is not in its host's certificate, nor does the map file say that it is that host's");
		return;
	}
	if (!decide(session, query))
		wait_for_pair(session, query);
}

void expectations_registered(struct agent *agent, uint32_t qpn)
{
	struct waiting *next;

	for (struct waiting *waiting = agent->waitings[qpn % WAITING_BUCKETS]; waiting; waiting = next) {
		next = waiting->next;
		if (waiting->query.asked.qpn == qpn && decide(waiting->session, &waiting->query))
			waiting_free(waiting);
	}
}

void expectations_session_ended(struct session *session)
{
	struct agent *agent = session->agent;

	for (unsigned i = 0; session->waitings > 0 && i < WAITING_BUCKETS; i++) {
		struct waiting *next;

		for (struct waiting *waiting = agent->waitings[i]; waiting; waiting = next) {
			next = waiting->next;
			if (waiting->session == session)
				waiting_free(waiting);
		}
	}
}

/* ---- ends of connections ----------------------------------------------------------------------------------------- */

/* A queue pair of this host that must not go on. */
static void revoke_own(struct agent *agent, struct queue_pair *pair, const char *peer, const char *text)
{
	char line[LOCAL_TEXT];

	snprintf(line, sizeof line, "queue pair %u is put into the error state: %.400s", pair->qpn, text);
	agent_refused(agent, REFUSED_MISMATCH, pair->program->observe, pair->program, pair, peer, line);
	if (pair->program->observe)
		return;
	agent_count(agent, COUNT_REVOKED);
	pair->state = QUEUE_PAIR_REFUSED;
	if (pair->ask)
		ask_refuse(pair->ask, REFUSED_MISMATCH, EACCES, peer, "%s", text);
	pair->state = QUEUE_PAIR_REFUSED;
	program_revoke(pair->program, pair, text);
}

void pairing_revoke(struct session *session, const struct peer_notice *notice)
{
	struct agent *agent = session->agent;
	struct queue_pair *pair = pairing_find(agent, &notice->end);

	/* Only the host of its peer may say so, and of this registration. */
	if (!pair || pair->psn != notice->psn || pair->state == QUEUE_PAIR_IDLE || pair->state == QUEUE_PAIR_REFUSED || !pair_has_peer(pair, &notice->other) ||
	    !host_names_cover(&session->host, agent->rules.map, &notice->other))
		return;
	revoke_own(agent, pair, session->name, notice->text);
}

void pairing_release(struct session *session, const struct peer_notice *notice)
{
	struct agent *agent = session->agent;
	struct queue_pair *pair = pairing_find(agent, &notice->other);

	if (!host_names_cover(&session->host, agent->rules.map, &notice->end))
		return;
	promises_withdraw(agent, &notice->other, &notice->end, notice->psn);
	if (pair && pair_has_peer(pair, &notice->end))
		expectation_drop(pair, notice->psn);
}

void expectation_drop(struct queue_pair *pair, uint32_t peer_psn)
{
	if (pair->has_peer_psn && pair->peer_psn != peer_psn)
		return;
	if (pair->state == QUEUE_PAIR_EXPECTED)
		pair->state = QUEUE_PAIR_IDLE;
	if (pair->state != QUEUE_PAIR_CONNECTED)
		pair->has_peer_psn = false;
}

/* Another agent, or this one, if the queue pair's peer is here, hears of it. */
static void tell(struct agent *agent, enum peer_frame_type type, const struct queue_pair *pair, const char *text)
{
	struct peer_end own = pair_end(pair), peer = {.qpn = pair->peer_qpn, .lid = pair->peer_lid};
	struct peer_frame frame = {.type = type};
	struct queue_pair *here;
	struct session *session;

	memcpy(peer.gid, pair->peer_gid, sizeof peer.gid);
	if (type == PEER_RELEASE)
		promises_withdraw(agent, &peer, &own, pair->psn);
	here = pairing_find(agent, &peer);
	if (here && here != pair && pair_has_peer(here, &own)) {
		if (type == PEER_REVOKE)
			revoke_own(agent, here, agent_name(agent), text);
		else
			expectation_drop(here, pair->psn);
		return;
	}
	session = here ? NULL : peers_find(agent, &peer);
	if (!session || session->state != SESSION_OPEN)
		return;
	frame.notice.end = type == PEER_REVOKE ? peer : own;
	frame.notice.other = type == PEER_REVOKE ? own : peer;
	frame.notice.psn = type == PEER_REVOKE ? pair->peer_psn : pair->psn;
	snprintf(frame.notice.text, sizeof frame.notice.text, "%s", text);
	session_send(session, &frame);
}

void expectation_released(struct agent *agent, const struct queue_pair *pair)
{
	/* An agent that stops says nothing: the queue pairs go on without it. */
	if (!agent->stopping && pair->state != QUEUE_PAIR_IDLE && pair->state != QUEUE_PAIR_REFUSED)
		tell(agent, PEER_RELEASE, pair, "");
}

void expectation_broken(struct agent *agent, struct queue_pair *pair, const char *text)
{
	tell(agent, PEER_REVOKE, pair, text);
	pair->state = QUEUE_PAIR_REFUSED;
}

bool expectation_is_owned(struct agent *agent, struct queue_pair *pair)
{
	return is_owned(agent, pair);
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static void drop_gone(struct agent *agent, uint64_t now)
{
	uint32_t second = (uint32_t)(now / 1000000);

	for (size_t i = 0; i < agent->queue_pairs.size; i++)
		for (struct queue_pair *pair = agent->queue_pairs.buckets[i]; pair; pair = pair->next) {
			struct peer_end peer = {.lid = pair->peer_lid, .qpn = pair->peer_qpn};

			if (pair->state != QUEUE_PAIR_EXPECTED || second - pair->expected_at < GONE_S)
				continue;
			memcpy(peer.gid, pair->peer_gid, sizeof peer.gid);
			pair->expected_at = second;
			if (!pairing_find(agent, &peer) && !peers_find(agent, &peer))
				expectation_drop(pair, pair->peer_psn);
		}
}

void expectations_tick(struct agent *agent, uint64_t now)
{
	for (unsigned i = 0; agent->waiting_count > 0 && i < WAITING_BUCKETS; i++) {
		struct waiting *next;

		for (struct waiting *waiting = agent->waitings[i]; waiting; waiting = next) {
			next = waiting->next;
			if (now < waiting->until)
				continue;
			refuse(waiting->session, &waiting->query, NULL, REFUSED_UNKNOWN, PEER_UNKNOWN,
			       "no program of that host has registered it; is it run by 'securdma wrap'?");
			waiting_free(waiting);
		}
	}
	if (now - agent->swept_at > GONE_S * 1000000 / 4) {
		agent->swept_at = now;
		drop_gone(agent, now);
	}
}
