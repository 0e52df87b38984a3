/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a link from one connection to the next: tries, pauses, and what a loss leaves behind. No step waits. */
#include "clock.h"
#include "link_state.h"
#include "log.h"
#include "pause.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>

/* The time that a link gives a server that has sent DISCONNECT to finish. */
#define LEAVE_MS 1000

/* ---- tries ----------------------------------------------------------------------------------------------------- */

/* Whether another try, later or at another server, may succeed. */
static bool is_worth_retrying(int error)
{
	struct srdma_reject reject;

	switch (error) {
	case SRDMA_EREJECTED:
		srdma_reject_last(&reject);
		return reject.reason == SRDMA_REJECT_FULL || reject.reason == SRDMA_REJECT_RESOURCES ||
		       reject.reason == SRDMA_REJECT_DRAINING || reject.reason == SRDMA_REJECT_BUSY;
	case SRDMA_ECERT:
	case SRDMA_ECONFIG:
	case SRDMA_EPROTOCOL:
	case SRDMA_ERANDOM:
	case -EINVAL:
	case -ENOMEM: return false;
	default: return true;
	}
}

/* The pause before the first round after a loss, or between two rounds. */
static int pause_of(const struct srdma_link *link)
{
	if (link->failures == 0)
		return srdma_pause_below(link->options.pause_min_ms);
	return srdma_pause_growing(link->options.pause_min_ms, link->options.pause_max_ms, link->failures - 1);
}

static int policy_ms(const struct srdma_link *link)
{
	return link->connections == 0 ? link->options.connect_ms : link->options.reconnect_ms;
}

static void begin_round(struct srdma_link *link)
{
	if (link->until == 0)
		link->until = srdma_deadline(policy_ms(link));
	link->tried = 0;
	link->worth_retrying = false;
	link->phase = SRDMA_LINK_NEXT;
}

static void begin_pause(struct srdma_link *link, int ms)
{
	link->pause_until = srdma_deadline(ms);
	link->phase = SRDMA_LINK_PAUSING;
}

void srdma_link_begin(struct srdma_link *link)
{
	link->until = 0;
	if (link->connections == 0)
		begin_round(link);
	else
		begin_pause(link, pause_of(link));
}

static size_t index_of_try(const struct srdma_link *link)
{
	return (link->endpoint + link->tried) % link->options.endpoint_count;
}

/* All endpoints were tried, or the time is over. 0: another round follows. */
static int end_round(struct srdma_link *link)
{
	int pause;

	if (link->worth_retrying) {
		link->failures++;
		pause = pause_of(link);
		if (pause < srdma_deadline_left_ms(link->until)) {
			srdma_log(SRDMA_LOG_INFO, "trying again in %d ms", pause);
			begin_pause(link, pause);
			return 0;
		}
	}
	link->phase = SRDMA_LINK_DOWN;
	return srdma_fail(link->error, "%s", link->error_text);
}

/* The endpoint cannot be had. 0: something else will be tried. */
static int end_try(struct srdma_link *link, int error)
{
	const struct srdma_endpoint *endpoint = &link->endpoints[index_of_try(link)];
	bool can = is_worth_retrying(error);

	srdma_log(SRDMA_LOG_INFO, "cannot connect to %s:%s: %s", endpoint->host, endpoint->port, srdma_error_text());
	if (can || !link->worth_retrying) {
		link->error = error;
		srdma_error_keep(link->error_text, sizeof link->error_text);
	}
	link->worth_retrying = link->worth_retrying || can;
	link->tried++;
	link->phase = SRDMA_LINK_NEXT;
	if (link->tried < link->options.endpoint_count && (link->connections == 0 || srdma_deadline_left_ms(link->until) > 0))
		return 0;
	return end_round(link);
}

static int begin_try(struct srdma_link *link)
{
	const struct srdma_endpoint *endpoint = &link->endpoints[index_of_try(link)];
	struct srdma_conn_options options = *link->options.conn;
	int left = srdma_deadline_left_ms(link->until), ret;

	/* A server that does not answer must not take longer than the policy allows; only the first try has the whole set-up time. */
	if (left > 0 && left < options.setup_timeout_ms && link->connections > 0)
		options.setup_timeout_ms = left;
	if (link->options.endpoint_count > 1 || link->connections > 0)
		options.busy_retry_ms = 0; /* the link has its own pauses, and another endpoint may have room */
	link->loss.attempts++;
	link->phase = SRDMA_LINK_TRYING;
	ret = srdma_conn_connect_start(endpoint->host, endpoint->port, link->context, link->device, &options, &link->connect);
	if (ret == 0)
		ret = srdma_watch_add(&link->watch, srdma_connect_fd(link->connect), POLLIN);
	return ret == 0 ? 0 : end_try(link, ret);
}

static void drop_connect(struct srdma_link *link)
{
	if (link->connect)
		srdma_watch_remove(&link->watch, srdma_connect_fd(link->connect));
	srdma_connect_free(&link->connect);
}

static void drop_conn(struct srdma_link *link)
{
	if (link->conn)
		srdma_watch_remove(&link->watch, srdma_conn_fd(link->conn));
	srdma_conn_free(&link->conn);
}

void srdma_link_abandon(struct srdma_link *link)
{
	drop_connect(link);
	if (link->phase != SRDMA_LINK_UP)
		link->phase = SRDMA_LINK_DOWN;
}

int srdma_link_tell_reconnection(const struct srdma_link *link)
{
	return srdma_fail(SRDMA_ERECONNECTED, "the connection was lost (%.300s) and replaced by a new one to %s:%s", link->loss.text,
			  link->endpoints[link->endpoint].host, link->endpoints[link->endpoint].port);
}

