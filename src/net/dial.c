/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a TCP connection to the address of a host that answers first, as in RFC 8305 ("Happy Eyeballs"): a dead address costs a quarter
 * of a second, and not the whole deadline. */
#include "clock.h"
#include "log.h"
#include "net.h"
#include "resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ATTEMPTS_MAX 32
/* The time that an address has to answer before the next one is tried too; less if the deadline is short for all addresses. */
#define DELAY_US     250000u
#define DELAY_MIN_US 10000u

struct attempt {
	const struct addrinfo *address;
	int fd;    /* -1: not begun, or ended */
	int error; /* errno of an attempt that has ended */
};

struct dial {
	struct attempt attempts[ATTEMPTS_MAX];
	size_t count, begun;
	uint64_t deadline, next_at; /* the next attempt begins no later */
	int ms;                     /* of the deadline, at the beginning */
};

/* Keeps the resolver's order within each family and takes the families by turns, so that a family without a route costs one attempt. */
static void choose_addresses(struct dial *dial, const struct addrinfo *list)
{
	const struct addrinfo *next[2] = {list, list};
	int first = list->ai_family;

	for (bool other = false; dial->count < ATTEMPTS_MAX && (next[0] || next[1]); other = !other) {
		while (next[other] && (next[other]->ai_family != first) != other)
			next[other] = next[other]->ai_next;
		if (!next[other])
			continue;
		dial->attempts[dial->count++] = (struct attempt){.address = next[other], .fd = -1};
		next[other] = next[other]->ai_next;
	}
}

static bool is_running(const struct dial *dial)
{
	for (size_t i = 0; i < dial->begun; i++)
		if (dial->attempts[i].fd >= 0)
			return true;
	return false;
}

static void give_up(struct attempt *attempt, int error)
{
	if (attempt->fd >= 0)
		close(attempt->fd);
	attempt->fd = -1;
	attempt->error = error;
}

/* Begins an attempt. Returns whether it is connected, which may happen at once. */
static bool begin(struct dial *dial)
{
	struct attempt *attempt = &dial->attempts[dial->begun++];
	const struct addrinfo *address = attempt->address;
	uint64_t now = srdma_clock_us(), left = dial->deadline > now ? dial->deadline - now : 0;
	uint64_t share = left / (dial->count - dial->begun + 1), delay = share < DELAY_US ? share : DELAY_US;

	dial->next_at = now + (delay > DELAY_MIN_US ? delay : DELAY_MIN_US);
	attempt->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
	if (attempt->fd < 0) {
		give_up(attempt, errno);
		return false;
	}
	if (connect(attempt->fd, address->ai_addr, address->ai_addrlen) == 0)
		return true;
	if (errno != EINPROGRESS)
		give_up(attempt, errno);
	return false;
}

/* Waits until an attempt makes progress, at most until `until`. Returns the connected attempt, or NULL. */
static struct attempt *look(struct dial *dial, uint64_t until)
{
	struct pollfd fds[ATTEMPTS_MAX];

	/* poll(2) ignores negative descriptors. */
	for (size_t i = 0; i < dial->begun; i++)
		fds[i] = (struct pollfd){.fd = dial->attempts[i].fd, .events = POLLOUT};
	if (poll(fds, dial->begun, srdma_deadline_left_ms(until)) <= 0)
		return NULL;
	for (size_t i = 0; i < dial->begun; i++) {
		int error = 0;
		socklen_t length = sizeof error;

		if (!fds[i].revents)
			continue;
		if (getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
			error = errno;
		if (error == 0)
			return &dial->attempts[i];
		give_up(&dial->attempts[i], error);
	}
	return NULL;
}

/* Returns the first connected attempt; NULL: none, and each has its error. */
static struct attempt *race(struct dial *dial)
{
	for (;;) {
		bool running = is_running(dial), more = dial->begun < dial->count;
		struct attempt *connected;

		if (more && (!running || srdma_clock_us() >= dial->next_at)) {
			if (begin(dial))
				return &dial->attempts[dial->begun - 1];
			continue;
		}
		if (!running)
			return NULL;
		connected = look(dial, more && dial->next_at < dial->deadline ? dial->next_at : dial->deadline);
		if (connected)
			return connected;
		if (srdma_deadline_left_ms(dial->deadline) > 0)
			continue;
		for (size_t i = 0; i < dial->begun; i++)
			if (dial->attempts[i].fd >= 0)
				give_up(&dial->attempts[i], ETIMEDOUT);
		dial->begun = dial->count;
	}
}

/* Chooses the most informative error: first a host that refused, then no answer, then no route. */
static int error_of(const struct dial *dial)
{
	int error = 0;

	for (size_t i = 0; i < dial->count; i++) {
		int this = dial->attempts[i].error;

		if (this == ECONNREFUSED)
			return this;
		if (this != 0 && error != ETIMEDOUT)
			error = this;
	}
	return error;
}

static const char *advice(int error)
{
	switch (error) {
	case ECONNREFUSED: return "; check that the server runs there and listens on this port";
	case ETIMEDOUT: return "; check the address, and that no firewall drops the packets";
	case ENETUNREACH:
	case EHOSTUNREACH: return "; check the address and the route to it (ip route get ADDRESS)";
	default: return "";
	}
}

static bool is_address(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static int fail(const struct dial *dial, const char *host, const char *port)
{
	char text[512] = "";
	size_t used = 0;
	int error = error_of(dial);

	for (size_t i = 0; i < dial->count && used < sizeof text; i++) {
		const struct attempt *attempt = &dial->attempts[i];
		char address[64], timed_out[64];
		const char *why = attempt->error ? strerror(attempt->error) : "not tried any more";

		srdma_net_format(attempt->address->ai_addr, address, sizeof address);
		if (attempt->error == ETIMEDOUT) {
			snprintf(timed_out, sizeof timed_out, "no answer within %d ms", dial->ms);
			why = timed_out;
		}
		/* If the host is an address, the message names it already. */
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s", i > 0 ? ", " : "", is_address(host) ? "" : address,
					 is_address(host) ? "" : " ", why);
	}
	return srdma_fail(-error, "cannot connect to %s port %s: %s%s", host, port, text, advice(error));
}

int srdma_net_connect(const char *host, const char *port, uint64_t deadline, int *out)
{
	struct dial dial = {.deadline = deadline, .ms = srdma_deadline_left_ms(deadline)};
	struct addrinfo *list = NULL;
	struct attempt *connected;
	int fd = -1, ret = srdma_resolve(host, port, 0, deadline, &list);

	if (ret != 0)
		return ret;
	choose_addresses(&dial, list);
	connected = race(&dial);
	if (connected) {
		fd = connected->fd;
		connected->fd = -1;
	} else {
		ret = fail(&dial, host, port);
	}
	for (size_t i = 0; i < dial.count; i++)
		give_up(&dial.attempts[i], 0);
	freeaddrinfo(list);
	if (fd < 0)
		return ret;
	ret = srdma_net_prepare(fd);
	if (ret != 0) {
		close(fd);
		return ret;
	}
	*out = fd;
	return 0;
}
