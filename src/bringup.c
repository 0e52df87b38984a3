/* SPDX-License-Identifier: Apache-2.0 */
/* From a TCP socket to a connected queue pair: TLS, HELLO and WELCOME, RESET to RTS, READY. docs/PROTOCOL.md. */
#include "clock.h"
#include "conn.h"
#include "device.h"
#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER_MS 1000

struct setup {
	struct srdma_conn *conn;
	uint64_t start;
	uint64_t deadline;
	int abort_fd; /* readable: give up; -1: never */
};

static _Thread_local struct srdma_reject last_reject;

void srdma_reject_last(struct srdma_reject *reject)
{
	*reject = last_reject;
}

/* ---- verbs objects --------------------------------------------------------------------------------------------- */

static int check_depths(struct srdma_conn *conn, uint32_t send_depth, uint32_t recv_depth)
{
	const struct ibv_device_attr *attr = srdma_device_attr(conn->device);
	uint32_t most = send_depth > recv_depth ? send_depth : recv_depth;

	if (most > (uint32_t)attr->max_qp_wr || most > (uint32_t)attr->max_cqe)
		return srdma_fail(-EINVAL, "depth: %u work requests are more than %s has room for (%d per queue pair)", most,
				  srdma_device_name(conn->device), attr->max_qp_wr);
	return 0;
}

static int make_queues(struct srdma_conn *conn, struct srdma_qp_queues *queues)
{
	struct ibv_context *context = srdma_device_context(conn->device);
	const char *what = "protection domain";

	conn->pd = ibv_alloc_pd(context);
	if (!conn->pd)
		goto fail;
	what = "completion channel";
	conn->comp = ibv_create_comp_channel(context);
	if (!conn->comp)
		goto fail;
	what = "completion queue";
	conn->send_cq = ibv_create_cq(context, (int)queues->send_depth, conn, conn->comp, 0);
	if (!conn->send_cq)
		goto fail;
	conn->recv_cq = ibv_create_cq(context, (int)queues->recv_depth, conn, conn->comp, 0);
	if (!conn->recv_cq)
		goto fail;
	queues->pd = conn->pd;
	queues->send_cq = conn->send_cq;
	queues->recv_cq = conn->recv_cq;
	return 0;
fail:
	return srdma_fail(SRDMA_EVERBS, "cannot make a %s on %s: %s", what, srdma_device_name(conn->device),
			  strerror(errno));
}

/* Everything up to INIT, receives posted. What fails is freed by srdma_conn_delete. */
static int make_verbs(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	const struct srdma_conn_options *o = &conn->options;
	struct srdma_qp_queues queues = {
		.send_depth = o->raw ? o->raw_send_depth : srdma_channel_send_depth(depth, o->rdma_depth),
		.recv_depth = o->raw ? o->raw_recv_depth : srdma_channel_recv_depth(depth),
	};
	unsigned access = o->region_size ? o->region_access : 0;
	int ret = check_depths(conn, queues.send_depth, queues.recv_depth);

	if (ret == 0)
		ret = make_queues(conn, &queues);
	if (ret == 0)
		ret = srdma_qp_new(conn->device, &o->qp, &queues, access, &conn->qp);
	if (ret == 0 && o->region_size > 0)
		/* The verbs specification wants local write wherever remote write is. */
		ret = srdma_region_new(conn->pd, o->region_size,
				       (int)access | (access & IBV_ACCESS_REMOTE_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0),
				       &conn->region);
	if (ret == 0 && !o->raw)
		ret = srdma_channel_new(&conn->channel, conn->pd, &conn->qp, conn->send_cq, conn->recv_cq, message_size,
					depth, o->rdma_depth);
	return ret;
}

