/* SPDX-License-Identifier: Apache-2.0 */
/* What a program asks about an ID: addresses, the way, and the attributes that bring up its queue pair. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "own_device.h"
#include "ucma_parts.h"

enum {
	PORT = 1,
	RATE_40 = 7,
	EXACTLY = 2,            /* selector of a path record's fields */
	NO_INDEX = -1,          /* of the kernel's devices: this is none */
	MIN_RNR_TIMER = 12,     /* 0.64 ms; the kernel's CM leaves it at 0, which is 655 ms */
};

/* As much as a program of the older commands, which know IP's addresses alone, has room for. */
static void put_address(const struct sockaddr_storage *address, struct sockaddr_in6 *out)
{
	size_t size = ucma_address_size(address);
	memcpy(out, address, size < sizeof *out ? size : sizeof *out);
}

int ucma_query_route(const struct ucma_id *id, struct rdma_ucm_query_route_resp *out)
{
	const struct gsi_path *path = &id->endpoint.path;
	struct ib_user_path_rec *record = &out->ib_route[0];

	memset(out, 0, sizeof *out);
	out->ibdev_index = (uint32_t)NO_INDEX;
	put_address(&id->source, &out->src_addr);
	put_address(&id->destination, &out->dst_addr);
	if (!id->bound)
		return 0;
	out->node_guid = own_device_guid();
	out->port_num = PORT;
	record->pkey = htons(WIRE_PKEY);
	memcpy(record->sgid, path->own.raw, sizeof record->sgid);
	memcpy(record->dgid, path->peer.raw, sizeof record->dgid);
	if (!id->routed)
		return 0;
	out->num_paths = 1;
	record->reversible = 1;
	record->mtu = id->endpoint.mtu;
	record->hop_limit = path->hop_limit;
	record->traffic_class = path->tclass;
	record->numb_path = 1;
	record->mtu_selector = record->rate_selector = record->packet_life_time_selector = EXACTLY;
	record->rate = RATE_40;
	record->packet_life_time = UCMA_LIFETIME;
	return 0;
}

static void fill_device(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out)
{
	memset(out, 0, sizeof *out);
	out->ibdev_index = (uint32_t)NO_INDEX;
	if (!id->bound)
		return;
	out->node_guid = own_device_guid();
	out->port_num = PORT;
	out->pkey = htons(WIRE_PKEY);
}

int ucma_query_address(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out)
{
	fill_device(id, out);
	out->src_size = (uint16_t)ucma_address_size(&id->source);
	out->dst_size = (uint16_t)ucma_address_size(&id->destination);
	memcpy(&out->src_addr, &id->source, out->src_size);
	memcpy(&out->dst_addr, &id->destination, out->dst_size);
	return 0;
}

static void fill_gid(const struct ucma_id *id, const struct sockaddr_storage *address, const union ibv_gid *gid,
		     struct __kernel_sockaddr_storage *out)
{
	struct sockaddr_storage made = *address;

	if (!ucma_address_is_ib(address))
		ucma_address_make_ib(gid, address->ss_family == AF_UNSPEC ? 0 : ucma_address_service(id->port_space, address), &made);
	memcpy(out, &made, sizeof(struct ucma_address_ib));
}

int ucma_query_gid(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out)
{
	fill_device(id, out);
	out->src_size = out->dst_size = sizeof(struct ucma_address_ib);
	fill_gid(id, &id->source, &id->endpoint.path.own, &out->src_addr);
	fill_gid(id, &id->destination, &id->endpoint.path.peer, &out->dst_addr);
	return 0;
}

int ucma_query_path(const struct ucma_id *id, struct ucma_paths *out)
{
	const struct gsi_path *path = &id->endpoint.path;
	uint8_t *record = (uint8_t *)out->path.path_rec;

	memset(out, 0, sizeof *out);
	if (!id->routed)
		return 0;
	out->num_paths = 1;
	out->path.flags = RECORD_ONLY_PATH;
	memcpy(record + RECORD_AT_PEER, path->peer.raw, sizeof path->peer);
	memcpy(record + RECORD_AT_OWN, path->own.raw, sizeof path->own);
	record[RECORD_AT_HOPS] = path->hop_limit;
	record[RECORD_AT_CLASS] = path->tclass;
	record[49] = 0x80 | 1; /* reversible, one path */
	record[50] = record[51] = 0xff; /* the partition key */
	record[RECORD_AT_MTU] = (uint8_t)(EXACTLY << 6 | id->endpoint.mtu);
	record[55] = EXACTLY << 6 | RATE_40;
	record[RECORD_AT_LIFETIME] = EXACTLY << 6 | UCMA_LIFETIME;
	return 0;
}

