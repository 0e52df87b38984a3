/* SPDX-License-Identifier: Apache-2.0 */
#include "udp_socket.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_NO_CHECK6_RX
#define UDP_NO_CHECK6_RX 102
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

enum { SOCKET_BUFFER = 8 << 20 };

/* As large as it gets: with the right to, beyond the limit that the system sets. */
static void enlarge(int fd, int forced, int option)
{
	int size = SOCKET_BUFFER / 2; /* the kernel doubles it, for its own overhead */
	if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) != 0)
		setsockopt(fd, SOL_SOCKET, option, &size, sizeof size);
}

/* Groups that programs send to are those of the interface that has the socket's address. Best effort: who has no route to any group, or a
 * kernel without multicast, can send to others all the same. */
static void set_multicast_from(int fd, const union ibv_gid *local, unsigned ifindex)
{
	struct ip_mreqn v4 = { .imr_ifindex = (int)ifindex };
	int v6 = (int)ifindex;

	memcpy(&v4.imr_address, local->raw + 12, sizeof v4.imr_address);
	if (gid_is_v4(local))
		setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &v4, sizeof v4);
	else
		setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &v6, sizeof v6);
}

static int set_options(int fd, bool v4, int sharing)
{
	int on = 1;
	int discover = IP_PMTUDISC_DO; /* IPv6's too. No fragments: a lost one would lose all */

	if (!v4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)
		return -errno;
	if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &discover,
		       sizeof discover) != 0)
		return -errno;
	if (sharing != 0 && setsockopt(fd, SOL_SOCKET, sharing, &on, sizeof on) != 0)
		return -errno;
	/* The rest is good to have, and missing in older kernels. */
	setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
	/* RoCEv2 has the ICRC: rdma_rxe leaves the checksum out, which IPv6 sockets do not take unless told to. */
	if (!v4)
		setsockopt(fd, SOL_UDP, UDP_NO_CHECK6_RX, &on, sizeof on);
	enlarge(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	enlarge(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	return 0;
}

void udp_socket_report_path(int fd, bool v4)
{
	int on = 1;
	setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTOS : IPV6_RECVTCLASS, &on, sizeof on);
	setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, &on, sizeof on);
}

void udp_socket_report_time(int fd)
{
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

static bool is_of_link(const struct in6_addr *address)
{
	return IN6_IS_ADDR_LINKLOCAL(address) || IN6_IS_ADDR_MC_LINKLOCAL(address) || IN6_IS_ADDR_MC_NODELOCAL(address);
}

socklen_t udp_sockaddr_of(const union ibv_gid *gid, unsigned ifindex, union udp_sockaddr *out)
{
	memset(out, 0, sizeof *out);
	if (gid_is_v4(gid)) {
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons(WIRE_PORT);
		memcpy(&out->v4.sin_addr, gid->raw + 12, sizeof out->v4.sin_addr);
		return sizeof out->v4;
	}
	out->v6.sin6_family = AF_INET6;
	out->v6.sin6_port = htons(WIRE_PORT);
	memcpy(&out->v6.sin6_addr, gid->raw, sizeof out->v6.sin6_addr);
	if (is_of_link(&out->v6.sin6_addr))
		out->v6.sin6_scope_id = ifindex;
	return sizeof out->v6;
}

/* Of an address; `sharing`: SO_REUSEPORT, SO_REUSEADDR, or 0. */
static int open_bound(const union ibv_gid *local, unsigned ifindex, int sharing, int *out)
{
	union udp_sockaddr address;
	socklen_t length = udp_sockaddr_of(local, ifindex, &address);
	bool v4 = gid_is_v4(local);

	int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int error = set_options(fd, v4, sharing);
	if (error == 0 && bind(fd, &address.any, length) != 0)
		error = -errno;
	if (error != 0) {
		close(fd);
		return error;
	}
	*out = fd;
	return 0;
}

int udp_socket_bind(const union ibv_gid *local, unsigned ifindex, bool shared, int *out)
{
	int error = open_bound(local, ifindex, shared ? SO_REUSEPORT : 0, out);
	if (error == 0)
		set_multicast_from(*out, local, ifindex);
	return error;
}

/* ---- multicast ---- */

static int add_membership(int fd, const union ibv_gid *group, unsigned ifindex)
{
	struct ip_mreqn v4 = { .imr_ifindex = (int)ifindex };
	struct ipv6_mreq v6 = { .ipv6mr_interface = ifindex };
	int off = 0, error;

	if (gid_is_v4(group)) {
		memcpy(&v4.imr_multiaddr, group->raw + 12, sizeof v4.imr_multiaddr);
		/* Not what others of this host have joined elsewhere. */
		setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);
		error = setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &v4, sizeof v4);
	} else {
		memcpy(&v6.ipv6mr_multiaddr, group->raw, sizeof v6.ipv6mr_multiaddr);
		setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off, sizeof off);
		error = setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &v6, sizeof v6);
	}
	return error != 0 ? -errno : 0;
}

int udp_socket_join(const union ibv_gid *group, unsigned ifindex, int *out)
{
	int place = (int)ifindex, fd = -1;

	int error = open_bound(group, ifindex, SO_REUSEADDR, &fd);
	if (error != 0)
		return error;
	/* IPv6's memberships do not tell one interface from another. Kernels before 5.7 want the right to. */
	setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &place, sizeof place);
	error = add_membership(fd, group, ifindex);
	if (error != 0) {
		close(fd);
		return error;
	}
	udp_socket_report_path(fd, gid_is_v4(group));
	*out = fd;
	return 0;
}
