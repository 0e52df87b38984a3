/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include "clock.h"
#include "log.h"
#include "net.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* What may wait for a peer that does not read, until it is taken for dead. */
#define OUT_MAX (4u << 20)
#define LINGER_MS 500
#define GREETING_MS 2000
/* A session is made anew after this time, since certificates expire; so much later if somebody waits for an answer on it, because on a busy one
 * somebody always does. */
#define AGE_MAX_US 3600000000u
#define AGE_ASKED_ON_US 60000000u

static void ready(struct source *source, uint32_t events);

static struct session *session_new(struct agent *agent)
{
	struct session *session = calloc(1, sizeof *session);
	uint64_t now = srdma_clock_us();

	if (!session)
		return NULL;
	session->agent = agent;
	session->source = (struct source){.ready = ready, .fd = -1};
	session->watch.fd = session->watch.timer_fd = -1;
	session->began = session->heard_at = session->used_at = now;
	allowance_init(&session->questions, agent->rules.policy.queries_per_second);
	session->since = time(NULL);
	session->link = &agent->sessions;
	session->next = agent->sessions;
	if (session->next)
		session->next->link = &session->next;
	agent->sessions = session;
	agent->session_count++;
	agent->restless = true;
	return session;
}

void session_count_handshake(struct session *session, bool is_one)
{
	if (session->counted == is_one)
		return;
	session->counted = is_one;
	session->agent->handshake_count += is_one ? 1u : -1u;
	if (!is_one)
		peers_note_room(session->agent);
}

static void session_free(struct session *session)
{
	struct agent *agent = session->agent;

	event_loop_watch(&agent->loop, &session->source, 0);
	peers_forget_routes(session);
	expectations_session_ended(session);
	session_count_handshake(session, false);
	*session->link = session->next;
	if (session->next)
		session->next->link = session->link;
	agent->session_count--;
	srdma_dial_free(&session->dial);
	srdma_watch_close(&session->watch);
	srdma_tls_delete(&session->tls);
	host_names_clear(&session->host);
	free(session->target);
	free(session->port);
	free(session->expected);
	OPENSSL_clear_free(session->kept, session->kept_size);
	OPENSSL_clear_free(session->out, session->out_room);
	free(session);
	atomic_store_explicit(&agent->gauge_sessions, agent->session_count - agent->handshake_count, memory_order_relaxed);
}

static void log_end(const struct session *session, enum refusal reason, const char *text)
{
	bool was_open = session->state == SESSION_OPEN;
	const struct srdma_log_field fields[] = {
		SRDMA_FIELD_TEXT("peer", session->name),
		SRDMA_FIELD_TEXT("address", session->address),
		SRDMA_FIELD_TEXT("reason", refusal_name(reason)),
		SRDMA_FIELD_TEXT("direction", session->outgoing ? "outgoing" : "incoming"),
	};
	const struct srdma_event event = {.level = reason == REFUSAL_COUNT ? SRDMA_LOG_INFO : SRDMA_LOG_WARN,
					  .name = was_open ? "agent.session_closed" : "agent.session_failed",
					  .security = reason == REFUSED_CERTIFICATE || reason == REFUSED_GID,
					  .fields = fields,
					  .field_count = sizeof fields / sizeof *fields};

	srdma_log_event(&event, "session with %s (%s): %s", session->name[0] ? session->name : "a peer that has not said its name", session->address, text);
}

void session_end(struct session *session, enum refusal reason, const char *text)
{
	struct agent *agent = session->agent;
	char own[512];

	/* Logging replaces the last error, which `text` may be. */
	snprintf(own, sizeof own, "%s", text);
	if (session->state != SESSION_LINGER) {
		log_end(session, reason, own);
		agent_count(agent, session->state == SESSION_OPEN ? COUNT_SESSIONS_LOST : COUNT_HANDSHAKES_FAILED);
	}
	if (session->outgoing && session->state < SESSION_OPEN)
		peers_note_failure(agent, session, reason, own);
	if (session->state == SESSION_OPEN)
		peers_note_lost(agent, session);
	peers_forget_routes(session);
	session->state = SESSION_LINGER;
	asks_of_session_ended(session, reason, own);
	session_free(session);
}

/* Leaves the peer a moment to read the alert that says why. */
void session_end_with_alert(struct session *session, enum refusal reason)
{
	char text[512];

	srdma_error_keep(text, sizeof text);
	log_end(session, reason, text);
	agent_count(session->agent, session->state == SESSION_OPEN ? COUNT_SESSIONS_LOST : COUNT_HANDSHAKES_FAILED);
	if (session->outgoing)
		peers_note_failure(session->agent, session, reason, text);
	peers_forget_routes(session);
	session->state = SESSION_LINGER;
	session->deadline = srdma_deadline(LINGER_MS);
	asks_of_session_ended(session, reason, text);
	if (srdma_tls_linger(session->tls) == 0 || event_loop_watch(&session->agent->loop, &session->source, EPOLLIN) != 0)
		session_free(session);
}

