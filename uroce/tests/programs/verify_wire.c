/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP connection over which the two ends agree. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "verify.h"

static void wait_for(int fd, short events, const char *what)
{
	struct pollfd entry = {.fd = fd, .events = events};
	int n;

	do {
		n = poll(&entry, 1, deadline_left());
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		fail(EXIT_DEADLINE, "the other end did not %s in time", what);
}

static struct addrinfo *resolve(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = host ? 0 : AI_PASSIVE,
				 .ai_family = host ? AF_UNSPEC : AF_INET6};
	struct addrinfo *result;
	int error = getaddrinfo(host, port, &hints, &result);

	if (error)
		fail(EXIT_USAGE, "%s port %s: %s", host ? host : "any address", port, gai_strerror(error));
	return result;
}

int wire_listen(const char *port)
{
	struct addrinfo *address = resolve(NULL, port);
	struct sockaddr_in6 bound;
	socklen_t length = sizeof bound;
	int on = 1, off = 0;
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) ||
	    bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)&bound, &length))
		fail(EXIT_USAGE, "cannot listen on port %s: %m", port);
	freeaddrinfo(address);
	printf("listening on port %u\n", ntohs(bound.sin6_port));
	fflush(stdout);
	return fd;
}

int wire_accept(int listener)
{
	wait_for(listener, POLLIN, "connect");
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		fail(EXIT_USAGE, "accept: %m");
	close(listener);
	return fd;
}

/* The server may still be starting: tries until the deadline. */
int wire_connect(const char *host, const char *port)
{
	struct addrinfo *address = resolve(host, port);

	for (;;) {
		int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			fail(EXIT_USAGE, "socket: %m");
		if (!connect(fd, address->ai_addr, address->ai_addrlen)) {
			freeaddrinfo(address);
			return fd;
		}
		close(fd);
		if (!deadline_left())
			fail(EXIT_USAGE, "cannot connect to %s port %s: %m", host, port);
		usleep(50000);
	}
}

void wire_send(int fd, const void *data, size_t length)
{
	const char *bytes = data;

	while (length) {
		wait_for(fd, POLLOUT, "read");
		ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			fail(EXIT_BAD_DATA, "the other end has gone: %m");
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
}

void wire_receive(int fd, void *data, size_t length)
{
	char *bytes = data;

	while (length) {
		wait_for(fd, POLLIN, "answer");
		ssize_t n = recv(fd, bytes, length, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			fail(EXIT_BAD_DATA, "the other end has gone");
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
}

void wire_wait_end(int fd)
{
	char byte;

	do {
		wait_for(fd, POLLIN, "go");
	} while (recv(fd, &byte, 1, 0) > 0);
}

enum { PLAN_WORDS = 12 + MAX_SIZES };

void wire_plan_send(int fd, const struct plan *plan)
{
	uint32_t words[PLAN_WORDS] = {(uint32_t)(plan->seed >> 32),
				      (uint32_t)plan->seed,
				      plan->operations,
				      plan->iterations,
				      plan->qps,
				      plan->depth,
				      plan->mtu,
				      plan->timeout,
				      plan->retry,
				      plan->unreliable,
				      plan->lose,
				      plan->sizes};

	memcpy(words + 12, plan->size, sizeof plan->size);
	for (int i = 0; i < PLAN_WORDS; i++)
		words[i] = htonl(words[i]);
	wire_send(fd, words, sizeof words);
}

void wire_plan_receive(int fd, struct plan *plan)
{
	uint32_t words[PLAN_WORDS];

	wire_receive(fd, words, sizeof words);
	for (int i = 0; i < PLAN_WORDS; i++)
		words[i] = ntohl(words[i]);
	*plan = (struct plan){.seed = (uint64_t)words[0] << 32 | words[1],
			      .operations = words[2],
			      .iterations = words[3],
			      .qps = words[4],
			      .depth = words[5],
			      .mtu = words[6],
			      .timeout = words[7],
			      .retry = words[8],
			      .unreliable = words[9],
			      .lose = words[10],
			      .sizes = words[11]};
	memcpy(plan->size, words + 12, sizeof plan->size);
	if (!plan->qps || plan->qps > MAX_QPS || !plan->depth || plan->depth > MAX_DEPTH || plan->sizes > MAX_SIZES)
		fail(EXIT_USAGE, "the other end is another version of this program");
}

void wire_barrier(int fd, uint32_t number)
{
	uint32_t mine = htonl(number), theirs;

	wire_send(fd, &mine, sizeof mine);
	wire_receive(fd, &theirs, sizeof theirs);
	if (mine != theirs)
		fail(EXIT_BAD_DATA, "the ends are out of step: %u here, %u there", number, ntohl(theirs));
}
