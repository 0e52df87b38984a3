/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's IPsec policies: which of them decides what becomes of the packets between two hosts. */
#include "encryption_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* Behind an IPv4 address is whatever the program that set the policy had there. */
bool encryption_is_address(const xfrm_address_t *address, const uint8_t expected[16], int family)
{
	return memcmp(address, expected, encryption_address_size(family)) == 0;
}

bool encryption_is_any(const xfrm_address_t *address, int family)
{
	static const uint8_t any[16];

	return encryption_is_address(address, any, family);
}

static bool is_port(uint16_t port, __be16 selected, __be16 mask)
{
	return ((htons(port) ^ selected) & mask) == 0;
}

enum encryption_match encryption_selector_match(const struct xfrm_selector *selector, const struct encryption_flow *flow)
{
	unsigned bits = 8 * (unsigned)encryption_address_size(flow->family);
	bool first = is_port(flow->ports[0], selector->dport, selector->dport_mask);
	bool second = is_port(flow->ports[1], selector->dport, selector->dport_mask);

	if (selector->family != AF_UNSPEC && selector->family != flow->family)
		return ENCRYPTION_MATCHES_NONE;
	/* The kernel takes no selector with a longer prefix than the address. */
	if (selector->prefixlen_s > bits || selector->prefixlen_d > bits)
		return ENCRYPTION_MATCHES_SOME;
	if (!encryption_has_prefix(flow->source, &selector->saddr, selector->prefixlen_s) || !encryption_has_prefix(flow->target, &selector->daddr, selector->prefixlen_d))
		return ENCRYPTION_MATCHES_NONE;
	if (selector->proto != 0 && selector->proto != IPPROTO_UDP)
		return ENCRYPTION_MATCHES_NONE;
	if (!first && !second)
		return ENCRYPTION_MATCHES_NONE;
	return first && second && selector->sport_mask == 0 && selector->ifindex == 0 ? ENCRYPTION_MATCHES_ALL : ENCRYPTION_MATCHES_SOME;
}

/* Attributes that make a policy apply to less than its selector says, or to nothing here. */
struct limits {
	bool other_interface; /* only packets of an xfrm interface */
	bool narrower;        /* a mark or a security context decides */
	bool is_sub;          /* it is applied beside the main policies */
	int offload;
	struct netlink_cursor templates;
};

static void take_limits(struct netlink_cursor body, struct limits *limits)
{
	struct netlink_attribute attribute;
	struct xfrm_user_offload offload;
	struct xfrm_userpolicy_type type;
	struct xfrm_mark mark;

	while (netlink_attribute_next(&body, &attribute))
		switch (attribute.type) {
		case XFRMA_TMPL: limits->templates = attribute.body; break;
		case XFRMA_IF_ID: limits->other_interface = netlink_u32(&attribute) != 0; break;
		case XFRMA_SEC_CTX: limits->narrower = true; break;
		case XFRMA_MARK: limits->narrower |= !netlink_bytes(&attribute, &mark, sizeof mark) || mark.m != 0; break;
		case XFRMA_POLICY_TYPE:
			limits->is_sub = !netlink_bytes(&attribute, &type, sizeof type) || type.type != XFRM_POLICY_TYPE_MAIN;
			break;
		case XFRMA_OFFLOAD_DEV:
			if (netlink_bytes(&attribute, &offload, sizeof offload) && (offload.flags & XFRM_OFFLOAD_PACKET))
				limits->offload = offload.ifindex;
			break;
		default: break;
		}
}

/* Whether the ends of the template, of which a transport may name none, are the two hosts themselves. */
static bool is_between(const struct xfrm_user_tmpl *template, const struct encryption_flow *flow)
{
	int family = flow->family;
	bool any_source = encryption_is_any(&template->saddr, family), any_target = encryption_is_any(&template->id.daddr, family);

	if (template->mode == XFRM_MODE_TRANSPORT && any_source && any_target)
		return true;
	return template->family == family && encryption_is_address(&template->id.daddr, flow->target, family) &&
	       (any_source || encryption_is_address(&template->saddr, flow->source, family));
}

/* Whether the template asks for ESP between the two hosts; else `leak` says what it does. */
static bool is_protective(const struct xfrm_user_tmpl *template, const struct encryption_flow *flow, const char **leak)
{
	if (template->id.proto != IPPROTO_ESP)
		*leak = "does not ask for ESP";
	else if (template->optional)
		*leak = "has level use, which lets packets go in clear: ask for level required";
	else if (template->mode != XFRM_MODE_TRANSPORT && template->mode != XFRM_MODE_TUNNEL)
		*leak = "has a mode other than transport and tunnel";
	else if (!is_between(template, flow))
		*leak = "ends at other addresses than the two hosts'";
	else
		return true;
	return false;
}

static bool find_protection(struct netlink_cursor templates, const struct encryption_flow *flow, struct xfrm_user_tmpl *template, const char **leak)
{
	*leak = "lets packets go in clear";
	while (netlink_take(&templates, template, sizeof *template))
		if (is_protective(template, flow, leak))
			return true;
	return false;
}

static void note_leak(struct encryption_policies *policies, uint32_t priority, const char *leak)
{
	if (policies->leaks && policies->leaks_priority <= priority)
		return;
	policies->leaks = true;
	policies->leaks_priority = priority;
	policies->leak = leak;
}

int encryption_policy_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_policies *policies = arg;
	const struct encryption_flow *flow = &policies->flow;
	struct netlink_cursor body = message->body;
	struct xfrm_userpolicy_info info;
	struct xfrm_user_tmpl template;
	struct limits limits = {0};
	enum encryption_match match;
	const char *leak;

	/* Policies of single sockets have directions of their own. */
	if (message->type != XFRM_MSG_NEWPOLICY || !netlink_take(&body, &info, sizeof info) || info.dir != flow->direction)
		return 0;
	take_limits(body, &limits);
	match = encryption_selector_match(&info.sel, flow);
	if (match == ENCRYPTION_MATCHES_NONE || limits.other_interface)
		return 0;
	if (limits.is_sub)
		note_leak(policies, 0, "is a sub-policy, which this check does not judge");
	else if (info.action != XFRM_POLICY_ALLOW)
		note_leak(policies, info.priority, "blocks the packets");
	else if (!find_protection(limits.templates, flow, &template, &leak))
		note_leak(policies, info.priority, leak);
	else if (flow->offload != 0 && limits.offload != flow->offload)
		note_leak(policies, info.priority, "is not offloaded to the adapter (offload packet)");
	else if (match == ENCRYPTION_MATCHES_ALL && !limits.narrower && (!policies->protects || info.priority < policies->protects_priority)) {
		policies->protects = true;
		policies->protects_priority = info.priority;
		policies->mode = template.mode;
		policies->reqid = template.reqid;
		policies->offloaded = limits.offload != 0;
	}
	return 0;
}
