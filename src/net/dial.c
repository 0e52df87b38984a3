/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a TCP connection to the address of a host that answers first, as in RFC 8305 ("Happy Eyeballs"): a dead address costs a quarter
 * of a second, and not the whole deadline. */
#include "dial.h"

#include "clock.h"
#include "log.h"
#include "net.h"
#include "resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
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

struct srdma_dial {
	char *host, *port;
	const char *who;             /* is to listen there */
	struct srdma_watch *watch;   /* the caller's */
	struct srdma_lookup *lookup; /* NULL: it is over */
	int lookup_fd;               /* in the watch; -1: it is not */
	struct addrinfo *list;
	struct attempt attempts[ATTEMPTS_MAX];
	size_t count, begun;
	uint64_t deadline, next_at; /* the next attempt begins no later */
	int ms;                     /* of the deadline, at the beginning */
};

/* Keeps the resolver's order within each family and takes the families by turns, so that a family without a route costs one attempt. */
static void choose_addresses(struct srdma_dial *dial, const struct addrinfo *list)
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

static bool is_running(const struct srdma_dial *dial)
{
	for (size_t i = 0; i < dial->begun; i++)
		if (dial->attempts[i].fd >= 0)
			return true;
	return false;
}

static void give_up(struct srdma_dial *dial, struct attempt *attempt, int error)
{
	if (attempt->fd >= 0) {
		srdma_watch_remove(dial->watch, attempt->fd);
		close(attempt->fd);
	}
	attempt->fd = -1;
	attempt->error = error;
}

/* Begins an attempt. Returns whether it is connected, which may happen at once. */
static bool begin(struct srdma_dial *dial)
{
	struct attempt *attempt = &dial->attempts[dial->begun++];
	const struct addrinfo *address = attempt->address;
	uint64_t now = srdma_clock_us(), left = dial->deadline > now ? dial->deadline - now : 0;
	uint64_t share = left / (dial->count - dial->begun + 1), delay = share < DELAY_US ? share : DELAY_US;

	dial->next_at = now + (delay > DELAY_MIN_US ? delay : DELAY_MIN_US);
	attempt->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
	if (attempt->fd < 0) {
		give_up(dial, attempt, errno);
		return false;
	}
	if (connect(attempt->fd, address->ai_addr, address->ai_addrlen) == 0)
		return true;
	if (errno != EINPROGRESS)
		give_up(dial, attempt, errno);
	else if (srdma_watch_add(dial->watch, attempt->fd, POLLOUT) != 0)
		give_up(dial, attempt, ENOMEM);
	return false;
}

/* Looks which attempts have made progress. Returns a connected one, or NULL. */
static struct attempt *look(struct srdma_dial *dial)
{
	struct pollfd fds[ATTEMPTS_MAX];

	/* poll(2) ignores negative descriptors. */
	for (size_t i = 0; i < dial->begun; i++)
		fds[i] = (struct pollfd){.fd = dial->attempts[i].fd, .events = POLLOUT};
	if (dial->begun == 0 || poll(fds, dial->begun, 0) <= 0)
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
		give_up(dial, &dial->attempts[i], error);
	}
	return NULL;
}

/* 0 with the first connected attempt; -EAGAIN: none yet; -ECANCELED: none, and each has its error. */
static int race(struct srdma_dial *dial, struct attempt **connected)
{
	for (;;) {
		bool running, more = dial->begun < dial->count;

		*connected = look(dial);
		if (*connected)
			return 0;
		running = is_running(dial);
		if (running && srdma_deadline_left_ms(dial->deadline) == 0) {
			for (size_t i = 0; i < dial->begun; i++)
				if (dial->attempts[i].fd >= 0)
					give_up(dial, &dial->attempts[i], ETIMEDOUT);
			return -ECANCELED;
		}
		if (!more || (running && srdma_clock_us() < dial->next_at))
			return running ? -EAGAIN : -ECANCELED;
		if (begin(dial)) {
			*connected = &dial->attempts[dial->begun - 1];
			return 0;
		}
	}
}

