/* SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include "clock.h"
#include "log.h"
#include "resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel detects a vanished peer (cable pulled, power lost) after KEEPALIVE_IDLE + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL. */
#define KEEPALIVE_IDLE_S 5
#define KEEPALIVE_INTERVAL_S 2
#define KEEPALIVE_COUNT 3
#define BACKLOG 512
/* The caller of a new listener gives no deadline for the lookup. */
#define RESOLVE_MS 10000

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int srdma_net_prepare(int fd)
{
	int one = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, count = KEEPALIVE_COUNT;
	unsigned user_ms = (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT) * 1000;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) || setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms))
		return srdma_fail(-errno, "cannot set TCP options: %s", strerror(errno));
	return 0;
}

int srdma_net_wait(int fd, short events, uint64_t deadline)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};

	for (;;) {
		int left = srdma_deadline_left_ms(deadline);
		int n = poll(&poll_fd, 1, left);

		if (n > 0)
			return 0;
		if (n == 0 && left == 0)
			return -ETIMEDOUT;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int listen_one(const struct addrinfo *ai, bool any, int *out)
{
	int one = 1, zero = 0;
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* "All addresses" is one IPv6 socket that also accepts IPv4. */
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &zero : &one, sizeof one);
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	*out = fd;
	return 0;
}

int srdma_net_listen(const char *address, const char *port, int *out)
{
	struct addrinfo *list = NULL;
	int ret = srdma_resolve(address, port, AI_PASSIVE, srdma_deadline(RESOLVE_MS), &list);

	if (ret != 0)
		return ret;
	ret = -EADDRNOTAVAIL;
	for (int pass = 0; pass < 2 && ret != 0; pass++) {
		for (struct addrinfo *ai = list; ai && ret != 0; ai = ai->ai_next) {
			/* Without an address IPv6 comes first, since it serves both families. */
			if (!address && (ai->ai_family == AF_INET6) != (pass == 0))
				continue;
			ret = listen_one(ai, !address, out);
		}
		if (ret == -EADDRINUSE)
			break;
	}
	freeaddrinfo(list);
	if (ret != 0)
		return srdma_fail(ret, "cannot listen on %s port %s: %s%s", address ? address : "all addresses,", port, strerror(-ret),
				  ret == -EADDRINUSE      ? "; another program listens there: choose another port"
				  : ret == -EADDRNOTAVAIL ? "; no network interface of this machine has that address"
				  : ret == -EACCES        ? "; ports below 1024 need privileges"
							  : "");
	return 0;
}

bool srdma_net_gid_is_v4(const union ibv_gid *gid)
{
	return memcmp(gid->raw, v4_mapped, sizeof v4_mapped) == 0;
}

bool srdma_net_gid_of(const struct sockaddr *address, union ibv_gid *gid)
{
	if (address->sa_family == AF_INET6) {
		memcpy(gid->raw, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
		return true;
	}
	if (address->sa_family == AF_INET) {
		memcpy(gid->raw, v4_mapped, sizeof v4_mapped);
		memcpy(gid->raw + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
		return true;
	}
	return false;
}

bool srdma_net_gid_is_link_local(const union ibv_gid *gid)
{
	return IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)gid->raw);
}

uint32_t srdma_net_interface(const struct sockaddr *address)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

	return address->sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) ? in6->sin6_scope_id : 0;
}

bool srdma_net_is_loopback(const struct sockaddr *address)
{
	union ibv_gid gid;

	if (!srdma_net_gid_of(address, &gid))
		return false;
	if (srdma_net_gid_is_v4(&gid))
		return gid.raw[12] == 127;
	return IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)gid.raw);
}

union ibv_gid *srdma_net_own_addresses(size_t *count)
{
	struct ifaddrs *all = NULL;
	union ibv_gid *list = NULL;
	size_t room = 0;

	*count = 0;
	if (getifaddrs(&all) != 0)
		return NULL;
	for (const struct ifaddrs *at = all; at; at = at->ifa_next)
		room++;
	list = calloc(room > 0 ? room : 1, sizeof *list);
	for (const struct ifaddrs *at = all; list && at; at = at->ifa_next)
		if (at->ifa_addr && srdma_net_gid_of(at->ifa_addr, &list[*count]))
			(*count)++;
	freeifaddrs(all);
	return list;
}

void srdma_net_format(const struct sockaddr *address, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN];
	union ibv_gid gid;
	unsigned port;

	if (!srdma_net_gid_of(address, &gid)) {
		snprintf(out, size, "unknown");
		return;
	}
	port = address->sa_family == AF_INET ? ntohs(((const struct sockaddr_in *)address)->sin_port)
					     : ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
	if (srdma_net_gid_is_v4(&gid)) {
		inet_ntop(AF_INET, gid.raw + 12, text, sizeof text);
		snprintf(out, size, "%s:%u", text, port);
	} else {
		inet_ntop(AF_INET6, gid.raw, text, sizeof text);
		snprintf(out, size, "[%s]:%u", text, port);
	}
}

/* One "address/bits" in [text, end). */
static int parse_network(const char *text, size_t length, struct srdma_network *out)
{
	char part[64], *slash, *end;
	unsigned long bits, most;

	if (length >= sizeof part)
		return -EINVAL;
	memcpy(part, text, length);
	part[length] = '\0';
	slash = strchr(part, '/');
	if (slash)
		*slash++ = '\0';
	if (inet_pton(AF_INET, part, out->prefix.raw + 12) == 1) {
		memcpy(out->prefix.raw, v4_mapped, sizeof v4_mapped);
		most = 32;
	} else if (inet_pton(AF_INET6, part, out->prefix.raw) == 1) {
		most = 128;
	} else {
		return -EINVAL;
	}
	bits = most;
	if (slash) {
		bits = strtoul(slash, &end, 10);
		if (*slash < '0' || *slash > '9' || *end || bits > most)
			return -EINVAL;
	}
	out->length = (unsigned)(bits + 128 - most);
	return 0;
}

int srdma_networks_parse(const char *text, struct srdma_networks *out)
{
	struct srdma_networks networks = {0};

	for (const char *at = text ? text : ""; *at;) {
		size_t skip = strspn(at, ", \t"), length = strcspn(at + skip, ", \t");
		struct srdma_network *grown;

		at += skip;
		if (length == 0)
			break;
		grown = realloc(networks.list, (networks.count + 1) * sizeof *grown);
		if (!grown) {
			srdma_networks_clear(&networks);
			return srdma_fail(-ENOMEM, "out of memory");
		}
		networks.list = grown;
		if (parse_network(at, length, &grown[networks.count]) != 0) {
			srdma_networks_clear(&networks);
			return srdma_fail(-EINVAL, "'%.*s' is not a network; give ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/64",
					  (int)length, at);
		}
		networks.count++;
		at += length;
	}
	*out = networks;
	return 0;
}

void srdma_networks_clear(struct srdma_networks *networks)
{
	free(networks->list);
	*networks = (struct srdma_networks){0};
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	if (memcmp(a, b, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & (0xff << (8 - bits % 8))) == 0;
}

bool srdma_networks_contain(const struct srdma_networks *networks, const union ibv_gid *gid)
{
	for (size_t i = 0; i < networks->count; i++)
		if (prefix_equal(gid->raw, networks->list[i].prefix.raw, networks->list[i].length))
			return true;
	return false;
}
