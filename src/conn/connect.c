/* SPDX-License-Identifier: Apache-2.0 */
/* The connecting end: TCP, TLS, HELLO, WELCOME, READY; it tries again when the server is busy. No step waits. */
#include "setup.h"

#include "clock.h"
#include "dial.h"
#include "log.h"
#include "pause.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads of one step: a whole frame, byte by byte. */
#define STEP_READS (SRDMA_FRAME_MAX + 1)

#define BUSY_PAUSE_MS 100 /* the first pause, if the server names none */
#define BUSY_PAUSE_MAX_MS 5000
#define BUSY_DOUBLINGS_MAX 6

enum stage { STAGE_BEGIN, STAGE_TCP, STAGE_TLS, STAGE_WELCOME, STAGE_PRIVATE_DATA, STAGE_UP, STAGE_PAUSE, STAGE_OVER };

struct srdma_connect {
	char *host, *port, *networks;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_conn_settings settings;
	struct srdma_watch watch;
	enum stage stage;
	uint64_t due; /* the next step is due by then, whatever happens */

	/* The present try. */
	struct srdma_setup setup;
	struct srdma_dial *dial;
	uint64_t shaking_since;
	bool prepared; /* this end's queue pair is made */
	int fd;        /* of the TLS channel, in the watch; -1: it is not */
	short events;

	bool without_keys; /* the server is too old for SRDMA_FEATURE_REGION_KEYS */
	unsigned tries; /* that have ended because the server was busy */
	uint64_t busy_until; /* the time for them */

	int result; /* OVER: 0: the connection was handed out */
	char text[512];
	struct srdma_reject reject;
};

static _Thread_local struct srdma_reject last_reject;

void srdma_reject_last_sized(struct srdma_reject *reject, size_t size)
{
	srdma_sized_fill(reject, size, &last_reject, sizeof last_reject);
}

/* ---- what the server says -------------------------------------------------------------------------------------- */

static int be_rejected(const struct srdma_inbox *inbox)
{
	int ret = srdma_reject_decode(srdma_inbox_body(inbox), inbox->header.length, &last_reject);

	if (ret != 0)
		return ret;
	return srdma_fail(SRDMA_EREJECTED, "the server rejected the connection (%s): %s",
			  srdma_reject_reason_name(last_reject.reason), last_reject.text);
}

static int refuse_gid(const union ibv_gid *gid)
{
	char text[INET6_ADDRSTRLEN];
	bool v4 = srdma_net_gid_is_v4(gid);

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? gid->raw + 12 : gid->raw, text, sizeof text);
	return srdma_fail(SRDMA_EPROTOCOL,
			  "the server's GID %s is neither the address that was connected to nor in gid-networks; behind a balancer, "
			  "name the networks of its servers there",
			  text);
}

