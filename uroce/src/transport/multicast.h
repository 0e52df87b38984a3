/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs that are attached to multicast groups. As with the kernel's rdma_rxe, a datagram to a group reaches all that are attached,
 * on this host too, and its sender if that is one of them. The device's lock is held in all. */
#ifndef UROCE_MULTICAST_H
#define UROCE_MULTICAST_H

#include "qp.h"

struct multicast_group {
	struct multicast_group *next;
	union ibv_gid gid;
	struct qp **qps;
	unsigned count;
	unsigned room;
};

/* 0; nothing changes if it is attached already. -EINVAL: no datagrams, or no group; -ENOMEM: too many; others of udp_join. */
int multicast_attach(struct qp *qp, const union ibv_gid *gid);
/* -EINVAL: it is not attached. */
int multicast_detach(struct qp *qp, const union ibv_gid *gid);
/* NULL: no queue pair is attached to it. */
const struct multicast_group *multicast_find(const struct device *device, const union ibv_gid *gid);
/* The queue pair has sent it itself, and was made with IBV_QP_CREATE_BLOCK_SELF_MCAST_LB. */
bool multicast_is_blocked(const struct qp *qp, const struct packet *packet, const struct packet_path *path);

#endif
