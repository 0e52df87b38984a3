/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel's answers about IPsec mean for a path: messages made here, field by field. tests/integration/test_encryption.py has the
 * kernel's own, and what is on the wire. */
#include "test.h"

#include "encryption_parts.h"

#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

static const uint8_t near[16] = {10, 99, 0, 1}, far[16] = {10, 99, 0, 2}, third[16] = {10, 99, 0, 3};

static struct encryption_flow flow_out(void)
{
	struct encryption_flow flow = {.family = AF_INET, .direction = XFRM_POLICY_OUT, .ports = {4791, 4791}};

	memcpy(flow.source, near, sizeof flow.source);
	memcpy(flow.target, far, sizeof flow.target);
	return flow;
}

/* Of rdma_rxe, whose packets have no ports yet when the policy is looked up. */
static struct encryption_flow flow_of_rxe(void)
{
	struct encryption_flow flow = flow_out();

	flow.ports[0] = 0;
	return flow;
}

/* The body of a message. */
struct draft {
	uint8_t bytes[1024];
	size_t size;
};

static void put(struct draft *draft, uint16_t type, const void *data, size_t length)
{
	struct nlattr header = {.nla_len = (uint16_t)(sizeof header + length), .nla_type = type};

	memcpy(draft->bytes + draft->size, &header, sizeof header);
	memcpy(draft->bytes + draft->size + sizeof header, data, length);
	draft->size += NLA_ALIGN(sizeof header + length);
}

/* From a block of exactly its size, so that a sanitizer sees what is read beyond it. */
static int parse(const struct draft *draft, size_t size, uint16_t type, int (*parser)(const struct netlink_message *, void *), void *out)
{
	uint8_t *copy = malloc(size + 1);
	struct netlink_message message = {.type = type, .body = {copy, size}};
	int ret;

	memcpy(copy, draft->bytes, size);
	ret = parser(&message, out);
	free(copy);
	return ret;
}

struct policy {
	struct xfrm_userpolicy_info info;
	struct xfrm_user_tmpl template;
	bool no_template;
	struct xfrm_mark mark;
	uint32_t interface;
	struct xfrm_user_offload offload;
};

static struct policy policy_out(void)
{
	struct policy policy = {
		.info = {.sel = {.family = AF_INET, .prefixlen_s = 32, .prefixlen_d = 32, .proto = IPPROTO_UDP}, .dir = XFRM_POLICY_OUT, .priority = 10},
		.template = {.id = {.proto = IPPROTO_ESP}, .family = AF_INET, .reqid = 1, .mode = XFRM_MODE_TRANSPORT},
	};

	memcpy(&policy.info.sel.saddr, near, 16);
	memcpy(&policy.info.sel.daddr, far, 16);
	memcpy(&policy.template.saddr, near, 16);
	memcpy(&policy.template.id.daddr, far, 16);
	return policy;
}

static void take_policy(struct encryption_policies *policies, const struct policy *policy)
{
	struct draft draft = {.size = NLMSG_ALIGN(sizeof policy->info)};
	struct encryption_policies ignored;

	memcpy(draft.bytes, &policy->info, sizeof policy->info);
	if (!policy->no_template)
		put(&draft, XFRMA_TMPL, &policy->template, sizeof policy->template);
	if (policy->mark.m != 0)
		put(&draft, XFRMA_MARK, &policy->mark, sizeof policy->mark);
	if (policy->interface != 0)
		put(&draft, XFRMA_IF_ID, &policy->interface, sizeof policy->interface);
	if (policy->offload.ifindex != 0)
		put(&draft, XFRMA_OFFLOAD_DEV, &policy->offload, sizeof policy->offload);
	for (size_t size = 0; size < draft.size; size++) {
		ignored = (struct encryption_policies){.flow = policies->flow};
		assert_int_equal(parse(&draft, size, XFRM_MSG_NEWPOLICY, encryption_policy_parse, &ignored), 0);
	}
	assert_int_equal(parse(&draft, draft.size, XFRM_MSG_NEWPOLICY, encryption_policy_parse, policies), 0);
}

