/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and address handles. */
#ifndef UROCE_AH_H
#define UROCE_AH_H

#include "context.h"

/* Where a datagram, or all packets of a connected queue pair, go. */
struct address_vector {
	union ibv_gid dgid;
	uint8_t sgid_index;
	uint8_t tclass;
	uint8_t hop_limit;
};

struct ah {
	struct ibv_ah ibv;
	struct address_vector av;
};

struct ibv_ah *ah_create(struct ibv_pd *pd, struct ibv_ah_attr *attr);
struct ibv_ah *ah_create_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port);
int ah_destroy(struct ibv_ah *ah);
/* ibv_init_ah_from_wc: the way back to a datagram's sender. 0, or EINVAL. */
int ah_init_from_wc(struct ibv_context *context, uint8_t port, const struct ibv_wc *wc, const struct ibv_grh *grh,
		    struct ibv_ah_attr *attr);
/* Checks port, GRH and GIDs of an address. 0 or EINVAL. */
int ah_resolve(struct device *device, const struct ibv_ah_attr *attr, struct address_vector *out);

#endif
