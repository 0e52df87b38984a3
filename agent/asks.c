/* SPDX-License-Identifier: Apache-2.0 */
/* Questions of programs that need time: the other host's agent must answer, or a queue pair of this host must come up. */
#include "clock.h"
#include "encryption.h"
#include "log.h"
#include "session.h"

#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of all programs. */
#define ASKS_MAX 65536u
/* Of one user's. */
#define ASKS_A_USER (ASKS_MAX / 4)
/* Sessions that a question is put on: a session that ends on its way costs one. */
#define TRIES_MAX 3
#define RETRY_US 50000u
/* How long after it registered a queue pair again a program is taken to have come over this agent's restart. */
#define RESTORED_US 10000000u

static struct ask **bucket(struct agent *agent, uint32_t id)
{
	return &agent->ask_buckets[id % ASK_BUCKETS];
}

struct ask *ask_new(struct program *program, struct queue_pair *pair, const struct device *device, uint32_t request, const struct peer_end *own, const struct peer_end *peer)
{
	struct agent *agent = program->agent;
	bool fits = agent->ask_count < ASKS_MAX && program->user->asks < ASKS_A_USER;
	struct ask *ask = fits ? calloc(1, sizeof *ask) : NULL, **same;

	if (!ask)
		return NULL;
	ask->program = program;
	ask->pair = pair;
	ask->device = device;
	ask->request = request;
	ask->own = *own;
	ask->peer = *peer;
	ask->id = ++agent->last_id;
	ask->deadline = srdma_deadline(agent->rules.policy.connect_timeout_ms);
	ask->link = &agent->asks;
	ask->next = agent->asks;
	if (ask->next)
		ask->next->link = &ask->next;
	agent->asks = ask;
	same = bucket(agent, ask->id);
	ask->next_same = *same;
	*same = ask;
	if (pair)
		pair->ask = ask;
	program->asks++;
	program->user->asks++;
	agent->ask_count++;
	atomic_store_explicit(&agent->gauge_asks, agent->ask_count, memory_order_relaxed);
	return ask;
}

static void set_session(struct ask *ask, struct session *session)
{
	if (ask->session)
		ask->session->asks--;
	ask->session = session;
	ask->sent = false;
	if (session)
		session->asks++;
}

void ask_free(struct ask *ask)
{
	struct agent *agent = ask->program->agent;
	struct ask **same = bucket(agent, ask->id);

	set_session(ask, NULL);
	while (*same != ask)
		same = &(*same)->next_same;
	*same = ask->next_same;
	*ask->link = ask->next;
	if (ask->next)
		ask->next->link = ask->link;
	if (ask->pair)
		ask->pair->ask = NULL;
	if (ask->link_here)
		*ask->link_here = ask->next_here;
	if (ask->next_here)
		ask->next_here->link_here = ask->link_here;
	ask->program->asks--;
	ask->program->user->asks--;
	agent->ask_count--;
	atomic_store_explicit(&agent->gauge_asks, agent->ask_count, memory_order_relaxed);
	free(ask->observed);
	free(ask);
}

void ask_wait_here(struct ask *ask)
{
	struct agent *agent = ask->program->agent;

	ask->grace_until = agent_wait_for_pair(agent);
	ask->link_here = &agent->here[ask->peer.qpn % WAITING_BUCKETS];
	ask->next_here = *ask->link_here;
	if (ask->next_here)
		ask->next_here->link_here = &ask->next_here;
	*ask->link_here = ask;
}

/* ---- answers to programs ---------------------------------------------------------------------------------------- */

/* `answer`: what an observing program goes on with. */
static void refuse(struct program *program, struct local_answer *answer, const struct queue_pair *pair, enum refusal reason, int error, const char *peer,
		   const char *text)
{
	answer->observed = program->observe;
	if (!program->observe) {
		answer->status = (uint32_t)error;
		answer->vouched = answer->psn = 0;
	}

	agent_refused(program->agent, reason, program->observe, program, pair, peer, text);
	program_answer(program, answer, peer, NULL, text);
}