static bool protects(struct encryption_flow flow, const struct policy *policy)
{
	struct encryption_policies policies = {.flow = flow};

	take_policy(&policies, policy);
	return policies.protects && !policies.leaks;
}

static bool leaks(struct encryption_flow flow, const struct policy *policy)
{
	struct encryption_policies policies = {.flow = flow};

	take_policy(&policies, policy);
	assert_true(!policies.leaks || policies.leak);
	return policies.leaks;
}

TEST(policy_between_the_hosts_protects)
{
	struct policy policy = policy_out();

	assert_true(protects(flow_out(), &policy));
	assert_true(protects(flow_of_rxe(), &policy));
	policy.info.sel.proto = 0;
	policy.info.sel.prefixlen_s = 24;
	policy.info.sel.prefixlen_d = 0;
	assert_true(protects(flow_out(), &policy));
	policy.template.mode = XFRM_MODE_TUNNEL;
	assert_true(protects(flow_out(), &policy));
	/* What lies behind an IPv4 address has no meaning. */
	memset((uint8_t *)&policy.template.id.daddr + 4, 0xee, 12);
	memset((uint8_t *)&policy.template.saddr + 4, 0xee, 12);
	assert_true(protects(flow_out(), &policy));
}

TEST(policy_with_a_port_does_not_hold_for_rxe)
{
	struct policy policy = policy_out();

	policy.info.sel.dport = htons(4791);
	policy.info.sel.dport_mask = 0xffff;
	assert_true(protects(flow_out(), &policy));
	assert_false(protects(flow_of_rxe(), &policy));
	policy.info.sel.dport = htons(4792);
	assert_false(protects(flow_out(), &policy));
	policy.info.sel.dport = htons(4791);
	policy.info.sel.sport = htons(4791);
	policy.info.sel.sport_mask = 0xffff;
	assert_false(protects(flow_out(), &policy));
}

TEST(policy_for_others_does_not_count)
{
	struct policy policy;
	struct encryption_flow flow = flow_out();

	policy = policy_out(), memcpy(&policy.info.sel.daddr, third, 16);
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.info.sel.proto = IPPROTO_TCP;
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.info.dir = XFRM_POLICY_IN;
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.info.sel.family = AF_INET6;
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.interface = 7;
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.info.sel.ifindex = 3;
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
	policy = policy_out(), policy.mark = (struct xfrm_mark){1, 1};
	assert_false(protects(flow, &policy) || leaks(flow, &policy));
}

TEST(policy_that_does_not_encrypt_leaks)
{
	struct policy policy;
	struct encryption_flow flow = flow_out();

	policy = policy_out(), policy.no_template = true;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.template.optional = 1;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.template.id.proto = IPPROTO_AH;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.template.mode = XFRM_MODE_BEET;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.info.action = XFRM_POLICY_BLOCK;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.template.mode = XFRM_MODE_TUNNEL, memcpy(&policy.template.id.daddr, third, 16);
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.template.family = AF_INET6, policy.template.mode = XFRM_MODE_TUNNEL;
	assert_true(leaks(flow, &policy));
	/* One that lets some of the packets pass leaks as well. */
	policy = policy_out(), policy.no_template = true, policy.info.sel.sport = htons(4791), policy.info.sel.sport_mask = 0xffff;
	assert_true(leaks(flow, &policy));
	policy = policy_out(), policy.no_template = true, policy.mark = (struct xfrm_mark){1, 1};
	assert_true(leaks(flow, &policy));
}

TEST(strongest_policies_are_found_in_any_order)
{
	static const uint32_t orders[][3] = {{5, 10, 20}, {20, 10, 5}, {10, 20, 5}};

	for (int i = 0; i < 3; i++) {
		struct encryption_policies policies = {.flow = flow_out()};

		for (int j = 0; j < 3; j++) {
			struct policy policy = policy_out();

			policy.info.priority = orders[i][j];
			policy.template.reqid = orders[i][j];
			take_policy(&policies, &policy);
			policy.no_template = true;
			policy.info.priority += 100;
			take_policy(&policies, &policy);
		}
		assert_int_equal(policies.protects_priority, 5);
		assert_int_equal(policies.reqid, 5);
		assert_int_equal(policies.leaks_priority, 105);
	}
}

