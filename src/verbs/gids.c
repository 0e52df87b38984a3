/* SPDX-License-Identifier: Apache-2.0 */
#include "gids.h"

#include <stdlib.h>
#include <string.h>

size_t srdma_gids_read(struct ibv_context *context, unsigned port, struct ibv_gid_entry **out)
{
	struct ibv_device_attr attr;
	struct ibv_port_attr port_attr;
	size_t room = 0, count = 0;
	ssize_t all;

	*out = NULL;
	if (ibv_query_device(context, &attr) != 0)
		return 0;
	for (unsigned i = 1; i <= attr.phys_port_cnt; i++)
		if (ibv_query_port(context, (uint8_t)i, &port_attr) == 0 && port_attr.gid_tbl_len > 0)
			room += (size_t)port_attr.gid_tbl_len;
	*out = room > 0 ? calloc(room, sizeof **out) : NULL;
	all = *out ? ibv_query_gid_table(context, *out, room, 0) : 0;
	for (ssize_t i = 0; i < all; i++)
		if ((*out)[i].port_num == port)
			(*out)[count++] = (*out)[i];
	return count;
}

bool srdma_gid_is_among(const union ibv_gid *list, size_t count, const union ibv_gid *gid)
{
	for (size_t i = 0; i < count; i++)
		if (memcmp(&list[i], gid, sizeof *gid) == 0)
			return true;
	return false;
}

bool srdma_gids_are_local(struct ibv_context *context, unsigned port, uint8_t link_layer, const union ibv_gid *own, size_t own_count)
{
	struct ibv_gid_entry *gids;
	size_t count;
	bool found = false;

	if (link_layer == IBV_LINK_LAYER_INFINIBAND)
		return true;
	count = srdma_gids_read(context, port, &gids);
	for (size_t i = 0; i < count && !found; i++)
		found = srdma_gid_is_among(own, own_count, &gids[i].gid);
	free(gids);
	return found;
}
