/* SPDX-License-Identifier: Apache-2.0 */
/* The progress of a connection: takes completions, frames of the TLS channel, and events of the device. */
#include "clock.h"
#include "conn.h"
#include "log.h"

#include <poll.h>

/* Reads of the TLS channel in one turn: a peer that goes on sending must not keep this end from its other work. */
#define CONTROL_READS 64
/* The time that a peer has to read its TLS channel. */
#define CONTROL_STALL_MS 2000
/* A busy connection looks at its TLS channel and at the clock once in this many rounds. */
#define ROUNDS_PER_CONTROL 256

int srdma_conn_send_empty(struct srdma_conn *conn, enum srdma_frame_type type)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_empty_encode(frame, type);

	return srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
}

static int take_frame(struct srdma_conn *conn)
{
	const struct srdma_frame_header *header = &conn->inbox.header;

	if (header->version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of version %u on a connection of version %u", header->version,
				  SRDMA_PROTOCOL_VERSION);
	if (header->type >= SRDMA_FRAME_EPOCH_REQUEST && header->type <= SRDMA_FRAME_EPOCH_READY)
		return srdma_epoch_take(conn);
	if (header->type == SRDMA_FRAME_CONTROL_MESSAGE || header->type == SRDMA_FRAME_CONTROL_TAKEN)
		return srdma_control_queue_take_frame(conn);
	if (header->type >= SRDMA_FRAME_REGION_OFFER && header->type <= SRDMA_FRAME_REGION_KEYS)
		return srdma_regions_take_frame(conn);
	return header->type == SRDMA_FRAME_WITHDRAW ? srdma_conn_take_withdrawal(conn) : srdma_conn_take_close_frame(conn);
}

/* Takes the frames that have come, up to the limit of one turn. */
static int poll_control(struct srdma_conn *conn)
{
	unsigned reads = CONTROL_READS;

	conn->control_more = false;
	while (conn->status == 0 && !conn->closing.finished) {
		int ret = srdma_control_receive(conn->tls, &conn->inbox, &reads);

		if (ret == -EAGAIN) {
			conn->control_more = reads == 0;
			return 0;
		}
		ret = ret == 0 ? take_frame(conn) : ret == SRDMA_EPROTOCOL ? ret : srdma_conn_take_channel_end(conn, ret);
		if (ret != 0)
			return ret;
	}
	return 0;
}

/* A work request often fails because the peer went away; then the error must name that cause. */
static void fail_progress(struct srdma_conn *conn, int ret)
{
	uint16_t generation = conn->queues.generation;
	char text[512];

	/* An event of the device has ended the connection already. */
	if (conn->status != 0)
		return;
	srdma_error_keep(text, sizeof text);
	/* A forgery stays the reported cause, even if the peer has closed the channel meanwhile. */
	int control = ret == SRDMA_ESEAL ? 0 : poll_control(conn);

	/* The peer noticed the failure first, and its frames have just replaced the queue pair that failed. */
	if (control == 0 && ret == SRDMA_EVERBS && conn->queues.generation != generation)
		return;

	if (control != 0)
		ret = control;
	else
		ret = srdma_epoch_break(conn, srdma_fail(ret, "%s", text));
	if (ret != 0)
		srdma_conn_end(conn, ret);
}

static bool is_of_queue_pair(int event)
{
	return event == IBV_EVENT_QP_FATAL || event == IBV_EVENT_QP_REQ_ERR || event == IBV_EVENT_QP_ACCESS_ERR;
}

/* The device may report late, about a queue pair that was replaced since. */
static bool queue_pair_has_failed(const struct srdma_conn *conn)
{
	enum ibv_qp_state state;

	return srdma_qp_query(&conn->qp, &state, NULL, NULL) != 0 || state == IBV_QPS_ERR || state == IBV_QPS_SQE;
}

/* Takes the event that the device has reported. The failure of a queue pair shows in its completions as well. */
static int take_device_event(struct srdma_conn *conn)
{
	int event = atomic_exchange(&conn->device_event, 0) - 1, ret;

	if (event < 0)
		return 0;
	if (is_of_queue_pair(event) && conn->epoch.agreed && (conn->queues.stopped || !queue_pair_has_failed(conn)))
		return 0;
	ret = srdma_fail(SRDMA_EVERBS, "the RDMA device reports: %s", ibv_event_type_str((enum ibv_event_type)event));
	return is_of_queue_pair(event) ? srdma_epoch_break(conn, ret) : srdma_conn_end(conn, ret);
}

