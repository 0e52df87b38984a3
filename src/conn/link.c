/* SPDX-License-Identifier: Apache-2.0 */
/* A client that connects again after it has lost its connection. */
#include "clock.h"
#include "link_state.h"
#include "log.h"
#include "sized.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* A blocking call looks after so long, though the descriptor tells of everything. */
#define LOOK_MS 1000

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
	if (conn->named_regions)
		return srdma_fail(-EINVAL, "a link cannot have regions with names (named_regions): they end with their connection");
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

/* Takes the link as far as it goes: without waiting if timeout_ms is 0, else to the end of the policy's time. */
static int go_on(struct srdma_link *link, int timeout_ms)
{
	int ret;

	while ((ret = srdma_link_advance(link)) == -EAGAIN && timeout_ms != 0)
		srdma_net_wait(link->watch.fd, POLLIN, srdma_deadline(LOOK_MS));
	return ret;
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

int srdma_link_connect_start(const struct srdma_link_options *given, struct srdma_tls_context *context, struct srdma_device *device,
			     struct srdma_link **out)
{
	struct srdma_link_options options;
	struct srdma_conn_settings conn;
	struct srdma_link *link;
	int ret = take_options(given, &options, &conn);

	if (ret == 0)
		ret = srdma_tls_context_check(context, false);
	if (ret == 0 && !device)
		ret = srdma_fail(-EINVAL, "a link needs a device");
	if (ret != 0)
		return ret;
	link = calloc(1, sizeof *link);
	if (!link)
		return srdma_fail(-ENOMEM, "out of memory");
	link->context = srdma_tls_context_ref(context);
	link->device = srdma_device_ref(device);
	link->watch.fd = link->watch.timer_fd = -1;
	link->wake_fd = srdma_wake_new();
	if (link->wake_fd < 0)
		ret = srdma_fail(-errno, "cannot make a descriptor: %s", strerror(errno));
	if (ret == 0)
		ret = srdma_watch_open(&link->watch);
	if (ret == 0)
		ret = srdma_watch_add(&link->watch, link->wake_fd, POLLIN);
	if (ret == 0)
		ret = copy_options(link, &options, &conn);
	/* The first step is due now. */
	if (ret == 0)
		ret = srdma_watch_until(&link->watch, 0);
	if (ret != 0) {
		srdma_link_free(&link);
		return ret;
	}
	srdma_link_begin(link);
	*out = link;
	return 0;
}

int srdma_link_connect(const struct srdma_link_options *options, struct srdma_tls_context *context, struct srdma_device *device,
		       struct srdma_link **out)
{
	struct srdma_link *link;
	int ret = srdma_link_connect_start(options, context, device, &link);

	if (ret != 0)
		return ret;
	ret = go_on(link, -1);
	if (ret != 0)
		srdma_link_free(&link);
	else
		*out = link;
	return ret;
}

/* A call on the connection has failed. Returns the call's error when the connection is up, or the link does not reconnect. */
static int recover(struct srdma_link *link, int error, int timeout_ms)
{
	int ret, ended;

	if (link->left || link->options.reconnect_ms == 0 || error == -EMSGSIZE || error == -EINTR)
		return error;
	/* The call may have seen no more than that its time was over, while the peer disconnects. */
	ended = srdma_conn_check(link->conn);
	/* A peer that breaks the protocol would break it again. */
	if (ended == 0 || ended == SRDMA_EPROTOCOL)
		return error;
	ret = srdma_link_lose(link, ended);
	return ret == 0 ? go_on(link, timeout_ms) : ret;
}

/* 0: there is a connection to use. */
static int be_connected(struct srdma_link *link, int timeout_ms)
{
	if (link->phase == SRDMA_LINK_UP)
		return 0;
	if (link->left || (link->connections > 0 && (link->options.reconnect_ms == 0 || link->loss.error == SRDMA_EPROTOCOL)))
		return srdma_fail(link->loss.error ? link->loss.error : SRDMA_ECLOSED, "not connected: %s",
				  link->loss.error ? link->loss.text : "the link was disconnected");
	if (link->phase == SRDMA_LINK_DOWN)
		srdma_link_begin(link);
	return go_on(link, timeout_ms);
}

static int reconnect(struct srdma_link *link, int timeout_ms)
{
	int error;

	if (link->phase != SRDMA_LINK_UP)
		return be_connected(link, timeout_ms);
	error = srdma_conn_check(link->conn);
	return error == 0 ? 0 : recover(link, error, timeout_ms);
}

int srdma_link_reconnect(struct srdma_link *link)
{
	return reconnect(link, -1);
}

int srdma_link_step(struct srdma_link *link)
{
	/* Only a look tells whether the peer has gone. */
	if (link->phase == SRDMA_LINK_UP)
		srdma_conn_progress(link->conn, true);
	return reconnect(link, 0);
}

int srdma_link_fd(const struct srdma_link *link)
{
	return link->watch.fd;
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
		return srdma_link_tell_reconnection(link);
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
	atomic_store(&link->wake_requested, true);
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

/* From now on the link makes no connection. */
static void leave(struct srdma_link *link)
{
	link->left = true;
	srdma_link_abandon(link);
	/* The next step is due now. */
	srdma_watch_until(&link->watch, link->conn ? SRDMA_NEVER : 0);
}

int srdma_link_disconnect(struct srdma_link *link, const char *reason, int timeout_ms)
{
	leave(link);
	return link->conn ? srdma_conn_disconnect(link->conn, reason, timeout_ms) : 0;
}

int srdma_link_disconnect_start(struct srdma_link *link, const char *reason, int timeout_ms)
{
	int ret = timeout_ms == 0 ? srdma_fail(-EINVAL, "a disconnect needs a time for the peer to answer; give a timeout_ms above 0") : 0;

	if (ret != 0)
		return ret;
	leave(link);
	return link->conn ? srdma_conn_disconnect_start(link->conn, reason, timeout_ms) : 0;
}

int srdma_link_disconnect_step(struct srdma_link *link)
{
	if (!link->left)
		return srdma_fail(-EINVAL, "no disconnect was begun (srdma_link_disconnect_start)");
	return link->conn ? srdma_conn_disconnect_step(link->conn) : 0;
}

void srdma_link_free(struct srdma_link **out)
{
	struct srdma_link *link = *out;

	*out = NULL;
	if (!link)
		return;
	srdma_connect_free(&link->connect);
	srdma_conn_free(&link->conn);
	srdma_watch_close(&link->watch);
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
