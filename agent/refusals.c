/* SPDX-License-Identifier: Apache-2.0 */
/* Each refusal is logged once, with what was refused, to whom, why, and what to do. */
#include "agent_parts.h"
#include "log.h"

#include <stdio.h>

static const char *const names[REFUSAL_COUNT] = {
	[REFUSED_POLICY] = "policy",
	[REFUSED_NO_AGENT] = "no_agent",
	[REFUSED_CERTIFICATE] = "certificate",
	[REFUSED_GID] = "gid",
	[REFUSED_OWNER] = "owner",
	[REFUSED_MISMATCH] = "mismatch",
	[REFUSED_UNKNOWN] = "unknown",
	[REFUSED_TAKEN] = "taken",
	[REFUSED_LIMIT] = "limit",
	[REFUSED_ENCRYPTION] = "encryption",
	[REFUSED_PROGRAM] = "program",
	[REFUSED_LOST] = "lost",
	[REFUSED_INVALID] = "invalid",
};

const char *refusal_name(enum refusal reason)
{
	return (unsigned)reason < REFUSAL_COUNT ? names[reason] : "none";
}

/* Somebody tried what honest programs and hosts do not. */
static bool is_suspicious(enum refusal reason)
{
	return reason == REFUSED_GID || reason == REFUSED_OWNER || reason == REFUSED_MISMATCH || reason == REFUSED_CERTIFICATE || reason == REFUSED_TAKEN;
}

void agent_refused(struct agent *agent, enum refusal reason, bool observed, const struct program *program, const struct queue_pair *pair, const char *peer,
		   const char *text)
{
	struct srdma_log_field fields[8];
	struct srdma_event event = {.level = SRDMA_LOG_WARN,
				    .name = observed ? "agent.observed" : "agent.refused",
				    .security = is_suspicious(reason),
				    .fields = fields};
	char who[160] = "";

	fields[event.field_count++] = SRDMA_FIELD_TEXT("reason", refusal_name(reason));
	if (peer && peer[0])
		fields[event.field_count++] = SRDMA_FIELD_TEXT("peer", peer);
	if (program) {
		fields[event.field_count++] = SRDMA_FIELD_TEXT("program", program->name);
		fields[event.field_count++] = SRDMA_FIELD_NUMBER("pid", program->pid);
		fields[event.field_count++] = SRDMA_FIELD_NUMBER("uid", program->subject.uid);
		snprintf(who, sizeof who, "%s (pid %d, user %u): ", program->name, (int)program->pid, (unsigned)program->subject.uid);
	}
	if (pair) {
		fields[event.field_count++] = SRDMA_FIELD_TEXT("device", pair->device->name);
		fields[event.field_count++] = SRDMA_FIELD_NUMBER("qpn", pair->qpn);
	}
	if (observed)
		agent_count(agent, COUNT_OBSERVED);
	else
		atomic_fetch_add_explicit(&agent->refusals[reason], 1, memory_order_relaxed);
	srdma_log_event(&event, "%s%s%s", observed ? "would be refused: " : "refused: ", who, text);
}
