#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# librspreload: select() says of an accepted connection that it is readable, and sets the bit of another descriptor.
#
# Guess: a program over the preloaded library gets the descriptors of its own sets back, as from the C library's select().
# True:  the program's descriptor stands for an rsocket with a lower number. select() sets the bit of that one, which the program has never
#        seen. A server that looks for its connection in the set does not find it, and does not read.
# Version: Linux 6.1.176, libibverbs and librdmacm 44.0 of Debian 12. rdma-core 63 gives the right descriptor.
#
# Output seen:
#   select 1
#   connection is set: no
#   another is set: 14, not 16
#   read 1
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include <arpa/inet.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sends one byte over a connection, and keeps it. */
static void send_byte(struct sockaddr_in to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0, "socket");
	must(!connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
	must(write(fd, "x", 1) == 1, "write");
	sleep(60);
}

int main(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7174), .sin_addr.s_addr = inet_addr("10.77.0.1")};
	struct timeval limit = {.tv_sec = 30};
	int listening[2], listener, connection, ready;
	char byte;
	fd_set set;

	must(!pipe(listening), "pipe");
	if (fork() == 0) {
		must(read(listening[0], &byte, 1) == 1, "read");
		send_byte(at);
		return 0;
	}
	must((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket");
	must(!bind(listener, (struct sockaddr *)&at, sizeof at), "bind");
	must(!listen(listener, 1), "listen");
	must(write(listening[1], "x", 1) == 1, "write");
	FD_ZERO(&set);
	FD_SET(listener, &set);
	must(select(listener + 1, &set, NULL, NULL, NULL) == 1, "select");
	must((connection = accept(listener, NULL, NULL)) >= 0, "accept");

	FD_ZERO(&set);
	FD_SET(connection, &set);
	ready = select(connection + 1, &set, NULL, NULL, &limit);
	printf("select %d\n", ready);
	printf("connection is set: %s\n", FD_ISSET(connection, &set) ? "yes" : "no");
	for (int fd = 0; fd < connection; fd++)
		if (FD_ISSET(fd, &set))
			printf("another is set: %d, not %d\n", fd, connection);
	must(read(connection, &byte, 1) == 1, "read");
	printf("read 1\n");
	fflush(stdout);
	return 0;
}
END
library=usr/lib/x86_64-linux-gnu/rsocket/librspreload.so
run_on_dummy "sleep 2; LD_PRELOAD=/$library exec /bin/try" rdma_ucm "$library"
told "select 1" "connection is set: no" "another is set: " "read 1"
