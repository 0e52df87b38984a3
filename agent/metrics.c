/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus' text format 0.0.4. Label values are words of this program. */
#include "agent_parts.h"

static void family(FILE *file, const char *name, const char *type, const char *help)
{
	fprintf(file, "# HELP securdma_agent_%s %s\n# TYPE securdma_agent_%s %s\n", name, help, name, type);
}

static void single(FILE *file, const char *name, const char *type, const char *help, unsigned long long value)
{
	family(file, name, type, help);
	fprintf(file, "securdma_agent_%s %llu\n", name, value);
}

void agent_metrics_print(const struct agent *agent, FILE *file)
{
	static const struct {
		const char *name, *help;
	} counters[COUNTER_COUNT] = {
		[COUNT_PROGRAMS] = {"programs_total", "Programs that have connected to the agent."},
		[COUNT_REGISTERED] = {"registered_total", "Queue pairs that programs registered."},
		[COUNT_CONNECTED] = {"connected_total", "Connections of this host's queue pairs that were granted."},
		[COUNT_CONNECTED_HERE] = {"connected_here_total", "Those of them whose both ends are on this host."},
		[COUNT_QUERIES_SENT] = {"queries_sent_total", "Questions to other agents."},
		[COUNT_QUERIES_RECEIVED] = {"queries_received_total", "Questions of other agents."},
		[COUNT_QUERIES_DELAYED] = {"queries_delayed_total", "Times that a peer had to wait because it asked too fast."},
		[COUNT_REVOKED] = {"revoked_total", "Queue pairs that were put into the error state."},
		[COUNT_OBSERVED] = {"observed_total", "What would have been refused, were the mode not observe."},
		[COUNT_SESSIONS] = {"sessions_total", "Sessions with other agents that were opened."},
		[COUNT_SESSIONS_LOST] = {"sessions_ended_total", "Open sessions that ended."},
		[COUNT_HANDSHAKES_FAILED] = {"handshakes_failed_total", "Sessions that were not opened."},
		[COUNT_HANDSHAKES_EVICTED] = {"handshakes_evicted_total", "Unauthenticated connections that made room for others."},
	};

	single(file, "programs", "gauge", "Programs connected now.", atomic_load_explicit(&agent->gauge_programs, memory_order_relaxed));
	single(file, "queue_pairs", "gauge", "Queue pairs registered now.", atomic_load_explicit(&agent->gauge_queue_pairs, memory_order_relaxed));
	single(file, "sessions", "gauge", "Sessions with other agents now.", atomic_load_explicit(&agent->gauge_sessions, memory_order_relaxed));
	single(file, "questions", "gauge", "Questions of programs that wait for an answer.", atomic_load_explicit(&agent->gauge_asks, memory_order_relaxed));
	single(file, "certificate_expiry_timestamp_seconds", "gauge", "End of the agent's certificate, seconds since the epoch.",
	       (unsigned long long)atomic_load_explicit(&agent->not_after, memory_order_relaxed));
	for (int i = 0; i < COUNTER_COUNT; i++)
		single(file, counters[i].name, "counter", counters[i].help, atomic_load_explicit(&agent->counters[i], memory_order_relaxed));
	family(file, "refused_total", "counter", "Refusals, by reason.");
	for (int i = 0; i < REFUSAL_COUNT; i++)
		fprintf(file, "securdma_agent_refused_total{reason=\"%s\"} %llu\n", refusal_name((enum refusal)i),
			(unsigned long long)atomic_load_explicit(&agent->refusals[i], memory_order_relaxed));
}
