/* SPDX-License-Identifier: Apache-2.0 */
/* From a TCP socket to a connected queue pair: TLS, HELLO and WELCOME, RESET to RTS, READY. docs/PROTOCOL.md. What both
 * sides do, and the connecting side; accept.c has the other. */
#include "bringup.h"

#include "clock.h"
#include "device.h"
#include "log.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_PAUSE_MAX_MS 5000

static _Thread_local struct srdma_reject last_reject;

void srdma_reject_last_sized(struct srdma_reject *reject, size_t size)
{
	srdma_sized_fill(reject, size, &last_reject, sizeof last_reject);
}

/* ---- verbs objects --------------------------------------------------------------------------------------------- */

static int check_depths(struct srdma_conn *conn, uint32_t send_depth, uint32_t recv_depth)
{
	const struct ibv_device_attr *attr = srdma_device_attr(conn->device);
	uint32_t most = send_depth > recv_depth ? send_depth : recv_depth;

	if (most > (uint32_t)attr->max_qp_wr || most > (uint32_t)attr->max_cqe)
		return srdma_fail(-EINVAL, "a queue pair needs %u work requests, and %s allows %d; lower depth or rdma-depth", most,
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
	conn->comp = conn->notifier ? conn->notifier->channel : ibv_create_comp_channel(context);
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
	queues->context = conn;
	return 0;
fail:
	return srdma_fail(SRDMA_EVERBS, "cannot make a %s on %s: %s", what, srdma_device_name(conn->device),
			  strerror(errno));
}

/* Everything up to INIT, receives posted. What fails is freed by srdma_conn_free. */
static int make_verbs(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	const struct srdma_conn_options *o = &conn->options;
	const struct srdma_stream_shape shape = {message_size, depth, o->rdma_depth, o->seal == SRDMA_SEAL_REQUIRED};
	struct srdma_qp_queues queues = {
		.send_depth = o->raw ? o->raw_send_depth : srdma_stream_send_depth(&shape),
		.recv_depth = o->raw ? o->raw_recv_depth : srdma_stream_recv_depth(&shape),
	};
	/* While sealed the peer only ever reads, and only from the staging ring. */
	unsigned access = shape.sealed ? (unsigned)IBV_ACCESS_REMOTE_READ : o->region_size ? o->region_access : 0;
	int ret = check_depths(conn, queues.send_depth, queues.recv_depth);

	if (ret == 0)
		ret = make_queues(conn, &queues);
	if (ret == 0)
		ret = srdma_qp_new(conn->device, o->qp, &queues, access, &conn->qp);
	if (ret == 0 && o->region_size > 0 && shape.sealed) {
		ret = srdma_region_private(o->region_size, &conn->region);
		conn->region.rights = ret == 0 ? o->region_access : 0;
	} else if (ret == 0 && o->region_size > 0) {
		ret = srdma_region_offer(conn->device, conn->pd, o->region_size, access, &conn->region);
	}
	if (ret == 0 && !o->raw)
		ret = srdma_stream_new(&conn->stream, conn->pd, &conn->qp, conn->send_cq, conn->recv_cq, &shape);
	return ret;
}

/* What this end says of itself. */
static void describe_self(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	const struct ibv_port_attr *port = srdma_device_port_attr(conn->device);
	struct srdma_hello *own = &conn->own;

	own->link_layer = port->link_layer;
	own->path_mtu = (uint8_t)srdma_mtu_of_bytes(conn->options.qp->path_mtu);
	own->lid = port->lid;
	own->qpn = conn->qp.verbs->qp_num;
	own->rd_initiator = conn->options.qp->max_rd_atomic;
	own->rd_responder = conn->options.qp->max_rd_atomic;
	if (!conn->options.raw) {
		own->features = SRDMA_FEATURE_MESSAGES | (conn->options.epoch_psns ? SRDMA_FEATURE_EPOCHS : 0u);
		own->message_size = message_size;
		own->depth = (uint16_t)depth;
	}
	if (conn->options.seal == SRDMA_SEAL_REQUIRED)
		own->features |= SRDMA_FEATURE_SEALED | (srdma_cipher_aes_is_fast() ? 0u : SRDMA_FEATURE_CHACHA);
	if (conn->region.address) {
		own->region_address = 0;
		own->region_size = conn->region.size;
		own->region_access = conn->options.region_access;
		/* A window's is known when it is bound. */
		if (conn->region.mr && !conn->region.windowed)
			own->region_rkey = conn->region.mr->rkey;
	}
}

static int choose_gid(const struct srdma_conn *conn, uint8_t *index, union ibv_gid *gid)
{
	struct sockaddr_storage local;
	socklen_t length = sizeof local;

	if (getsockname(srdma_tls_fd(conn->tls), (struct sockaddr *)&local, &length) != 0)
		return srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
	return srdma_device_choose_gid(conn->device, (struct sockaddr *)&local, (const struct sockaddr *)&conn->peer_address, index, gid);
}

int srdma_setup_prepare_self(struct srdma_setup *s, uint32_t message_size, uint32_t depth)
{
	struct srdma_conn *conn = s->conn;
	uint64_t start = srdma_clock_us(), drawn;
	int ret = srdma_psn_generate(&conn->own.psn);

	drawn = srdma_clock_us();
	conn->timing.psn = drawn - start;
	if (ret == 0)
		ret = choose_gid(conn, &conn->gid_index, &conn->own.gid);
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

int srdma_conn_connect_queue_pair(struct srdma_conn *conn)
{
	const struct srdma_hello *own = &conn->own, *peer = &conn->peer;
	uint8_t initiator = lower(own->rd_initiator, peer->rd_responder);
	const struct srdma_qp_peer receive_from = {.qpn = peer->qpn,
						   .psn = peer->psn,
						   .lid = peer->lid,
						   .gid = peer->gid,
						   .gid_index = conn->gid_index,
						   .mtu = conn->mtu,
						   .rd_responder = lower(own->rd_responder, peer->rd_initiator)};
	int ret = srdma_qp_ready_to_receive(&conn->qp, &receive_from);

	if (ret == 0)
		ret = srdma_qp_ready_to_send(&conn->qp, own->psn, initiator);
	if (ret == 0)
		ret = srdma_region_bind(&conn->region, conn->qp.verbs, &conn->own.region_rkey);
	return ret;
}

/* A key for each stream: from the TLS session, and from all that both ends said of themselves. */
static int derive_secrets(struct srdma_conn *conn, uint8_t secrets[4][SRDMA_SEAL_SECRET])
{
	bool server = srdma_tls_is_server(conn->tls);
	const struct srdma_hello *client_hello = server ? &conn->peer : &conn->own, *welcome = server ? &conn->own : &conn->peer;
	static const char *const labels[] = {"EXPORTER-securdma-client-messages", "EXPORTER-securdma-client-chunks",
					     "EXPORTER-securdma-server-messages", "EXPORTER-securdma-server-chunks"};
	uint8_t said[2 * SRDMA_FRAME_MAX];
	size_t length = srdma_hello_encode(said, SRDMA_FRAME_HELLO, client_hello);
	int ret = 0;

	length += srdma_hello_encode(said + length, SRDMA_FRAME_WELCOME, welcome);
	for (size_t i = 0; i < 4 && ret == 0; i++)
		ret = srdma_tls_export(conn->tls, labels[i], said, length, secrets[i], SRDMA_SEAL_SECRET);
	OPENSSL_cleanse(said, sizeof said);
	return ret;
}

/* Both ends require it: srdma_setup_check_fit. */
static int seal(struct srdma_conn *conn)
{
	uint8_t secrets[4][SRDMA_SEAL_SECRET];
	bool server = srdma_tls_is_server(conn->tls);
	uint8_t(*own)[SRDMA_SEAL_SECRET] = server ? secrets + 2 : secrets, (*peer)[SRDMA_SEAL_SECRET] = server ? secrets : secrets + 2;
	struct srdma_sealer *messages_out = NULL, *chunks_out = NULL;
	struct srdma_opener *messages_in = NULL, *chunks_in = NULL;
	int ret = derive_secrets(conn, secrets);

	conn->cipher = ((conn->own.features | conn->peer.features) & SRDMA_FEATURE_CHACHA) ? SRDMA_CIPHER_CHACHA20_POLY1305
											      : SRDMA_CIPHER_AES_256_GCM;
	if (ret == 0)
		ret = srdma_sealer_new(conn->cipher, own[0], &messages_out);
	if (ret == 0)
		ret = srdma_opener_new(conn->cipher, peer[0], &messages_in);
	if (ret == 0)
		ret = srdma_sealer_new(conn->cipher, own[1], &chunks_out);
	if (ret == 0)
		ret = srdma_opener_new(conn->cipher, peer[1], &chunks_in);
	OPENSSL_cleanse(secrets, sizeof secrets);
	if (ret != 0) {
		srdma_sealer_delete(&messages_out);
		srdma_sealer_delete(&chunks_out);
		srdma_opener_delete(&messages_in);
		srdma_opener_delete(&chunks_in);
		return ret;
	}
	conn->sealed = true;
	srdma_stream_seal(&conn->stream, messages_out, messages_in);
	conn->sealed_rdma = (struct srdma_sealed_rdma){
		.stream = &conn->stream, .region = &conn->region, .rate = &conn->rate, .pd = conn->pd};
	return srdma_sealed_rdma_start(&conn->sealed_rdma, chunks_out, chunks_in);
}

int srdma_setup_connect_queue_pair(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	const struct srdma_hello *own = &conn->own, *peer = &conn->peer;
	uint64_t start = srdma_clock_us();
	int ret;

	conn->mtu = lower(own->path_mtu, peer->path_mtu);
	if (!conn->options.raw)
		srdma_stream_agree(&conn->stream,
				    own->message_size < peer->message_size ? own->message_size : peer->message_size,
				    own->depth < peer->depth ? own->depth : peer->depth, srdma_mtu_bytes(conn->mtu));
	conn->stream.region_rkey = peer->region_rkey;
	ret = srdma_conn_connect_queue_pair(conn);
	conn->timing.qp += srdma_clock_us() - start;
	return ret;
}

int srdma_setup_finish(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	int ret = 0;

	conn->rate.per_second = conn->options.max_bytes_per_second; /* what the peer's name may is known by now */
	if (conn->options.seal == SRDMA_SEAL_REQUIRED)
		ret = seal(conn);
	if (ret == 0)
		srdma_epoch_start(conn);
	return ret == 0 ? srdma_conn_prepare_waiting(conn) : ret;
}

/* ---- what the peer says ---------------------------------------------------------------------------------------- */

int srdma_setup_check_fit(const struct srdma_setup *s, struct srdma_reject *reject)
{
	const struct srdma_conn *conn = s->conn;
	const struct srdma_hello *peer = &conn->peer;
	uint8_t link_layer = srdma_device_port_attr(conn->device)->link_layer;

	if (peer->link_layer != link_layer)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "the link layers differ: one end is on InfiniBand, the other on Ethernet; use devices of one kind");
	if (!(peer->features & SRDMA_FEATURE_SEALED) != (conn->options.seal == SRDMA_SEAL_OFF))
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "%s",
					conn->options.seal == SRDMA_SEAL_OFF
						? "the other end requires a sealed connection, and here sealing is off; give both the same setting (seal)"
						: "a sealed connection is required here, and the other end has sealing off; give both the same setting (seal)");
	if (!(peer->features & SRDMA_FEATURE_MESSAGES) != conn->options.raw)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "this end is set up for %s connections only",
					conn->options.raw ? "raw" : "message");
	return 0;
}

