/* SPDX-License-Identifier: Apache-2.0 */
#include "qp.h"

#include "array.h"
#include "log.h"
#include "sized.h"

#include <errno.h>
#include <string.h>

/* Inline data saves a buffer and a memory access per small message. The code asks for less if a device cannot do that much. */
static const uint32_t inline_sizes[] = {220, 64, 0};

enum ibv_mtu srdma_mtu_of_bytes(uint32_t bytes)
{
	enum ibv_mtu mtu = IBV_MTU_256;

	while (mtu < IBV_MTU_4096 && srdma_mtu_bytes(mtu + 1) <= bytes)
		mtu++;
	return mtu;
}

uint32_t srdma_mtu_bytes(enum ibv_mtu mtu)
{
	return 128u << mtu;
}

SRDMA_DEFAULTS(srdma_qp_options, .timeout = 14, .retry_count = 6, .rnr_retry = 6, .min_rnr_timer = 12, .max_rd_atomic = 16,
	.hop_limit = 64)

int srdma_qp_options_check(const struct srdma_qp_options *o)
{
	if (o->path_mtu != 0 && (o->path_mtu < 256 || o->path_mtu > 4096 || (o->path_mtu & (o->path_mtu - 1)) != 0))
		return srdma_fail(-EINVAL, "mtu %u is not valid; give 256, 512, 1024, 2048 or 4096, or 0 for the port's", o->path_mtu);
	if (o->timeout > 31)
		return srdma_fail(-EINVAL, "qp-timeout %u is out of range; give 0 to 31", o->timeout);
	if (o->retry_count > 7 || o->rnr_retry > 7)
		return srdma_fail(-EINVAL, "retry-count or rnr-retry is out of range; give 0 to 7");
	if (o->min_rnr_timer > 31)
		return srdma_fail(-EINVAL, "min-rnr-timer %u is out of range; give 0 to 31", o->min_rnr_timer);
	if (o->service_level > 15)
		return srdma_fail(-EINVAL, "service-level %u is out of range; give 0 to 15", o->service_level);
	if (o->hop_limit == 0)
		return srdma_fail(-EINVAL, "hop-limit must be above 0");
	if (o->max_rd_atomic == 0)
		return srdma_fail(-EINVAL, "max-rd-atomic must be at least 1");
	return 0;
}

void srdma_qp_options_fit(struct srdma_qp_options *options, const struct srdma_device *device)
{
	const struct ibv_device_attr *attr = srdma_device_attr(device);
	uint32_t port_mtu = srdma_mtu_bytes(srdma_device_port_attr(device)->active_mtu);

	if (options->path_mtu == 0 || options->path_mtu > port_mtu)
		options->path_mtu = port_mtu;
	if (options->max_rd_atomic > attr->max_qp_rd_atom)
		options->max_rd_atomic = (uint8_t)attr->max_qp_rd_atom;
	if (options->max_rd_atomic > attr->max_qp_init_rd_atom)
		options->max_rd_atomic = (uint8_t)attr->max_qp_init_rd_atom;
}

static int create(const struct srdma_qp_queues *queues, struct srdma_qp *qp)
{
	for (size_t i = 0; i < SRDMA_COUNT(inline_sizes); i++) {
		struct ibv_qp_init_attr attr = {
			.qp_context = queues->context,
			.send_cq = queues->send_cq,
			.recv_cq = queues->recv_cq,
			.cap = {.max_send_wr = queues->send_depth,
				.max_recv_wr = queues->recv_depth,
				.max_send_sge = queues->pieces ? queues->pieces : 1,
				.max_recv_sge = 1,
				.max_inline_data = inline_sizes[i]},
			.qp_type = IBV_QPT_RC,
		};

		qp->verbs = ibv_create_qp(queues->pd, &attr);
		if (qp->verbs) {
			qp->max_inline = attr.cap.max_inline_data;
			return 0;
		}
	}
	return srdma_fail(SRDMA_EVERBS, "cannot create a queue pair on %s (send queue %u, receive queue %u): %s",
			  srdma_device_name(qp->device), queues->send_depth, queues->recv_depth, strerror(errno));
}

