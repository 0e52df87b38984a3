/* SPDX-License-Identifier: Apache-2.0 */
#include "multicast.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "udp.h"

const struct multicast_group *multicast_find(const struct device *device, const union ibv_gid *gid)
{
	const struct multicast_group *group = device->multicast;

	while (group && memcmp(&group->gid, gid, sizeof *gid) != 0)
		group = group->next;
	return group;
}

static struct multicast_group **place_of(struct device *device, const union ibv_gid *gid)
{
	struct multicast_group **at = &device->multicast;

	while (*at && memcmp(&(*at)->gid, gid, sizeof *gid) != 0)
		at = &(*at)->next;
	return at;
}

static unsigned index_of(const struct multicast_group *group, const struct qp *qp)
{
	unsigned i = 0;

	while (i < group->count && group->qps[i] != qp)
		i++;
	return i;
}

/* The first queue pair of a group has the device receive what is sent to it. */
static int make_group(struct device *device, const union ibv_gid *gid, struct multicast_group **at)
{
	if (device->multicast_count == MAX_MULTICAST_GROUPS)
		return -ENOMEM;
	struct multicast_group *group = calloc(1, sizeof *group);
	if (!group)
		return -ENOMEM;
	int error = device->udp ? udp_join(device->udp, gid) : 0;
	if (error != 0) {
		free(group);
		return error;
	}
	group->gid = *gid;
	device->multicast_count++;
	*at = group;
	return 0;
}

static void remove_group(struct device *device, struct multicast_group **at)
{
	struct multicast_group *group = *at;

	if (device->udp)
		udp_leave(device->udp, &group->gid);
	device->multicast_count--;
	*at = group->next;
	free(group->qps);
	free(group);
}

static int add(struct multicast_group *group, struct qp *qp)
{
	if (group->count == MAX_MULTICAST_QPS)
		return -ENOMEM;
	if (group->count == group->room) {
		unsigned room = group->room == 0 ? 4 : 2 * group->room;
		struct qp **qps = reallocarray(group->qps, room, sizeof(struct qp *));
		if (!qps)
			return -ENOMEM;
		group->qps = qps;
		group->room = room;
	}
	group->qps[group->count++] = qp;
	qp->groups++;
	return 0;
}

int multicast_attach(struct qp *qp, const union ibv_gid *gid)
{
	struct device *device = qp->device;

	if (qp->type != IBV_QPT_UD || !gid_is_multicast(gid))
		return -EINVAL;
	struct multicast_group **at = place_of(device, gid);
	int error = *at ? 0 : make_group(device, gid, at);
	if (error != 0 || index_of(*at, qp) < (*at)->count)
		return error;
	error = add(*at, qp);
	if ((*at)->count == 0)
		remove_group(device, at);
	return error;
}

int multicast_detach(struct qp *qp, const union ibv_gid *gid)
{
	struct multicast_group **at = place_of(qp->device, gid);
	struct multicast_group *group = *at;
	unsigned index = group ? index_of(group, qp) : 0;

	if (!group || index == group->count)
		return -EINVAL;
	group->qps[index] = group->qps[--group->count];
	qp->groups--;
	if (group->count == 0)
		remove_group(qp->device, at);
	return 0;
}

bool multicast_is_blocked(const struct qp *qp, const struct packet *packet, const struct packet_path *path)
{
	const struct udp_link *udp = qp->device->udp;

	return qp->blocks_own_multicast && packet->src_qpn == qp->qpn && (!udp || udp_find_gid(udp, &path->sgid) < udp_gid_count(udp));
}
