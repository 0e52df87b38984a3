/* SPDX-License-Identifier: Apache-2.0 */
/* The connecting end: TCP, TLS, HELLO, WELCOME, READY; it tries again when the server is busy. */
#include "setup.h"

#include "clock.h"
#include "log.h"
#include "pause.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define BUSY_PAUSE_MS 100 /* the first pause, if the server names none */
#define BUSY_PAUSE_MAX_MS 5000
#define BUSY_DOUBLINGS_MAX 6

static _Thread_local struct srdma_reject last_reject;

void srdma_reject_last_sized(struct srdma_reject *reject, size_t size)
{
	srdma_sized_fill(reject, size, &last_reject, sizeof last_reject);
}

void srdma_reject_note(const struct srdma_reject *reject)
{
	last_reject = *reject;
}

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

static int receive_private_data(struct srdma_setup *s)
{
	int ret = srdma_control_await(s->conn->tls, &s->conn->inbox, s->deadline);

	return ret == 0 ? srdma_setup_take_private_data(s) : ret;
}

static int receive_welcome(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	struct srdma_reject why = {0};
	int ret = srdma_control_await(conn->tls, &conn->inbox, s->deadline);

	if (ret == SRDMA_ECLOSED)
		return srdma_fail(SRDMA_ELOST, "the server closed the connection instead of answering HELLO");
	if (ret != 0)
		return ret;
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
	return conn->peer.features & SRDMA_FEATURE_PRIVATE_DATA ? receive_private_data(s) : 0;
}

static int send_ready(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_ready_encode(frame, (conn->own.features & SRDMA_FEATURE_WINDOW) != 0, conn->own.region_rkey);

	return srdma_control_send(conn->tls, frame, length, s->deadline);
}

/* This end makes its queue pair while the server works on its part of the handshake. Nothing of it leaves this end before the server
 * is authenticated. */
static int shake_hands(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	uint64_t start = srdma_clock_us();
	int ret = srdma_tls_handshake(conn->tls); /* sends the ClientHello */

	if (ret == 0 || ret == -EAGAIN)
		ret = srdma_setup_prepare_self(s, conn->options.message_size, conn->options.depth);
	if (ret == 0)
		ret = srdma_control_handshake(conn->tls, s->deadline);
	conn->timing.tls = srdma_clock_us() - start - conn->timing.qp;
	return ret;
}

static int connect_steps(struct srdma_setup *s, int fd, struct srdma_tls_context *context, const char *host)
{
	struct srdma_conn *conn = s->conn;
	socklen_t length = sizeof conn->peer_address;
	int ret;

	if (getpeername(fd, (struct sockaddr *)&conn->peer_address, &length) != 0) {
		ret = srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
		close(fd);
		return ret;
	}
	ret = srdma_tls_new(context, fd, host, &conn->tls);
	if (ret == 0)
		ret = shake_hands(s);
	if (ret == 0)
		ret = srdma_tls_peer_names(conn->tls, &conn->names);
	if (ret == 0 && conn->region.windowed)
		conn->own.features |= SRDMA_FEATURE_WINDOW;
	if (ret == 0)
		ret = srdma_setup_send_self(s, SRDMA_FRAME_HELLO, s->deadline);
	if (ret == 0)
		ret = receive_welcome(s);
	if (ret == 0)
		ret = srdma_setup_connect_queue_pair(s);
	/* The keys come first, because the peer sends records as soon as it has READY. */
	if (ret == 0)
		ret = srdma_setup_finish(s);
	return ret == 0 ? send_ready(s) : ret;
}

static int connect_once(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
			const struct srdma_conn_options *options, struct srdma_conn **out)
{
	struct srdma_setup s = {.start = srdma_clock_us(), .deadline = srdma_deadline(options->setup_timeout_ms)};
	int fd, ret;

	last_reject = (struct srdma_reject){0};
	ret = srdma_conn_new(device, options, &s.conn);
	if (ret != 0)
		return ret;
	ret = srdma_net_connect(host, port, s.deadline, &fd);
	s.conn->timing.tcp = srdma_clock_us() - s.start;
	if (ret == 0)
		ret = connect_steps(&s, fd, context, host);
	if (ret != 0) {
		srdma_conn_free(&s.conn);
		return ret;
	}
	srdma_setup_finish_timing(&s);
	*out = s.conn;
	return 0;
}

static int busy_pause_ms(unsigned attempt)
{
	uint32_t first = last_reject.retry_after_ms > 0 ? last_reject.retry_after_ms : BUSY_PAUSE_MS;

	return srdma_pause_growing(first < BUSY_PAUSE_MAX_MS ? (int)first : BUSY_PAUSE_MAX_MS, BUSY_PAUSE_MAX_MS,
				   attempt < BUSY_DOUBLINGS_MAX ? attempt : BUSY_DOUBLINGS_MAX);
}

int srdma_conn_connect(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
		       const struct srdma_conn_options *options, struct srdma_conn **out)
{
	struct srdma_conn_settings settings;
	uint64_t until;
	int ret = srdma_conn_settings_take(options, &settings);

	if (ret != 0)
		return ret;
	until = srdma_deadline(settings.options.busy_retry_ms);
	for (unsigned attempt = 0;; attempt++) {
		int pause;

		ret = connect_once(host, port, context, device, &settings.options, out);
		if (ret != SRDMA_EREJECTED || last_reject.reason != SRDMA_REJECT_BUSY)
			return ret;
		pause = busy_pause_ms(attempt);
		if (pause > srdma_deadline_left_ms(until))
			return ret;
		srdma_log(SRDMA_LOG_INFO, "%s:%s is busy; trying again in %d ms (attempt %u)", host, port, pause, attempt + 2);
		poll(NULL, 0, pause);
	}
}