TEST(adapter_wants_packet_offload)
{
	struct policy policy = policy_out();
	struct encryption_flow flow = flow_out();

	flow.offload = 7;
	assert_true(leaks(flow, &policy));
	policy.offload = (struct xfrm_user_offload){.ifindex = 7};
	assert_true(leaks(flow, &policy));
	policy.offload.flags = XFRM_OFFLOAD_PACKET;
	assert_true(protects(flow, &policy));
	policy.offload.ifindex = 8;
	assert_true(leaks(flow, &policy));
}

struct sa {
	struct xfrm_usersa_info info;
	uint16_t kind; /* XFRMA_ALG_AEAD or XFRMA_ALG_CRYPT; 0: none */
	const char *algorithm, *authentication;
	struct xfrm_user_offload offload;
};

static struct sa sa_out(void)
{
	struct sa sa = {
		.info = {.id = {.spi = htonl(0x1001), .proto = IPPROTO_ESP}, .family = AF_INET, .reqid = 1, .mode = XFRM_MODE_TRANSPORT},
		.kind = XFRMA_ALG_AEAD, .algorithm = "rfc4106(gcm(aes))",
	};

	memcpy(&sa.info.saddr, near, 16);
	memcpy(&sa.info.id.daddr, far, 16);
	return sa;
}

/* Each algorithm has its name in 64 bytes, and the length of its key. */
static void put_algorithm(struct draft *draft, uint16_t type, const char *name)
{
	char algorithm[72] = "";

	snprintf(algorithm, sizeof algorithm, "%s", name);
	put(draft, type, algorithm, sizeof algorithm);
}

static struct encryption_states judge(const struct encryption_flow *flow, const struct sa *sa)
{
	const struct encryption_states none = {.flow = *flow, .mode = XFRM_MODE_TRANSPORT, .reqid = 1};
	struct draft draft = {.size = NLMSG_ALIGN(sizeof sa->info)};
	struct encryption_states states;

	memcpy(draft.bytes, &sa->info, sizeof sa->info);
	if (sa->kind)
		put_algorithm(&draft, sa->kind, sa->algorithm);
	if (sa->authentication)
		put_algorithm(&draft, XFRMA_ALG_AUTH_TRUNC, sa->authentication);
	if (sa->offload.ifindex)
		put(&draft, XFRMA_OFFLOAD_DEV, &sa->offload, sizeof sa->offload);
	for (size_t size = 0; size <= draft.size; size++) {
		states = none;
		assert_int_equal(parse(&draft, size, XFRM_MSG_NEWSA, encryption_state_parse, &states), 0);
	}
	return states;
}

static void assert_judged(const struct sa *sa, bool good, bool bad)
{
	struct encryption_flow flow = flow_out();
	struct encryption_states states = judge(&flow, sa);

	assert_int_equal(states.good, good);
	assert_int_equal(states.bad, bad);
	assert_true(!bad || states.bad_reason);
}

TEST(algorithms_are_told_apart)
{
	static const struct { uint16_t kind; const char *algorithm, *authentication; bool good; } cases[] = {
		{XFRMA_ALG_AEAD, "rfc4106(gcm(aes))", NULL, true}, {XFRMA_ALG_AEAD, "rfc7539esp(chacha20,poly1305)", NULL, true},
		{XFRMA_ALG_AEAD, "rfc4543(gcm(aes))", NULL, false}, {XFRMA_ALG_AEAD, "something new", NULL, false},
		{XFRMA_ALG_CRYPT, "cbc(aes)", "hmac(sha256)", true}, {XFRMA_ALG_CRYPT, "cbc(aes)", NULL, false},
		{XFRMA_ALG_CRYPT, "cbc(aes)", "digest_null", false}, {XFRMA_ALG_CRYPT, "ecb(cipher_null)", "hmac(sha256)", false},
		{XFRMA_ALG_CRYPT, "cbc(des3_ede)", "hmac(sha256)", false},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct sa sa = sa_out();

		sa.kind = cases[i].kind;
		sa.algorithm = cases[i].algorithm;
		sa.authentication = cases[i].authentication;
		assert_judged(&sa, cases[i].good, !cases[i].good);
	}
}

