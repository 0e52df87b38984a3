/* SPDX-License-Identifier: Apache-2.0 */
/* A client that connects again after it has lost its connection. */
#include "clock.h"
#include "conn.h"
#include "kept.h"
#include "log.h"
#include "pause.h"
#include "securdma_link.h"
#include "sized.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* The time that a link gives a server that has sent DISCONNECT to finish. */
#define LEAVE_MS 1000

struct srdma_link {
	struct srdma_link_options options; /* endpoints: the link's own copy */
	struct srdma_conn_settings conn_settings; /* gid_networks: the link's own copy */
	struct srdma_endpoint *endpoints;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	int wake_fd; /* wake.h; each connection has a duplicate of it */

	struct srdma_conn *conn; /* NULL: none */
	size_t endpoint;         /* of this connection, or of the last one */
	uint64_t base;           /* number of the last message of earlier connections */
	uint64_t connected_at;
	unsigned connections;
	unsigned failures; /* in a row: failed rounds, and connections that carried nothing */
	bool left;         /* disconnected by this end */

	struct srdma_kept kept; /* messages that came over connections that have ended */
	uint64_t in_doubt;
	uint64_t lost_at; /* 0: not down */
	bool untold;      /* SRDMA_ERECONNECTED is due, after the kept messages */
	struct srdma_link_loss loss;
};

/* ---- options --------------------------------------------------------------------------------------------------- */

SRDMA_DEFAULTS(srdma_endpoint)

SRDMA_DEFAULTS(srdma_link_options, .reconnect_ms = 60000, .pause_min_ms = 100, .pause_max_ms = 5000)

static int check_options(const struct srdma_link_options *o, const struct srdma_conn_options *conn)
{
	if (o->endpoint_count == 0)
		return srdma_fail(-EINVAL, "a link needs at least one endpoint");
	if (conn->raw)
		return srdma_fail(-EINVAL, "a link cannot have raw connections: it could not restore what a program has in its "
					   "own queue pair");
	if (o->connect_ms < 0 || o->reconnect_ms < 0)
		return srdma_fail(-EINVAL, "connect_ms and reconnect_ms must not be negative");
	if (o->pause_min_ms <= 0 || o->pause_max_ms < o->pause_min_ms)
		return srdma_fail(-EINVAL, "pauses of %d to %d ms are not valid; pause_min_ms must be above 0, and pause_max_ms at least as high", o->pause_min_ms,
				  o->pause_max_ms);
	return 0;
}

static int copy_endpoint(const struct srdma_endpoint *given, size_t i, struct srdma_endpoint *out)
{
	struct srdma_endpoint endpoint;
	int ret = SRDMA_SIZED_TAKE(srdma_endpoint, port, given, &endpoint);

	if (ret != 0)
		return ret;
	if (!endpoint.host)
		return srdma_fail(-EINVAL, "endpoint %zu has no host", i);
	out->host = strdup(endpoint.host);
	out->port = strdup(endpoint.port ? endpoint.port : SRDMA_DEFAULT_PORT);
	return out->host && out->port ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

static int copy_endpoints(struct srdma_link *link, const struct srdma_endpoint *given)
{
	size_t count = link->options.endpoint_count;
	int ret = 0;

	link->endpoints = calloc(count, sizeof *link->endpoints);
	link->options.endpoints = link->endpoints;
	if (!link->endpoints)
		return srdma_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; ret == 0 && i < count; i++)
		ret = copy_endpoint(srdma_sized_element(given, i), i, &link->endpoints[i]);
	return ret;
}