/* Chooses the most informative error: first a host that refused, then no answer, then no route. */
static int error_of(const struct srdma_dial *dial)
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

static const char *advice(const struct srdma_dial *dial, int error, char *text, size_t size)
{
	switch (error) {
	case ECONNREFUSED: snprintf(text, size, "; check that the %s runs there and listens on this port", dial->who); return text;
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

static int fail(const struct srdma_dial *dial)
{
	char text[512] = "", what_to_do[128];
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
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s", i > 0 ? ", " : "", is_address(dial->host) ? "" : address,
					 is_address(dial->host) ? "" : " ", why);
	}
	/* The kernel's word for a lack of local ports; for the caller it would mean to go on waiting. */
	if (error == EAGAIN)
		error = EADDRNOTAVAIL;
	return srdma_fail(-error, "cannot connect to %s port %s: %s%s", dial->host, dial->port, text, advice(dial, error, what_to_do, sizeof what_to_do));
}

int srdma_dial_start(const char *host, const char *port, const char *who, uint64_t deadline, struct srdma_watch *watch, struct srdma_dial **out)
{
	struct srdma_dial *dial = calloc(1, sizeof *dial);
	int ret;

	if (!dial)
		return srdma_fail(-ENOMEM, "out of memory");
	dial->watch = watch;
	dial->who = who;
	dial->deadline = deadline;
	dial->ms = srdma_deadline_left_ms(deadline);
	dial->lookup_fd = -1;
	dial->host = strdup(host);
	dial->port = strdup(port);
	ret = dial->host && dial->port ? srdma_lookup_start(host, port, 0, &dial->lookup) : srdma_fail(-ENOMEM, "out of memory");
	if (ret == 0 && srdma_lookup_fd(dial->lookup) >= 0) {
		dial->lookup_fd = srdma_lookup_fd(dial->lookup);
		ret = srdma_watch_add(watch, dial->lookup_fd, POLLIN);
	}
	if (ret != 0) {
		srdma_dial_free(&dial);
		return ret;
	}
	*out = dial;
	return 0;
}

static void end_lookup(struct srdma_dial *dial)
{
	if (dial->lookup_fd >= 0)
		srdma_watch_remove(dial->watch, dial->lookup_fd);
	dial->lookup_fd = -1;
	srdma_lookup_free(&dial->lookup);
}

void srdma_dial_free(struct srdma_dial **out)
{
	struct srdma_dial *dial = *out;

	*out = NULL;
	if (!dial)
		return;
	end_lookup(dial);
	for (size_t i = 0; i < dial->begun; i++)
		give_up(dial, &dial->attempts[i], 0);
	if (dial->list)
		freeaddrinfo(dial->list);
	free(dial->host);
	free(dial->port);
	free(dial);
}

static int take_addresses(struct srdma_dial *dial)
{
	int ret = srdma_lookup_step(dial->lookup, &dial->list);

	if (ret == -EAGAIN && srdma_deadline_left_ms(dial->deadline) == 0)
		return srdma_lookup_fail_late(dial->lookup, dial->ms);
	if (ret != 0)
		return ret;
	end_lookup(dial);
	choose_addresses(dial, dial->list);
	return 0;
}

int srdma_dial_step(struct srdma_dial *dial, int *out)
{
	struct attempt *connected;
	int fd, ret = dial->lookup ? take_addresses(dial) : 0;

	if (ret == 0)
		ret = race(dial, &connected);
	if (ret != 0)
		return ret == -ECANCELED ? fail(dial) : ret == -EAGAIN ? srdma_again("the server to answer") : ret;
	fd = connected->fd;
	srdma_watch_remove(dial->watch, fd);
	connected->fd = -1;
	ret = srdma_net_prepare(fd);
	if (ret != 0) {
		close(fd);
		return ret;
	}
	*out = fd;
	return 0;
}

uint64_t srdma_dial_due(const struct srdma_dial *dial)
{
	bool more = !dial->lookup && dial->begun < dial->count;

	return more && dial->next_at < dial->deadline ? dial->next_at : dial->deadline;
}
