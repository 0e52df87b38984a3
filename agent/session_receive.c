/* SPDX-License-Identifier: Apache-2.0 */
/* What comes over a session: frames, and how fast they may. */
#include "session.h"

#include "clock.h"
#include "log.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* One TLS record. */
#define READ_SIZE 16384

static void open_session(struct session *session)
{
	struct srdma_log_field fields[] = {
		SRDMA_FIELD_TEXT("peer", session->name),
		SRDMA_FIELD_TEXT("address", session->address),
		SRDMA_FIELD_TEXT("direction", session->outgoing ? "outgoing" : "incoming"),
	};
	const struct srdma_event event = {.level = SRDMA_LOG_INFO, .name = "agent.session_opened", .fields = fields, .field_count = 3};

	session->state = SESSION_OPEN;
	session->deadline = SRDMA_NEVER;
	session_count_handshake(session, false);
	agent_count(session->agent, COUNT_SESSIONS);
	atomic_store_explicit(&session->agent->gauge_sessions, session->agent->session_count - session->agent->handshake_count, memory_order_relaxed);
	srdma_log_event(&event, "session with %s (%s)", session->name, session->address);
	asks_of_session_open(session);
}

/* False: the session is gone. */
static bool take_frame(struct session *session, const struct peer_frame *frame)
{
	const char *problem = NULL;

	if ((frame->type == PEER_HELLO) != (session->state == SESSION_GREETING)) {
		session_end(session, REFUSED_NO_AGENT, "the peer's frames come in an order that the protocol does not have");
		return false;
	}
	switch (frame->type) {
	case PEER_HELLO:
		if (!peers_greet(session, &frame->hello, &problem)) {
			session_end(session, REFUSED_GID, problem);
			return false;
		}
		open_session(session);
		break;
	case PEER_QUERY:
		session->queries_received++;
		session->used_at = srdma_clock_us();
		agent_count(session->agent, COUNT_QUERIES_RECEIVED);
		pairing_query(session, &frame->query);
		break;
	case PEER_ANSWER: ask_answered(session, &frame->answer); break;
	case PEER_REVOKE: pairing_revoke(session, &frame->notice); break;
	case PEER_RELEASE: pairing_release(session, &frame->notice); break;
	case PEER_PING: session_send(session, &(struct peer_frame){.type = PEER_PONG, .ping = frame->ping}); break;
	case PEER_PONG: break;
	}
	return true;
}

/* Whether a frame counts as a question. Answers that were asked for do not. */
static bool has_price(const struct session *session, unsigned type)
{
	return type != PEER_HELLO && (type != PEER_ANSWER || session->asks == 0);
}

static bool keep(struct session *session, const uint8_t *data, size_t size)
{
	uint8_t *kept = size > 0 ? OPENSSL_malloc(size) : NULL;

	if (size > 0 && !kept) {
		session_end(session, REFUSED_LOST, "out of memory");
		return false;
	}
	if (size > 0)
		memcpy(kept, data, size);
	OPENSSL_clear_free(session->kept, session->kept_size);
	session->kept = kept;
	session->kept_size = size;
	return true;
}

/* Takes all whole frames of the data, and keeps the rest. False: the session is gone. */
static bool take_frames(struct session *session, const uint8_t *data, size_t size)
{
	while (size >= PEER_HEADER) {
		struct peer_header header;
		struct peer_frame frame;
		int ret = peer_header_decode(data, &header);

		if (ret == 0 && size < PEER_HEADER + (size_t)header.length)
			break;
		/* A peer that asks faster than it may is read later, so that it holds up nobody but itself. */
		if (ret == 0 && has_price(session, header.type) && !allowance_take(&session->questions, session->agent->rules.policy.queries_per_second)) {
			agent_count(session->agent, COUNT_QUERIES_DELAYED);
			session->held = session->agent->restless = true;
			break;
		}
		if (ret == 0)
			ret = peer_frame_decode(&header, data + PEER_HEADER, &frame);
		if (ret != 0) {
			session_end_with_alert(session, REFUSED_NO_AGENT);
			return false;
		}
		if (!take_frame(session, &frame))
			return false;
		data += PEER_HEADER + header.length;
		size -= PEER_HEADER + (size_t)header.length;
	}
	return keep(session, data, size);
}

/* False: the session is gone. */
bool session_receive(struct session *session)
{
	static uint8_t data[READ_SIZE + PEER_FRAME_MAX]; /* the agent has one thread */
	size_t have = session->kept_size;
	bool there;
	int n;

	/* What is kept is less than a frame. */
	memcpy(data, session->kept ? session->kept : data, have);
	n = srdma_tls_read(session->tls, data + have, READ_SIZE);
	if (n == -EAGAIN)
		return true;
	if (n == SRDMA_ECLOSED) {
		session_end(session, REFUSAL_COUNT, "the peer closed it");
		return false;
	}
	if (n < 0) {
		session_end(session, session_reason_of(n), srdma_error_text());
		return false;
	}
	session->heard_at = srdma_clock_us();
	session->pinged = false;
	there = take_frames(session, data, have + (size_t)n);
	OPENSSL_cleanse(data, have + (size_t)n);
	return there;
}

/* Frames that were kept when the peer had asked too much. */
bool session_resume(struct session *session)
{
	uint8_t *kept = session->kept;
	size_t size = session->kept_size;
	bool there;

	session->held = false;
	session->kept = NULL;
	session->kept_size = 0;
	there = take_frames(session, kept, size);
	OPENSSL_clear_free(kept, size);
	if (there)
		session_watch(session);
	return there;
}