/* What this end says of itself. */
static void describe_self(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	const struct ibv_port_attr *port = srdma_device_port_attr(conn->device);
	struct srdma_hello *own = &conn->own;

	own->link_layer = port->link_layer;
	own->path_mtu = (uint8_t)srdma_mtu_of_bytes(conn->options.qp.path_mtu);
	own->lid = port->lid;
	own->qpn = conn->qp.verbs->qp_num;
	own->rd_initiator = conn->options.qp.max_rd_atomic;
	own->rd_responder = conn->options.qp.max_rd_atomic;
	if (!conn->options.raw) {
		own->features = SRDMA_FEATURE_MESSAGES;
		own->message_size = message_size;
		own->depth = (uint16_t)depth;
	}
	if (conn->region.mr) {
		own->region_address = 0;
		own->region_size = conn->region.size;
		own->region_rkey = conn->region.mr->rkey;
		own->region_access = conn->options.region_access;
	}
}

/* GID, PSN and verbs objects of this end; accounts the time to the QP phase. */
static int prepare_self(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	struct sockaddr_storage local;
	socklen_t length = sizeof local;
	uint64_t start = srdma_clock_us(), drawn;
	int ret;

	if (getsockname(srdma_tls_fd(conn->tls), (struct sockaddr *)&local, &length) != 0)
		return srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
	ret = srdma_psn_generate(&conn->own.psn);
	drawn = srdma_clock_us();
	conn->timing.psn = drawn - start;
	if (ret == 0)
		ret = srdma_device_choose_gid(conn->device, (struct sockaddr *)&local,
					      (struct sockaddr *)&conn->peer_address, &conn->gid_index, &conn->own.gid);
	if (ret == 0)
		ret = make_verbs(conn, message_size, depth);
	if (ret == 0)
		describe_self(conn, message_size, depth);
	conn->timing.qp += srdma_clock_us() - start;
	return ret;
}

static uint8_t lower(uint8_t a, uint8_t b)
{
	return a < b ? a : b;
}

/* Both ends are known: settle what is common, then RTR and RTS. */
static int connect_queue_pair(struct srdma_conn *conn)
{
	const struct srdma_hello *own = &conn->own, *peer = &conn->peer;
	uint64_t start = srdma_clock_us();
	uint8_t initiator = lower(own->rd_initiator, peer->rd_responder);
	uint8_t responder = lower(own->rd_responder, peer->rd_initiator);
	int ret;

	conn->mtu = lower(own->path_mtu, peer->path_mtu);
	if (!conn->options.raw)
		srdma_channel_agree(&conn->channel,
				    own->message_size < peer->message_size ? own->message_size : peer->message_size,
				    own->depth < peer->depth ? own->depth : peer->depth);
	ret = srdma_qp_ready_to_receive(&conn->qp, peer, conn->gid_index, conn->mtu, responder);
	if (ret == 0)
		ret = srdma_qp_ready_to_send(&conn->qp, own->psn, initiator);
	conn->timing.qp += srdma_clock_us() - start;
	return ret;
}

/* ---- what the peer says ---------------------------------------------------------------------------------------- */

static int check_fit(const struct srdma_conn *conn, struct srdma_reject *reject)
{
	const struct srdma_hello *peer = &conn->peer;
	uint8_t link_layer = srdma_device_port_attr(conn->device)->link_layer;

	if (peer->link_layer != link_layer)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "the link layers differ: InfiniBand and Ethernet");
	if (!(peer->features & SRDMA_FEATURE_MESSAGES) != conn->options.raw)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "this end is set up for %s connections only",
					conn->options.raw ? "raw" : "message");
	return 0;
}

