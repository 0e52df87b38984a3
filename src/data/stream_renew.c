/* SPDX-License-Identifier: Apache-2.0 */
/* A stream whose queue pair is replaced under it: what was posted on the old one and did not arrive is posted on the new one, and
 * nothing twice. The peer's word, which comes over TLS, is how many of our sends have arrived there: RC delivers in the order of
 * posting, so the others are the youngest. docs/PROTOCOL.md, "Epochs". */
#include "stream.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>

int srdma_stream_quiesce(struct srdma_stream *stream, bool *done)
{
	bool unheard = stream->unsignaled > 0 && stream->op_count > 0;

	stream->held = true;
	*done = !unheard || stream->op_count < stream->op_room;
	return unheard && *done ? srdma_stream_send_credits(stream) : 0;
}

void srdma_stream_stop(struct srdma_stream *stream)
{
	stream->held = true;
	stream->stopped = true;
}

/* Completions of receives that were used come before those of receives that are flushed, so that after the last of these no
 * message is left that has arrived and was not seen. Nobody needs to see completions that are flushed from the send queue. */
bool srdma_stream_is_drained(const struct srdma_stream *stream)
{
	return stream->receives_posted == 0;
}

int srdma_stream_restart(struct srdma_stream *stream)
{
	bool *held = calloc(stream->recv_slots, sizeof *held);
	int ret = 0;

	if (!held)
		return srdma_fail(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < stream->arrival_count; i++)
		held[stream->arrivals[(stream->arrival_head + i) % stream->recv_slots].slot] = true;
	stream->generation++;
	stream->receives_posted = 0;
	stream->stopped = false;
	stream->psns_used = 0;
	stream->failed_status = IBV_WC_SUCCESS;
	for (uint32_t slot = 0; slot < stream->recv_slots && ret == 0; slot++)
		if (!held[slot])
			ret = srdma_stream_post_receive(stream, slot);
	free(held);
	return ret;
}

static bool is_send(const struct srdma_op *op)
{
	return op->kind == SRDMA_OP_MESSAGE || op->kind == SRDMA_OP_CREDIT || op->kind == SRDMA_OP_CONTROL;
}

int srdma_stream_settle(struct srdma_stream *stream, uint64_t arrived, uint64_t consumed)
{
	uint64_t sent = srdma_counter_read(&stream->counters.messages_sent);
	uint64_t acknowledged = srdma_counter_read(&stream->counters.messages_acknowledged);
	bool before_arrived = false;

	/* What completed has arrived: else somebody forged its acknowledgement. */
	if (arrived > stream->sends_posted || arrived < stream->sends_completed || consumed > sent || sent - consumed > stream->depth || consumed < acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	/* Older than a send that arrived means executed there; but a read needs its answer here. */
	for (uint32_t i = stream->op_count; i > 0; i--) {
		struct srdma_op *op = &stream->ops[(stream->op_head + i - 1) % stream->op_room];

		if (is_send(op))
			before_arrived = before_arrived || op->send < arrived;
		op->executed = before_arrived && (is_send(op) || op->write);
		if (is_send(op) && op->send >= arrived && before_arrived)
			return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	}
	stream->credits = (uint32_t)(stream->depth - (sent - consumed));
	srdma_counter_add(&stream->counters.messages_acknowledged, consumed - acknowledged);
	while (stream->op_count > 0 && stream->ops[stream->op_head].executed)
		srdma_stream_complete_op(stream);
	return 0;
}

int srdma_stream_resume(struct srdma_stream *stream)
{
	int ret = 0;

	stream->unsignaled = 0;
	for (uint32_t i = 0; i < stream->op_count && ret == 0; i++)
		if (!stream->ops[(stream->op_head + i) % stream->op_room].executed)
			ret = srdma_stream_submit(stream, i, 1, true);
	stream->unsignaled = 0;
	stream->held = false;
	return ret;
}
