/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: a program sends one, or takes one. */
#include "conn.h"
#include "log.h"
#include "sized.h"

#include <errno.h>

static int check_not_raw(const struct srdma_conn *conn)
{
	return conn->options.raw ? srdma_fail(-EOPNOTSUPP, "a raw connection carries no messages; use its queue pair") : 0;
}

static bool has_room(const struct srdma_conn *conn)
{
	/* A message must not overtake earlier writes; the peer reports when sealed writes have arrived. */
	return srdma_queues_can_send(&conn->queues) && (!conn->sealed || srdma_sealed_rdma_has_written(&conn->sealed_rdma));
}

static bool can_send(const struct srdma_conn *conn)
{
	return conn->status == 0 && (has_room(conn) || conn->closing.peer_requested);
}

int srdma_conn_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret = check_not_raw(conn);

	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret != 0)
		return ret;
	if (length > conn->queues.message_size)
		return srdma_fail(-EMSGSIZE, "the message has %zu bytes, and the ends agreed on %u at most (message-size)", length,
				  conn->queues.message_size);
	if (!has_room(conn)) {
		ret = srdma_conn_wait_until(conn, can_send, "the peer to take earlier messages", &patience);
		if (ret == 0)
			ret = srdma_conn_check(conn);
		if (ret != 0)
			return ret;
	}
	ret = srdma_queues_send(&conn->queues, data, (uint32_t)length);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

static bool has_message(const struct srdma_conn *conn)
{
	/* The program learns of the peer's disconnect only after this end has answered, since it may then free the connection at once. */
	return (srdma_queues_has_message(&conn->queues) && srdma_rate_is_open(&conn->rate)) || conn->closing.peer_answered ||
	       conn->closing.finished;
}

int srdma_conn_peek(struct srdma_conn *conn, const void **data, uint32_t *length)
{
	int ret = srdma_queues_peek(&conn->queues, data, length);

	return ret < 0 ? srdma_conn_end(conn, ret) : ret;
}

int srdma_conn_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	uint32_t n;
	int ret = check_not_raw(conn);

	if (ret == 0 && !has_message(conn))
		ret = conn->closing.finished ? srdma_conn_check(conn)
					     : srdma_conn_wait_until(conn, has_message, "a message from the peer", &patience);
	if (ret != 0)
		return ret;
	if (srdma_queues_next_is_notice(&conn->queues))
		return srdma_fail(-ENOMSG, "a notice of the peer's is next: srdma_conn_recv_notice");
	if (!srdma_queues_next_length(&conn->queues, &n))
		return srdma_conn_check(conn);
	*length = n;
	if (n > size)
		return srdma_fail(-EMSGSIZE, "the message has %u byte%s, and the buffer %zu; call again with a larger one", n, SRDMA_S(n), size);
	ret = srdma_queues_read(&conn->queues, buffer);
	if (ret != 0)
		return srdma_conn_end(conn, ret);
	srdma_rate_take(&conn->rate, n);
	ret = srdma_queues_consume(&conn->queues);
	/* The caller has the message; the next call returns the failure. */
	if (ret != 0 && conn->status == 0 && !conn->closing.finished)
		srdma_conn_end(conn, ret);
	if (srdma_queues_should_poll(&conn->queues))
		srdma_conn_progress_receives(conn);
	return 0;
}

int srdma_conn_peek_notice(struct srdma_conn *conn, struct srdma_notice *notice)
{
	int ret = srdma_queues_peek_notice(&conn->queues, &notice->value, &notice->length);

	notice->size = sizeof *notice;
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

int srdma_conn_recv_notice_sized(struct srdma_conn *conn, struct srdma_notice *out, int timeout_ms, size_t size)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	struct srdma_notice notice = {0};
	int ret = check_not_raw(conn);

	if (ret == 0 && !conn->regions)
		ret = srdma_conn_fail_unagreed(conn, SRDMA_FEATURE_REGIONS, "regions with names, which bring notices", "named_regions");
	if (ret == 0 && !has_message(conn))
		ret = conn->closing.finished ? srdma_conn_check(conn) : srdma_conn_wait_until(conn, has_message, "a notice from the peer", &patience);
	if (ret != 0)
		return ret;
	if (!srdma_queues_has_message(&conn->queues))
		return srdma_conn_check(conn);
	if (!srdma_queues_next_is_notice(&conn->queues))
		return srdma_fail(-ENOMSG, "a message of the peer's is next: srdma_conn_recv");
	ret = srdma_conn_peek_notice(conn, &notice);
	if (ret != 0)
		return ret;
	srdma_sized_fill(out, size, &notice, sizeof notice);
	srdma_rate_take(&conn->rate, 0);
	ret = srdma_queues_consume(&conn->queues);
	/* The caller has the notice; the next call returns the failure. */
	if (ret != 0 && conn->status == 0 && !conn->closing.finished)
		srdma_conn_end(conn, ret);
	return 0;
}

static bool has_anything(const struct srdma_conn *conn)
{
	return has_message(conn) || conn->queues.done_ring.count > 0 || srdma_control_queue_has_message(conn) || conn->woken;
}

int srdma_conn_wait(struct srdma_conn *conn, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	int ret = srdma_conn_wait_until(conn, has_anything,
					conn->options.raw ? "the end of the connection" : "a message, a completion or the end of the connection",
					&patience);

	if (ret != 0)
		return ret;
	if (conn->woken) {
		conn->woken = false;
		return srdma_fail(-EINTR, "another thread ended the wait (srdma_conn_wake)");
	}
	if (srdma_queues_has_message(&conn->queues) || conn->queues.done_ring.count > 0 || srdma_control_queue_has_message(conn))
		return 0;
	return srdma_conn_check(conn); /* the peer has disconnected */
}
