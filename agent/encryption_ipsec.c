/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the kernel's IPsec (xfrm) encrypts what goes from one host to the other, and drops what comes back in clear. */
#include "encryption_parts.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROCE_PORT 4791

static const char *const directions[] = {[XFRM_POLICY_IN] = "in", [XFRM_POLICY_OUT] = "out"};

static struct encryption_flow flow_of(const struct encryption_path *path, uint8_t direction)
{
	bool out = direction == XFRM_POLICY_OUT;
	struct encryption_flow flow = {
		.family = path->family, .direction = direction, .ports = {ROCE_PORT, ROCE_PORT},
		.offload = path->device == ENCRYPTION_HARDWARE ? path->out : 0,
	};

	memcpy(flow.source, out ? path->own : path->peer, sizeof flow.source);
	memcpy(flow.target, out ? path->peer : path->own, sizeof flow.target);
	/* rdma_rxe looks for its route, and with it for the policy, before it has ports: a policy for port 4791 never sees its packets. */
	if (out && path->device == ENCRYPTION_RXE)
		flow.ports[0] = 0;
	return flow;
}

static int ask_states(int fd, struct encryption_states *states)
{
	const struct encryption_flow *flow = &states->flow;
	struct xfrm_address_filter filter = {.family = (uint16_t)flow->family, .dplen = (uint8_t)(8 * encryption_address_size(flow->family))};
	uint8_t esp = IPPROTO_ESP;
	struct netlink_request request;

	memcpy(&filter.daddr, flow->target, sizeof filter.daddr);
	netlink_begin(&request, XFRM_MSG_GETSA, NLM_F_DUMP, NULL, 0);
	netlink_put(&request, XFRMA_ADDRESS_FILTER, &filter, sizeof filter);
	netlink_put(&request, XFRMA_PROTO, &esp, sizeof esp);
	return netlink_ask(fd, &request, encryption_state_parse, states);
}

static int refuse_unread(const struct encryption_answer *answer, const char *what, int error)
{
	if (error == -EPERM)
		return encryption_refuse(answer, -EPERM, "may not read the IPsec %s: run this as root or with CAP_NET_ADMIN", what);
	if (error == -E2BIG)
		return encryption_refuse(answer, -EACCES, "there are more than %d IPsec %s, too many to read", NETLINK_MESSAGES, what);
	return encryption_refuse(answer, -EACCES, "cannot read the IPsec %s: %s", what, strerror(-error));
}

static int judge_policies(int fd, struct encryption_policies *policies, const struct encryption_path *path, const struct encryption_answer *answer)
{
	const char *direction = directions[policies->flow.direction];
	struct netlink_request request;
	int ret;

	netlink_begin(&request, XFRM_MSG_GETPOLICY, NLM_F_DUMP, NULL, 0);
	ret = netlink_ask(fd, &request, encryption_policy_parse, policies);
	if (ret < 0)
		return refuse_unread(answer, "policies", ret);
	/* Of two with the same priority the order decides, which the kernel does not tell. */
	if (policies->leaks && (!policies->protects || policies->leaks_priority <= policies->protects_priority))
		return encryption_refuse(answer, -EACCES, "an IPsec policy (dir %s, priority %u) %s", direction, (unsigned)policies->leaks_priority,
					 policies->leak);
	if (!policies->protects)
		return encryption_refuse(answer, -EACCES, "no IPsec policy (dir %s) covers all UDP %s %s%s", direction,
					 policies->flow.direction == XFRM_POLICY_OUT ? "to" : "from", path->peer_text,
					 path->device == ENCRYPTION_RXE && policies->flow.direction == XFRM_POLICY_OUT ? "; for rdma_rxe it must name no port" : "");
	return 0;
}

static int judge_direction(int fd, uint8_t direction, const struct encryption_path *path, const struct encryption_answer *answer,
			   struct encryption_states *states)
{
	struct encryption_policies policies = {.flow = flow_of(path, direction)};
	int ret = judge_policies(fd, &policies, path, answer);

	if (ret < 0)
		return ret;
	*states = (struct encryption_states){.flow = policies.flow, .mode = policies.mode, .reqid = policies.reqid};
	ret = ask_states(fd, states);
	if (ret < 0)
		return refuse_unread(answer, "states", ret);
	if (states->bad)
		return encryption_refuse(answer, -EACCES, "the IPsec state 0x%08x (dir %s) has %s", (unsigned)states->bad_spi, directions[direction],
					 states->bad_reason);
	if (states->good == 0)
		return encryption_refuse(answer, -EACCES, "there is an IPsec policy (dir %s), but no state that fits it%s: ip xfrm state", directions[direction],
					 path->device == ENCRYPTION_HARDWARE ? " and is offloaded to the adapter (offload packet)" : "");
	return 0;
}

/* A switch of a network device ("disable_xfrm") under /proc/sys; a name of NULL is that of all devices. */
static bool is_on(int family, int index, const char *which)
{
	char path[128], name[IF_NAMESIZE] = "all";
	int value = 0;
	FILE *file;

	if (index != 0 && !if_indextoname((unsigned)index, name))
		return true;
	snprintf(path, sizeof path, "/proc/sys/net/ipv%d/conf/%s/%s", family == AF_INET ? 4 : 6, name, which);
	file = fopen(path, "re");
	if (!file)
		return family == AF_INET; /* of IPv6 not all kernels have it */
	if (fscanf(file, "%d", &value) != 1)
		value = 1;
	fclose(file);
	return value != 0;
}

static int refuse_switched_off(const struct encryption_path *path, const struct encryption_answer *answer)
{
	char name[IF_NAMESIZE] = "?";

	if (path->family == AF_INET && (is_on(AF_INET, 0, "disable_xfrm") || is_on(AF_INET, path->out, "disable_xfrm")))
		return encryption_refuse(answer, -EACCES, "net.ipv4.conf.%s.disable_xfrm switches IPsec off, or cannot be read",
					 if_indextoname((unsigned)path->out, name) ? name : "?");
	if (is_on(path->family, 0, "disable_policy") || is_on(path->family, path->netdev, "disable_policy"))
		return encryption_refuse(answer, -EACCES, "net.ipv%d.conf.%s.disable_policy switches the IPsec policies for arriving packets off, or cannot be read",
					 path->family == AF_INET ? 4 : 6, if_indextoname((unsigned)path->netdev, name) ? name : "?");
	return 0;
}

int encryption_ipsec_judge(const struct encryption_path *path, const struct encryption_answer *answer)
{
	struct encryption_states out, in;
	int fd = netlink_open(NETLINK_XFRM), ret;

	if (fd < 0)
		return encryption_refuse(answer, -EACCES, "the kernel has no IPsec that can be read (NETLINK_XFRM): %s", strerror(-fd));
	ret = judge_direction(fd, XFRM_POLICY_OUT, path, answer, &out);
	if (ret == 0)
		ret = judge_direction(fd, XFRM_POLICY_IN, path, answer, &in);
	close(fd);
	if (ret < 0 || (ret = refuse_switched_off(path, answer)) < 0)
		return ret;
	return encryption_grant(answer, "IPsec, %s%s", out.algorithm, out.offloaded ? ", offloaded" : "");
}
