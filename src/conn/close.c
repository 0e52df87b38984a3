/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a connection: with an error, or by a disconnect. */
#include "clock.h"
#include "conn.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define PEER_CLOSE_MS 500
/* Between two looks at the clock of several disconnects. */
#define TICK_MS 20

int srdma_conn_end(struct srdma_conn *conn, int error)
{
	if (conn->status != 0)
		return conn->status;
	srdma_error_keep(conn->status_text, sizeof conn->status_text);
	/* A server logs client.lost instead, with everything that it knows of the client. */
	if (error == SRDMA_ESEAL && !conn->notifier)
		srdma_conn_log_security(conn, "connection.forged", "the connection has ended");
	conn->status = error;
	srdma_qp_fail(&conn->qp);
	/* Comes before the program learns of the end, since it may then reuse the memory of its writes and reads. */
	srdma_queues_end(&conn->queues);
	srdma_sealed_rdma_end(&conn->sealed_rdma);
	return error;
}

/* This end has no work on the queue pair, and none that waits for it. */
static bool is_idle(const struct srdma_conn *conn)
{
	return conn->queues.op_ring.count == 0 && srdma_sealed_rdma_is_idle(&conn->sealed_rdma) && !srdma_epoch_is_changing(conn);
}

static bool all_arrived(const struct srdma_conn *conn)
{
	return conn->options.raw || conn->queues.messages_arrived >= conn->closing.peer_total;
}

int srdma_conn_check(struct srdma_conn *conn)
{
	if (conn->status != 0)
		return srdma_fail(conn->status, "%s", conn->status_text);
	if (conn->closing.requested)
		return srdma_fail(SRDMA_ECLOSED, "the connection was disconnected");
	if (conn->closing.peer_requested)
		return srdma_fail(SRDMA_ECLOSED, "the peer disconnected%s%s", conn->close_reason[0] ? ": " : "",
				  conn->close_reason);
	return 0;
}

bool srdma_conn_has_parted(const struct srdma_conn *conn)
{
	return conn->closing.peer_answered || conn->closing.acknowledged || conn->closing.finished;
}

static int send_count(struct srdma_conn *conn, enum srdma_frame_type type, const char *reason)
{
	struct srdma_disconnect body = {.messages_sent = srdma_counter_read(&conn->queues.counters.messages_sent)};
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length;

	if (reason)
		snprintf(body.reason, sizeof body.reason, "%s", reason);
	length = srdma_disconnect_encode(frame, type, &body);
	return srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
}

int srdma_conn_take_close_frame(struct srdma_conn *conn)
{
	struct srdma_closing *closing = &conn->closing;
	const struct srdma_frame_header *header = &conn->inbox.header;
	struct srdma_disconnect body;
	int ret = 0;

	if (header->type == SRDMA_FRAME_DISCONNECT || header->type == SRDMA_FRAME_DISCONNECT_ACK)
		ret = srdma_disconnect_decode(header->type, srdma_inbox_body(&conn->inbox), header->length, &body);
	if (ret != 0)
		return ret;
	if (header->type == SRDMA_FRAME_DISCONNECT && !closing->peer_requested) {
		closing->peer_requested = true;
		closing->peer_total = body.messages_sent;
		snprintf(conn->close_reason, sizeof conn->close_reason, "%s", body.reason);
	} else if (header->type == SRDMA_FRAME_DISCONNECT_ACK && closing->requested && !closing->acknowledged) {
		closing->acknowledged = true;
		closing->peer_total = body.messages_sent;
	} else if (header->type == SRDMA_FRAME_FINISH && closing->peer_answered && header->length == 0) {
		closing->finished = true;
	} else {
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent an unexpected frame of type %u on the TLS channel", header->type);
	}
	return 0;
}

int srdma_conn_take_channel_end(struct srdma_conn *conn, int error)
{
	/* This is the last step of a disconnect; the close may have overtaken the FINISH. */
	if (srdma_conn_has_parted(conn)) {
		conn->closing.finished = true;
		return 0;
	}
	return srdma_fail(error == SRDMA_ECLOSED ? SRDMA_ELOST : error,
			  "the peer went away without disconnecting: it closed the TLS channel");
}

int srdma_conn_answer_disconnect(struct srdma_conn *conn)
{
	struct srdma_closing *closing = &conn->closing;
	int ret;

	if (!closing->peer_requested || closing->peer_answered)
		return 0;
	ret = srdma_queues_flush(&conn->queues);
	if (ret != 0 || !all_arrived(conn) || !is_idle(conn))
		return ret;
	closing->peer_answered = true;
	return send_count(conn, SRDMA_FRAME_DISCONNECT_ACK, NULL);
}

static bool answered(const struct srdma_conn *conn)
{
	return conn->closing.finished ||
	       (conn->closing.acknowledged && all_arrived(conn) && (!conn->closing.peer_requested || conn->closing.peer_answered));
}

static int finish_disconnect(struct srdma_conn *conn)
{
	srdma_fail(SRDMA_ECLOSED, "the connection was disconnected%s%s", conn->close_reason[0] ? ": " : "",
		   conn->close_reason);
	srdma_conn_end(conn, SRDMA_ECLOSED);
	return 0;
}

/* This end asks, the peer answers, this end finishes. */
static int request_disconnect(struct srdma_conn *conn, const char *reason)
{
	struct srdma_closing *closing = &conn->closing;
	int ret = 0;

	if (!closing->requested) {
		ret = srdma_queues_flush(&conn->queues);
		if (ret == 0 && !is_idle(conn))
			return -EAGAIN;
		if (ret == 0)
			ret = send_count(conn, SRDMA_FRAME_DISCONNECT, reason);
		closing->requested = true;
	}
	if (ret != 0)
		return ret;
	if (!answered(conn))
		return -EAGAIN;
	if (!closing->finished) {
		ret = srdma_conn_send_empty(conn, SRDMA_FRAME_FINISH);
		closing->finished = true;
		closing->peer_close_deadline = srdma_deadline(PEER_CLOSE_MS);
	}
	return ret;
}

