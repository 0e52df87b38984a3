/* SPDX-License-Identifier: Apache-2.0 */
/* A channel whose queue pair is replaced under it: what was posted on the old one and did not arrive is posted on the new one, and
 * nothing twice. The peer's word, which comes over TLS, is how many of our sends have arrived there: RC delivers in the order of
 * posting, so the others are the youngest. docs/PROTOCOL.md, "Epochs". */
#include "channel.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>

int srdma_channel_quiesce(struct srdma_channel *channel, bool *done)
{
	bool unheard = channel->unsignaled > 0 && channel->op_count > 0;

	channel->held = true;
	*done = !unheard || channel->op_count < channel->op_room;
	return unheard && *done ? srdma_channel_send_credits(channel) : 0;
}

void srdma_channel_stop(struct srdma_channel *channel)
{
	channel->held = true;
	channel->stopped = true;
}

/* Completions of receives that were used come before those of receives that are flushed, so that after the last of these no
 * message is left that has arrived and was not seen. What is flushed from the send queue nobody needs to see. */
bool srdma_channel_is_drained(const struct srdma_channel *channel)
{
	return channel->receives_posted == 0;
}

int srdma_channel_restart(struct srdma_channel *channel)
{
	bool *held = calloc(channel->recv_slots, sizeof *held);
	int ret = 0;

	if (!held)
		return srdma_fail(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < channel->arrival_count; i++)
		held[channel->arrivals[(channel->arrival_head + i) % channel->recv_slots].slot] = true;
	channel->generation++;
	channel->receives_posted = 0;
	channel->stopped = false;
	channel->psns_used = 0;
	channel->failed_status = IBV_WC_SUCCESS;
	for (uint32_t slot = 0; slot < channel->recv_slots && ret == 0; slot++)
		if (!held[slot])
			ret = srdma_channel_post_receive(channel, slot);
	free(held);
	return ret;
}

static bool is_send(const struct srdma_op *op)
{
	return op->kind == SRDMA_OP_MESSAGE || op->kind == SRDMA_OP_CREDIT || op->kind == SRDMA_OP_CONTROL;
}

int srdma_channel_settle(struct srdma_channel *channel, uint64_t arrived, uint64_t consumed)
{
	uint64_t sent = srdma_counter_read(&channel->counters.messages_sent);
	uint64_t acknowledged = srdma_counter_read(&channel->counters.messages_acknowledged);
	bool before_arrived = false;

	/* What completed has arrived: else somebody forged its acknowledgement. */
	if (arrived > channel->sends_posted || arrived < channel->sends_completed || consumed > sent || sent - consumed > channel->depth || consumed < acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	/* Older than a send that arrived means executed there; but a read needs its answer here. */
	for (uint32_t i = channel->op_count; i > 0; i--) {
		struct srdma_op *op = &channel->ops[(channel->op_head + i - 1) % channel->op_room];

		if (is_send(op))
			before_arrived = before_arrived || op->send < arrived;
		op->executed = before_arrived && (is_send(op) || op->write);
		if (is_send(op) && op->send >= arrived && before_arrived)
			return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	}
	channel->credits = (uint32_t)(channel->depth - (sent - consumed));
	srdma_counter_add(&channel->counters.messages_acknowledged, consumed - acknowledged);
	while (channel->op_count > 0 && channel->ops[channel->op_head].executed)
		srdma_channel_complete_op(channel);
	return 0;
}

int srdma_channel_resume(struct srdma_channel *channel)
{
	int ret = 0;

	channel->unsignaled = 0;
	for (uint32_t i = 0; i < channel->op_count && ret == 0; i++)
		if (!channel->ops[(channel->op_head + i) % channel->op_room].executed)
			ret = srdma_channel_submit(channel, i, 1, true);
	channel->unsignaled = 0;
	channel->held = false;
	return ret;
}
