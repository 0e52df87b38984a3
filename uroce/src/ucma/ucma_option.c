/* SPDX-License-Identifier: Apache-2.0 */
/* What programs set: how an ID binds and sends, and a path in place of a route. */
#include <errno.h>
#include <string.h>

#include "ucma_parts.h"

enum { MOST_PATHS = 64 };

static int get_flag(const void *value, size_t length, bool *out)
{
	int number;

	if (length != sizeof number)
		return -EINVAL;
	memcpy(&number, value, sizeof number);
	*out = number != 0;
	return 0;
}

/* Those of an ID, as the kernel takes them. */
static int set_id_option(struct ucma_id *id, uint32_t option, const void *value, size_t length)
{
	bool unbound = id->endpoint.state == CM_IDLE && id->source.ss_family == AF_UNSPEC, flag = false;
	int error;

	switch (option) {
	case RDMA_OPTION_ID_TOS:
		if (length != sizeof id->tos)
			return -EINVAL;
		memcpy(&id->tos, value, sizeof id->tos);
		return 0;
	case RDMA_OPTION_ID_ACK_TIMEOUT:
		if (length != sizeof id->ack_timeout || id->qp_type != IBV_QPT_RC)
			return -EINVAL;
		memcpy(&id->ack_timeout, value, sizeof id->ack_timeout);
		id->ack_timeout &= UCMA_LONGEST_TIMEOUT;
		return 0;
	case RDMA_OPTION_ID_REUSEADDR:
		error = get_flag(value, length, &flag);
		/* One that is bound may begin to share its port, but not end it. */
		if (error == 0 && !unbound && (!flag || id->endpoint.state == CM_LISTENING))
			error = -EINVAL;
		if (error == 0)
			id->reuses_address = flag;
		return error;
	case RDMA_OPTION_ID_AFONLY:
		error = get_flag(value, length, &flag);
		return error != 0 ? error : ucma_set_one_family(id, flag);
	default:
		return -ENOSYS;
	}
}

/* The first that is for all. It has to lead where the address leads. */
static int set_path(struct ucma_id *id, const void *value, size_t length)
{
	struct gsi_path *path = &id->endpoint.path;
	struct ib_path_rec_data data = {0};
	const uint8_t *record = (const uint8_t *)data.path_rec;
	size_t count = length / sizeof data, i = 0;

	if (length % sizeof data != 0 || count > MOST_PATHS || !id->resolved || id->routed || id->endpoint.state != CM_IDLE)
		return -EINVAL;
	for (; i < count && data.flags != RECORD_ONLY_PATH; i++)
		memcpy(&data, (const uint8_t *)value + i * sizeof data, sizeof data);
	if (data.flags != RECORD_ONLY_PATH || memcmp(record + RECORD_AT_PEER, path->peer.raw, sizeof path->peer) != 0 ||
	    memcmp(record + RECORD_AT_OWN, path->own.raw, sizeof path->own) != 0)
		return -EINVAL;
	uint8_t mtu = record[RECORD_AT_MTU] & RECORD_VALUE_BITS, lifetime = record[RECORD_AT_LIFETIME] & RECORD_VALUE_BITS;
	if (mtu < IBV_MTU_256 || lifetime >= UCMA_LONGEST_TIMEOUT)
		return -EINVAL;
	id->endpoint.mtu = mtu < id->endpoint.mtu ? mtu : id->endpoint.mtu;
	id->endpoint.ack_timeout = (uint8_t)(lifetime + 1);
	path->hop_limit = record[RECORD_AT_HOPS];
	path->tclass = record[RECORD_AT_CLASS];
	id->routed = true;
	ucma_event_tell(id, UCMA_ROUTE_RESOLVED, 0);
	return 0;
}

int ucma_set_option(struct ucma_id *id, uint32_t level, uint32_t name, const void *value, size_t length)
{
	if (level == RDMA_OPTION_ID)
		return set_id_option(id, name, value, length);
	return level == RDMA_OPTION_IB && name == RDMA_OPTION_IB_PATH ? set_path(id, value, length) : -ENOSYS;
}
