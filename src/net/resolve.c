/* SPDX-License-Identifier: Apache-2.0 */
#include "resolve.h"

#include "clock.h"
#include "log.h"
#include "net.h"
#include "thread.h"
#include "wake.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX 65535
/* An abandoned lookup holds a thread until the system's resolver gives up. */
#define ABANDONED_MAX 16

/* getaddrinfo(3) has no deadline and cannot be cancelled, so it runs in a thread of its own, which the caller may abandon. */
struct srdma_lookup {
	char *host, *port;
	struct addrinfo hints;
	int ended_fd; /* wake.h: wakes the waiting thread; -1: there is no other thread */

	pthread_mutex_t mutex; /* guards the members below */
	bool ended, abandoned;
	int result, error; /* of getaddrinfo; errno with EAI_SYSTEM */
	struct addrinfo *list;
};

static atomic_uint abandoned_count;

static void lookup_delete(struct srdma_lookup *lookup)
{
	if (lookup->list)
		freeaddrinfo(lookup->list);
	srdma_wake_close(lookup->ended_fd);
	pthread_mutex_destroy(&lookup->mutex);
	free(lookup->host);
	free(lookup->port);
	free(lookup);
}

static struct srdma_lookup *lookup_new(const char *host, const char *port, int flags)
{
	struct srdma_lookup *lookup = calloc(1, sizeof *lookup);