static int copy_options(struct srdma_link *link, const struct srdma_link_options *options, const struct srdma_conn_settings *conn)
{
	link->options = *options;
	srdma_conn_settings_copy(&conn->options, &link->conn_settings);
	link->options.conn = &link->conn_settings.options;
	if (conn->options.gid_networks) {
		link->conn_settings.options.gid_networks = strdup(conn->options.gid_networks);
		if (!link->conn_settings.options.gid_networks)
			return srdma_fail(-ENOMEM, "out of memory");
	}
	return copy_endpoints(link, options->endpoints);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

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

static int sleep_or_be_woken(struct srdma_link *link, int ms)
{
	struct pollfd fd = {.fd = link->wake_fd, .events = POLLIN};

	if (poll(&fd, 1, ms) > 0 && srdma_wake_take(link->wake_fd))
		return srdma_fail(-EINTR, "another thread ended the attempt to connect (srdma_link_wake)");
	return 0;
}

static int try_endpoint(struct srdma_link *link, size_t index, uint64_t deadline)
{
	const struct srdma_endpoint *endpoint = &link->endpoints[index];
	struct srdma_conn_options options = *link->options.conn;
	int left = srdma_deadline_left_ms(deadline), ret;

	/* A server that does not answer must not take longer than the policy allows; only the first try has the whole set-up time. */
	if (left > 0 && left < options.setup_timeout_ms && link->connections > 0)
		options.setup_timeout_ms = left;
	if (link->options.endpoint_count > 1 || link->connections > 0)
		options.busy_retry_ms = 0; /* the link has its own pauses, and another endpoint may have room */
	link->loss.attempts++;
	ret = srdma_conn_connect(endpoint->host, endpoint->port, link->context, link->device, &options, &link->conn);
	if (ret == 0)
		ret = srdma_conn_share_wake(link->conn, link->wake_fd);
	if (ret != 0) {
		srdma_conn_free(&link->conn);
		return ret;
	}
	link->endpoint = index;
	link->connections++;
	link->connected_at = srdma_clock_us();
	return 0;
}

/* Tries each endpoint once. Returns 0, or the last error that is worth a retry, or else the last error. */
static int try_all(struct srdma_link *link, uint64_t deadline, bool *worth_retrying)
{
	char text[512] = "";
	int ret, error = 0;

	*worth_retrying = false;
	for (size_t i = 0; i < link->options.endpoint_count; i++) {
		size_t index = (link->endpoint + i) % link->options.endpoint_count;
		bool can;

		if (i > 0 && link->connections > 0 && srdma_deadline_left_ms(deadline) == 0)
			break;
		ret = try_endpoint(link, index, deadline);
		if (ret == 0)
			return 0;
		can = is_worth_retrying(ret);
		srdma_log(SRDMA_LOG_INFO, "cannot connect to %s:%s: %s", link->endpoints[index].host, link->endpoints[index].port,
			  srdma_error_text());
		if (can || !*worth_retrying) {
			error = ret;
			srdma_error_keep(text, sizeof text);
		}
		*worth_retrying = *worth_retrying || can;
	}
	return srdma_fail(error, "%s", text);
}

/* Tries for `ms` in all, and at least one round. */
static int connect_by_policy(struct srdma_link *link, int ms)
{
	uint64_t deadline = srdma_deadline(ms);
	bool worth_retrying;
	int ret, pause;

	for (;;) {
		ret = try_all(link, deadline, &worth_retrying);
		if (ret == 0 || !worth_retrying)
			return ret;
		link->failures++;
		pause = pause_of(link);
		if (pause >= srdma_deadline_left_ms(deadline))
			return ret;
		srdma_log(SRDMA_LOG_INFO, "trying again in %d ms", pause);
		ret = sleep_or_be_woken(link, pause);
		if (ret != 0)
			return ret;
	}
}

static int take_options(const struct srdma_link_options *given, struct srdma_link_options *options, struct srdma_conn_settings *conn)
{
	struct srdma_conn_options defaults;
	int ret = SRDMA_SIZED_TAKE(srdma_link_options, pause_max_ms, given, options);

	srdma_conn_options_init(&defaults);
	if (ret == 0)
		ret = srdma_conn_settings_take(options->conn ? options->conn : &defaults, conn);
	return ret == 0 ? check_options(options, &conn->options) : ret;
}

int srdma_link_connect(const struct srdma_link_options *given, struct srdma_tls_context *context, struct srdma_device *device,
		       struct srdma_link **out)
{
	struct srdma_link_options options;
	struct srdma_conn_settings conn;
	struct srdma_link *link;
	int ret = take_options(given, &options, &conn);

	if (ret != 0)
		return ret;
	link = calloc(1, sizeof *link);
	if (!link)
		return srdma_fail(-ENOMEM, "out of memory");
	link->context = srdma_tls_context_ref(context);
	link->device = srdma_device_ref(device);
	link->wake_fd = srdma_wake_new();
	if (link->wake_fd < 0)
		ret = srdma_fail(-errno, "cannot make a descriptor: %s", strerror(errno));
	if (ret == 0)
		ret = copy_options(link, &options, &conn);
	if (ret == 0)
		ret = connect_by_policy(link, options.connect_ms);
	if (ret != 0) {
		srdma_link_free(&link);
		return ret;
	}
	link->failures = 0;
	link->loss = (struct srdma_link_loss){0};
	*out = link;
	return 0;
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

/* The connection is over, for the reason in the thread's last error. */
static int take_leave(struct srdma_link *link, int error)
{
	struct srdma_link_loss loss = {.error = error, .kept = link->kept.count};
	struct srdma_conn_info info;
	bool useful;
	int ret;

	srdma_error_keep(loss.text, sizeof loss.text);
	link->lost_at = srdma_clock_us();
	/* The server asked for the end, so the link first takes the server's last frames and credits. */
	if (error == SRDMA_ECLOSED)
		srdma_conn_disconnect(link->conn, NULL, LEAVE_MS);
	/* From here on this end executes no request of the peer. */
	srdma_conn_end(link->conn, error);
	link->loss = loss;
	ret = keep_arrivals(link);
	if (ret != 0)
		return ret;
	srdma_conn_get_info(link->conn, &info);
	link->loss.acknowledged = link->base + info.messages_acknowledged;
	link->loss.sent = link->base + info.messages_sent;
	link->in_doubt += info.messages_sent - info.messages_acknowledged;
	link->base = link->loss.sent;
	useful = info.messages_acknowledged > 0 || info.messages_received > 0 || link->loss.kept > 0 ||
		 link->lost_at - link->connected_at >= (uint64_t)link->options.pause_max_ms * 1000;
	link->failures = useful ? 0 : link->failures + 1;
	srdma_log(SRDMA_LOG_WARN, "lost the connection to %s:%s: %s; messages up to %llu acknowledged, %llu in doubt",
		  link->endpoints[link->endpoint].host, link->endpoints[link->endpoint].port, loss.text,
		  (unsigned long long)link->loss.acknowledged, (unsigned long long)(link->loss.sent - link->loss.acknowledged));
	srdma_conn_free(&link->conn);
	return 0;
}

static int tell_of_reconnection(const struct srdma_link *link)
{
	return srdma_fail(SRDMA_ERECONNECTED, "the connection was lost (%.300s) and replaced by a new one to %s:%s", link->loss.text,
			  link->endpoints[link->endpoint].host, link->endpoints[link->endpoint].port);
}

static int come_back(struct srdma_link *link)
{
	int ret = sleep_or_be_woken(link, pause_of(link));

	if (ret == 0)
		ret = connect_by_policy(link, link->options.reconnect_ms);
	if (ret != 0)
		return ret;
	link->loss.down_us = srdma_clock_us() - link->lost_at;
	srdma_log(SRDMA_LOG_WARN, "reconnected to %s:%s after %llu ms, %u attempt%s", link->endpoints[link->endpoint].host,
		  link->endpoints[link->endpoint].port, (unsigned long long)(link->loss.down_us / 1000), link->loss.attempts,
		  SRDMA_S(link->loss.attempts));
	return tell_of_reconnection(link);
}

/* A call on the connection has failed. Returns the call's error when the connection is up, or the link does not reconnect. */
static int recover(struct srdma_link *link, int error, int timeout_ms)
{
	int ret;

	if (link->left || (link->conn && srdma_conn_check(link->conn) == 0) || link->options.reconnect_ms == 0)
		return error;
	/* A peer that breaks the protocol would break it again. */
	if (timeout_ms == 0 || error == SRDMA_EPROTOCOL)
		return error;
	ret = link->conn ? take_leave(link, error) : 0;
	return ret == 0 ? come_back(link) : ret;
}

/* 0: there is a connection to use. */
static int be_connected(struct srdma_link *link, int timeout_ms)
{
	if (link->conn)
		return 0;
	return recover(link, srdma_fail(link->loss.error ? link->loss.error : SRDMA_ELOST, "not connected: %s", link->loss.text),
		       timeout_ms);
}

int srdma_link_reconnect(struct srdma_link *link)
{
	int error = link->conn ? srdma_conn_check(link->conn) : link->loss.error;

	return error == 0 ? 0 : recover(link, error, -1);
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

int srdma_link_send(struct srdma_link *link, const void *data, size_t length, int timeout_ms, uint64_t *number)
{
	int ret = be_connected(link, timeout_ms);

	if (ret != 0)
		return ret;
	ret = srdma_conn_send(link->conn, data, length, timeout_ms);
	if (ret != 0)
		return recover(link, ret, timeout_ms);
	if (number)
		*number = link->base + srdma_counter_read(&link->conn->queues.counters.messages_sent);
	return 0;
}

int srdma_link_recv(struct srdma_link *link, void *buffer, size_t size, size_t *length, int timeout_ms)
{
	int ret;

	if (link->kept.first)
		return srdma_kept_take(&link->kept, buffer, size, length);
	if (link->untold) {
		link->untold = false;
		return tell_of_reconnection(link);
	}
	ret = be_connected(link, timeout_ms);
	if (ret == 0) {
		ret = srdma_conn_recv(link->conn, buffer, size, length, timeout_ms);
		if (ret != 0)
			ret = recover(link, ret, timeout_ms);
	}
	/* The program gets the messages that came before the end, and only then the error. */
	if (!link->kept.first)
		return ret;
	link->untold = ret == SRDMA_ERECONNECTED;
	return srdma_kept_take(&link->kept, buffer, size, length);
}

int srdma_link_wait(struct srdma_link *link, int timeout_ms)
{
	int ret;

	if (link->kept.first)
		return 0;
	ret = be_connected(link, timeout_ms);
	if (ret != 0)
		return ret;
	ret = srdma_conn_wait(link->conn, timeout_ms);
	return ret == 0 ? 0 : recover(link, ret, timeout_ms);
}

void srdma_link_wake(struct srdma_link *link)
{
	srdma_wake_send(link->wake_fd);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

struct srdma_conn *srdma_link_conn(struct srdma_link *link)
{
	return link->conn;
}

void srdma_link_get_loss_sized(const struct srdma_link *link, struct srdma_link_loss *loss, size_t size)
{
	srdma_sized_fill(loss, size, &link->loss, sizeof link->loss);
}

void srdma_link_get_info_sized(const struct srdma_link *link, struct srdma_link_info *info, size_t size)
{
	struct srdma_conn_info conn = {0};

	if (link->conn)
		srdma_conn_read_counters(link->conn, &conn);
	const struct srdma_link_info own = {
		.connections = link->connections,
		.connected = link->conn && link->conn->status == 0,
		.sent = link->base + conn.messages_sent,
		.acknowledged = link->conn ? link->base + conn.messages_acknowledged : link->loss.acknowledged,
		.in_doubt = link->in_doubt,
		.host = link->endpoints[link->endpoint].host,
		.port = link->endpoints[link->endpoint].port,
	};
	srdma_sized_fill(info, size, &own, sizeof own);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

int srdma_link_disconnect(struct srdma_link *link, const char *reason, int timeout_ms)
{
	link->left = true;
	return link->conn ? srdma_conn_disconnect(link->conn, reason, timeout_ms) : 0;
}

void srdma_link_free(struct srdma_link **out)
{
	struct srdma_link *link = *out;

	*out = NULL;
	if (!link)
		return;
	srdma_conn_free(&link->conn);
	srdma_kept_clear(&link->kept);
	for (size_t i = 0; link->endpoints && i < link->options.endpoint_count; i++) {
		free((char *)link->endpoints[i].host);
		free((char *)link->endpoints[i].port);
	}
	free(link->endpoints);
	free((char *)(uintptr_t)link->conn_settings.options.gid_networks);
	srdma_wake_close(link->wake_fd);
	srdma_tls_context_unref(&link->context);
	srdma_device_unref(&link->device);
	free(link);
}
