/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of encryption.h share: a path, what the kernel says about it, and how a verdict is made of that. Each parser takes one
 * message of the kernel and believes nothing about its length. */
#ifndef AGENT_ENCRYPTION_PARTS_H
#define AGENT_ENCRYPTION_PARTS_H

#include "encryption.h"
#include "netlink.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>

/* Behind the C library's own definitions of addresses. */
#include <linux/xfrm.h>

/* From one address to another of the same family. IPv4 addresses have four bytes, and zeros behind them. */
struct encryption_path {
	enum encryption_device device;
	int family;
	uint8_t own[16], peer[16];
	char own_text[INET6_ADDRSTRLEN], peer_text[INET6_ADDRSTRLEN];
	int netdev; /* of the own address; 0: not known */
	int out;    /* the network device that the packets leave by; 0: not known */
	bool local; /* both ends are on this host */
	bool gateway, multipath;
};

struct encryption_answer {
	char *what, *why;
};

/* Each returns 0 with `what`, or an error of encryption_check with `why`. Several reasons for one refusal follow each other. */
int encryption_grant(const struct encryption_answer *answer, const char *format, ...) __attribute__((format(printf, 2, 3)));
int encryption_refuse(const struct encryption_answer *answer, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The error of a list that could not be read: one that changed meanwhile is worth another try. */
static inline int encryption_unread(int error)
{
	return error == -EBUSY ? -EAGAIN : -EACCES;
}

static inline size_t encryption_address_size(int family)
{
	return family == AF_INET ? 4 : 16;
}

/* Whether the first bits are the same; at most 128, and of IPv4 32. */
bool encryption_has_prefix(const void *address, const void *prefix, unsigned bits);
/* The last name is NULL. */
bool encryption_is_one_of(const char *name, const char *const names[]);

/* ---- encryption_route.c: where the packets go ---- */

/* Fills in everything behind `device`. Errors: those of encryption_check. */
int encryption_path_find(struct encryption_path *path, int fd, const uint8_t own[16], const uint8_t peer[16], const char *netdev,
			 const struct encryption_answer *answer);

struct encryption_route {
	int family;
	uint8_t type;
	int out;
	bool gateway;
	bool multipath; /* there are several ways, or they cannot be told */
};
int encryption_route_parse(const struct netlink_message *message, void *route);

/* Looks for an address. */
struct encryption_owner {
	int family;
	uint8_t address[16];
	int netdev; /* asked for, or 0; the result, or 0 */
	int found;
};
int encryption_owner_parse(const struct netlink_message *message, void *owner);

/* Whether rules that look at the user or the traffic class choose between routes. */
int encryption_rule_parse(const struct netlink_message *message, void *unclear);

/* The hardware address of the peer on a network device. */
struct encryption_neighbour {
	bool known;
	uint8_t address[6];
};
int encryption_neighbour_parse(const struct netlink_message *message, void *neighbour);
/* Errors: -EAGAIN it is not known; the kernel has been asked to find it out. */
int encryption_neighbour_find(int fd, const struct encryption_path *path, int netdev, struct encryption_neighbour *neighbour);

/* ---- encryption_link.c: what the network devices on the way do ---- */

struct encryption_link {
	int index;
	char name[IF_NAMESIZE], kind[16];
	int beneath;      /* the device below, of a VLAN for instance; 0: none */
	bool elsewhere;   /* that one is in another network namespace */
};
int encryption_link_parse(const struct netlink_message *message, void *link);

#define ENCRYPTION_MEMBERS 32
struct encryption_members {
	int master;
	unsigned count;
	int index[ENCRYPTION_MEMBERS];
};
int encryption_member_parse(const struct netlink_message *message, void *members);

int encryption_link_judge(const struct encryption_path *path, int fd, const struct encryption_answer *answer);

/* ---- encryption_macsec.c ---- */

struct encryption_macsec {
	int index;
	uint8_t peer[6];                   /* hardware address to look for among the receive channels */
	bool found, protects, encrypts, strict, sends, receives;
	bool receives_others;              /* there is a receive channel, of another address */
};
int encryption_macsec_parse(const struct netlink_message *message, void *macsec);
/* Reads the state of one device. */
int encryption_macsec_read(struct encryption_macsec *macsec);

/* ---- encryption_wireguard.c ---- */

struct encryption_wireguard {
	int family;
	uint8_t peer[16];
	bool found;       /* a peer of the device has the address among its allowed IPs */
	uint8_t prefix;   /* the longest of them */
};
int encryption_wireguard_parse(const struct netlink_message *message, void *wireguard);
int encryption_wireguard_judge(const struct encryption_path *path, const struct encryption_link *link, const struct encryption_answer *answer);

/* ---- encryption_policy.c, encryption_state.c: IPsec ---- */

/* Packets of one direction, as the policies see them. */
struct encryption_flow {
	int family;
	uint8_t source[16], target[16];
	uint8_t direction;      /* XFRM_POLICY_IN or XFRM_POLICY_OUT */
	uint16_t ports[2];      /* the target ports that the policies may be asked about; source ports vary */
	int offload;            /* an adapter's network device: only what is offloaded to it counts; 0: all do */
};

enum encryption_match { ENCRYPTION_MATCHES_NONE, ENCRYPTION_MATCHES_SOME, ENCRYPTION_MATCHES_ALL };
/* Whether the selector takes packets of the flow. */
enum encryption_match encryption_selector_match(const struct xfrm_selector *selector, const struct encryption_flow *flow);

bool encryption_is_address(const xfrm_address_t *address, const uint8_t expected[16], int family);
bool encryption_is_any(const xfrm_address_t *address, int family);

/* Of all policies of a direction: the strongest one that encrypts all packets of the flow, and the strongest one that may let some go in
 * clear. A lower priority is stronger. */
struct encryption_policies {
	struct encryption_flow flow;
	bool protects, leaks;
	uint32_t protects_priority, leaks_priority;
	uint8_t mode;       /* of the template that protects */
	uint32_t reqid;     /* likewise; 0: any */
	bool offloaded;
	const char *leak;   /* why that one does not count */
};
int encryption_policy_parse(const struct netlink_message *message, void *policies);

/* Of all ESP states of a direction. */
struct encryption_states {
	struct encryption_flow flow;
	uint8_t mode;
	uint32_t reqid;
	unsigned good;
	bool bad;               /* one of them does not encrypt */
	uint32_t bad_spi;
	const char *bad_reason;
	bool offloaded;         /* one of the good ones is, to an adapter */
	char algorithm[64];
};
int encryption_state_parse(const struct netlink_message *message, void *states);

int encryption_ipsec_judge(const struct encryption_path *path, const struct encryption_answer *answer);

#endif