TEST(states_that_do_not_fit_do_not_count)
{
	struct sa sa;
	struct encryption_flow flow = flow_out();

	sa = sa_out(), sa.kind = 0; /* waits for its keys */
	assert_judged(&sa, false, false);
	sa = sa_out(), sa.info.reqid = 2;
	assert_judged(&sa, false, false);
	sa = sa_out(), sa.info.mode = XFRM_MODE_TUNNEL;
	assert_judged(&sa, false, false);
	sa = sa_out(), memcpy(&sa.info.id.daddr, third, 16);
	assert_judged(&sa, false, false);
	sa = sa_out(), sa.info.id.proto = IPPROTO_AH;
	assert_judged(&sa, false, false);
	sa = sa_out(), sa.info.sel = (struct xfrm_selector){.family = AF_INET, .proto = IPPROTO_UDP, .dport = htons(4791), .dport_mask = 0xffff};
	assert_judged(&sa, true, false);
	sa.info.sel.dport = htons(22);
	assert_judged(&sa, false, false);
	/* One that does not encrypt is dangerous under any number. */
	sa = sa_out(), sa.info.reqid = 2, sa.kind = XFRMA_ALG_CRYPT, sa.algorithm = "ecb(cipher_null)", sa.authentication = "hmac(sha256)";
	assert_judged(&sa, false, true);

	flow.offload = 7;
	sa = sa_out();
	assert_int_equal(judge(&flow, &sa).good, 0);
	sa.offload = (struct xfrm_user_offload){.ifindex = 7};
	assert_int_equal(judge(&flow, &sa).good, 0);
	sa.offload.flags = XFRM_OFFLOAD_PACKET;
	assert_int_equal(judge(&flow, &sa).good, 1);
	assert_true(judge(&flow, &sa).offloaded);
}

/* A bundle with more devices than can be judged is not judged by some of them. */
TEST(too_many_members_are_an_error)
{
	struct encryption_members members = {.master = 9};
	uint32_t master = 9;
	int ret = 0;

	for (int i = 0; i <= ENCRYPTION_MEMBERS; i++) {
		struct ifinfomsg header = {.ifi_index = 100 + i};
		struct draft draft = {.size = NLMSG_ALIGN(sizeof header)};

		memcpy(draft.bytes, &header, sizeof header);
		put(&draft, IFLA_MASTER, &master, sizeof master);
		ret = parse(&draft, draft.size, RTM_NEWLINK, encryption_member_parse, &members);
		assert_int_equal(ret, i < ENCRYPTION_MEMBERS ? 0 : -E2BIG);
	}
	assert_int_equal(members.count, ENCRYPTION_MEMBERS);
}

/* ---- what the kernel of Debian 12 answered, in the network of tests/integration/test_encryption.py ---- */

static void read_recorded(const char *name, int (*parser)(const struct netlink_message *, void *), void *out)
{
	struct netlink_message message;
	struct netlink_cursor rest;
	uint8_t bytes[4096];
	char path[512];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", RECORDED, name);
	file = fopen(path, "rbe");
	assert_non_null(file);
	rest = (struct netlink_cursor){bytes, fread(bytes, 1, sizeof bytes, file)};
	fclose(file);
	while (netlink_message_next(&rest, &message))
		assert_int_equal(parser(&message, out), 0);
	assert_int_equal(rest.left, 0);
}

TEST(recorded_route_is_read)
{
	struct encryption_route route = {.family = AF_INET}, entry = {.family = AF_INET};
	struct encryption_owner owner = {.family = AF_INET, .address = {10, 99, 0, 1}};

	read_recorded("addresses", encryption_owner_parse, &owner);
	read_recorded("route", encryption_route_parse, &route);
	read_recorded("entry", encryption_route_parse, &entry);
	assert_int_equal(route.type, RTN_UNICAST);
	assert_true(owner.found > 0 && owner.found == route.out && entry.out == route.out);
	assert_false(route.gateway || route.multipath || entry.multipath);
	owner = (struct encryption_owner){.family = AF_INET, .address = {10, 99, 0, 9}};
	read_recorded("addresses", encryption_owner_parse, &owner);
	assert_int_equal(owner.found, 0);
}

