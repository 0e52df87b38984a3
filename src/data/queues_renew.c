/* SPDX-License-Identifier: Apache-2.0 */
/* The replacement of the queue pair: the queues post on the new one the requests that did not arrive over the old one, and
 * nothing twice. The peer reports over TLS how many of our sends have arrived. RC delivers in the order of posting, so the lost ones
 * are the youngest. docs/PROTOCOL.md, "Epochs". */
#include "queues_parts.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>

int srdma_queues_quiesce(struct srdma_queues *queues, bool *done)
{
	bool unheard = queues->unsignaled > 0 && queues->op_ring.count > 0;

	queues->held = true;
	*done = !unheard || queues->op_ring.count < queues->op_ring.room;
	return unheard && *done ? srdma_queues_send_credits(queues) : 0;
}

void srdma_queues_stop(struct srdma_queues *queues)
{
	queues->held = true;
	queues->stopped = true;
}

/* Completions of used receives come before those of flushed receives. So after the last flushed receive, the queues have seen every
 * message that has arrived. They need not see flushed sends. */
bool srdma_queues_is_drained(const struct srdma_queues *queues)
{
	return queues->receives_posted == 0;
}

int srdma_queues_restart(struct srdma_queues *queues)
{
	bool *held = calloc(queues->recv_slots, sizeof *held);
	int ret = 0;

	if (!held)
		return srdma_fail(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < queues->arrival_ring.count; i++)
		held[queues->arrivals[srdma_ring_at(&queues->arrival_ring, i)].slot] = true;
	queues->generation++;
	queues->receives_posted = 0;
	queues->stopped = false;
	queues->psns_used = 0;
	queues->failed_status = IBV_WC_SUCCESS;
	for (uint32_t slot = 0; slot < queues->recv_slots && ret == 0; slot++)
		if (!held[slot])
			ret = srdma_queues_post_receive(queues, slot);
	free(held);
	return ret;
}

/* Nobody knows whether the peer's device has executed an atomic operation whose answer was lost. To repeat it would execute it twice. */
static int check_atomics(struct srdma_queues *queues)
{
	for (uint32_t i = 0; i < queues->op_ring.count; i++) {
		if (srdma_queues_op(queues, i)->atomic == SRDMA_ATOMIC_NONE)
			continue;
		queues->failed_here = true;
		return srdma_fail(SRDMA_EVERBS, "the queue pair failed while an atomic operation was under way: the peer's memory may or may not "
						"have it, and it is not repeated");
	}
	return 0;
}

int srdma_queues_settle(struct srdma_queues *queues, uint64_t arrived, uint64_t consumed)
{
	uint64_t sent = srdma_counter_read(&queues->counters.messages_sent);
	uint64_t acknowledged = srdma_counter_read(&queues->counters.messages_acknowledged);
	bool before_arrived = false;
	int ret;

	/* A send that completed has arrived, unless an attacker forged its acknowledgement. */
	if (arrived > queues->sends_posted || arrived < queues->sends_completed || consumed > sent ||
	    sent - consumed > queues->depth || consumed < acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	ret = check_atomics(queues);
	if (ret != 0)
		return ret;
	/* The peer has executed every request that is older than a send that arrived; but a read still needs its response. */
	for (uint32_t i = queues->op_ring.count; i > 0; i--) {
		struct srdma_op *op = srdma_queues_op(queues, i - 1);

		if (srdma_op_is_send(op))
			before_arrived = before_arrived || op->send < arrived;
		op->executed = op->kind == SRDMA_OP_BIND || (before_arrived && (srdma_op_is_send(op) || op->write));
		if (srdma_op_is_send(op) && op->send >= arrived && before_arrived)
			return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	}
	queues->credits = (uint32_t)(queues->depth - (sent - consumed));
	srdma_counter_add(&queues->counters.messages_acknowledged, consumed - acknowledged);
	while (queues->op_ring.count > 0 && srdma_queues_op(queues, 0)->executed)
		srdma_queues_complete_op(queues);
	return 0;
}

int srdma_queues_resume(struct srdma_queues *queues)
{
	int ret = 0;

	queues->unsignaled = 0;
	for (uint32_t i = 0; i < queues->op_ring.count && ret == 0; i++)
		if (!srdma_queues_op(queues, i)->executed)
			ret = srdma_queues_submit(queues, i, 1, true);
	queues->unsignaled = 0;
	queues->held = false;
	return ret;
}
