/* SPDX-License-Identifier: Apache-2.0 */
/* Multicast groups that IDs have joined: by the address that the program names, as the kernel's rdma_cm does for RoCEv2. Nobody is asked,
 * so that the event is there at once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ucma_parts.h"
#include "udp.h"

/* The GID that the ID sends to a group by: its own, or, if that is of the other family, the device's first that is not. */
static int find_own_gid(const struct ucma_id *id, const union ibv_gid *group, uint8_t *index)
{
	const struct udp_link *udp = id->file->device->udp;
	unsigned count = udp_gid_count(udp), i = id->endpoint.path.sgid_index;

	if (!udp_reaches_group(udp, i, group))
		for (i = 0; i < count && !udp_reaches_group(udp, i, group); i++)
			;
	*index = (uint8_t)i;
	return i < count ? 0 : -EADDRNOTAVAIL;
}

static void fill_event(struct ucma_event *event, struct ucma_multicast *multicast)
{
	const struct ucma_id *id = multicast->id;
	struct rdma_ucm_ud_param *ud = &event->resp.param.ud;
	const struct cm_endpoint endpoint = {.path = {
						     .peer = multicast->group,
						     .sgid_index = multicast->sgid_index,
						     .tclass = id->tos,
						     .hop_limit = UCMA_HOPS,
					     }};

	event->multicast = multicast;
	event->resp.uid = multicast->uid;
	event->resp.id = multicast->handle;
	ucma_fill_ah(&endpoint, &ud->ah_attr);
	ud->qp_num = WIRE_MULTICAST_QPN;
	ud->qkey = id->qkey != 0 ? id->qkey : UCMA_UDP_QKEY;
}

static bool is_taken(const struct ucma *ucma, uint32_t handle)
{
	const struct ucma_multicast *multicast = ucma->multicasts;

	while (multicast && multicast->handle != handle)
		multicast = multicast->next;
	return multicast;
}

int ucma_multicast_join(struct ucma_id *id, uint64_t uid, const struct sockaddr_storage *address, bool sends_only, uint32_t *handle)
{
	struct ucma *ucma = id->file->ucma;
	union ibv_gid group;
	uint8_t sgid_index;

	ucma_address_to_gid(address, &group);
	if (!id->bound || id->endpoint.state != CM_IDLE || !ucma_id_is_datagram(id) || !gid_is_multicast(&group))
		return -EINVAL;
	int error = find_own_gid(id, &group, &sgid_index);
	if (error != 0)
		return error;
	struct ucma_multicast *multicast = ucma->multicast_count < UCMA_MULTICASTS ? calloc(1, sizeof *multicast) : NULL;
	if (!multicast)
		return -ENOMEM;
	while (is_taken(ucma, ucma->next_multicast))
		ucma->next_multicast++;
	*multicast = (struct ucma_multicast){
		.id = id,
		.handle = ucma->next_multicast++,
		.uid = uid,
		.group = group,
		.sgid_index = sgid_index,
		.member = !sends_only,
	};
	struct ucma_event *event = ucma_event_new(id, UCMA_MULTICAST_JOIN, 0);
	error = !event ? -ENOMEM : sends_only ? 0 : udp_join(id->file->device->udp, &group);
	if (error != 0) {
		free(event);
		free(multicast);
		return error;
	}
	multicast->next = ucma->multicasts;
	ucma->multicasts = multicast;
	ucma->multicast_count++;
	fill_event(event, multicast);
	ucma_event_queue(event);
	*handle = multicast->handle;
	return 0;
}

static uint32_t leave(struct ucma_multicast **at)
{
	struct ucma_multicast *multicast = *at;
	struct ucma_file *file = multicast->id->file;
	uint32_t reported = multicast->events_reported;

	ucma_event_purge_multicast(file, multicast);
	if (multicast->member && file->device->udp)
		udp_leave(file->device->udp, &multicast->group);
	*at = multicast->next;
	file->ucma->multicast_count--;
	free(multicast);
	return reported;
}

int ucma_multicast_leave(struct ucma_file *file, uint32_t handle, uint32_t *events_reported)
{
	struct ucma_multicast **at = &file->ucma->multicasts;

	while (*at && (*at)->handle != handle)
		at = &(*at)->next;
	if (!*at)
		return -ENOENT;
	if ((*at)->id->file != file)
		return -EINVAL;
	*events_reported = leave(at);
	return 0;
}

void ucma_multicast_leave_all(struct ucma_id *id)
{
	for (struct ucma_multicast **at = &id->file->ucma->multicasts; *at;) {
		if ((*at)->id == id)
			leave(at);
		else
			at = &(*at)->next;
	}
}
