/* SPDX-License-Identifier: Apache-2.0 */
#include "setup.h"

#include "clock.h"
#include "device.h"
#include "keys.h"
#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

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

#define NAMED_ACCESS ((unsigned)(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ))

/* The most pieces of memory of one request that the device is asked for. The library copies those of a sealed connection. */
static uint32_t pieces_of(const struct srdma_conn *conn)
{
	const struct ibv_device_attr *attr = srdma_device_attr(conn->device);
	int most = attr->max_sge;

	if (!conn->options.named_regions || conn->options.raw || conn->options.seal == SRDMA_SEAL_REQUIRED)
		return 0;
	if (attr->max_sge_rd > 0 && attr->max_sge_rd < most)
		most = attr->max_sge_rd;
	return most < 1 ? 1 : most < SRDMA_PIECES_MAX ? (uint32_t)most : SRDMA_PIECES_MAX;
}

/* Makes everything up to a queue pair in INIT with posted receives. After a failure srdma_conn_free frees what was made. */
static int make_verbs(struct srdma_conn *conn, uint32_t message_size, uint32_t depth)
{
	const struct srdma_conn_options *o = &conn->options;
	const struct srdma_queues_shape shape = {message_size, depth, o->rdma_depth, o->seal == SRDMA_SEAL_REQUIRED,
						   .binds = pieces_of(conn) > 0 && srdma_device_has_windows(conn->device),
						   .pieces = pieces_of(conn)};
	struct srdma_qp_queues queues = {
		.send_depth = o->raw ? o->raw_send_depth : srdma_queues_send_depth(&shape),
		.recv_depth = o->raw ? o->raw_recv_depth : srdma_queues_recv_depth(&shape),
		.pieces = shape.pieces,
	};
	/* While sealed, the peer only reads, and only from the staging ring. The memory of a raw connection is the program's. */
	unsigned access = shape.sealed ? (unsigned)IBV_ACCESS_REMOTE_READ : o->region_size || o->raw ? o->region_access : 0;
	int ret = check_depths(conn, queues.send_depth, queues.recv_depth);

	/* Each region with a name has its own rights. */
	if (o->named_regions && !shape.sealed)
		access |= NAMED_ACCESS | (srdma_device_attr(conn->device)->atomic_cap == IBV_ATOMIC_NONE ? 0u : (unsigned)IBV_ACCESS_REMOTE_ATOMIC);
	if (ret == 0)
		ret = make_queues(conn, &queues);
	if (ret == 0)
		ret = srdma_qp_new(conn->device, o->qp, &queues, access, &conn->qp);
	if (ret == 0 && o->region_size > 0 && shape.sealed) {
		ret = srdma_region_private(o->region_size, &conn->region);
		conn->region.rights = ret == 0 ? o->region_access : 0;
	} else if (ret == 0 && o->region_size > 0) {
		ret = srdma_region_offer(conn->device, conn->pd, o->region_size, o->region_access, &conn->region);
	}
	if (ret == 0 && !o->raw)
		ret = srdma_queues_new(&conn->queues, conn->pd, &conn->qp, conn->send_cq, conn->recv_cq, &shape);
	return ret;
}

/* Fills in this end's HELLO or WELCOME. */
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
	own->features |= (conn->own_data ? SRDMA_FEATURE_PRIVATE_DATA : 0u) | (conn->options.control_messages ? SRDMA_FEATURE_CONTROL : 0u) |
			 (conn->options.named_regions ? SRDMA_FEATURE_REGIONS : 0u);
	if (conn->options.named_regions && (own->features & SRDMA_FEATURE_EPOCHS) && !(own->features & SRDMA_FEATURE_SEALED))
		own->features |= SRDMA_FEATURE_REGION_KEYS;
	if (conn->region.address) {
		own->region_address = 0;
		own->region_size = conn->region.size;
		own->region_access = conn->options.region_access;
		/* A window gets its rkey only when it is bound. */
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

void srdma_setup_answer_offers(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	uint32_t offered = conn->peer.features & SRDMA_FEATURES_OFFERED;

	/* A client that announces private data is always answered, with none if there is none. */
	conn->own.features = (conn->own.features & ~SRDMA_FEATURES_OFFERED) | (offered & (conn->own.features | SRDMA_FEATURE_PRIVATE_DATA));
}

int srdma_setup_take_private_data(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	const struct srdma_frame_header *header = &conn->inbox.header;

	if (header->type != SRDMA_FRAME_PRIVATE_DATA || header->version != SRDMA_PROTOCOL_VERSION)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of type %u and version %u where PRIVATE_DATA is due", header->type,
				  header->version);
	return srdma_conn_set_private_data(&conn->peer_data, srdma_inbox_body(&conn->inbox), header->length);
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
	return ret == 0 ? srdma_regions_bind_again(conn) : ret;
}