/* A peer that does not read blocks the frames to it and, when OpenSSL has to answer its KeyUpdate, also the frames from it. */
static int check_stall(struct srdma_conn *conn)
{
	if (conn->outbox.have == 0 && !srdma_tls_read_needs_room(conn->tls))
		conn->control_deadline = 0;
	else if (conn->control_deadline == 0)
		conn->control_deadline = srdma_deadline(CONTROL_STALL_MS);
	else if (srdma_deadline_left_ms(conn->control_deadline) == 0)
		return srdma_fail(-ETIMEDOUT, "the peer did not read its TLS channel for %d ms", CONTROL_STALL_MS);
	return 0;
}

void srdma_conn_progress_control(struct srdma_conn *conn)
{
	int ret;

	if (conn->status != 0)
		return;
	ret = srdma_outbox_flush(conn->tls, &conn->outbox);
	if (ret == 0)
		ret = poll_control(conn);
	if (ret == 0)
		ret = check_stall(conn);
	if (ret == 0 && !conn->options.raw)
		ret = srdma_epoch_step(conn, true);
	if (ret == 0)
		ret = srdma_regions_step(conn);
	if (ret == 0)
		ret = srdma_conn_answer_disconnect(conn);
	/* The old queue pair or the new one has failed meanwhile. */
	if (ret == SRDMA_EVERBS)
		ret = srdma_epoch_break(conn, ret);
	if (ret != 0)
		srdma_conn_end(conn, ret);
	srdma_conn_watch_control(conn);
}

void srdma_conn_progress(struct srdma_conn *conn, bool control)
{
	int ret;

	if (control || (conn->options.raw && conn->control_more))
		srdma_conn_progress_control(conn);
	if (conn->status != 0 || conn->options.raw)
		return;
	ret = srdma_queues_poll(&conn->queues);
	if (ret == 0 && conn->sealed)
		ret = srdma_sealed_rdma_step(&conn->sealed_rdma);
	if (ret == 0)
		ret = srdma_epoch_step(conn, false);
	if (ret == 0)
		ret = srdma_regions_step(conn);
	if (ret == 0)
		ret = srdma_conn_answer_disconnect(conn);
	if (ret == 0 && atomic_load_explicit(&conn->device_event, memory_order_relaxed) != 0)
		ret = take_device_event(conn);
	if (ret != 0)
		fail_progress(conn, ret);
	/* A change that is under way depends on frames of the TLS channel. */
	if (++conn->rounds % ROUNDS_PER_CONTROL == 0 || conn->control_more || srdma_epoch_is_changing(conn))
		srdma_conn_progress_control(conn);
}

void srdma_conn_push(struct srdma_conn *conn)
{
	int ret = conn->status == 0 ? srdma_sealed_rdma_push(&conn->sealed_rdma) : 0;

	if (ret != 0)
		fail_progress(conn, ret);
}

void srdma_conn_progress_receives(struct srdma_conn *conn)
{
	if (conn->options.raw || conn->status != 0)
		return;
	int ret = srdma_queues_poll_receives(&conn->queues);
	if (ret != 0)
		fail_progress(conn, ret);
}

void srdma_conn_progress_binds(struct srdma_conn *conn)
{
	if (conn->options.raw || conn->status != 0)
		return;
	int ret = srdma_queues_poll(&conn->queues);
	if (ret == 0)
		ret = srdma_regions_step(conn);
	if (ret != 0)
		fail_progress(conn, ret);
}

short srdma_conn_control_events(const struct srdma_conn *conn)
{
	if (conn->status != 0 || (conn->closing.finished && conn->outbox.have == 0))
		return 0;
	if (conn->closing.finished || srdma_tls_read_needs_room(conn->tls))
		return POLLOUT;
	return conn->outbox.have > 0 ? POLLIN | POLLOUT : POLLIN;
}

bool srdma_conn_control_is_stalled(const struct srdma_conn *conn)
{
	return conn->status == 0 && conn->control_deadline != 0;
}