/* A peer may name no other host than itself as the one to send to. */
static int check_gid(const struct srdma_conn *conn, struct srdma_reject *reject)
{
	const struct sockaddr *peer = (const struct sockaddr *)&conn->peer_address;
	const union ibv_gid *gid = &conn->peer.gid;
	union ibv_gid tcp;

	/* InfiniBand GIDs come from the subnet manager, which guards them. */
	if (conn->peer.link_layer == IBV_LINK_LAYER_INFINIBAND)
		return 0;
	if (srdma_net_gid_of(peer, &tcp) && memcmp(&tcp, gid, sizeof tcp) == 0)
		return 0;
	if (srdma_net_is_loopback(peer) && srdma_device_has_gid(conn->device, gid))
		return 0;
	if (srdma_networks_contain(&conn->networks, gid))
		return 0;
	return srdma_reject_set(reject, SRDMA_REJECT_ADDRESS, 0,
				"the GID is not the address that the TLS connection comes from, nor in an allowed network "
				"(gid-networks)");
}

static int describe_peer_socket(struct srdma_conn *conn, int fd)
{
	socklen_t length = sizeof conn->peer_address;

	if (getpeername(fd, (struct sockaddr *)&conn->peer_address, &length) != 0)
		return srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
	return 0;
}

static int handshake(struct setup *s)
{
	uint64_t start = srdma_clock_us();
	int ret = srdma_control_handshake(s->conn->tls, s->deadline, s->abort_fd);

	s->conn->timing.tls = srdma_clock_us() - start;
	if (ret == 0)
		srdma_tls_peer_name(s->conn->tls, s->conn->peer_name, sizeof s->conn->peer_name);
	return ret;
}

static void finish_timing(struct setup *s)
{
	struct srdma_conn_timing *t = &s->conn->timing;

	t->total = srdma_clock_us() - s->start;
	t->exchange = t->total - t->tcp - t->tls - t->qp;
}

/* HELLO or WELCOME; the copy of the PSN does not stay behind on the stack. */
static int send_self(struct setup *s, enum srdma_frame_type type)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_hello_encode(frame, type, &s->conn->own);
	int ret = srdma_control_send(s->conn->tls, frame, length, s->deadline, s->abort_fd);

	OPENSSL_cleanse(frame, sizeof frame);
	return ret;
}

/* ---- the connecting side --------------------------------------------------------------------------------------- */

static int be_rejected(const struct srdma_inbox *inbox)
{
	int ret = srdma_reject_decode(srdma_inbox_body(inbox), inbox->header.length, &last_reject);

	if (ret != 0)
		return ret;
	return srdma_fail(SRDMA_EREJECTED, "the server rejected the connection (%s): %s",
			  srdma_reject_reason_name(last_reject.reason), last_reject.text);
}

static int receive_welcome(struct setup *s)
{
	struct srdma_conn *conn = s->conn;
	struct srdma_reject why = {0};
	int ret = srdma_control_await(conn->tls, &conn->inbox, s->deadline, s->abort_fd);

	if (ret == SRDMA_ECLOSED)
		return srdma_fail(SRDMA_ELOST, "the server closed the connection instead of answering HELLO");
	if (ret != 0)
		return ret;
	if (conn->inbox.header.type == SRDMA_FRAME_REJECT)
		return be_rejected(&conn->inbox);
	if (conn->inbox.header.type != SRDMA_FRAME_WELCOME || conn->inbox.header.version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the server answered HELLO with frame type %u of version %u",
				  conn->inbox.header.type, conn->inbox.header.version);
	ret = srdma_hello_decode(srdma_inbox_body(&conn->inbox), conn->inbox.header.length, &conn->peer);
	if (ret != 0)
		return ret;
	if (srdma_hello_validate(&conn->peer, true, &why) != 0 || check_fit(conn, &why) != 0 ||
	    (conn->networks.count > 0 && check_gid(conn, &why) != 0))
		return srdma_fail(SRDMA_EPROTOCOL, "the server's WELCOME is not acceptable: %s", why.text);
	conn->client_id = conn->peer.client_id;
	return 0;
}

