/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the network devices that the packets pass encrypt them: from the one of the route down to one that does. */
#include "encryption_parts.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

/* VLAN on bond on MACsec is three. */
#define DEPTH 6
#define DEVICES 64

int encryption_link_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_link *link = arg;
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute, part;
	struct ifinfomsg header;

	if (message->type != RTM_NEWLINK || !netlink_take(&body, &header, sizeof header) || header.ifi_index != link->index)
		return 0;
	while (netlink_attribute_next(&body, &attribute))
		switch (attribute.type) {
		case IFLA_IFNAME: netlink_text(&attribute, link->name, sizeof link->name); break;
		case IFLA_LINK: link->beneath = (int)netlink_u32(&attribute); break;
		case IFLA_LINK_NETNSID: link->elsewhere = true; break;
		case IFLA_LINKINFO:
			while (netlink_attribute_next(&attribute.body, &part))
				if (part.type == IFLA_INFO_KIND)
					netlink_text(&part, link->kind, sizeof link->kind);
			break;
		default: break;
		}
	return 0;
}

int encryption_member_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_members *members = arg;
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute;
	struct ifinfomsg header;
	int master = 0;

	if (message->type != RTM_NEWLINK || !netlink_take(&body, &header, sizeof header))
		return 0;
	while (netlink_attribute_next(&body, &attribute))
		if (attribute.type == IFLA_MASTER)
			master = (int)netlink_u32(&attribute);
	/* A kernel that does not know the filter lists all devices. */
	if (master != members->master)
		return 0;
	if (members->count == ENCRYPTION_MEMBERS)
		return -E2BIG;
	members->index[members->count++] = header.ifi_index;
	return 0;
}

static int read_link(int fd, int index, struct encryption_link *link)
{
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC, .ifi_index = index};
	uint32_t mask = RTEXT_FILTER_SKIP_STATS;
	struct netlink_request request;
	int ret;

	*link = (struct encryption_link){.index = index};
	netlink_begin(&request, RTM_GETLINK, 0, &header, sizeof header);
	netlink_put(&request, IFLA_EXT_MASK, &mask, sizeof mask);
	ret = netlink_ask(fd, &request, encryption_link_parse, link);
	return ret < 0 ? ret : link->name[0] ? 0 : -ENODEV;
}

static int list_members(int fd, int index, struct encryption_members *members)
{
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC};
	uint32_t mask = RTEXT_FILTER_SKIP_STATS, master = (uint32_t)index;
	struct netlink_request request;

	*members = (struct encryption_members){.master = index};
	netlink_begin(&request, RTM_GETLINK, NLM_F_DUMP, &header, sizeof header);
	netlink_put(&request, IFLA_EXT_MASK, &mask, sizeof mask);
	netlink_put(&request, IFLA_MASTER, &master, sizeof master);
	return netlink_ask(fd, &request, encryption_member_parse, members);
}

/* One walk down the devices. */
struct walk {
	const struct encryption_path *path;
	int fd;
	const struct encryption_answer *answer;
	struct encryption_neighbour neighbour;
	bool looked_up;
	int lookup; /* 0, or why there is no neighbour */
	unsigned devices;
	bool receives; /* one of the MACsec devices has a channel of the peer */
	char name[IF_NAMESIZE];
};

/* Whether the device itself does what it should. */
static int judge_macsec_device(const struct encryption_macsec *macsec, const char *name, const struct encryption_answer *answer)
{
	if (!macsec->protects)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) has protect off: ip link set %s type macsec protect on", name, name);
	if (!macsec->encrypts)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) only protects integrity: ip link set %s type macsec encrypt on", name, name);
	if (!macsec->strict)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) accepts frames in clear: ip link set %s type macsec validate strict", name, name);
	if (!macsec->sends)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) has no active key to send with: ip macsec show", name);
	return 0;
}