static int modify(struct srdma_qp *qp, struct ibv_qp_attr *attr, int mask, const char *to)
{
	int error = ibv_modify_qp(qp->verbs, attr, mask);

	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot move queue pair 0x%06x of %s to %s: %s", qp->verbs->qp_num,
				  srdma_device_name(qp->device), to, strerror(error));
	return 0;
}

static int initialise(struct srdma_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.pkey_index = 0,
		.port_num = srdma_device_port(qp->device),
		.qp_access_flags = qp->access,
	};

	return modify(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT");
}

int srdma_qp_new(const struct srdma_device *device, const struct srdma_qp_options *options,
		 const struct srdma_qp_queues *queues, unsigned access, struct srdma_qp *out)
{
	struct srdma_qp qp = {.device = device, .options = *options, .queues = *queues, .access = access};
	int ret = create(queues, &qp);

	if (ret != 0)
		return ret;
	ret = initialise(&qp);
	if (ret != 0) {
		ibv_destroy_qp(qp.verbs);
		return ret;
	}
	*out = qp;
	return 0;
}

int srdma_qp_new_like(const struct srdma_qp *like, struct srdma_qp *out)
{
	return srdma_qp_new(like->device, &like->options, &like->queues, like->access, out);
}

int srdma_qp_reset(struct srdma_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
	int ret = modify(qp, &attr, IBV_QP_STATE, "RESET");

	return ret == 0 ? initialise(qp) : ret;
}

int srdma_qp_ready_to_receive(struct srdma_qp *qp, const struct srdma_qp_peer *peer)
{
	const struct ibv_port_attr *port = srdma_device_port_attr(qp->device);
	bool ethernet = port->link_layer == IBV_LINK_LAYER_ETHERNET;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = peer->mtu,
		.dest_qp_num = peer->qpn,
		.rq_psn = peer->psn,
		.max_dest_rd_atomic = peer->rd_responder,
		.min_rnr_timer = qp->options.min_rnr_timer,
		.ah_attr = {.dlid = peer->lid,
			    .sl = qp->options.service_level,
			    .port_num = srdma_device_port(qp->device),
			    /* RoCE always has a GRH; InfiniBand when the port demands it. */
			    .is_global = ethernet || (port->flags & IBV_QPF_GRH_REQUIRED) != 0,
			    .grh = {.dgid = peer->gid,
				    .sgid_index = peer->gid_index,
				    .hop_limit = qp->options.hop_limit,
				    .traffic_class = qp->options.traffic_class}},
	};

	return modify(qp, &attr,
		      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
		      "RTR");
}

int srdma_qp_ready_to_send(struct srdma_qp *qp, uint32_t psn, uint8_t rd_initiator)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = psn,
		.timeout = qp->options.timeout,
		.retry_cnt = qp->options.retry_count,
		.rnr_retry = qp->options.rnr_retry,
		.max_rd_atomic = rd_initiator,
	};

	return modify(qp, &attr,
		      IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_MAX_QP_RD_ATOMIC,
		      "RTS");
}

void srdma_qp_fail(struct srdma_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	if (qp->verbs)
		modify(qp, &attr, IBV_QP_STATE, "ERROR");
}

int srdma_qp_query(const struct srdma_qp *qp, enum ibv_qp_state *state, uint32_t *rq_psn, uint32_t *sq_psn)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	int error = ibv_query_qp(qp->verbs, &attr, IBV_QP_STATE | IBV_QP_RQ_PSN | IBV_QP_SQ_PSN, &init);

	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot query queue pair 0x%06x: %s", qp->verbs->qp_num, strerror(error));
	if (state)
		*state = attr.qp_state;
	if (rq_psn)
		*rq_psn = attr.rq_psn & 0xffffff;
	if (sq_psn)
		*sq_psn = attr.sq_psn & 0xffffff;
	return 0;
}

void srdma_qp_release(struct srdma_qp *qp)
{
	if (qp->verbs && ibv_destroy_qp(qp->verbs) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot destroy a queue pair: %s", strerror(errno));
	qp->verbs = NULL;
}
