/* SPDX-License-Identifier: Apache-2.0 */
/* Where the packets to a peer leave this host, as the kernel's routes say. */
#include "encryption_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>

#define ROCE_PORT 4791

int encryption_route_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_route *route = arg;
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute;
	bool grouped = false;
	struct rtmsg header;

	if (message->type != RTM_NEWROUTE || !netlink_take(&body, &header, sizeof header) || header.rtm_family != route->family)
		return 0;
	route->type = header.rtm_type;
	while (netlink_attribute_next(&body, &attribute))
		switch (attribute.type) {
		case RTA_OIF: route->out = (int)netlink_u32(&attribute); break;
		case RTA_GATEWAY:
		case RTA_VIA: route->gateway = true; break;
		case RTA_MULTIPATH: route->multipath = true; break;
		case RTA_NH_ID: grouped = true; break;
		default: break;
		}
	/* The kernel may be told to name a group of next hops by its number alone. */
	route->multipath |= grouped && route->out == 0;
	return 0;
}

int encryption_owner_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_owner *owner = arg;
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute;
	struct ifaddrmsg header;
	uint8_t address[16] = {0};
	bool has_local = false;

	if (message->type != RTM_NEWADDR || !netlink_take(&body, &header, sizeof header) || header.ifa_family != owner->family)
		return 0;
	/* Of a point-to-point device IFA_ADDRESS is the peer's, and IFA_LOCAL the own one; IPv6 may have the first alone. */
	while (netlink_attribute_next(&body, &attribute))
		if (attribute.type == IFA_LOCAL || (attribute.type == IFA_ADDRESS && !has_local)) {
			netlink_bytes(&attribute, address, encryption_address_size(owner->family));
			has_local = attribute.type == IFA_LOCAL;
		}
	if (memcmp(address, owner->address, sizeof address) == 0 && (owner->netdev == 0 || owner->netdev == (int)header.ifa_index))
		owner->found = (int)header.ifa_index;
	return 0;
}

int encryption_rule_parse(const struct netlink_message *message, void *unclear)
{
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute;
	struct fib_rule_hdr header;

	if (message->type != RTM_NEWRULE || !netlink_take(&body, &header, sizeof header))
		return 0;
	if (header.tos != 0)
		*(bool *)unclear = true;
	while (netlink_attribute_next(&body, &attribute))
		if (attribute.type == FRA_UID_RANGE)
			*(bool *)unclear = true;
	return 0;
}

int encryption_neighbour_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_neighbour *neighbour = arg;
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute;
	struct ndmsg header;

	if (message->type != RTM_NEWNEIGH || !netlink_take(&body, &header, sizeof header) ||
	    !(header.ndm_state & (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE)))
		return 0;
	while (netlink_attribute_next(&body, &attribute))
		if (attribute.type == NDA_LLADDR)
			neighbour->known = netlink_bytes(&attribute, neighbour->address, sizeof neighbour->address);
	return 0;
}

int encryption_neighbour_find(int fd, const struct encryption_path *path, int netdev, struct encryption_neighbour *neighbour)
{
	struct ndmsg header = {.ndm_family = (uint8_t)path->family, .ndm_ifindex = netdev};
	struct netlink_request request;
	int ret;

	*neighbour = (struct encryption_neighbour){0};
	netlink_begin(&request, RTM_GETNEIGH, 0, &header, sizeof header);
	netlink_put(&request, NDA_DST, path->peer, encryption_address_size(path->family));
	ret = netlink_ask(fd, &request, encryption_neighbour_parse, neighbour);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (neighbour->known)
		return 0;
	/* As `ip neighbour add ... use` does. Without the right to it, the program's own packets do the same. */
	header.ndm_flags = NTF_USE;
	netlink_begin(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, &header, sizeof header);
	netlink_put(&request, NDA_DST, path->peer, encryption_address_size(path->family));
	(void)netlink_ask(fd, &request, NULL, NULL);
	return -EAGAIN;
}

static bool is_mapped(const uint8_t gid[16])
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(gid, prefix, sizeof prefix) == 0;
}

static bool is_link_local(const uint8_t address[16])
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static void take_addresses(struct encryption_path *path, const uint8_t own[16], const uint8_t peer[16])
{
	size_t skip;

	path->family = is_mapped(own) ? AF_INET : AF_INET6;
	skip = path->family == AF_INET ? 12 : 0;
	memcpy(path->own, own + skip, 16 - skip);
	memcpy(path->peer, peer + skip, 16 - skip);
	inet_ntop(path->family, path->own, path->own_text, sizeof path->own_text);
	inet_ntop(path->family, path->peer, path->peer_text, sizeof path->peer_text);
}