int srdma_setup_connect_queue_pair(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	const struct srdma_hello *own = &conn->own, *peer = &conn->peer;
	uint64_t start = srdma_clock_us();
	int ret;

	conn->mtu = lower(own->path_mtu, peer->path_mtu);
	if (!conn->options.raw)
		srdma_queues_agree(&conn->queues, own->message_size < peer->message_size ? own->message_size : peer->message_size,
				   own->depth < peer->depth ? own->depth : peer->depth, srdma_mtu_bytes(conn->mtu));
	conn->queues.region_rkey = peer->region_rkey;
	ret = srdma_conn_connect_queue_pair(conn);
	conn->timing.qp += srdma_clock_us() - start;
	return ret;
}

int srdma_setup_finish(struct srdma_setup *s)
{
	struct srdma_conn *conn = s->conn;
	int ret = 0;

	conn->rate.per_second = conn->options.max_bytes_per_second; /* admission has set the limits of the peer's name */
	if (conn->options.seal == SRDMA_SEAL_REQUIRED)
		ret = srdma_keys_seal(conn);
	if (ret == 0 && (conn->own.features & conn->peer.features & SRDMA_FEATURE_CONTROL))
		ret = srdma_control_queue_start(conn);
	if (ret == 0 && (conn->own.features & conn->peer.features & SRDMA_FEATURE_REGIONS))
		ret = srdma_regions_start(conn);
	if (ret == 0)
		srdma_epoch_start(conn);
	return ret == 0 ? srdma_conn_prepare_waiting(conn) : ret;
}

/* The text is read at either end, so it names client and server. */
int srdma_setup_check_fit(const struct srdma_setup *s, struct srdma_reject *reject)
{
	const struct srdma_conn *conn = s->conn;
	const char *own_end = srdma_tls_is_server(conn->tls) ? "server" : "client", *peer_end = srdma_tls_is_server(conn->tls) ? "client" : "server";
	const struct srdma_hello *peer = &conn->peer;
	uint8_t link_layer = srdma_device_port_attr(conn->device)->link_layer;

	if (peer->link_layer != link_layer)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0,
					"the link layers differ: one end is on InfiniBand, the other on Ethernet; use devices of one kind");
	if (!(peer->features & SRDMA_FEATURE_SEALED) != (conn->options.seal == SRDMA_SEAL_OFF))
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0,
					"the %s requires a sealed connection, and the %s has sealing off; give both the same setting (seal)",
					conn->options.seal == SRDMA_SEAL_OFF ? peer_end : own_end, conn->options.seal == SRDMA_SEAL_OFF ? own_end : peer_end);
	if (!(peer->features & SRDMA_FEATURE_MESSAGES) != conn->options.raw)
		return srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "the %s makes a raw connection, and the %s one with messages; set raw at both or neither",
					conn->options.raw ? own_end : peer_end, conn->options.raw ? peer_end : own_end);
	return 0;
}

/* Whether the device would send on the link over which the TLS connection came. */
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

	/* The subnet manager assigns and guards InfiniBand GIDs. */
	if (conn->peer.link_layer == IBV_LINK_LAYER_INFINIBAND)
		return 0;
	if (srdma_net_gid_of(peer, &tcp) && memcmp(&tcp, gid, sizeof tcp) == 0 &&
	    (!srdma_net_gid_is_link_local(gid) || is_on_same_link(conn)))
		return 0;
	/* A loopback address that a balancer reports belongs to another host. */
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

void srdma_setup_finish_timing(struct srdma_setup *s)
{
	struct srdma_conn_timing *t = &s->conn->timing;

	t->total = srdma_clock_us() - s->start;
	t->exchange = t->total - t->tcp - t->tls - t->qp;
}

/* Wipes the frame: no copy of the PSN must stay on the stack. */
int srdma_setup_send_self(struct srdma_setup *s, enum srdma_frame_type type)
{
	const struct srdma_private_data *data = s->conn->own_data;
	uint8_t frames[2 * SRDMA_FRAME_MAX];
	size_t length = srdma_hello_encode(frames, type, &s->conn->own);
	int ret;

	if (s->conn->own.features & SRDMA_FEATURE_PRIVATE_DATA)
		length += srdma_program_encode(frames + length, SRDMA_FRAME_PRIVATE_DATA, data ? data->bytes : NULL, data ? data->size : 0);
	ret = srdma_outbox_send(s->conn->tls, &s->conn->outbox, frames, length);
	OPENSSL_cleanse(frames, sizeof frames);
	return ret;
}