enum refusal session_reason_of(int error)
{
	switch (error) {
	case SRDMA_ECERT: return REFUSED_CERTIFICATE;
	case -ECONNREFUSED:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -ETIMEDOUT:
	case SRDMA_ETLS:
	case SRDMA_EPROTOCOL: return REFUSED_NO_AGENT;
	default: return REFUSED_LOST;
	}
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

void session_watch(struct session *session)
{
	uint32_t events = session->held ? 0 : EPOLLIN;

	if (session->state == SESSION_HANDSHAKE)
		events = srdma_tls_events(session->tls) & POLLOUT ? EPOLLOUT : EPOLLIN;
	else if (session->out_size > 0)
		events |= EPOLLOUT;
	if (session->state >= SESSION_GREETING && srdma_tls_read_needs_room(session->tls))
		events = EPOLLOUT;
	/* Without room for the events the session stays silent, and its peer's keepalive ends it. */
	event_loop_watch(&session->agent->loop, &session->source, events);
}

/* 0, or an error of srdma_tls_write. */
static int flush(struct session *session)
{
	size_t sent = 0;
	int n = 0;

	while (sent < session->out_size) {
		n = srdma_tls_write(session->tls, session->out + sent, session->out_size - sent);
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	session->out_size -= sent;
	if (sent > 0) {
		memmove(session->out, session->out + sent, session->out_size);
		OPENSSL_cleanse(session->out + session->out_size, sent);
	}
	return n < 0 && n != -EAGAIN ? n : 0;
}

void session_send(struct session *session, const struct peer_frame *frame)
{
	uint8_t bytes[PEER_FRAME_MAX];
	size_t length = peer_frame_encode(frame, bytes);

	if (session->state != SESSION_GREETING && session->state != SESSION_OPEN)
		return;
	if (session->out_size + length > session->out_room) {
		size_t room = session->out_room ? 2 * session->out_room : 4096;
		uint8_t *grown = room <= OUT_MAX ? OPENSSL_clear_realloc(session->out, session->out_room, room) : NULL;

		/* The frame is lost, so the session must be, too: at the next tick. */
		if (!grown) {
			session->deadline = 1;
			return;
		}
		session->out = grown;
		session->out_room = room;
	}
	memcpy(session->out + session->out_size, bytes, length);
	OPENSSL_cleanse(bytes, length);
	session->out_size += length;
	/* What is wrong shows when the socket is read. */
	if (session->out_size == length && flush(session) != 0)
		session->out_size = 0;
	session_watch(session);
}

static void greet(struct session *session)
{
	struct agent *agent = session->agent;
	struct peer_frame frame = {.type = PEER_HELLO, .hello = {.version = PEER_VERSION}};

	memcpy(frame.hello.instance, agent->instance, sizeof frame.hello.instance);
	for (size_t i = 0; i < agent->own.count && frame.hello.count < PEER_GIDS; i++)
		if (addresses_contain(&agent->addresses, agent->own.gids[i]))
			memcpy(frame.hello.gids[frame.hello.count++], agent->own.gids[i], 16);
	session_send(session, &frame);
}

/* ---- set-up ---------------------------------------------------------------------------------------------------- */

static int take_names(struct session *session)
{
	struct srdma_peer_names names;
	int ret = srdma_tls_peer_names(session->tls, &names);

	if (ret == 0)
		ret = host_names_take(&names, &session->host);
	if (ret != 0)
		return ret;
	snprintf(session->name, sizeof session->name, "%s", session->host.names.identity);
	return 0;
}

/* False: the session is gone. */
static bool shake_hands(struct session *session)
{
	int ret = srdma_tls_handshake(session->tls);

	if (ret == 0)
		ret = take_names(session);
	if (ret == 0) {
		session->state = SESSION_GREETING;
		if (!session->outgoing)
			session->deadline = srdma_deadline(GREETING_MS);
		greet(session);
	} else if (ret != -EAGAIN) {
		session_end_with_alert(session, session_reason_of(ret));
		return false;
	}
	session_watch(session);
	return true;
}

static bool dial_on(struct session *session)
{
	int fd = -1, ret = srdma_dial_step(session->dial, &fd);
	struct sockaddr_storage peer;
	socklen_t length = sizeof peer;

	if (ret == -EAGAIN)
		goto wait;
	event_loop_watch(&session->agent->loop, &session->source, 0);
	srdma_dial_free(&session->dial);
	srdma_watch_close(&session->watch);
	if (ret == 0) {
		if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0)
			srdma_net_format((struct sockaddr *)&peer, session->address, sizeof session->address);
		ret = srdma_tls_new(session->agent->rules.client, fd, session->expected, &session->tls);
	}
	if (ret != 0) {
		session_end(session, session_reason_of(ret), srdma_error_text());
		return false;
	}
	session->source.fd = srdma_tls_fd(session->tls);
	session->state = SESSION_HANDSHAKE;
	return shake_hands(session);
wait:
	/* If it cannot be set, the deadline ends the attempt. */
	srdma_watch_until(&session->watch, srdma_dial_due(session->dial));
	return true;
}

static void ready(struct source *source, uint32_t events)
{
	struct session *session = (struct session *)source;
	bool needs_room;

	switch (session->state) {
	case SESSION_DIALING: dial_on(session); return;
	case SESSION_HANDSHAKE: shake_hands(session); return;
	case SESSION_LINGER:
		if (srdma_tls_linger(session->tls) == 0)
			session_free(session);
		return;
	default: break;
	}
	needs_room = srdma_tls_read_needs_room(session->tls);
	if ((events & EPOLLOUT) && flush(session) != 0) {
		session_end(session, REFUSED_LOST, srdma_error_text());
		return;
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR) || needs_room) && !session->held && !session_receive(session))
		return;
	/* The end of a peer that is held up is seen when it has tokens again. */
	session_watch(session);
}