static int take_welcome(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	struct srdma_reject why = {0};
	int ret;

	if (conn->inbox.header.type == SRDMA_FRAME_REJECT)
		return be_rejected(&conn->inbox);
	if (conn->inbox.header.type != SRDMA_FRAME_WELCOME || conn->inbox.header.version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the server answered HELLO with frame type %u of version %u",
				  conn->inbox.header.type, conn->inbox.header.version);
	ret = srdma_hello_decode(SRDMA_FRAME_WELCOME, srdma_inbox_body(&conn->inbox), conn->inbox.header.length, &conn->peer);
	if (ret != 0)
		return ret;
	if (srdma_hello_validate(&conn->peer, true, &why) != 0 || srdma_setup_check_fit(s, &why) != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the server's WELCOME is not acceptable: %s", why.text);
	if (conn->peer.features & ~conn->own.features & SRDMA_FEATURES_OFFERED)
		return srdma_fail(SRDMA_EPROTOCOL, "the server's WELCOME has features that HELLO did not offer");
	/* Without gid-networks this end trusts the authenticated server's GID. */
	if (conn->networks.count > 0 && srdma_setup_check_gid(s, &why) != 0)
		return refuse_gid(&conn->peer.gid);
	conn->client_id = conn->peer.client_id;
	return 0;
}

static int send_ready(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_ready_encode(frame, (conn->own.features & SRDMA_FEATURE_WINDOW) != 0, conn->own.region_rkey);

	return srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
}

/* ---- the steps: 0: go on with the next; -EAGAIN; or an error ---------------------------------------------------- */

static int begin(struct srdma_connect *connect)
{
	struct srdma_setup *s = &connect->setup;
	int ret;

	*s = (struct srdma_setup){.start = srdma_clock_us(), .deadline = srdma_deadline(connect->settings.options.setup_timeout_ms)};
	connect->prepared = false;
	connect->stage = STAGE_TCP;
	ret = srdma_conn_new(connect->device, &connect->settings.options, &s->conn);
	return ret == 0 ? srdma_dial_start(connect->host, connect->port, "server", s->deadline, &connect->watch, &connect->dial) : ret;
}

static int take_socket(struct srdma_connect *connect, int fd)
{
	struct srdma_conn *conn = connect->setup.conn;
	socklen_t length = sizeof conn->peer_address;
	int ret;

	srdma_dial_free(&connect->dial);
	connect->shaking_since = srdma_clock_us();
	conn->timing.tcp = connect->shaking_since - connect->setup.start;
	if (getpeername(fd, (struct sockaddr *)&conn->peer_address, &length) != 0) {
		ret = srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
		close(fd);
		return ret;
	}
	connect->stage = STAGE_TLS;
	ret = srdma_tls_new(connect->context, fd, connect->host, &conn->tls);
	if (ret == 0)
		connect->fd = fd;
	return ret;
}

static int dial(struct srdma_connect *connect)
{
	int fd = -1, ret = srdma_dial_step(connect->dial, &fd);

	return ret == 0 ? take_socket(connect, fd) : ret;
}

/* This end makes its queue pair while the server works on its part of the handshake. Nothing of it leaves this end before the server
 * is authenticated. */
static int prepare(struct srdma_connect *connect)
{
	const struct srdma_conn_options *options = &connect->setup.conn->options;

	connect->prepared = true;
	return srdma_setup_prepare_self(&connect->setup, options->message_size, options->depth);
}

static int shake_hands(struct srdma_connect *connect)
{
	struct srdma_conn *conn = connect->setup.conn;
	int ret = srdma_tls_handshake(conn->tls); /* at first it sends the ClientHello */

	if (ret == -EAGAIN)
		return connect->prepared ? ret : prepare(connect);
	if (ret == 0 && !connect->prepared)
		ret = prepare(connect);
	conn->timing.tls = srdma_clock_us() - connect->shaking_since - conn->timing.qp;
	if (ret == 0)
		ret = srdma_tls_peer_names(conn->tls, &conn->names);
	if (ret == 0 && conn->region.windowed)
		conn->own.features |= SRDMA_FEATURE_WINDOW;
	if (connect->without_keys)
		conn->own.features &= ~SRDMA_FEATURE_REGION_KEYS;
	connect->stage = STAGE_WELCOME;
	return ret == 0 ? srdma_setup_send_self(&connect->setup, SRDMA_FRAME_HELLO) : ret;
}

/* Both ends have said everything. */
static int finish(struct srdma_connect *connect)
{
	int ret = srdma_setup_connect_queue_pair(&connect->setup);

	connect->stage = STAGE_UP;
	/* The keys come first, because the peer sends records as soon as it has READY. */
	if (ret == 0)
		ret = srdma_setup_finish(&connect->setup);
	return ret == 0 ? send_ready(&connect->setup) : ret;
}

static int await_frame(struct srdma_connect *connect)
{
	struct srdma_conn *conn = connect->setup.conn;
	unsigned reads = STEP_READS;
	int ret = srdma_outbox_flush(conn->tls, &conn->outbox);

	if (ret == 0)
		ret = srdma_control_receive(conn->tls, &conn->inbox, &reads);
	if (ret == SRDMA_ECLOSED && connect->stage == STAGE_WELCOME)
		return srdma_fail(SRDMA_ELOST, "the server closed the connection instead of answering HELLO");
	if (ret != 0)
		return ret;
	if (connect->stage == STAGE_PRIVATE_DATA) {
		ret = srdma_setup_take_private_data(&connect->setup);
		return ret == 0 ? finish(connect) : ret;
	}
	ret = take_welcome(&connect->setup);
	if (ret != 0 || !(conn->peer.features & SRDMA_FEATURE_PRIVATE_DATA))
		return ret == 0 ? finish(connect) : ret;
	connect->stage = STAGE_PRIVATE_DATA;
	return 0;
}

static int advance(struct srdma_connect *connect)
{
	switch (connect->stage) {
	case STAGE_BEGIN: return begin(connect);
	case STAGE_TCP: return dial(connect);
	case STAGE_TLS: return shake_hands(connect);
	case STAGE_WELCOME:
	case STAGE_PRIVATE_DATA: return await_frame(connect);
	case STAGE_PAUSE: return srdma_clock_us() < connect->due ? -EAGAIN : begin(connect);
	case STAGE_UP:
	case STAGE_OVER: break;
	}
	return 0;
}

/* ---- between the steps ----------------------------------------------------------------------------------------- */

/* Ends the present try. */
static void clear(struct srdma_connect *connect)
{
	if (connect->fd >= 0 && connect->events != 0)
		srdma_watch_remove(&connect->watch, connect->fd);
	connect->fd = -1;
	connect->events = 0;
	srdma_dial_free(&connect->dial);
	srdma_conn_free(&connect->setup.conn);
}

static int busy_pause_ms(unsigned tries)
{
	uint32_t first = last_reject.retry_after_ms > 0 ? last_reject.retry_after_ms : BUSY_PAUSE_MS;

	return srdma_pause_growing(first < BUSY_PAUSE_MAX_MS ? (int)first : BUSY_PAUSE_MAX_MS, BUSY_PAUSE_MAX_MS,
				   tries < BUSY_DOUBLINGS_MAX ? tries : BUSY_DOUBLINGS_MAX);
}

/* The try has failed. 0: there will be another one. */
static int fail(struct srdma_connect *connect, int error)
{
	const struct srdma_conn *conn = connect->setup.conn;
	bool has_keys = conn && (conn->own.features & SRDMA_FEATURE_REGION_KEYS);
	char text[sizeof connect->text];
	int pause;

	srdma_error_keep(text, sizeof text);
	clear(connect);
	/* An older server knows regions with names, but not this bit. */
	if (error == SRDMA_EREJECTED && last_reject.reason == SRDMA_REJECT_FEATURE && has_keys) {
		connect->without_keys = true;
		connect->stage = STAGE_BEGIN;
		return 0;
	}
	if (error == SRDMA_EREJECTED && last_reject.reason == SRDMA_REJECT_BUSY) {
		pause = busy_pause_ms(connect->tries++);
		if (pause <= srdma_deadline_left_ms(connect->busy_until)) {
			srdma_log(SRDMA_LOG_INFO, "%s:%s is busy; trying again in %d ms (attempt %u)", connect->host, connect->port, pause,
				  connect->tries + 1);
			connect->stage = STAGE_PAUSE;
			connect->due = srdma_deadline(pause);
			return 0;
		}
	}
	connect->stage = STAGE_OVER;
	connect->result = error;
	memcpy(connect->text, text, sizeof text);
	connect->reject = last_reject;
	return srdma_fail(error, "%s", text);
}

/* Nothing more can be done now. -EAGAIN, or the error that ends the try. */
static int rest(struct srdma_connect *connect)
{
	const struct srdma_conn *conn = connect->setup.conn;
	short events;
	int ret = 0;

	if (connect->stage != STAGE_PAUSE)
		connect->due = connect->stage == STAGE_TCP ? srdma_dial_due(connect->dial) : connect->setup.deadline;
	if (conn && connect->fd >= 0) {
		if (srdma_deadline_left_ms(connect->setup.deadline) == 0)
			return srdma_fail(-ETIMEDOUT, "timed out waiting for the peer (%s)",
					  connect->stage == STAGE_TLS ? "TLS handshake" : "waiting for a frame");
		events = srdma_tls_events(conn->tls) | (conn->outbox.have > 0 ? POLLOUT : 0);
		ret = srdma_watch_change(&connect->watch, connect->fd, connect->events, events);
		connect->events = events;
	}
	if (ret == 0)
		ret = srdma_watch_until(&connect->watch, connect->due);
	return ret == 0 ? srdma_again("the connection to come up") : ret;
}

static int hand_out(struct srdma_connect *connect, struct srdma_conn **out)
{
	srdma_setup_finish_timing(&connect->setup);
	*out = connect->setup.conn;
	connect->setup.conn = NULL;
	connect->stage = STAGE_OVER;
	clear(connect);
	srdma_watch_until(&connect->watch, SRDMA_NEVER);
	return 0;
}

int srdma_connect_step(struct srdma_connect *connect, struct srdma_conn **out)
{
	int ret;

	if (connect->stage == STAGE_OVER && connect->result == 0)
		return srdma_fail(-EINVAL, "an earlier call has returned the connection");
	if (connect->stage == STAGE_OVER) {
		last_reject = connect->reject;
		return srdma_fail(connect->result, "%s", connect->text);
	}
	for (;;) {
		do
			ret = advance(connect);
		while (ret == 0 && connect->stage != STAGE_UP);
		if (ret == 0)
			return hand_out(connect, out);
		if (ret == -EAGAIN)
			ret = rest(connect);
		if (ret == -EAGAIN)
			return ret;
		ret = fail(connect, ret);
		if (ret != 0)
			return ret;
	}
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int copy(const char *text, char **out)
{
	*out = text ? strdup(text) : NULL;
	return *out || !text ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

int srdma_conn_connect_start(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
			     const struct srdma_conn_options *options, struct srdma_connect **out)
{
	struct srdma_connect *connect = calloc(1, sizeof *connect);
	int ret;

	if (!connect)
		return srdma_fail(-ENOMEM, "out of memory");
	connect->fd = connect->watch.fd = connect->watch.timer_fd = -1;
	ret = srdma_conn_settings_take(options, &connect->settings);
	if (ret == 0)
		ret = srdma_conn_options_check(&connect->settings.options);
	if (ret == 0 && (!host || !port || !device))
		ret = srdma_fail(-EINVAL, "a connection needs a host, a port and a device");
	if (ret == 0)
		ret = srdma_tls_context_check(context, false);
	if (ret != 0)
		goto free_connect;
	connect->context = srdma_tls_context_ref(context);
	connect->device = srdma_device_ref(device);
	ret = srdma_watch_open(&connect->watch);
	if (ret == 0)
		ret = copy(host, &connect->host);
	if (ret == 0)
		ret = copy(port, &connect->port);
	if (ret == 0)
		ret = copy(connect->settings.options.gid_networks, &connect->networks);
	connect->settings.options.gid_networks = connect->networks;
	connect->busy_until = srdma_deadline(connect->settings.options.busy_retry_ms);
	/* The first step is due now. */
	if (ret == 0)
		ret = srdma_watch_until(&connect->watch, 0);
	if (ret != 0)
		goto free_connect;
	*out = connect;
	return 0;

free_connect:
	srdma_connect_free(&connect);
	return ret;
}

int srdma_connect_fd(const struct srdma_connect *connect)
{
	return connect->watch.fd;
}

void srdma_connect_free(struct srdma_connect **out)
{
	struct srdma_connect *connect = *out;

	*out = NULL;
	if (!connect)
		return;
	clear(connect);
	srdma_watch_close(&connect->watch);
	srdma_tls_context_unref(&connect->context);
	srdma_device_unref(&connect->device);
	free(connect->host);
	free(connect->port);
	free(connect->networks);
	free(connect);
}

int srdma_conn_connect(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
		       const struct srdma_conn_options *options, struct srdma_conn **out)
{
	struct srdma_connect *connect;
	int ret = srdma_conn_connect_start(host, port, context, device, options, &connect);

	if (ret != 0)
		return ret;
	while ((ret = srdma_connect_step(connect, out)) == -EAGAIN)
		srdma_net_wait(connect->watch.fd, POLLIN, connect->due);
	srdma_connect_free(&connect);
	return ret;
}