/* The device would send to that address on the link that the TLS connection came by. */
static bool is_on_same_link(const struct srdma_conn *conn)
{
	uint32_t interface = srdma_net_interface((const struct sockaddr *)&conn->peer_address);
	union ibv_gid own;
	uint8_t index;

	return interface != 0 && choose_gid(conn, &index, &own) == 0 && srdma_device_gid_interface(conn->device, index) == interface;
}

int srdma_setup_check_gid(const struct srdma_setup *s, struct srdma_reject *reject)
{
	const struct srdma_conn *conn = s->conn;
	const struct sockaddr *peer = (const struct sockaddr *)&conn->peer_address;
	const struct sockaddr *proxy = (const struct sockaddr *)&conn->proxy_address;
	const union ibv_gid *gid = &conn->peer.gid;
	union ibv_gid tcp;

	/* InfiniBand GIDs come from the subnet manager, which guards them. */
	if (conn->peer.link_layer == IBV_LINK_LAYER_INFINIBAND)
		return 0;
	if (srdma_net_gid_of(peer, &tcp) && memcmp(&tcp, gid, sizeof tcp) == 0 &&
	    (!srdma_net_gid_is_link_local(gid) || is_on_same_link(conn)))
		return 0;
	/* Another host's loopback address, which its balancer tells us, is not ours. */
	if (srdma_net_is_loopback(peer) && (proxy->sa_family == AF_UNSPEC || srdma_net_is_loopback(proxy)) &&
	    srdma_device_has_gid(conn->device, gid))
		return 0;
	if (srdma_networks_contain(&conn->networks, gid))
		return 0;
	return srdma_reject_set(reject, SRDMA_REJECT_ADDRESS, 0,
				"the GID is neither the address that the TLS connection comes from nor in an allowed network "
				"(gid-networks)%s",
				srdma_net_gid_is_link_local(gid) ? "; a link-local one counts on the device's own link alone" : "");
}