int session_accept(struct agent *agent, int fd, const struct sockaddr *peer)
{
	struct session *session = session_new(agent);
	union ibv_gid network = {.raw = {0}};
	int ret;

	if (!session) {
		close(fd);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	srdma_net_format(peer, session->address, sizeof session->address);
	srdma_net_gid_of(peer, &network);
	/* Whoever has one IPv6 address has its network's others, too. */
	if (!srdma_net_gid_is_v4(&network))
		memset(network.raw + 8, 0, 8);
	memcpy(session->network, network.raw, sizeof session->network);
	ret = srdma_net_prepare(fd);
	if (ret != 0)
		close(fd);
	else
		ret = srdma_tls_new(agent->rules.server, fd, NULL, &session->tls);
	if (ret != 0) {
		session_free(session);
		return ret;
	}
	session->source.fd = fd;
	session->state = SESSION_HANDSHAKE;
	session->deadline = srdma_deadline(GREETING_MS);
	session_count_handshake(session, true);
	session_watch(session);
	return 0;
}

int session_dial(struct agent *agent, const char *host, const char *port, const char *expected, struct session **out)
{
	struct session *session = session_new(agent);
	int ret;

	if (!session)
		return srdma_fail(-ENOMEM, "out of memory");
	session->outgoing = true;
	session->state = SESSION_DIALING;
	session->deadline = srdma_deadline(agent->rules.policy.connect_timeout_ms);
	session->target = strdup(host);
	session->port = strdup(port);
	session->expected = strdup(expected);
	snprintf(session->address, sizeof session->address, "%.60s port %.8s", host, port);
	snprintf(session->name, sizeof session->name, "%.63s", expected);
	ret = session->target && session->port && session->expected ? srdma_watch_open(&session->watch) : srdma_fail(-ENOMEM, "out of memory");
	if (ret == 0)
		ret = srdma_dial_start(host, port, "agent", session->deadline, &session->watch, &session->dial);
	if (ret == 0) {
		session->source.fd = session->watch.fd;
		ret = event_loop_watch(&agent->loop, &session->source, EPOLLIN);
	}
	/* The first step, too, comes from the loop: it may end the session, which the caller does not have yet. */
	if (ret == 0)
		ret = srdma_watch_until(&session->watch, srdma_clock_us());
	if (ret != 0) {
		session_free(session);
		return ret;
	}
	*out = session;
	return 0;
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static bool is_late(struct session *session, uint64_t now)
{
	const struct policy *policy = &session->agent->rules.policy;
	uint64_t silence = now - session->heard_at, keepalive = (uint64_t)policy->keepalive_ms * 1000;
	bool is_asked_on = session->asks > 0 || session->waitings > 0;

	if (session->state == SESSION_LINGER && now >= session->deadline) {
		session_free(session);
		return true;
	}
	if (now >= session->deadline) {
		session_end(session, session->state == SESSION_OPEN ? REFUSED_LOST : REFUSED_NO_AGENT,
			    session->state == SESSION_OPEN ? "the peer's agent does not read what it is sent" : "the peer's agent did not answer in time; check that host, its agent and the network");
		return true;
	}
	if (session->state != SESSION_OPEN || session->held)
		return false;
	if (silence > 3 * keepalive) {
		session_end(session, REFUSED_LOST, "the peer's agent is silent: it, its host or the network is gone");
		return true;
	}
	if (policy->idle_timeout_ms > 0 && !is_asked_on && now - session->used_at > (uint64_t)policy->idle_timeout_ms * 1000) {
		session_end(session, REFUSAL_COUNT, "it is closed, since nothing was asked for a while");
		return true;
	}
	if (now - session->began > AGE_MAX_US + (is_asked_on ? AGE_ASKED_ON_US : 0)) {
		session_end(session, REFUSAL_COUNT, "it is closed after an hour, since certificates expire");
		return true;
	}
	if (silence > keepalive && !session->pinged) {
		session->pinged = true;
		session_send(session, &(struct peer_frame){.type = PEER_PING, .ping = {.token = now}});
	}
	return false;
}

void session_tick(struct session *session, uint64_t now)
{
	if (is_late(session, now))
		return;
	if (session->held && allowance_has(&session->questions, session->agent->rules.policy.queries_per_second))
		session_resume(session);
}
