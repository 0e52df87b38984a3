/* SPDX-License-Identifier: Apache-2.0 */
/* The life of the queues: sizes, construction, agreement, the end; and the poll of both queues. */
#include "queues_parts.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#define SLOT_ALIGN 64u /* a cache line: no two slots share one */

static uint32_t control_reserve(const struct srdma_queues_shape *shape)
{
	return shape->sealed ? SRDMA_CONTROL_RESERVE : 0;
}

uint32_t srdma_queues_send_depth(const struct srdma_queues_shape *shape)
{
	uint32_t rdma = shape->sealed ? SRDMA_CONTROL_RESERVE + SRDMA_SEALED_CHUNKS : 0;

	return shape->depth + SRDMA_CREDIT_RESERVE + shape->rdma_depth + rdma + (shape->binds ? SRDMA_BINDS_MAX : 0);
}

uint32_t srdma_queues_recv_depth(const struct srdma_queues_shape *shape)
{
	return shape->depth + SRDMA_CREDIT_RESERVE + control_reserve(shape);
}

static uint32_t stride_of(const struct srdma_queues_shape *shape)
{
	uint32_t most = shape->message_size + (shape->sealed ? SRDMA_SEAL_OVERHEAD : 0);

	return (most + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
}

/* Half the depth: a send slot is busy for one round trip, a receive until the program has read the message. */
static uint32_t send_slots_of(const struct srdma_queues_shape *shape)
{
	return (shape->depth + 1) / 2 + control_reserve(shape);
}

size_t srdma_queues_ring_size(const struct srdma_queues_shape *shape)
{
	return (size_t)(srdma_queues_recv_depth(shape) + send_slots_of(shape)) * stride_of(shape);
}

int srdma_queues_new(struct srdma_queues *queues, struct ibv_pd *pd, struct srdma_qp *qp, struct ibv_cq *send_cq,
		      struct ibv_cq *recv_cq, const struct srdma_queues_shape *shape)
{
	struct srdma_queues c = {
		.qp = qp,
		.send_cq = send_cq,
		.recv_cq = recv_cq,
		.stride = stride_of(shape),
		.recv_slots = srdma_queues_recv_depth(shape),
		.send_slots = {.room = send_slots_of(shape)},
		.message_size = shape->message_size,
		.depth = shape->depth,
		.rdma_depth = shape->rdma_depth,
		.op_ring = {.room = srdma_queues_send_depth(shape)},
		.arrival_ring = {.room = srdma_queues_recv_depth(shape)},
		.done_ring = {.room = shape->rdma_depth},
		/* Small enough that at least one of the messages that can be under way raises a completion. */
		.signal_interval = (shape->depth + 1) / 2 < 4 ? 1 : (shape->depth + 1) / 4,
		.credits = shape->depth,
		.copy_size = qp->max_inline,
		.psn_limit = UINT64_MAX,
		.mtu = 256,
		.pieces_most = shape->pieces,
	};
	int ret = srdma_region_new(pd, srdma_queues_ring_size(shape), IBV_ACCESS_LOCAL_WRITE, &c.memory);

	if (ret != 0)
		return ret;
	c.ops = calloc(c.op_ring.room, sizeof *c.ops);
	c.copies = calloc(c.op_ring.room, c.copy_size ? c.copy_size : 1);
	c.arrivals = calloc(c.recv_slots, sizeof *c.arrivals);
	c.pieces = calloc((size_t)c.op_ring.room * c.pieces_most + 1, sizeof *c.pieces);
	c.done = calloc(shape->rdma_depth, sizeof *c.done);
	if (!c.ops || !c.copies || !c.arrivals || !c.pieces || !c.done) {
		srdma_queues_release(&c);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	for (uint32_t slot = 0; slot < c.recv_slots; slot++) {
		ret = srdma_queues_post_receive(&c, slot);
		if (ret != 0) {
			srdma_queues_release(&c);
			return ret;
		}
	}
	*queues = c;
	return 0;
}

void srdma_queues_agree(struct srdma_queues *queues, uint32_t message_size, uint32_t depth, uint32_t mtu)
{
	queues->message_size = message_size;
	queues->depth = depth;
	queues->credits = depth;
	queues->mtu = mtu;
}

void srdma_queues_seal(struct srdma_queues *queues, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	queues->sealer = sealer;
	queues->opener = opener;
	queues->overhead = SRDMA_SEAL_OVERHEAD;
}

int srdma_queues_share(struct srdma_queues *queues, struct srdma_seal_pool *pool, void (*wake)(void *arg), void *arg)
{
	return srdma_seal_lane_new(pool, false, wake, arg, &queues->open_lane);
}

void srdma_queues_release(struct srdma_queues *queues)
{
	/* Before the memory and the keys that it uses. */
	srdma_seal_lane_delete(&queues->open_lane);
	srdma_region_release(&queues->memory);
	if (queues->copies)
		OPENSSL_cleanse(queues->copies, (size_t)queues->op_ring.room * queues->copy_size);
	free(queues->copies);
	free(queues->ops);
	free(queues->arrivals);
	free(queues->pieces);
	free(queues->done);
	srdma_sealer_delete(&queues->sealer);
	srdma_opener_delete(&queues->opener);
	*queues = (struct srdma_queues){0};
}

void srdma_queues_end(struct srdma_queues *queues)
{
	srdma_queues_stop(queues);
	queues->over = true;
	queues->op_ring.count = 0;
}

int srdma_queues_fail_completion(struct srdma_queues *queues, const struct ibv_wc *wc, const char *what)
{
	if (queues->stopped)
		return 0;
	if (queues->failed_status == IBV_WC_SUCCESS)
		queues->failed_status = wc->status;
	srdma_queues_stop(queues);
	/* Some devices (rdma_rxe of Linux 6.12 and later) complete even the request that failed so. */
	const char *hint = wc->status == IBV_WC_WR_FLUSH_ERR ? "; the queue pair is in its error state, and the device does not say why" : "";
	return srdma_fail(SRDMA_EVERBS, "%s failed on the device: %s%s", what, ibv_wc_status_str(wc->status), hint);
}

int srdma_queues_poll(struct srdma_queues *queues)
{
	int ret = srdma_queues_poll_receives(queues), sends = 0;

	if (ret == 0 || ret == SRDMA_EVERBS)
		sends = srdma_queues_poll_sends(queues);
	if (ret == 0)
		ret = sends;
	return ret == 0 ? srdma_queues_return_credits(queues) : ret;
}
