#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# librdmacm: an rsocket of datagrams does not connect over RoCE, and the error says that there is no such file.
#
# Guess: rsockets of SOCK_DGRAM work over each device over which those of SOCK_STREAM do; if not, the error is about the device.
# True:  librdmacm makes an address handle without GRH, which a RoCE device needs. ibv_create_ah refuses it; rconnect then cleans up, and
#        returns the errno of an epoll_ctl that removes a descriptor it has not added yet.
# Version: Linux 6.1.176, libibverbs and librdmacm 44.0 of Debian 12.
#
# Output seen:
#   SOCK_STREAM: rconnect 0, connected
#   SOCK_DGRAM: rconnect -1, No such file or directory
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include <arpa/inet.h>
#include <rdma/rdma_cma.h>
#include <rdma/rsocket.h>
#include <sys/socket.h>

static void try(int type, const char *name)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7174), .sin_addr.s_addr = inet_addr("10.77.0.1")};
	int listener = rsocket(AF_INET, type, 0), fd = rsocket(AF_INET, type, 0), result;

	must(listener >= 0 && fd >= 0, "rsocket");
	must(!rbind(listener, (struct sockaddr *)&to, sizeof to), "rbind");
	must(type == SOCK_DGRAM || !rlisten(listener, 1), "rlisten");
	errno = 0;
	result = rconnect(fd, (struct sockaddr *)&to, sizeof to);
	printf("%s: rconnect %d, %s\n", name, result, result ? strerror(errno) : "connected");
	fflush(stdout);
}

int main(void)
{
	try(SOCK_STREAM, "SOCK_STREAM");
	try(SOCK_DGRAM, "SOCK_DGRAM");
	_exit(0);
}
END
run_on_dummy 'sleep 2; exec /bin/try' rdma_ucm
told "SOCK_STREAM: rconnect 0, connected" "SOCK_DGRAM: rconnect -1, No such file or directory"