int srdma_setup_describe_peer(struct srdma_setup *s, int fd)
{
	struct srdma_conn *conn = s->conn;
	socklen_t length = sizeof conn->peer_address;

	if (getpeername(fd, (struct sockaddr *)&conn->peer_address, &length) != 0)
		return srdma_fail(SRDMA_ELOST, "the TCP connection broke: %s", strerror(errno));
	return 0;
}

void srdma_setup_finish_timing(struct srdma_setup *s)
{
	struct srdma_conn_timing *t = &s->conn->timing;

	t->total = srdma_clock_us() - s->start;
	t->exchange = t->total - t->tcp - t->tls - t->qp;
}

/* HELLO or WELCOME; the copy of the PSN does not stay behind on the stack. */
int srdma_setup_send_self(struct srdma_setup *s, enum srdma_frame_type type, uint64_t deadline)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length = srdma_hello_encode(frame, type, &s->conn->own);
	int ret = srdma_control_send(s->conn->tls, frame, length, deadline);

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
	ret = srdma_hello_decode(srdma_inbox_body(&conn->inbox), conn->inbox.header.length, &conn->peer);
	if (ret != 0)
		return ret;
	if (srdma_hello_validate(&conn->peer, true, &why) != 0 || srdma_setup_check_fit(s, &why) != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the server's WELCOME is not acceptable: %s", why.text);
	/* Without networks the authenticated server's word is taken. */
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

	return srdma_control_send(conn->tls, frame, length, s->deadline);
}

