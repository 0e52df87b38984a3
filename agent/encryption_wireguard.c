/* SPDX-License-Identifier: Apache-2.0 */
/* Which peer of a WireGuard device gets the packets. A WireGuard device sends nothing in clear, with or without a handshake: the question
 * is whether the other end of the tunnel is the peer itself. */
#include "encryption_parts.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/wireguard.h>
#include <string.h>
#include <unistd.h>

static void take_allowed(struct encryption_wireguard *wireguard, struct netlink_cursor nest)
{
	size_t size = encryption_address_size(wireguard->family);
	struct netlink_attribute attribute;
	uint8_t address[16] = {0};
	bool has_address = false;
	uint16_t family = 0;
	unsigned bits = 255;

	while (netlink_attribute_next(&nest, &attribute))
		switch (attribute.type) {
		case WGALLOWEDIP_A_FAMILY: family = netlink_u16(&attribute); break;
		case WGALLOWEDIP_A_IPADDR: has_address = netlink_bytes(&attribute, address, size); break;
		case WGALLOWEDIP_A_CIDR_MASK: bits = netlink_u8(&attribute); break;
		default: break;
		}
	if (family != wireguard->family || !has_address || bits > 8 * size || !encryption_has_prefix(wireguard->peer, address, bits))
		return;
	if (!wireguard->found || bits > wireguard->prefix)
		wireguard->prefix = (uint8_t)bits;
	wireguard->found = true;
}

int encryption_wireguard_parse(const struct netlink_message *message, void *wireguard)
{
	struct netlink_cursor body = message->body;
	struct netlink_attribute attribute, peer, part, allowed;
	struct genlmsghdr header;

	if (!netlink_take(&body, &header, sizeof header))
		return 0;
	while (netlink_attribute_next(&body, &attribute))
		while (attribute.type == WGDEVICE_A_PEERS && netlink_attribute_next(&attribute.body, &peer))
			while (netlink_attribute_next(&peer.body, &part))
				while (part.type == WGPEER_A_ALLOWEDIPS && netlink_attribute_next(&part.body, &allowed))
					take_allowed(wireguard, allowed.body);
	return 0;
}

static int read_device(int index, struct encryption_wireguard *wireguard)
{
	struct genlmsghdr header = {.cmd = WG_CMD_GET_DEVICE, .version = WG_GENL_VERSION};
	struct netlink_request request;
	uint32_t number = (uint32_t)index;
	uint16_t family;
	int fd, ret = netlink_open_family(WG_GENL_NAME, &fd, &family);

	if (ret < 0)
		return ret;
	netlink_begin(&request, family, NLM_F_DUMP, &header, sizeof header);
	netlink_put(&request, WGDEVICE_A_IFINDEX, &number, sizeof number);
	ret = netlink_ask(fd, &request, encryption_wireguard_parse, wireguard);
	close(fd);
	return ret;
}

int encryption_wireguard_judge(const struct encryption_path *path, const struct encryption_link *link, const struct encryption_answer *answer)
{
	struct encryption_wireguard wireguard = {.family = path->family};
	unsigned whole = 8 * (unsigned)encryption_address_size(path->family);
	int ret;

	memcpy(wireguard.peer, path->peer, sizeof wireguard.peer);
	ret = read_device(link->index, &wireguard);
	if (ret == -EPERM)
		return encryption_refuse(answer, -EPERM, "may not read the peers of %s: run this as root or with CAP_NET_ADMIN", link->name);
	if (ret < 0)
		return encryption_refuse(answer, -EACCES, "cannot read the peers of %s: %s", link->name, strerror(-ret));
	if (!wireguard.found)
		return encryption_refuse(answer, -EACCES, "no peer of %s (WireGuard) has %s among its allowed IPs", link->name, path->peer_text);
	if (wireguard.prefix < whole)
		return encryption_refuse(answer, -EACCES, "%s (WireGuard) has a peer with all of %s/%u, which may pass packets on in clear: allow %s/%u",
					 link->name, path->peer_text, (unsigned)wireguard.prefix, path->peer_text, whole);
	return encryption_grant(answer, "WireGuard, %s", link->name);
}