static int find_owner(struct encryption_path *path, int fd, const char *netdev, const struct encryption_answer *answer)
{
	struct encryption_owner owner = {.family = path->family};
	struct ifaddrmsg header = {.ifa_family = (uint8_t)path->family};
	struct netlink_request request;
	int ret;

	if (netdev && (owner.netdev = (int)if_nametoindex(netdev)) == 0)
		return encryption_refuse(answer, -EINVAL, "there is no network device %s", netdev);
	if (!netdev && path->family == AF_INET6 && is_link_local(path->own))
		return encryption_refuse(answer, -EINVAL, "the link-local address %s needs its network device", path->own_text);
	memcpy(owner.address, path->own, sizeof owner.address);
	netlink_begin(&request, RTM_GETADDR, NLM_F_DUMP, &header, sizeof header);
	ret = netlink_ask(fd, &request, encryption_owner_parse, &owner);
	if (ret < 0)
		return encryption_refuse(answer, encryption_unread(ret), "cannot list the addresses of this host: %s", strerror(-ret));
	/* Every address of 127.0.0.0/8 is the loopback device's. */
	if (owner.found == 0 && path->family == AF_INET && path->own[0] == 127)
		owner.found = (int)if_nametoindex("lo");
	if (owner.found == 0)
		return encryption_refuse(answer, -EINVAL, "%s is no address of this host%s%s", path->own_text, netdev ? " on " : "", netdev ? netdev : "");
	path->netdev = owner.found;
	return 0;
}

/* Rules that look at the user or the traffic class may choose another route for this process than for the program in question. */
static int refuse_unclear_rules(const struct encryption_path *path, int fd, const struct encryption_answer *answer)
{
	struct fib_rule_hdr header = {.family = (uint8_t)path->family};
	struct netlink_request request;
	bool unclear = false;
	int ret;

	netlink_begin(&request, RTM_GETRULE, NLM_F_DUMP, &header, sizeof header);
	ret = netlink_ask(fd, &request, encryption_rule_parse, &unclear);
	/* A kernel without rules has no such family. */
	if (ret < 0 && ret != -EAFNOSUPPORT && ret != -EOPNOTSUPP)
		return encryption_refuse(answer, encryption_unread(ret), "cannot list the rules of routing: %s", strerror(-ret));
	if (unclear)
		return encryption_refuse(answer, -EACCES, "rules of routing (ip rule) look at the user or the traffic class, so the program's path is not known");
	return 0;
}

static int ask_route(const struct encryption_path *path, int fd, uint32_t flags, struct encryption_route *route)
{
	uint8_t bits = (uint8_t)(8 * encryption_address_size(path->family)), udp = IPPROTO_UDP;
	struct rtmsg header = {.rtm_family = (uint8_t)path->family, .rtm_dst_len = bits, .rtm_src_len = bits, .rtm_flags = flags};
	uint16_t port = htons(ROCE_PORT);
	uint32_t out = (uint32_t)path->netdev;
	struct netlink_request request;
	bool bound = path->device != ENCRYPTION_SOCKETS || (path->family == AF_INET6 && is_link_local(path->own));

	*route = (struct encryption_route){.family = path->family};
	netlink_begin(&request, RTM_GETROUTE, 0, &header, sizeof header);
	netlink_put(&request, RTA_DST, path->peer, bits / 8);
	netlink_put(&request, RTA_SRC, path->own, bits / 8);
	if (bound)
		netlink_put(&request, RTA_OIF, &out, sizeof out);
	netlink_put(&request, RTA_IP_PROTO, &udp, sizeof udp);
	if (path->device == ENCRYPTION_SOCKETS) {
		netlink_put(&request, RTA_SPORT, &port, sizeof port);
		netlink_put(&request, RTA_DPORT, &port, sizeof port);
	}
	return netlink_ask(fd, &request, encryption_route_parse, route);
}

static int find_route(struct encryption_path *path, int fd, const struct encryption_answer *answer)
{
	struct encryption_route route, whole;
	int ret = ask_route(path, fd, 0, &route);

	if (ret < 0)
		return encryption_refuse(answer, -EACCES, "no route from %s to %s: %s", path->own_text, path->peer_text, strerror(-ret));
	path->local = route.type == RTN_LOCAL;
	path->out = route.out;
	path->gateway = route.gateway;
	if (path->local)
		return 0;
	if (route.type != RTN_UNICAST)
		return encryption_refuse(answer, -EACCES, "the route from %s to %s leads to no single host", path->own_text, path->peer_text);
	/* The first answer is one packet's choice among several ways; this one is the entry as it stands in the table. */
	if (ask_route(path, fd, RTM_F_FIB_MATCH, &whole) < 0 || whole.multipath)
		path->multipath = true;
	return 0;
}

int encryption_path_find(struct encryption_path *path, int fd, const uint8_t own[16], const uint8_t peer[16], const char *netdev,
			 const struct encryption_answer *answer)
{
	int ret;

	if (is_mapped(own) != is_mapped(peer))
		return encryption_refuse(answer, -EINVAL, "one address is of IPv4 and the other of IPv6");
	take_addresses(path, own, peer);
	ret = find_owner(path, fd, netdev, answer);
	if (ret < 0)
		return ret;
	/* An adapter sends past the routes of the kernel. */
	if (path->device == ENCRYPTION_HARDWARE) {
		path->out = path->netdev;
		path->local = memcmp(path->own, path->peer, sizeof path->own) == 0;
		return 0;
	}
	if (path->device == ENCRYPTION_SOCKETS && (ret = refuse_unclear_rules(path, fd, answer)) < 0)
		return ret;
	return find_route(path, fd, answer);
}