/* MACsec ends at the next station. It must be the peer, and not a router or a switch that passes the packets on in clear. */
static int judge_macsec(struct walk *walk, const struct encryption_link *link)
{
	const struct encryption_path *path = walk->path;
	const struct encryption_answer *answer = walk->answer;
	struct encryption_macsec macsec = {.index = link->index};
	int ret;

	if (path->gateway)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) encrypts only the way to the router: the peer is in another network", link->name);
	if (!walk->looked_up)
		walk->lookup = encryption_neighbour_find(walk->fd, path, path->out, &walk->neighbour);
	walk->looked_up = true;
	memcpy(macsec.peer, walk->neighbour.address, sizeof macsec.peer);
	ret = encryption_macsec_read(&macsec);
	if (ret < 0 || !macsec.found)
		return encryption_refuse(answer, -EACCES, "cannot read the state of %s (MACsec): %s", link->name, strerror(ret < 0 ? -ret : ENODEV));
	ret = judge_macsec_device(&macsec, link->name, answer);
	walk->receives |= macsec.receives;
	memcpy(walk->name, link->name, sizeof walk->name);
	return ret;
}

static int judge_device(struct walk *walk, int index, unsigned depth);

/* The packets may leave by any of them. */
static int judge_members(struct walk *walk, const struct encryption_link *link, unsigned depth)
{
	struct encryption_members members;
	int ret = list_members(walk->fd, link->index, &members);

	if (ret < 0)
		return encryption_refuse(walk->answer, encryption_unread(ret), "cannot list the devices of %s (%s): %s", link->name, link->kind, strerror(-ret));
	if (members.count == 0)
		return encryption_refuse(walk->answer, -EACCES, "%s (%s) has no devices", link->name, link->kind);
	for (unsigned i = 0; i < members.count && ret == 0; i++)
		ret = judge_device(walk, members.index[i], depth + 1);
	return ret;
}

/* What lies beneath the route's own device must be MACsec. WireGuard can only be the route's own: then, if it is granted, the result is 1. */
static int judge_device(struct walk *walk, int index, unsigned depth)
{
	static const char *const stacked[] = {"vlan", "macvlan", NULL}, *const bundles[] = {"bond", "team", "bridge", NULL};
	struct encryption_link link;
	int ret = ++walk->devices > DEVICES ? -E2BIG : read_link(walk->fd, index, &link);

	if (ret < 0)
		return encryption_refuse(walk->answer, -EACCES, "cannot read network device %d: %s", index, strerror(-ret));
	if (depth == 0 && strcmp(link.kind, "wireguard") == 0) {
		if (walk->path->device == ENCRYPTION_RXE)
			return encryption_refuse(walk->answer, -EACCES, "rdma_rxe's packets never leave %s, a WireGuard device: use uroce", link.name);
		ret = encryption_wireguard_judge(walk->path, &link, walk->answer);
		return ret < 0 ? ret : 1;
	}
	if (strcmp(link.kind, "macsec") == 0)
		return judge_macsec(walk, &link);
	if (depth < DEPTH && encryption_is_one_of(link.kind, bundles))
		return judge_members(walk, &link, depth);
	if (depth < DEPTH && encryption_is_one_of(link.kind, stacked) && link.beneath > 0 && !link.elsewhere)
		return judge_device(walk, link.beneath, depth + 1);
	return encryption_refuse(walk->answer, -EACCES, "%s%s%s%s does not encrypt", link.name, link.kind[0] ? " (" : "", link.kind, link.kind[0] ? ")" : "");
}

int encryption_link_judge(const struct encryption_path *path, int fd, const struct encryption_answer *answer)
{
	struct walk walk = {.path = path, .fd = fd, .answer = answer};
	int ret;

	if (path->device == ENCRYPTION_HARDWARE)
		return encryption_refuse(answer, -EACCES, "network devices do not encrypt what an adapter sends by itself");
	ret = judge_device(&walk, path->out, 0);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (walk.lookup == -EAGAIN)
		return encryption_refuse(answer, -EAGAIN, "the hardware address of %s is not known yet, so no channel of %s (MACsec) is known to be "
					 "the peer's: try again, or ping it", path->peer_text, walk.name);
	if (walk.lookup < 0)
		return encryption_refuse(answer, -EACCES, "cannot look up the hardware address of %s: %s", path->peer_text, strerror(-walk.lookup));
	if (!walk.receives)
		return encryption_refuse(answer, -EACCES, "%s (MACsec) has no active receive channel of the peer's hardware address "
					 "(ip neigh show %s, ip macsec show)", walk.name, path->peer_text);
	return encryption_grant(answer, "MACsec, %s", walk.name);
}