/* The peer closes after it has freed everything, so a client that then reconnects at once finds its slot free. */
static bool peer_has_closed(const struct srdma_conn *conn, uint64_t deadline)
{
	return conn->closing.peer_close_deadline == 0 || srdma_deadline_left_ms(conn->closing.peer_close_deadline) == 0 ||
	       srdma_net_wait(srdma_tls_fd(conn->tls), POLLIN, deadline) == 0;
}

int srdma_conn_disconnect_step(struct srdma_conn *conn, const char *reason)
{
	struct srdma_closing *closing = &conn->closing;
	int ret = 0;

	if (conn->status != 0)
		return srdma_conn_check(conn);
	/* The peer asked first: the connection's progress answers, and the peer finishes. */
	if (closing->peer_requested && !closing->requested)
		ret = closing->finished ? 0 : -EAGAIN;
	else if (!closing->finished)
		ret = request_disconnect(conn, reason);
	if (ret == -EAGAIN || (ret == 0 && !peer_has_closed(conn, 0)))
		return -EAGAIN;
	return ret == 0 ? finish_disconnect(conn) : srdma_conn_end(conn, ret);
}

static bool disconnect_goes_on(const struct srdma_conn *conn)
{
	const struct srdma_closing *closing = &conn->closing;

	if (conn->status != 0)
		return true;
	if (closing->peer_requested && !closing->requested)
		return closing->finished;
	return closing->requested ? answered(conn) : is_idle(conn);
}

static const char *disconnect_awaits(const struct srdma_conn *conn)
{
	if (conn->closing.peer_requested && !conn->closing.requested)
		return "the peer to finish its disconnect";
	return conn->closing.requested ? "the peer to answer the disconnect" : "outstanding work before the disconnect";
}

int srdma_conn_disconnect(struct srdma_conn *conn, const char *reason, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret;

	/* The peer or an earlier call may have ended it already. */
	if ((conn->status == 0 && conn->closing.finished && !conn->closing.requested) || conn->status == SRDMA_ECLOSED)
		return 0;
	while ((ret = srdma_conn_disconnect_step(conn, reason)) == -EAGAIN) {
		if (conn->closing.finished && conn->closing.peer_close_deadline != 0) {
			/* The exchange is complete. Waiting for the peer's close helps programs that connect again at once. */
			if (patience.ms == 0)
				return finish_disconnect(conn);
			peer_has_closed(conn, conn->closing.peer_close_deadline);
			continue;
		}
		ret = srdma_conn_wait_until(conn, disconnect_goes_on, disconnect_awaits(conn), &patience);
		if (ret == -EAGAIN)
			return ret;
		if (ret != 0)
			return srdma_conn_end(conn, ret);
	}
	return ret;
}

/* Takes each disconnect further. Returns how many are still under way; *result: the first error, else as it was. */
static size_t disconnect_steps(struct srdma_conn **pending, size_t count, const char *reason, int *result, char *text, size_t text_size)
{
	size_t left = 0;

	for (size_t i = 0; i < count; i++) {
		int ret = srdma_conn_disconnect(pending[i], reason, 0);

		if (ret == -EAGAIN) {
			pending[left++] = pending[i];
		} else if (ret != 0 && *result == 0) {
			*result = ret;
			srdma_error_keep(text, text_size);
		}
	}
	return left;
}

static void wait_for_any(struct srdma_conn **pending, struct pollfd *fds, size_t count, int timeout_ms)
{
	for (size_t i = 0; i < count; i++)
		fds[i] = (struct pollfd){.fd = srdma_conn_fd(pending[i]), .events = POLLIN};
	poll(fds, count, timeout_ms);
}

int srdma_conn_disconnect_all(struct srdma_conn *const *conns, size_t count, const char *reason, int timeout_ms)
{
	struct srdma_conn **pending = calloc(count + 1, sizeof(struct srdma_conn *));
	struct pollfd *fds = calloc(count + 1, sizeof *fds);
	uint64_t deadline = 0;
	char text[512] = "";
	size_t left = 0;
	int result = pending && fds ? 0 : srdma_fail(-ENOMEM, "out of memory");

	for (size_t i = 0; result == 0 && i < count; i++)
		if (conns[i])
			pending[left++] = conns[i];
	if (left > 0)
		deadline = srdma_deadline(srdma_conn_patience(pending[0], timeout_ms).ms);
	while (left > 0 && (left = disconnect_steps(pending, left, reason, &result, text, sizeof text)) > 0) {
		int left_ms = srdma_deadline_left_ms(deadline);

		if (left_ms == 0)
			break;
		wait_for_any(pending, fds, left, left_ms < TICK_MS ? left_ms : TICK_MS);
	}
	/* With a timeout_ms of 0 they stay under way. */
	for (size_t i = 0; timeout_ms != 0 && i < left; i++) {
		int ret = srdma_conn_end(pending[i], srdma_fail(-ETIMEDOUT, "timed out waiting for %s", disconnect_awaits(pending[i])));

		if (result == 0) {
			result = ret;
			srdma_error_keep(text, sizeof text);
		}
	}
	free(pending);
	free(fds);
	if (result == 0 && left > 0)
		return srdma_again("the peers to answer the disconnects");
	return result == 0 || !text[0] ? result : srdma_fail(result, "%s", text);
}
