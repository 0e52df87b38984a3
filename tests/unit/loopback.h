/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection on the loopback address, for tests of protocols on it. Include test.h first. */
#ifndef TEST_LOOPBACK_H
#define TEST_LOOPBACK_H

#include "clock.h"
#include "dial_to.h"
#include "net.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static inline void connect_sockets(int *client, int *server)
{
	struct sockaddr_in address;
	socklen_t length = sizeof address;
	char port[8];
	int listener;

	assert_int_equal(srdma_net_listen("127.0.0.1", "0", &listener), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	snprintf(port, sizeof port, "%u", ntohs(address.sin_port));
	assert_int_equal(dial_to("127.0.0.1", port, srdma_deadline(PATIENCE_MS), client), 0);
	assert_int_equal(srdma_net_wait(listener, POLLIN, srdma_deadline(PATIENCE_MS)), 0);
	*server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(*server >= 0);
	close(listener);
}

#endif
