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

enum { SOCKET_BUFFER = 8 << 20 };

/* As large as it gets: with the right to, beyond the limit that the system sets. */
static void enlarge(int fd, int forced, int option)
{
	int size = SOCKET_BUFFER / 2; /* the kernel doubles it, for its own overhead */
	if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) != 0)
		setsockopt(fd, SOL_SOCKET, option, &size, sizeof size);
}

static int set_options(int fd, bool v4, bool shared)
{
	int on = 1;
	int discover = IP_PMTUDISC_DO; /* IPv6's too. No fragments: a lost one would lose all */

	if (!v4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)
		return -errno;
	if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &discover,
		       sizeof discover) != 0)
		return -errno;
	if (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
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
	if (IN6_IS_ADDR_LINKLOCAL(&out->v6.sin6_addr))
		out->v6.sin6_scope_id = ifindex;
	return sizeof out->v6;
}

int udp_socket_bind(const union ibv_gid *local, unsigned ifindex, bool shared, int *out)
{
	union udp_sockaddr address;
	socklen_t length = udp_sockaddr_of(local, ifindex, &address);
	bool v4 = gid_is_v4(local);

	int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int error = set_options(fd, v4, shared);
	if (error == 0 && bind(fd, &address.any, length) != 0)
		error = -errno;
	if (error != 0) {
		close(fd);
		return error;
	}
	*out = fd;
	return 0;
}