void ucma_fill_ah(const struct cm_endpoint *endpoint, struct ib_uverbs_ah_attr *out)
{
	const struct gsi_path *path = &endpoint->path;

	memset(out, 0, sizeof *out);
	memcpy(out->grh.dgid, path->peer.raw, sizeof out->grh.dgid);
	out->grh.sgid_index = path->sgid_index;
	out->grh.hop_limit = path->hop_limit;
	out->grh.traffic_class = path->tclass;
	out->is_global = 1;
	out->port_num = PORT;
}

/* ---- bringing up a queue pair ---- */

static int init_attr(const struct ucma_id *id, struct ib_uverbs_qp_attr *out)
{
	const struct cm_endpoint *endpoint = &id->endpoint;

	out->port_num = PORT;
	out->qp_attr_mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;
	if (id->qp_type == IBV_QPT_UD) {
		out->qp_attr_mask |= IBV_QP_QKEY;
		out->qkey = id->qkey != 0 ? id->qkey : UCMA_UDP_QKEY;
		return 0;
	}
	out->qp_attr_mask |= IBV_QP_ACCESS_FLAGS;
	if (endpoint->state != CM_IDLE)
		out->qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
	if (endpoint->state != CM_IDLE && endpoint->responder_resources > 0)
		out->qp_access_flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
	return 0;
}

/* Whether the peer's queue pair is known. */
static bool has_peer(const struct cm_endpoint *endpoint)
{
	return endpoint->state >= CM_REQ_RECEIVED && endpoint->state <= CM_ESTABLISHED;
}

static int rtr_attr(const struct ucma_id *id, struct ib_uverbs_qp_attr *out)
{
	const struct cm_endpoint *endpoint = &id->endpoint;

	out->qp_attr_mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	ucma_fill_ah(endpoint, &out->ah_attr);
	out->path_mtu = endpoint->mtu;
	out->dest_qp_num = endpoint->peer_qpn;
	out->rq_psn = endpoint->psn;
	if (id->qp_type == IBV_QPT_UC)
		return 0;
	out->qp_attr_mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	out->max_dest_rd_atomic = endpoint->responder_resources;
	out->min_rnr_timer = MIN_RNR_TIMER;
	return 0;
}

static int rts_attr(const struct ucma_id *id, struct ib_uverbs_qp_attr *out)
{
	const struct cm_endpoint *endpoint = &id->endpoint;

	out->qp_attr_mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	out->sq_psn = endpoint->peer_psn;
	if (id->qp_type == IBV_QPT_UC)
		return 0;
	out->qp_attr_mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	out->timeout = id->ack_timeout != 0 ? id->ack_timeout : endpoint->ack_timeout;
	out->retry_cnt = endpoint->retry_count;
	out->rnr_retry = endpoint->rnr_retry_count;
	out->max_rd_atomic = endpoint->initiator_depth;
	return 0;
}

int ucma_qp_attr(const struct ucma_id *id, uint32_t state, struct ib_uverbs_qp_attr *out)
{
	memset(out, 0, sizeof *out);
	out->qp_state = state;
	if (!id->bound)
		return -EINVAL;
	/* Without a connection the kernel has these for any state. */
	if (state == IBV_QPS_INIT || id->qp_type == IBV_QPT_UD || id->endpoint.state == CM_IDLE)
		return init_attr(id, out);
	if (!has_peer(&id->endpoint))
		return -EINVAL;
	return state == IBV_QPS_RTR ? rtr_attr(id, out) : state == IBV_QPS_RTS ? rts_attr(id, out) : -EINVAL;
}
