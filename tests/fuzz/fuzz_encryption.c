/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's answers about routes, network devices, MACsec, WireGuard and IPsec, as the check of the path to a peer reads them. Each parser
 * takes each message, as if it had asked for it. */
#include "fuzz.h"

#include "encryption_parts.h"

#include <string.h>
#include <sys/socket.h>

static const uint8_t near[16] = {10, 99, 0, 1}, far[16] = {10, 99, 0, 2};

static struct encryption_flow flow_of(bool out, int family)
{
	struct encryption_flow flow = {.family = family, .direction = out ? XFRM_POLICY_OUT : XFRM_POLICY_IN, .ports = {out ? 0 : 4791, 4791}};

	memcpy(flow.source, out ? near : far, sizeof flow.source);
	memcpy(flow.target, out ? far : near, sizeof flow.target);
	return flow;
}

static void ask_about_routes(const struct netlink_message *message, int family)
{
	struct encryption_route route = {.family = family};
	struct encryption_owner owner = {.family = family};
	struct encryption_neighbour neighbour = {0};
	bool unclear = false;

	memcpy(owner.address, near, sizeof owner.address);
	require(encryption_route_parse(message, &route) == 0);
	require(encryption_owner_parse(message, &owner) == 0);
	require(encryption_neighbour_parse(message, &neighbour) == 0);
	require(encryption_rule_parse(message, &unclear) == 0);
}

static void ask_about_devices(const struct netlink_message *message, int family)
{
	struct encryption_link link = {.index = 7};
	struct encryption_members members = {.master = 7};
	struct encryption_macsec macsec = {.index = 7};
	struct encryption_wireguard wireguard = {.family = family};

	memcpy(wireguard.peer, far, sizeof wireguard.peer);
	require(encryption_link_parse(message, &link) == 0);
	require(memchr(link.name, '\0', sizeof link.name) && memchr(link.kind, '\0', sizeof link.kind));
	encryption_member_parse(message, &members);
	require(members.count <= ENCRYPTION_MEMBERS);
	require(encryption_macsec_parse(message, &macsec) == 0);
	require(macsec.found || !(macsec.encrypts || macsec.protects || macsec.sends || macsec.receives));
	require(encryption_wireguard_parse(message, &wireguard) == 0);
	require(wireguard.prefix <= 8 * encryption_address_size(family) && (wireguard.found || wireguard.prefix == 0));
}

static void ask_about_ipsec(const struct netlink_message *message, bool out, int family)
{
	struct encryption_policies policies = {.flow = flow_of(out, family)};
	struct encryption_states states = {.flow = policies.flow, .mode = XFRM_MODE_TRANSPORT};

	require(encryption_policy_parse(message, &policies) == 0);
	require(!policies.leaks || policies.leak);
	require(!(policies.leaks && policies.protects)); /* one message, one policy */
	require(encryption_state_parse(message, &states) == 0);
	require(!states.bad || states.bad_reason);
	require(states.good <= 1 && !(states.good && states.bad));
	require(!states.good || (states.algorithm[0] && memchr(states.algorithm, '\0', sizeof states.algorithm)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* From a block of that size, so that the sanitizer sees what is read beyond it. */
	uint8_t *copy = malloc(size ? size : 1);
	struct netlink_cursor rest = {copy, size};
	struct netlink_message message;

	if (size > 0)
		memcpy(copy, data, size);
	while (netlink_message_next(&rest, &message)) {
		require(message.body.at >= copy && message.body.at + message.body.left <= copy + size);
		for (int i = 0; i < 2; i++) {
			int family = i ? AF_INET6 : AF_INET;

			ask_about_routes(&message, family);
			ask_about_devices(&message, family);
			ask_about_ipsec(&message, true, family);
			ask_about_ipsec(&message, false, family);
		}
	}
	free(copy);
	return 0;
}