	if (!lookup)
		return NULL;
	pthread_mutex_init(&lookup->mutex, NULL);
	lookup->hints = (struct addrinfo){.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
	lookup->host = host ? strdup(host) : NULL;
	lookup->port = strdup(port);
	lookup->ended_fd = -1;
	if ((host && !lookup->host) || !lookup->port) {
		lookup_delete(lookup);
		return NULL;
	}
	return lookup;
}

static void *run(void *arg)
{
	struct srdma_lookup *lookup = arg;
	struct addrinfo *list = NULL;
	int result = getaddrinfo(lookup->host, lookup->port, &lookup->hints, &list), error = errno;
	bool abandoned;

	pthread_mutex_lock(&lookup->mutex);
	lookup->result = result;
	lookup->error = error;
	lookup->list = result == 0 ? list : NULL;
	lookup->ended = true;
	abandoned = lookup->abandoned;
	/* Happens under the lock, because the waiting thread frees everything as soon as it has the lock. */
	if (!abandoned)
		srdma_wake_send(lookup->ended_fd);
	pthread_mutex_unlock(&lookup->mutex);
	if (abandoned) {
		lookup_delete(lookup);
		atomic_fetch_sub(&abandoned_count, 1);
	}
	return NULL;
}

static int fail_port(const char *port, bool listening)
{
	return srdma_fail(-EINVAL, "'%s' is not a port; give a number from %d to %d, or the name of a service in /etc/services", port,
			  listening ? 0 : 1, PORT_MAX);
}

static int fail_lookup(const char *host, const char *port, bool listening, int result, int error)
{
	switch (result) {
	case EAI_SERVICE: return fail_port(port, listening);
	case EAI_MEMORY: return srdma_fail(-ENOMEM, "out of memory");
	case EAI_AGAIN:
		return srdma_fail(-EHOSTUNREACH, "cannot look up the host name %s: the name servers gave no answer; check the network and "
						 "/etc/resolv.conf, or give an IP address",
				  host);
	case EAI_SYSTEM: return srdma_fail(-EHOSTUNREACH, "cannot look up the host name %s: %s", host, strerror(error));
	default: break;
	}
	if (listening)
		return srdma_fail(-EINVAL, "'%s' is not an address to listen on (%s); give an IP address of this machine", host,
				  gai_strerror(result));
	return srdma_fail(-EHOSTUNREACH, "cannot find a host named '%s' (%s); check the name", host, gai_strerror(result));
}

/* Checks the number here, because getaddrinfo truncates one that is too large, and accepts a sign. */
static bool is_port(const char *port, bool listening)
{
	size_t digits = strspn(port, "0123456789"), length = strlen(port);
	long number;

	if (digits < length)
		return strpbrk(port, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") && strcspn(port, "+- \t") > 0;
	number = length > 0 && length <= 5 ? strtol(port, NULL, 10) : -1;
	return number >= (listening ? 0 : 1) && number <= PORT_MAX;
}

static const char *name_of(const struct srdma_lookup *lookup)
{
	return lookup->host ? lookup->host : lookup->port;
}

static int start_thread(struct srdma_lookup *lookup)
{
	const char *name = name_of(lookup);
	int error;

	if (atomic_load(&abandoned_count) >= ABANDONED_MAX)
		return srdma_fail(-ETIMEDOUT, "cannot look up the host name %s: the name servers have not answered %d earlier lookups yet; "
					      "check the network and /etc/resolv.conf, or give an IP address",
				  name, ABANDONED_MAX);
	lookup->ended_fd = srdma_wake_new();
	if (lookup->ended_fd < 0)
		return srdma_fail(-ENOMEM, "out of memory or descriptors to look up the host name %s", name);
	error = srdma_thread_start(run, lookup, 0, NULL);
	/* Not -EAGAIN, which would ask the caller to go on waiting. */
	return error == 0 ? 0 : srdma_fail(-ENOMEM, "cannot start a thread to look up the host name %s: %s", name, strerror(error));
}

int srdma_lookup_start(const char *host, const char *port, int flags, struct srdma_lookup **out)
{
	bool listening = flags & AI_PASSIVE;
	struct srdma_lookup *lookup;
	int ret = 0;

	if (!is_port(port, listening))
		return fail_port(port, listening);
	if (host && !*host)
		return srdma_fail(-EINVAL, "the host name is empty; give a name or an IP address");
	lookup = lookup_new(host, port, flags | AI_NUMERICHOST | AI_NUMERICSERV);
	if (!lookup)
		return srdma_fail(-ENOMEM, "out of memory");
	/* A numeric address needs no resolver, and so no thread. */
	lookup->ended = getaddrinfo(host, port, &lookup->hints, &lookup->list) == 0;
	lookup->hints.ai_flags = flags;
	if (!lookup->ended)
		ret = start_thread(lookup);
	if (ret != 0) {
		lookup_delete(lookup);
		return ret;
	}
	*out = lookup;
	return 0;
}

int srdma_lookup_fd(const struct srdma_lookup *lookup)
{
	return lookup->ended_fd;
}

int srdma_lookup_step(struct srdma_lookup *lookup, struct addrinfo **list)
{
	int result, error;
	bool ended;

	pthread_mutex_lock(&lookup->mutex);
	ended = lookup->ended;
	result = lookup->result;
	error = lookup->error;
	if (ended && result == 0) {
		*list = lookup->list;
		lookup->list = NULL;
	}
	pthread_mutex_unlock(&lookup->mutex);
	if (!ended)
		return srdma_again("the name servers");
	return result == 0 ? 0 : fail_lookup(name_of(lookup), lookup->port, lookup->hints.ai_flags & AI_PASSIVE, result, error);
}

int srdma_lookup_fail_late(const struct srdma_lookup *lookup, int ms)
{
	return srdma_fail(-ETIMEDOUT, "timed out after %d ms waiting for the name servers to look up %s; check the network and "
				      "/etc/resolv.conf, or give an IP address",
			  ms, name_of(lookup));
}

void srdma_lookup_free(struct srdma_lookup **out)
{
	struct srdma_lookup *lookup = *out;
	bool ended;

	*out = NULL;
	if (!lookup)
		return;
	pthread_mutex_lock(&lookup->mutex);
	ended = lookup->ended;
	if (!ended) {
		lookup->abandoned = true;
		atomic_fetch_add(&abandoned_count, 1);
	}
	pthread_mutex_unlock(&lookup->mutex);
	if (ended)
		lookup_delete(lookup);
}

int srdma_resolve(const char *host, const char *port, int flags, uint64_t deadline, struct addrinfo **list)
{
	int ms = srdma_deadline_left_ms(deadline);
	struct srdma_lookup *lookup;
	int ret = srdma_lookup_start(host, port, flags, &lookup);

	if (ret != 0)
		return ret;
	if (lookup->ended_fd >= 0)
		srdma_net_wait(lookup->ended_fd, POLLIN, deadline);
	ret = srdma_lookup_step(lookup, list);
	if (ret == -EAGAIN)
		ret = srdma_lookup_fail_late(lookup, ms);
	srdma_lookup_free(&lookup);
	return ret;
}
