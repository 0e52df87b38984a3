/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <jansson.h>

/* More would make an answer that nobody reads; the counts are whole. */
#define LISTED_MAX 1000

static const char *state_name(enum session_state state)
{
	switch (state) {
	case SESSION_DIALING: return "connecting";
	case SESSION_HANDSHAKE:
	case SESSION_GREETING: return "handshake";
	case SESSION_OPEN: return "open";
	case SESSION_LINGER: return "closing";
	}
	return "unknown";
}

static json_t *list_sessions(const struct agent *agent)
{
	json_t *list = json_array();
	unsigned count = 0;

	for (const struct session *session = agent->sessions; session && count < LISTED_MAX; session = session->next, count++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "peer", session->name, "address", session->address, "state",
						      state_name(session->state), "direction", session->outgoing ? "outgoing" : "incoming", "since",
						      (json_int_t)session->since, "queries_received", (json_int_t)session->queries_received, "queries_sent",
						      (json_int_t)session->queries_sent));
	return list;
}

static json_t *list_programs(const struct agent *agent)
{
	json_t *list = json_array();
	unsigned count = 0;

	for (const struct program *program = agent->programs; program && count < LISTED_MAX; program = program->next, count++) {
		json_int_t pairs = 0, connected = 0;

		for (const struct queue_pair *pair = program->queue_pairs; pair; pair = pair->next_own) {
			pairs++;
			connected += pair->state == QUEUE_PAIR_CONNECTED;
		}
		json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:s, s:I, s:I}", "program", program->name, "pid", (int)program->pid, "uid",
						      (json_int_t)program->subject.uid, "mode", program->observe ? "observe" : "enforce", "queue_pairs", pairs,
						      "connected", connected));
	}
	return list;
}

static json_t *list_refusals(const struct agent *agent)
{
	json_t *object = json_object();

	for (int i = 0; i < REFUSAL_COUNT; i++)
		json_object_set_new(object, refusal_name((enum refusal)i), json_integer((json_int_t)atomic_load(&agent->refusals[i])));
	return object;
}

json_t *agent_status(const struct agent *agent)
{
	struct agent_totals totals;

	agent_get_totals(agent, &totals);
	return json_pack("{s:s, s:b, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "event", "status", "agent", 1, "name",
			 agent_name(agent), "mode", agent->rules.policy.observe ? "observe" : "enforce", "require_encryption",
			 (int)agent->rules.policy.require_encryption, "programs", (json_int_t)totals.programs, "queue_pairs", (json_int_t)totals.queue_pairs,
			 "sessions", (json_int_t)totals.sessions, "handshakes", (json_int_t)agent->handshake_count, "connected", (json_int_t)totals.connected,
			 "refused", (json_int_t)totals.refused, "observed", (json_int_t)atomic_load(&agent->counters[COUNT_OBSERVED]),
			 "certificate_not_after", (json_int_t)atomic_load(&agent->not_after), "refusals", list_refusals(agent), "peers", list_sessions(agent),
			 "processes", list_programs(agent));
}
