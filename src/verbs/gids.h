/* SPDX-License-Identifier: Apache-2.0 */
/* The GIDs of a device's port. */
#ifndef SRDMA_GIDS_H
#define SRDMA_GIDS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads the GIDs of a port, in one call where the kernel offers it. Returns their number; 0 also if they cannot be read. The caller frees
 * *out, which is NULL if there are none. */
size_t srdma_gids_read(struct ibv_context *context, unsigned port, struct ibv_gid_entry **out);
bool srdma_gid_is_among(const union ibv_gid *list, size_t count, const union ibv_gid *gid);
/* Whether the port is of this network namespace, whose addresses are `own`. The kernel shows the devices of all namespaces and names no
 * namespace; a device's addresses show whether it is of this one. */
bool srdma_gids_are_local(struct ibv_context *context, unsigned port, uint8_t link_layer, const union ibv_gid *own, size_t own_count);

#endif
