/* SPDX-License-Identifier: Apache-2.0 */
#include "control_queue.h"

#include "conn.h"
#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

struct srdma_control_queue {
	uint64_t sent, acknowledged;  /* this end's messages: all, and those that the peer's program has taken */
	uint64_t received, taken, reported; /* the peer's: all, those that this end's program has taken, and those it was told so */
	uint16_t length[SRDMA_CONTROL_DEPTH];
	uint8_t message[SRDMA_CONTROL_DEPTH][SRDMA_CONTROL_MESSAGE_MAX];
};

int srdma_control_queue_start(struct srdma_conn *conn)
{
	conn->control = calloc(1, sizeof *conn->control);
	/* The peer may have sent some with READY. OpenSSL then holds them, and no descriptor announces them. */
	conn->control_more = true;
	return conn->control ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

void srdma_control_queue_release(struct srdma_conn *conn)
{
	if (conn->control)
		OPENSSL_cleanse(conn->control, sizeof *conn->control);
	free(conn->control);
	conn->control = NULL;
}

static int take_message(struct srdma_conn *conn)
{
	struct srdma_control_queue *queue = conn->control;
	size_t slot = queue->received % SRDMA_CONTROL_DEPTH;

	if (conn->closing.peer_requested || conn->closing.acknowledged)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control message after it had disconnected");
	if (queue->received - queue->reported >= SRDMA_CONTROL_DEPTH)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a control message while %d others were not taken", SRDMA_CONTROL_DEPTH);
	queue->length[slot] = conn->inbox.header.length;
	memcpy(queue->message[slot], srdma_inbox_body(&conn->inbox), conn->inbox.header.length);
	queue->received++;
	return 0;
}

static int take_report(struct srdma_conn *conn)
{
	struct srdma_control_queue *queue = conn->control;
	uint64_t count;
	int ret = srdma_taken_decode(srdma_inbox_body(&conn->inbox), conn->inbox.header.length, &count);

	if (ret != 0)
		return ret;
	if (count <= queue->acknowledged || count > queue->sent)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer reports %llu control message%s as taken, after %llu, and %llu %s sent",
				  (unsigned long long)count, SRDMA_S(count), (unsigned long long)queue->acknowledged,
				  (unsigned long long)queue->sent, queue->sent == 1 ? "was" : "were");
	queue->acknowledged = count;
	return 0;
}

int srdma_control_queue_take_frame(struct srdma_conn *conn)
{
	if (!conn->control)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of type %u, and the ends did not agree on control messages",
				  conn->inbox.header.type);
	return conn->inbox.header.type == SRDMA_FRAME_CONTROL_MESSAGE ? take_message(conn) : take_report(conn);
}

bool srdma_control_queue_has_message(const struct srdma_conn *conn)
{
	return conn->control && conn->control->received > conn->control->taken;
}

bool srdma_control_queue_peek(const struct srdma_conn *conn, const void **data, size_t *length)
{
	const struct srdma_control_queue *queue = conn->control;

	if (!srdma_control_queue_has_message(conn))
		return false;
	*data = queue->message[queue->taken % SRDMA_CONTROL_DEPTH];
	*length = queue->length[queue->taken % SRDMA_CONTROL_DEPTH];
	return true;
}

int srdma_control_queue_consume(struct srdma_conn *conn)
{
	struct srdma_control_queue *queue = conn->control;
	uint8_t frame[SRDMA_FRAME_MAX];

	OPENSSL_cleanse(queue->message[queue->taken % SRDMA_CONTROL_DEPTH], SRDMA_CONTROL_MESSAGE_MAX);
	queue->taken++;
	if (queue->taken < queue->received && queue->taken - queue->reported < SRDMA_CONTROL_DEPTH / 2)
		return 0;
	/* A peer that disconnects, or is told to, sends no more. */
	if (conn->status != 0 || conn->closing.requested || conn->closing.peer_requested)
		return 0;
	queue->reported = queue->taken;
	return srdma_outbox_send(conn->tls, &conn->outbox, frame, srdma_taken_encode(frame, queue->taken));
}

static int check_agreed(const struct srdma_conn *conn)
{
	return conn->control ? 0 : srdma_conn_fail_unagreed(conn, SRDMA_FEATURE_CONTROL, "control messages", "control_messages");
}

static bool has_room(const struct srdma_conn *conn)
{
	const struct srdma_control_queue *queue = conn->control;

	return queue->sent - queue->acknowledged < SRDMA_CONTROL_DEPTH && srdma_outbox_has_room(&conn->outbox);
}

static bool can_send(const struct srdma_conn *conn)
{
	return conn->status == 0 && (has_room(conn) || conn->closing.peer_requested);
}

int srdma_conn_control_send(struct srdma_conn *conn, const void *data, size_t length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	uint8_t frame[SRDMA_FRAME_MAX];
	int ret = check_agreed(conn);

	if (ret == 0)
		ret = srdma_conn_check(conn);
	if (ret != 0)
		return ret;
	if (length > SRDMA_CONTROL_MESSAGE_MAX)
		return srdma_fail(-EMSGSIZE, "the control message has %zu bytes, and %d is the most", length, SRDMA_CONTROL_MESSAGE_MAX);
	if (!has_room(conn)) {
		ret = srdma_conn_wait_until(conn, can_send, "the peer to take earlier control messages", &patience);
		if (ret == 0)
			ret = srdma_conn_check(conn);
		if (ret != 0)
			return ret;
	}
	conn->control->sent++;
	ret = srdma_outbox_send(conn->tls, &conn->outbox, frame,
				srdma_program_encode(frame, SRDMA_FRAME_CONTROL_MESSAGE, data, length));
	OPENSSL_cleanse(frame, sizeof frame);
	srdma_conn_watch_control(conn);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}

static bool has_message(const struct srdma_conn *conn)
{
	return srdma_control_queue_has_message(conn) || conn->closing.peer_answered || conn->closing.finished;
}

int srdma_conn_control_recv(struct srdma_conn *conn, void *buffer, size_t size, size_t *length, int timeout_ms)
{
	struct srdma_patience patience = srdma_conn_patience(conn, timeout_ms);
	const void *data;
	int ret = check_agreed(conn);

	if (ret == 0 && !has_message(conn))
		ret = srdma_conn_wait_until(conn, has_message, "a control message from the peer", &patience);
	if (ret != 0)
		return ret;
	if (!srdma_control_queue_peek(conn, &data, length))
		return srdma_conn_check(conn);
	if (*length > size)
		return srdma_fail(-EMSGSIZE, "the control message has %zu byte%s, and the buffer %zu; call again with a larger one", *length,
				  SRDMA_S(*length), size);
	if (*length > 0)
		memcpy(buffer, data, *length);
	ret = srdma_control_queue_consume(conn);
	srdma_conn_watch_control(conn);
	/* The caller has the message; the next call returns the failure. */
	if (ret != 0)
		srdma_conn_end(conn, ret);
	return 0;
}