TEST(recorded_rules_do_not_look_at_users)
{
	bool unclear = false;

	read_recorded("rules", encryption_rule_parse, &unclear);
	assert_false(unclear);
}

TEST(rules_that_look_at_users_or_classes_are_unclear)
{
	struct fib_rule_hdr header = {.family = AF_INET};
	struct fib_rule_uid_range range = {1000, 1000};
	struct draft draft = {.size = NLMSG_ALIGN(sizeof header)};
	bool unclear = false;

	put(&draft, FRA_UID_RANGE, &range, sizeof range);
	assert_int_equal(parse(&draft, draft.size, RTM_NEWRULE, encryption_rule_parse, &unclear), 0);
	assert_true(unclear);
	header.tos = 16;
	memcpy(draft.bytes, &header, sizeof header);
	unclear = false;
	assert_int_equal(parse(&draft, sizeof header, RTM_NEWRULE, encryption_rule_parse, &unclear), 0);
	assert_true(unclear);
}

TEST(recorded_macsec_device_is_read)
{
	struct encryption_neighbour neighbour = {0};
	struct encryption_macsec macsec = {0};
	struct encryption_link link = {0};

	read_recorded("neighbour", encryption_neighbour_parse, &neighbour);
	assert_true(neighbour.known);
	memcpy(macsec.peer, neighbour.address, sizeof macsec.peer);
	for (link.index = macsec.index = 1; link.index < 100 && !link.name[0]; link.index++, macsec.index++)
		read_recorded("link", encryption_link_parse, &link);
	assert_string_equal(link.name, "macsec0");
	assert_string_equal(link.kind, "macsec");
	assert_true(link.beneath > 0 && !link.elsewhere);
	macsec.index--;
	read_recorded("macsec", encryption_macsec_parse, &macsec);
	assert_true(macsec.found && macsec.protects && macsec.encrypts && macsec.strict && macsec.sends && macsec.receives);
	macsec = (struct encryption_macsec){.index = macsec.index, .peer = {1}};
	read_recorded("macsec", encryption_macsec_parse, &macsec);
	assert_true(macsec.found && !macsec.receives && macsec.receives_others);
	macsec = (struct encryption_macsec){.index = macsec.index + 50};
	read_recorded("macsec", encryption_macsec_parse, &macsec);
	assert_false(macsec.found);
}

TEST(recorded_wireguard_device_is_read)
{
	static const struct { int family; uint8_t peer[16]; bool found; uint8_t prefix; } cases[] = {
		{AF_INET, {10, 98, 0, 2}, true, 32}, {AF_INET, {10, 50, 200, 1}, true, 16}, {AF_INET, {10, 51, 0, 1}, false, 0},
		{AF_INET6, {0xfd, 0x98, [15] = 2}, true, 128}, {AF_INET6, {10, 98, 0, 2}, false, 0},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct encryption_wireguard wireguard = {.family = cases[i].family};

		memcpy(wireguard.peer, cases[i].peer, sizeof wireguard.peer);
		read_recorded("wireguard", encryption_wireguard_parse, &wireguard);
		assert_int_equal(wireguard.found, cases[i].found);
		assert_int_equal(wireguard.prefix, cases[i].prefix);
	}
}

/* Two policies between the hosts, and a weaker one with level use. */
TEST(recorded_ipsec_is_read)
{
	struct encryption_policies policies = {.flow = flow_out()};
	struct encryption_states states = {.flow = flow_out(), .mode = XFRM_MODE_TRANSPORT, .reqid = 1};

	read_recorded("policies", encryption_policy_parse, &policies);
	assert_true(policies.protects && policies.protects_priority == 10 && policies.reqid == 1);
	assert_true(policies.leaks && policies.leaks_priority == 20);
	assert_text_says(policies.leak, "level use");
	read_recorded("state", encryption_state_parse, &states);
	assert_true(states.good == 1 && !states.bad);
	assert_string_equal(states.algorithm, "rfc4106(gcm(aes))");
}

RUN_TESTS(NULL, NULL)
