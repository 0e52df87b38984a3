/* SPDX-License-Identifier: Apache-2.0 */
#include "udp_group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

_Static_assert(UDP_MAX_GROUPS * UDP_MAX_GIDS <= UDP_EVENT_GROUP, "places of sockets");

static struct udp_group **find(struct udp_link *link, const union ibv_gid *gid)
{
	for (unsigned i = 0; i < UDP_MAX_GROUPS; i++)
		if (link->groups[i] && memcmp(&link->groups[i]->gid, gid, sizeof *gid) == 0)
			return &link->groups[i];
	return NULL;
}

static struct udp_group **find_room(struct udp_link *link)
{
	for (unsigned i = 0; i < UDP_MAX_GROUPS; i++)
		if (!link->groups[i])
			return &link->groups[i];
	return NULL;
}

enum { CARRIER_NET = 239 /* RFC 2365: of this site's own */ };

void udp_group_carrier(const struct udp_link *link, const union ibv_gid *gid, union ibv_gid *out)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	*out = *gid;
	if (!link->loopback || gid_is_v4(gid))
		return;
	for (size_t i = 0; i < sizeof gid->raw; i++)
		hash = (hash ^ gid->raw[i]) * UINT64_C(0x100000001b3);
	gid_map_v4(out, htonl((uint32_t)CARRIER_NET << 24 | (hash >> 20 & 0xffffff)));
}

/* An address of the group's family, and the first of its interface. */
static bool joins_at(const struct udp_link *link, const union ibv_gid *gid, unsigned index)
{
	bool v4 = gid_is_v4(gid);

	if (gid_is_v4(&link->gid[index].gid) != v4)
		return false;
	for (unsigned i = 0; i < index; i++)
		if (gid_is_v4(&link->gid[i].gid) == v4 && link->gid[i].ifindex == link->gid[index].ifindex)
			return false;
	return true;
}

static int open_at(struct udp_link *link, struct udp_group *group, unsigned place, unsigned index)
{
	struct udp_socket *socket = &group->sockets[group->count];
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = UDP_EVENT_GROUP | (place * UDP_MAX_GIDS + group->count) };
	union ibv_gid carrier;
	int fd;

	udp_group_carrier(link, &group->gid, &carrier);
	int error = udp_socket_join(&carrier, link->gid[index].ifindex, &fd);
	if (error != 0)
		return error;
	if (epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
		error = -errno;
		close(fd);
		return error;
	}
	*socket = (struct udp_socket){
		.fd = fd, .v4 = gid_is_v4(&carrier), .gid_index = (uint8_t)index, .local = carrier, .group = &group->gid };
	group->count++;
	return 0;
}

static void release(struct udp_link *link, struct udp_group **at)
{
	struct udp_group *group = *at;

	for (unsigned i = 0; i < group->count; i++) {
		epoll_ctl(link->epoll_fd, EPOLL_CTL_DEL, group->sockets[i].fd, NULL);
		close(group->sockets[i].fd);
	}
	link->group_count--;
	*at = NULL;
	free(group);
}

/* At as many interfaces as take it: one of them may be down. */
static int open_group(struct udp_link *link, const union ibv_gid *gid)
{
	struct udp_group **at = find_room(link);
	int error = -EINVAL;

	if (!at)
		return -ENOSPC;
	struct udp_group *group = calloc(1, sizeof *group);
	if (!group)
		return -ENOMEM;
	group->gid = *gid;
	group->users = 1;
	*at = group;
	link->group_count++;
	for (unsigned i = 0; i < link->gids; i++) {
		if (!joins_at(link, gid, i))
			continue;
		int one = open_at(link, group, (unsigned)(at - link->groups), i);
		error = group->count > 0 ? 0 : one;
	}
	if (error != 0)
		release(link, at);
	return error;
}

int udp_join(struct udp_link *link, const union ibv_gid *gid)
{
	if (!gid_is_multicast(gid))
		return -EINVAL;
	struct udp_group **at = find(link, gid);
	if (!at)
		return open_group(link, gid);
	(*at)->users++;
	return 0;
}

void udp_leave(struct udp_link *link, const union ibv_gid *gid)
{
	struct udp_group **at = find(link, gid);

	if (at && --(*at)->users == 0)
		release(link, at);
}

bool udp_reaches_group(const struct udp_link *link, unsigned sgid_index, const union ibv_gid *gid)
{
	return sgid_index < link->gids && gid_is_multicast(gid) && gid_is_v4(&link->gid[sgid_index].gid) == gid_is_v4(gid);
}

struct udp_socket *udp_group_socket(struct udp_link *link, uint32_t which)
{
	unsigned place = which / UDP_MAX_GIDS, index = which % UDP_MAX_GIDS;
	struct udp_group *group = place < UDP_MAX_GROUPS ? link->groups[place] : NULL;

	return group && index < group->count ? &group->sockets[index] : NULL;
}

void udp_group_abandon(struct udp_link *link)
{
	for (unsigned i = 0; i < UDP_MAX_GROUPS; i++) {
		struct udp_group *group = link->groups[i];
		for (unsigned j = 0; group && j < group->count; j++)
			close(group->sockets[j].fd);
		if (group)
			group->count = 0;
	}
}

void udp_group_close(struct udp_link *link)
{
	for (unsigned i = 0; i < UDP_MAX_GROUPS; i++)
		if (link->groups[i])
			release(link, &link->groups[i]);
}