static int connect_steps(struct setup *s, int fd, struct srdma_tls_context *context, const char *host)
{
	struct srdma_conn *conn = s->conn;
	uint8_t frame[SRDMA_FRAME_MAX];
	int ret = describe_peer_socket(conn, fd);

	if (ret != 0) {
		close(fd);
		return ret;
	}
	ret = srdma_tls_new(context, fd, host, &conn->tls);
	if (ret == 0)
		ret = handshake(s);
	if (ret == 0)
		ret = prepare_self(conn, conn->options.message_size, conn->options.depth);
	if (ret == 0)
		ret = send_self(s, SRDMA_FRAME_HELLO);
	if (ret == 0)
		ret = receive_welcome(s);
	if (ret == 0)
		ret = connect_queue_pair(conn);
	if (ret == 0)
		ret = srdma_control_send(conn->tls, frame, srdma_empty_encode(frame, SRDMA_FRAME_READY), s->deadline,
					 s->abort_fd);
	return ret == 0 ? srdma_conn_prepare_waiting(conn) : ret;
}

int srdma_conn_connect(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
		       const struct srdma_conn_options *options, struct srdma_conn **out)
{
	struct setup s = {.start = srdma_clock_us(), .deadline = srdma_deadline(options->setup_timeout_ms), .abort_fd = -1};
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
		srdma_conn_delete(&s.conn);
		return ret;
	}
	finish_timing(&s);
	*out = s.conn;
	return 0;
}

/* ---- the accepting side ---------------------------------------------------------------------------------------- */

/* Tells the client why not. Returns `error`. */
static int send_reject(struct setup *s, const struct srdma_reject *reject, int error)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	uint64_t deadline = srdma_deadline(LINGER_MS);

	if (srdma_control_send(s->conn->tls, frame, srdma_reject_encode(frame, reject), deadline, s->abort_fd) == 0)
		srdma_tls_linger(s->conn->tls, deadline);
	return srdma_fail(error, "rejected (%s): %s", srdma_reject_reason_name(reject->reason), reject->text);
}

static int receive_hello(struct setup *s)
{
	struct srdma_conn *conn = s->conn;
	const struct srdma_frame_header *header = &conn->inbox.header;
	struct srdma_reject reject = {0};
	int ret = srdma_control_await(conn->tls, &conn->inbox, s->deadline, s->abort_fd);

	if (ret == SRDMA_EPROTOCOL)
		srdma_reject_set(&reject, SRDMA_REJECT_MALFORMED, 0, "%s", srdma_error_text());
	else if (ret != 0)
		return ret == SRDMA_ECLOSED ? srdma_fail(SRDMA_ELOST, "the client closed the connection before HELLO") : ret;
	else if (header->version != SRDMA_PROTOCOL_VERSION)
		ret = (srdma_reject_set(&reject, SRDMA_REJECT_VERSION, 0, "protocol version %u; this server speaks %u",
					header->version, SRDMA_PROTOCOL_VERSION),
		       SRDMA_EPROTOCOL);
	else if (header->type != SRDMA_FRAME_HELLO)
		ret = (srdma_reject_set(&reject, SRDMA_REJECT_MALFORMED, 0, "frame of type %u where HELLO is due", header->type),
		       SRDMA_EPROTOCOL);
	else if (srdma_hello_decode(srdma_inbox_body(&conn->inbox), header->length, &conn->peer) != 0)
		ret = (srdma_reject_set(&reject, SRDMA_REJECT_MALFORMED, 0, "%s", srdma_error_text()), SRDMA_EPROTOCOL);
	else
		ret = srdma_hello_validate(&conn->peer, false, &reject);
	if (ret == 0)
		ret = check_fit(conn, &reject);
	if (ret == 0)
		ret = check_gid(conn, &reject);
	return ret == 0 ? 0 : send_reject(s, &reject, ret);
}

static int admit_client(struct setup *s, srdma_admit_fn *admit, void *arg)
{
	struct srdma_conn *conn = s->conn;
	struct srdma_reject reject = {.reason = SRDMA_REJECT_REFUSED, .text = "refused"};
	int ret;

	if (!admit)
		return 0;
	ret = admit(conn->peer_name, (const struct sockaddr *)&conn->peer_address, &conn->client_id, &reject, arg);
	return ret == 0 ? 0 : send_reject(s, &reject, ret);
}

