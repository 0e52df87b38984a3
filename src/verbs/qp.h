/* SPDX-License-Identifier: Apache-2.0 */
/* A reliable-connected queue pair and its states. */
#ifndef SRDMA_QP_H
#define SRDMA_QP_H

#include "securdma.h"

struct srdma_qp_queues {
	struct ibv_pd *pd;
	struct ibv_cq *send_cq, *recv_cq;
	uint32_t send_depth, recv_depth;
	uint32_t pieces; /* of one request on the send queue; 0: 1 */
	void *context; /* for its asynchronous events */
};

struct srdma_qp {
	struct ibv_qp *verbs;
	const struct srdma_device *device;
	struct srdma_qp_options options;
	struct srdma_qp_queues queues;
	unsigned access;
	uint32_t max_inline;
};

/* The parameters that one end needs to receive from the other. */
struct srdma_qp_peer {
	uint32_t qpn;
	uint32_t psn;       /* of the peer's first packet: becomes rq_psn */
	uint16_t lid;       /* InfiniBand only */
	union ibv_gid gid;
	uint8_t gid_index;  /* this end's GID, which the peer sends to */
	enum ibv_mtu mtu;   /* as agreed */
	uint8_t rd_responder; /* RDMA reads of the peer's that may be outstanding here, as agreed */
};

int srdma_qp_options_check(const struct srdma_qp_options *options);
/* Fits the options to the device: cuts max_rd_atomic to its limit, and path_mtu to the port's. */
void srdma_qp_options_fit(struct srdma_qp_options *options, const struct srdma_device *device);

/* Creates the queue pair and takes it to INIT. `access` is what remote requests may do. */
int srdma_qp_new(const struct srdma_device *device, const struct srdma_qp_options *options,
		 const struct srdma_qp_queues *queues, unsigned access, struct srdma_qp *out);
/* Creates another queue pair with the same parameters, in INIT. */
int srdma_qp_new_like(const struct srdma_qp *like, struct srdma_qp *out);
/* Takes it to RESET, which drops all queued requests, and to INIT again. */
int srdma_qp_reset(struct srdma_qp *qp);
/* INIT to RTR. */
int srdma_qp_ready_to_receive(struct srdma_qp *qp, const struct srdma_qp_peer *peer);
/* RTR to RTS: this end's PSN becomes sq_psn. */
int srdma_qp_ready_to_send(struct srdma_qp *qp, uint32_t psn, uint8_t rd_initiator);
/* Takes it to ERROR, which flushes all queued requests. Does nothing without a queue pair. */
void srdma_qp_fail(struct srdma_qp *qp);
int srdma_qp_query(const struct srdma_qp *qp, enum ibv_qp_state *state, uint32_t *rq_psn, uint32_t *sq_psn);
void srdma_qp_release(struct srdma_qp *qp);

enum ibv_mtu srdma_mtu_of_bytes(uint32_t bytes); /* the largest that is not above */
uint32_t srdma_mtu_bytes(enum ibv_mtu mtu);

#endif
