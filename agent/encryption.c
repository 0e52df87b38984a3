/* SPDX-License-Identifier: Apache-2.0 */
#include "encryption.h"
#include "encryption_parts.h"

#include <errno.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEPT 64
#define KEPT_MS 1000

bool encryption_has_prefix(const void *address, const void *prefix, unsigned bits)
{
	const uint8_t *a = address, *b = prefix;
	unsigned bytes = bits / 8, rest = bits % 8;

	return memcmp(a, b, bytes) == 0 && (rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0);
}

bool encryption_is_one_of(const char *name, const char *const names[])
{
	while (*names && strcmp(name, *names) != 0)
		names++;
	return *names;
}

int encryption_grant(const struct encryption_answer *answer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(answer->what, ENCRYPTION_WHAT, format, args);
	va_end(args);
	return 0;
}

int encryption_refuse(const struct encryption_answer *answer, int error, const char *format, ...)
{
	size_t used = strlen(answer->why);
	va_list args;

	if (used > 0 && used < ENCRYPTION_WHY - 3) {
		memcpy(answer->why + used, "; ", 3);
		used += 2;
	}
	va_start(args, format);
	vsnprintf(answer->why + used, ENCRYPTION_WHY - used, format, args);
	va_end(args);
	return error;
}

/* Where rdma_rxe takes its routes and policies from, whatever namespace its network device is in (before Linux 7.2). Only that namespace
 * has the settings of the whole network stack. */
static bool in_first_namespace(void)
{
	return access("/proc/sys/net/core/netdev_budget", F_OK) == 0;
}

/* Neither answer says "not encrypted" as long as the other one was not to be had. */
static int weigh(int link, int ipsec)
{
	if (link == -EPERM || ipsec == -EPERM)
		return -EPERM;
	return link == -EAGAIN || ipsec == -EAGAIN ? -EAGAIN : -EACCES;
}

static int judge(struct encryption_path *path, const uint8_t own[16], const uint8_t peer[16], const char *netdev, const struct encryption_answer *answer)
{
	int fd = netlink_open(NETLINK_ROUTE), ret, link;

	if (fd < 0)
		return encryption_refuse(answer, -EACCES, "cannot ask the kernel for routes: %s", strerror(-fd));
	ret = encryption_path_find(path, fd, own, peer, netdev, answer);
	if (ret == 0 && path->device == ENCRYPTION_RXE && !in_first_namespace())
		ret = encryption_refuse(answer, -EACCES, "rdma_rxe uses the routes and IPsec policies of the host's first network namespace, "
					"and this process is in another one");
	if (ret < 0 || path->local) {
		close(fd);
		return ret < 0 ? ret : encryption_grant(answer, ENCRYPTION_STAYS_HERE);
	}
	if (path->multipath) {
		close(fd);
		return encryption_refuse(answer, -EACCES, "the route to %s has several next hops, or its entry cannot be read", path->peer_text);
	}
	link = encryption_link_judge(path, fd, answer);
	close(fd);
	if (link == 0)
		return 0;
	ret = encryption_ipsec_judge(path, answer);
	return ret == 0 ? 0 : weigh(link, ret);
}

/* An answer, and the question. */
struct kept {
	int64_t time_ms;
	uint8_t own[16], peer[16];
	enum encryption_device device;
	char netdev[IF_NAMESIZE];
	int result;
	char what[ENCRYPTION_WHAT], why[ENCRYPTION_WHY];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the next two */
static struct kept kept[KEPT];
static unsigned next_kept;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool is_same(const struct kept *one, const struct kept *question)
{
	return one->time_ms != 0 && question->time_ms - one->time_ms < KEPT_MS && one->device == question->device &&
	       memcmp(one->own, question->own, sizeof one->own) == 0 && memcmp(one->peer, question->peer, sizeof one->peer) == 0 &&
	       strcmp(one->netdev, question->netdev) == 0;
}

static bool recall(struct kept *question)
{
	bool found = false;

	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < KEPT && !found; i++)
		if (is_same(&kept[i], question)) {
			*question = kept[i];
			found = true;
		}
	pthread_mutex_unlock(&mutex);
	return found;
}

/* What may be otherwise in a moment is not kept. */
static void keep(const struct kept *answer)
{
	if (answer->result == -EAGAIN)
		return;
	pthread_mutex_lock(&mutex);
	kept[next_kept++ % KEPT] = *answer;
	pthread_mutex_unlock(&mutex);
}

void encryption_forget(void)
{
	pthread_mutex_lock(&mutex);
	memset(kept, 0, sizeof kept);
	pthread_mutex_unlock(&mutex);
}

int encryption_check(const uint8_t own[16], const uint8_t peer[16], const char *netdev, enum encryption_device device, char what[ENCRYPTION_WHAT],
		     char why[ENCRYPTION_WHY])
{
	struct kept question = {.time_ms = now_ms(), .device = device};
	struct encryption_answer answer = {question.what, question.why};
	struct encryption_path path = {.device = device};

	memcpy(question.own, own, sizeof question.own);
	memcpy(question.peer, peer, sizeof question.peer);
	if (netdev)
		snprintf(question.netdev, sizeof question.netdev, "%s", netdev);
	if (!recall(&question)) {
		question.result = judge(&path, own, peer, netdev, &answer);
		keep(&question);
	}
	memcpy(what, question.result == 0 ? question.what : "", question.result == 0 ? sizeof question.what : 1);
	memcpy(why, question.result == 0 ? "" : question.why, question.result == 0 ? 1 : sizeof question.why);
	return question.result;
}