/* The queue pair, up to RTS; a failure here is the server's, and the client is told. */
static int serve_queue_pair(struct setup *s)
{
	struct srdma_conn *conn = s->conn;
	struct srdma_reject reject;
	uint32_t message_size = conn->options.message_size, depth = conn->options.depth;
	int ret;

	if (conn->peer.message_size < message_size)
		message_size = conn->peer.message_size;
	if (conn->peer.depth < depth)
		depth = conn->peer.depth;
	ret = prepare_self(conn, message_size, depth);
	if (ret == 0)
		ret = connect_queue_pair(conn);
	if (ret == 0)
		return 0;
	/* The details are for the server's log, not for the client. */
	char text[512];
	snprintf(text, sizeof text, "%s", srdma_error_text());
	srdma_reject_set(&reject, SRDMA_REJECT_RESOURCES, 1000, "the server could not make the queue pair");
	send_reject(s, &reject, ret);
	return srdma_fail(ret, "%s", text);
}

static int accept_steps(struct setup *s, srdma_admit_fn *admit, void *admit_arg)
{
	struct srdma_conn *conn = s->conn;
	int ret = handshake(s);

	if (ret != 0) {
		/* The alert that tells the client must reach it. */
		srdma_tls_linger(conn->tls, srdma_deadline(LINGER_MS));
		return ret;
	}
	ret = receive_hello(s);
	if (ret == 0)
		ret = admit_client(s, admit, admit_arg);
	if (ret == 0)
		ret = serve_queue_pair(s);
	if (ret != 0)
		return ret;
	conn->own.client_id = conn->client_id;
	ret = send_self(s, SRDMA_FRAME_WELCOME);
	if (ret == 0)
		ret = srdma_control_await(conn->tls, &conn->inbox, s->deadline, s->abort_fd);
	if (ret == SRDMA_ECLOSED)
		return srdma_fail(SRDMA_ELOST, "the client closed the connection instead of saying READY");
	if (ret != 0)
		return ret;
	if (conn->inbox.header.type != SRDMA_FRAME_READY || conn->inbox.header.version != SRDMA_PROTOCOL_VERSION ||
	    conn->inbox.header.length != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "frame of type %u where READY is due", conn->inbox.header.type);
	return srdma_conn_prepare_waiting(conn);
}

int srdma_conn_accept_until(int fd, struct srdma_tls_context *context, struct srdma_device *device,
			    const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg, int abort_fd,
			    struct srdma_conn **out)
{
	struct setup s = {.start = srdma_clock_us(),
			  .deadline = srdma_deadline(options->setup_timeout_ms),
			  .abort_fd = abort_fd};
	int ret = srdma_conn_new(device, options, &s.conn);

	if (ret == 0) {
		ret = srdma_net_prepare(fd);
		if (ret == 0)
			ret = describe_peer_socket(s.conn, fd);
	}
	if (ret != 0) {
		close(fd);
		srdma_conn_delete(&s.conn);
		return ret;
	}
	ret = srdma_tls_new(context, fd, NULL, &s.conn->tls);
	if (ret == 0)
		ret = accept_steps(&s, admit, admit_arg);
	if (ret != 0) {
		srdma_conn_delete(&s.conn);
		return ret;
	}
	finish_timing(&s);
	*out = s.conn;
	return 0;
}

int srdma_conn_accept(int fd, struct srdma_tls_context *context, struct srdma_device *device,
		      const struct srdma_conn_options *options, srdma_admit_fn *admit, void *admit_arg,
		      struct srdma_conn **out)
{
	return srdma_conn_accept_until(fd, context, device, options, admit, admit_arg, -1, out);
}
