/* SPDX-License-Identifier: Apache-2.0 */
/* The replacement of a stream's queue pair: the stream posts on the new one the requests that did not arrive over the old one, and
 * nothing twice. The peer reports over TLS how many of our sends have arrived. RC delivers in the order of posting, so the lost ones
 * are the youngest. docs/PROTOCOL.md, "Epochs". */
#include "stream_parts.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>

int srdma_stream_quiesce(struct srdma_stream *stream, bool *done)
{
	bool unheard = stream->unsignaled > 0 && stream->op_ring.count > 0;

	stream->held = true;
	*done = !unheard || stream->op_ring.count < stream->op_ring.room;
	return unheard && *done ? srdma_stream_send_credits(stream) : 0;
}

void srdma_stream_stop(struct srdma_stream *stream)
{
	stream->held = true;
	stream->stopped = true;
}

/* Completions of used receives come before those of flushed receives. So after the last flushed receive, the stream has seen every
 * message that has arrived. It need not see flushed sends. */
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
	for (uint32_t i = 0; i < stream->arrival_ring.count; i++)
		held[stream->arrivals[srdma_ring_at(&stream->arrival_ring, i)].slot] = true;
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

int srdma_stream_settle(struct srdma_stream *stream, uint64_t arrived, uint64_t consumed)
{
	uint64_t sent = srdma_counter_read(&stream->counters.messages_sent);
	uint64_t acknowledged = srdma_counter_read(&stream->counters.messages_acknowledged);
	bool before_arrived = false;

	/* A send that completed has arrived, unless an attacker forged its acknowledgement. */
	if (arrived > stream->sends_posted || arrived < stream->sends_completed || consumed > sent ||
	    sent - consumed > stream->depth || consumed < acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	/* The peer has executed every request that is older than a send that arrived; but a read still needs its response. */
	for (uint32_t i = stream->op_ring.count; i > 0; i--) {
		struct srdma_op *op = srdma_stream_op(stream, i - 1);

		if (srdma_op_is_send(op))
			before_arrived = before_arrived || op->send < arrived;
		op->executed = before_arrived && (srdma_op_is_send(op) || op->write);
		if (srdma_op_is_send(op) && op->send >= arrived && before_arrived)
			return srdma_fail(SRDMA_EPROTOCOL, "the peer's account of what it received is impossible");
	}
	stream->credits = (uint32_t)(stream->depth - (sent - consumed));
	srdma_counter_add(&stream->counters.messages_acknowledged, consumed - acknowledged);
	while (stream->op_ring.count > 0 && srdma_stream_op(stream, 0)->executed)
		srdma_stream_complete_op(stream);
	return 0;
}

int srdma_stream_resume(struct srdma_stream *stream)
{
	int ret = 0;

	stream->unsignaled = 0;
	for (uint32_t i = 0; i < stream->op_ring.count && ret == 0; i++)
		if (!srdma_stream_op(stream, i)->executed)
			ret = srdma_stream_submit(stream, i, 1, true);
	stream->unsignaled = 0;
	stream->held = false;
	return ret;
}