void program_refuse(struct program *program, uint32_t request, const struct queue_pair *pair, uint32_t psn, enum refusal reason, int error, const char *peer,
		    const char *format, ...)
{
	struct local_answer answer = {.header.request = request, .psn = psn};
	char text[LOCAL_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	refuse(program, &answer, pair, reason, error, peer, text);
}

void ask_cancel(struct ask *ask)
{
	struct local_answer answer = {.header.request = ask->request, .status = ECANCELED};

	program_answer(ask->program, &answer, NULL, NULL, "the program has reset or destroyed the queue pair meanwhile");
	ask_free(ask);
}

/* A queue pair whose question failed has no peer any more; an expectation that was noted meanwhile stays. */
static void stop_asking(struct queue_pair *pair)
{
	if (pair && pair->state == QUEUE_PAIR_ASKING)
		pair->state = pair->has_peer_psn ? QUEUE_PAIR_EXPECTED : QUEUE_PAIR_IDLE;
}

/* An observing program goes on. With the PSNs of both agents, if the peer's is known: its agent has told them to the peer's program, too. Else
 * with the program's own, so that nobody may be told the agent's any more. */
static void go_on(struct queue_pair *pair, struct local_answer *answer)
{
	if (!pair)
		return;
	pair->state = pair->has_peer_psn ? QUEUE_PAIR_CONNECTED : QUEUE_PAIR_REFUSED;
	answer->vouched = pair->has_peer_psn;
	if (pair->has_peer_psn)
		answer->psn = pair->peer_psn;
}

/* "queue pair 17 at 10.0.0.2: " and what the format says. */
__attribute__((format(printf, 3, 0))) static void describe(const struct ask *ask, char text[LOCAL_TEXT], const char *format, va_list args)
{
	char where[64];
	size_t used;

	if (ask->pair)
		used = (size_t)snprintf(text, LOCAL_TEXT, "queue pair %u at %s: ", ask->peer.qpn, peer_end_format(&ask->peer, where));
	else
		used = (size_t)snprintf(text, LOCAL_TEXT, "address handle to %s: ", peer_end_format(&ask->peer, where));
	vsnprintf(text + used, LOCAL_TEXT - used, format, args);
}

void ask_refuse(struct ask *ask, enum refusal reason, int error, const char *peer, const char *format, ...)
{
	struct local_answer answer = {.header.request = ask->request, .psn = ask->psn_would_be};
	char text[LOCAL_TEXT];
	va_list args;

	va_start(args, format);
	describe(ask, text, format, args);
	va_end(args);
	if (ask->program->observe)
		go_on(ask->pair, &answer);
	else
		stop_asking(ask->pair);
	refuse(ask->program, &answer, ask->pair, reason, error, peer, text);
	ask_free(ask);
}

bool ask_object(struct ask *ask, enum refusal reason, const char *peer, const char *format, ...)
{
	char text[LOCAL_TEXT];
	va_list args;

	va_start(args, format);
	if (ask->program->observe)
		describe(ask, text, format, args);
	else
		vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (!ask->program->observe) {
		ask_refuse(ask, reason, EACCES, peer, "%s", text);
		return false;
	}
	/* A question that is put on another session meets the same again. */
	if (ask->observed && strcmp(ask->observed, text) == 0)
		return true;
	agent_refused(ask->program->agent, reason, true, ask->program, ask->pair, peer, text);
	if (!ask->observed)
		ask->observed = strdup(text);
	return true;
}

/* ---- encryption ------------------------------------------------------------------------------------------------- */

/* rdma_rxe is the one driver of the kernel's whose devices have a parent. */
static enum encryption_device kind_of(const struct device *device)
{
	char path[128];

	if (!device->kernel)
		return ENCRYPTION_SOCKETS;
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/parent", device->name);
	return access(path, F_OK) == 0 ? ENCRYPTION_RXE : ENCRYPTION_HARDWARE;
}

/* 0: it may go on; -EAGAIN: ask again in a moment; after another error the ask is refused and gone. */
static int check_encryption(struct ask *ask, const char *peer)
{
	const struct policy *policy = &ask->program->agent->rules.policy;
	char why[ENCRYPTION_WHY], netdev[IF_NAMESIZE];
	int ret;

	if (ask->judged || !(ask->program->require_encryption || (peer ? policy_requires_encryption(policy, peer) : policy->require_encryption)))
		return 0;
	ret = encryption_check(ask->own.gid, ask->peer.gid, address_interface(ask->own.gid, netdev), kind_of(ask->device), ask->encryption, why);
	if (ret == -EAGAIN)
		return ret;
	if (ret != 0 && !ask_object(ask, REFUSED_ENCRYPTION, peer, "nothing is seen that encrypts the path: %s", why))
		return ret;
	ask->judged = true;
	return 0;
}

/* ---- the way of a question --------------------------------------------------------------------------------------- */

void ask_grant(struct ask *ask, const char *peer, uint32_t psn)
{
	struct local_answer answer = {.header.request = ask->request, .vouched = ask->pair != NULL, .psn = psn};

	if (ask->pair) {
		ask->pair->state = QUEUE_PAIR_CONNECTED;
		ask->pair->peer_psn = psn;
		ask->pair->has_peer_psn = true;
		agent_count(ask->program->agent, COUNT_CONNECTED);
	}
	answer.observed = ask->observed != NULL;
	program_answer(ask->program, &answer, peer, ask->encryption, ask->observed);
	ask_free(ask);
}

void ask_grant_here(struct ask *ask, uint32_t psn)
{
	snprintf(ask->encryption, sizeof ask->encryption, ENCRYPTION_STAYS_HERE);
	ask_grant(ask, agent_name(ask->program->agent), psn);
}

void ask_confirm(struct ask *ask)
{
	struct agent *agent = ask->program->agent;
	const struct session *session = peers_find(agent, &ask->peer);
	const char *peer = session ? session->name : NULL;

	if (pairing_find(agent, &ask->peer))
		ask_grant_here(ask, ask->pair->peer_psn);
	else if (!session && policy_requires_encryption_of_some(&agent->rules.policy))
		ask_begin(ask); /* which finds out the peer's name */
	else if (check_encryption(ask, peer) == 0)
		ask_grant(ask, peer, ask->pair->peer_psn);
}

static bool was_restored(const struct program *program, uint64_t now)
{
	return program->restored_at != 0 && now - program->restored_at < RESTORED_US;
}

/* An agent that was there a moment ago may be starting again, as the own one may for its programs. If this one has just done so, it does not
 * know: a program that had queue pairs before is believed to have had a peer. Leaves a quarter of the time, so that the program hears why. */
static bool wait_for_agent(struct ask *ask, enum refusal reason)
{
	const struct agent *agent = ask->program->agent;
	uint64_t now = srdma_clock_us(), margin = (uint64_t)agent->rules.policy.connect_timeout_ms * 1000 / 4;

	if ((reason != REFUSED_NO_AGENT && reason != REFUSED_LOST) || now + margin >= ask->deadline ||
	    !(peers_were_here(agent, &ask->own, &ask->peer) || was_restored(ask->program, now)))
		return false;
	set_session(ask, NULL);
	ask->tries = 0;
	ask->grace_until = 0;
	ask->retry_at = now + RETRY_US;
	return true;
}

void ask_begin(struct ask *ask)
{
	struct agent *agent = ask->program->agent;
	struct session *session;
	enum refusal reason;
	int ret;

	set_session(ask, NULL);
	ret = check_encryption(ask, NULL);
	if (ret == -EAGAIN) {
		/* The tick begins again, until the deadline. */
		ask->grace_until = 0;
		return;
	}
	if (ret != 0)
		return;
	if (ask->tries++ == TRIES_MAX) {
		ask_refuse(ask, REFUSED_LOST, EACCES, NULL, "the sessions with the peer's agent end while it is asked; see the log of the agent there");
		return;
	}
	ret = peers_reach(agent, &ask->own, &ask->peer, &session, &reason);
	if (ret != 0) {
		char text[384];

		srdma_error_keep(text, sizeof text);
		if (!wait_for_agent(ask, reason))
			ask_refuse(ask, reason, EACCES, NULL, "%s%s", peers_were_here(agent, &ask->own, &ask->peer) ? "the agent there: " : "", text);
		return;
	}
	set_session(ask, session);
	if (session->state == SESSION_OPEN)
		ask_send(ask);
}

/* Why the peer may not be connected with. */
static bool is_allowed(struct ask *ask)
{
	const struct session *session = ask->session;
	struct agent *agent = ask->program->agent;
	const char *problem = policy_problem(&agent->rules.policy, session->name, &ask->program->subject);

	if (problem && !ask_object(ask, REFUSED_POLICY, session->name, "the policy of this host for %s: %s", session->name, problem))
		return false;
	if (host_names_cover(&session->host, agent->rules.map, &ask->peer))
		return true;
	ask_refuse(ask, REFUSED_GID, EACCES, session->name,
		   "the certificate of the agent there (%s) has no such address; give that host a certificate with it, or a line in the map file", session->name);
	return false;
}

void ask_send(struct ask *ask)
{
	struct session *session = ask->session;
	struct peer_frame frame = {.type = PEER_QUERY};
	int ret;

	if (!is_allowed(ask))
		return;
	ret = check_encryption(ask, session->name);
	if (ret == -EAGAIN) {
		/* The tick begins again; the session did not fail. */
		set_session(ask, NULL);
		ask->tries--;
	}
	if (ret != 0)
		return;
	session->used_at = srdma_clock_us();
	if (!ask->pair) {
		/* The host is authenticated: that is all that an address handle can have. */
		ask_grant(ask, session->name, 0);
		return;
	}
	frame.query = (struct peer_query){.id = ask->id, .asker = ask->own, .asked = ask->peer, .psn = ask->pair->psn, .type = ask->pair->type};
	frame.query.asker.qpn = ask->pair->qpn;
	ask->sent = true;
	session->queries_sent++;
	agent_count(ask->program->agent, COUNT_QUERIES_SENT);
	session_send(session, &frame);
}

static struct ask *find(struct session *session, uint32_t id)
{
	struct ask *ask = *bucket(session->agent, id);

	while (ask && ask->id != id)
		ask = ask->next_same;
	/* Nobody answers for another. */
	return ask && ask->session == session && ask->sent ? ask : NULL;
}

void ask_answered(struct session *session, const struct peer_answer *answer)
{
	struct ask *ask = find(session, answer->id);

	/* The program has gone, or gave the queue pair up. */
	if (!ask)
		return;
	switch ((enum peer_status)answer->status) {
	case PEER_OK: ask_grant(ask, session->name, answer->psn); break;
	case PEER_UNKNOWN: ask_refuse(ask, REFUSED_UNKNOWN, EACCES, session->name, "%s (%s)", peer_status_text(PEER_UNKNOWN), answer->text); break;
	case PEER_TAKEN: ask_refuse(ask, REFUSED_TAKEN, EACCES, session->name, "the agent there refuses: %s", answer->text); break;
	case PEER_DENIED: ask_refuse(ask, REFUSED_POLICY, EACCES, session->name, "the agent there refuses: %s", answer->text); break;
	case PEER_BUSY: ask_refuse(ask, REFUSED_LIMIT, EBUSY, session->name, "%s: %s", peer_status_text(PEER_BUSY), answer->text); break;
	}
}

/* Calls `work` for each ask of the session; it may end it. */
static void each_of(struct session *session, void (*work)(struct ask *ask, enum refusal reason, const char *text), enum refusal reason, const char *text)
{
	struct agent *agent = session->agent;
	struct ask *next;

	for (struct ask *ask = session->asks > 0 ? agent->asks : NULL; ask; ask = next) {
		next = ask->next;
		if (ask->session == session)
			work(ask, reason, text);
	}
}

static void move_on(struct ask *ask, enum refusal reason, const char *text)
{
	struct session *session = ask->session;
	bool was_open = ask->sent;

	/* One that was on a session that worked may be asked again: the query means the same the second time. */
	if (was_open || reason == REFUSAL_COUNT) {
		ask_begin(ask);
		return;
	}
	if (!wait_for_agent(ask, reason))
		ask_refuse(ask, reason, EACCES, NULL, "the agent there (%s): %s", session->address, text);
}

void asks_of_session_ended(struct session *session, enum refusal reason, const char *text)
{
	each_of(session, move_on, reason, text);
}

static void send_now(struct ask *ask, enum refusal reason, const char *text)
{
	(void)reason;
	(void)text;
	ask_send(ask);
}

void asks_of_session_open(struct session *session)
{
	each_of(session, send_now, REFUSAL_COUNT, NULL);
}

/* The path of one that could not be judged. */
static void look_again(struct ask *ask, uint64_t now)
{
	/* An observing program's question still has to reach the peer's agent. */
	uint64_t reserve = ask->program->observe ? (uint64_t)ask->program->agent->rules.policy.connect_timeout_ms * 1000 / 2 : 0;

	if (now + reserve >= ask->deadline) {
		if (!ask_object(ask, REFUSED_ENCRYPTION, NULL, "it cannot be seen whether the path is encrypted: the peer's hardware address is not known"))
			return;
		ask->judged = true;
	}
	ask_begin(ask);
}

void asks_tick(struct agent *agent, uint64_t now)
{
	struct ask *next;

	for (struct ask *ask = agent->asks; ask; ask = next) {
		next = ask->next;
		if (ask->retry_at != 0 && now < ask->retry_at)
			continue;
		if (ask->retry_at != 0) {
			ask->retry_at = 0;
			ask_begin(ask);
			continue;
		}
		if (ask->session && now >= ask->deadline)
			ask_refuse(ask, REFUSED_LOST, EACCES, NULL, "the agent there did not answer within %d ms; check that host, its agent and the network",
				   agent->rules.policy.connect_timeout_ms);
		else if (!ask->session && ask->grace_until == 0)
			look_again(ask, now);
		else if (!ask->session && now >= ask->grace_until)
			ask_refuse(ask, REFUSED_UNKNOWN, EACCES, agent_name(agent), "%s: no program of this host has registered it; is it run by 'securdma wrap'?",
				   peer_status_text(PEER_UNKNOWN));
	}
}
