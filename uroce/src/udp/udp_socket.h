/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on port 4791. */
#ifndef UROCE_UDP_SOCKET_H
#define UROCE_UDP_SOCKET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "wire.h"

union udp_sockaddr {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Port 4791 of a GID's address; returns the length. `ifindex` counts for addresses of one link. */
socklen_t udp_sockaddr_of(const union ibv_gid *gid, unsigned ifindex, union udp_sockaddr *out);
/* A socket of that address, with all options; `shared`: other processes may have one too. 0 or a negative errno. */
int udp_socket_bind(const union ibv_gid *local, unsigned ifindex, bool shared, int *out);
/* A socket that receives what is sent to a multicast group at one interface, as any number of processes may have one. 0 or a negative
 * errno. */
int udp_socket_join(const union ibv_gid *group, unsigned ifindex, int *out);
/* Asks for the traffic class and the hop limit of each datagram. */
void udp_socket_report_path(int fd, bool v4);
/* Asks for the time when each datagram has arrived (SO_TIMESTAMPNS). */
void udp_socket_report_time(int fd);

#endif