/* There is a connection. */
static int come_up(struct srdma_link *link)
{
	link->endpoint = index_of_try(link);
	link->connections++;
	link->connected_at = srdma_clock_us();
	link->phase = SRDMA_LINK_UP;
	if (link->connections == 1) {
		link->failures = 0;
		link->loss = (struct srdma_link_loss){0};
		return 0;
	}
	link->loss.down_us = srdma_clock_us() - link->lost_at;
	srdma_log(SRDMA_LOG_INFO, "reconnected to %s:%s after %llu ms, %u attempt%s", link->endpoints[link->endpoint].host,
		  link->endpoints[link->endpoint].port, (unsigned long long)(link->loss.down_us / 1000), link->loss.attempts,
		  SRDMA_S(link->loss.attempts));
	return srdma_link_tell_reconnection(link);
}

static int go_on_trying(struct srdma_link *link)
{
	int ret = srdma_connect_step(link->connect, &link->conn);

	if (ret == -EAGAIN)
		return ret;
	drop_connect(link);
	if (ret == 0)
		ret = srdma_conn_share_wake(link->conn, link->wake_fd, &link->wake_requested);
	if (ret == 0)
		ret = srdma_watch_add(&link->watch, srdma_conn_fd(link->conn), POLLIN);
	if (ret == 0)
		return come_up(link);
	drop_conn(link);
	return end_try(link, ret);
}

/* ---- loss ------------------------------------------------------------------------------------------------------ */

/* Keeps the messages that had come over the connection. */
static int keep_arrivals(struct srdma_link *link)
{
	struct srdma_queues *queues = &link->conn->queues;
	const void *data;
	uint32_t length;

	/* Completions of messages and credits come first, then those of receives that were flushed. */
	srdma_queues_poll_receives(queues);
	while (srdma_queues_peek(queues, &data, &length) == 1) {
		int ret = srdma_kept_add(&link->kept, data, length);

		if (ret != 0)
			return ret;
		link->loss.kept++;
		/* No peer is left to return the credit to. */
		srdma_queues_drop(queues);
	}
	return 0;
}

/* The connection is over, and its peer has said everything. */
static int take_leave(struct srdma_link *link)
{
	struct srdma_conn_info info;
	bool useful;
	int ret;

	/* From here on this end executes no request of the peer. */
	srdma_conn_end(link->conn, srdma_fail(link->loss.error, "%s", link->loss.text));
	ret = keep_arrivals(link);
	if (ret != 0) {
		link->phase = SRDMA_LINK_UP;
		return ret;
	}
	srdma_conn_get_info(link->conn, &info);
	link->loss.acknowledged = link->base + info.messages_acknowledged;
	link->loss.sent = link->base + info.messages_sent;
	link->in_doubt += info.messages_sent - info.messages_acknowledged;
	link->base = link->loss.sent;
	useful = info.messages_acknowledged > 0 || info.messages_received > 0 || link->loss.kept > 0 ||
		 link->lost_at - link->connected_at >= (uint64_t)link->options.pause_max_ms * 1000;
	link->failures = useful ? 0 : link->failures + 1;
	srdma_log(SRDMA_LOG_WARN, "lost the connection to %s:%s: %s; messages up to %llu acknowledged, %llu in doubt",
		  link->endpoints[link->endpoint].host, link->endpoints[link->endpoint].port, link->loss.text,
		  (unsigned long long)link->loss.acknowledged, (unsigned long long)(link->loss.sent - link->loss.acknowledged));
	drop_conn(link);
	srdma_link_begin(link);
	return 0;
}

int srdma_link_lose(struct srdma_link *link, int error)
{
	link->loss = (struct srdma_link_loss){.error = error, .kept = link->kept.count};
	srdma_error_keep(link->loss.text, sizeof link->loss.text);
	link->lost_at = srdma_clock_us();
	link->phase = SRDMA_LINK_LEAVING;
	/* The server asked for the end, so the link first takes the server's last frames and credits. */
	return error == SRDMA_ECLOSED ? srdma_conn_disconnect_start(link->conn, NULL, LEAVE_MS) : take_leave(link);
}

static int go_on_leaving(struct srdma_link *link)
{
	return srdma_conn_disconnect_step(link->conn) == -EAGAIN ? -EAGAIN : take_leave(link);
}

/* ---- the steps ------------------------------------------------------------------------------------------------- */

/* 0: go on with the next one. */
static int step(struct srdma_link *link)
{
	switch (link->phase) {
	case SRDMA_LINK_LEAVING: return go_on_leaving(link);
	case SRDMA_LINK_PAUSING:
		if (srdma_clock_us() < link->pause_until)
			return -EAGAIN;
		begin_round(link);
		return 0;
	case SRDMA_LINK_NEXT: return begin_try(link);
	case SRDMA_LINK_TRYING: return go_on_trying(link);
	case SRDMA_LINK_UP:
	case SRDMA_LINK_DOWN: break;
	}
	return 0;
}

int srdma_link_advance(struct srdma_link *link)
{
	int ret = 0;

	while (ret == 0 && link->phase != SRDMA_LINK_UP && link->phase != SRDMA_LINK_DOWN) {
		srdma_wake_take(link->wake_fd);
		if (atomic_exchange(&link->wake_requested, false))
			return srdma_fail(-EINTR, "another thread ended the attempt to connect (srdma_link_wake)");
		ret = step(link);
	}
	if (ret != -EAGAIN)
		return ret;
	ret = srdma_watch_until(&link->watch, link->phase == SRDMA_LINK_PAUSING ? link->pause_until : SRDMA_NEVER);
	return ret == 0 ? srdma_again("a new connection") : ret;
}