static int connect_steps(struct srdma_setup *s, int fd, struct srdma_tls_context *context, const char *host)
{
	struct srdma_conn *conn = s->conn;
	uint64_t start;
	int ret = srdma_setup_describe_peer(s, fd);

	if (ret != 0) {
		close(fd);
		return ret;
	}
	ret = srdma_tls_new(context, fd, host, &conn->tls);
	start = srdma_clock_us();
	if (ret == 0)
		ret = srdma_control_handshake(conn->tls, s->deadline);
	conn->timing.tls = srdma_clock_us() - start;
	if (ret == 0)
		ret = srdma_tls_peer_names(conn->tls, &conn->names);
	if (ret == 0)
		ret = srdma_setup_prepare_self(s, conn->options.message_size, conn->options.depth);
	if (ret == 0 && conn->region.windowed)
		conn->own.features |= SRDMA_FEATURE_WINDOW;
	if (ret == 0)
		ret = srdma_setup_send_self(s, SRDMA_FRAME_HELLO, s->deadline);
	if (ret == 0)
		ret = receive_welcome(s);
	if (ret == 0)
		ret = srdma_setup_connect_queue_pair(s);
	/* The keys first: the peer sends as soon as it has READY. */
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

/* Twice as long each time, and at random between half and one and a half of it: clients that were turned away together do not
 * come again together. */
static int busy_pause_ms(unsigned attempt)
{
	uint64_t pause = last_reject.retry_after_ms > 0 ? last_reject.retry_after_ms : 100;
	uint32_t random;

	pause <<= attempt < 6 ? attempt : 6;
	if (pause > BUSY_PAUSE_MAX_MS)
		pause = BUSY_PAUSE_MAX_MS;
	if (RAND_bytes((unsigned char *)&random, sizeof random) != 1)
		random = UINT32_MAX / 2;
	return (int)(pause / 2 + pause * random / UINT32_MAX);
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
