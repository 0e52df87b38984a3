/* SPDX-License-Identifier: Apache-2.0 */
#include "owner.h"

#include <errno.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_SIZE 32768
/* Answers to one request: those of a machine with very many devices. */
#define ANSWERS_MAX 64
#define TYPE(command) RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command)

int owner_open(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_RDMA);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* The attribute at `at`, whose value is `size` bytes; NULL: the rest holds none that is whole. */
static const struct nlattr *attribute(const char *at, const char *end, size_t *size)
{
	const struct nlattr *found = (const struct nlattr *)(const void *)at;

	if ((size_t)(end - at) < NLA_HDRLEN || found->nla_len < NLA_HDRLEN || found->nla_len > (size_t)(end - at))
		return NULL;
	*size = found->nla_len - NLA_HDRLEN;
	return found;
}

static void take_attribute(const struct nlattr *found, size_t size, struct owner_answer *out)
{
	const char *value = (const char *)found + NLA_HDRLEN;

	switch (found->nla_type & NLA_TYPE_MASK) {
	case RDMA_NLDEV_ATTR_DEV_INDEX:
		if (size == sizeof out->index)
			memcpy(&out->index, value, sizeof out->index);
		break;
	case RDMA_NLDEV_ATTR_RES_PID:
		if (size == sizeof out->pid)
			memcpy(&out->pid, value, sizeof out->pid);
		break;
	case RDMA_NLDEV_ATTR_DEV_NAME:
		snprintf(out->device, sizeof out->device, "%.*s", (int)strnlen(value, size), value);
		break;
	default: break;
	}
}

static void take_attributes(const char *at, const char *end, struct owner_answer *out)
{
	const struct nlattr *found;
	size_t size;

	while (at < end && (found = attribute(at, end, &size)) != NULL) {
		take_attribute(found, size, out);
		size = NLA_ALIGN(found->nla_len);
		if (size > (size_t)(end - at))
			return;
		at += size;
	}
}

void owner_read(const void *data, size_t length, const char *wanted, struct owner_answer *out)
{
	const char *at = data, *end = at + length;
	struct owner_answer chosen = {0};

	while ((size_t)(end - at) >= NLMSG_HDRLEN) {
		const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)at;
		struct owner_answer one = {0};
		int error = 0;

		if (header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > (size_t)(end - at))
			break;
		if (header->nlmsg_type == NLMSG_ERROR && header->nlmsg_len >= NLMSG_HDRLEN + sizeof error) {
			memcpy(&error, at + NLMSG_HDRLEN, sizeof error);
			chosen.error = error;
		} else if (header->nlmsg_type != NLMSG_DONE && header->nlmsg_type != NLMSG_ERROR) {
			take_attributes(at + NLMSG_HDRLEN, at + header->nlmsg_len, &one);
			if (strcmp(one.device, wanted) == 0)
				one.error = chosen.error, chosen = one;
		}
		if (NLMSG_ALIGN(header->nlmsg_len) >= (size_t)(end - at))
			break;
		at += NLMSG_ALIGN(header->nlmsg_len);
	}
	*out = chosen;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

struct request {
	struct nlmsghdr header;
	struct {
		struct nlattr header;
		uint32_t value;
	} attributes[3];
};

static void put(struct request *request, unsigned at, uint16_t type, uint32_t value)
{
	request->attributes[at].header = (struct nlattr){.nla_len = NLA_HDRLEN + sizeof value, .nla_type = type};
	request->attributes[at].value = value;
	request->header.nlmsg_len += sizeof request->attributes[at];
}

/* Sends the request, and reads all answers that the kernel has put into the socket meanwhile. */
static bool ask(int fd, const struct request *request, const char *device, struct owner_answer *out)
{
	static char data[ANSWER_SIZE] __attribute__((aligned(8))); /* the agent has one thread */
	struct owner_answer one;

	*out = (struct owner_answer){0};
	while (recv(fd, data, sizeof data, MSG_DONTWAIT) >= 0)
		; /* what an earlier request may have left */
	if (send(fd, request, request->header.nlmsg_len, MSG_DONTWAIT) < 0)
		return false;
	for (int i = 0; i < ANSWERS_MAX; i++) {
		ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);

		if (n <= 0)
			break;
		owner_read(data, (size_t)n, device, &one);
		if (one.error != 0)
			out->error = one.error;
		if (one.device[0] && !out->device[0]) {
			int error = out->error;

			*out = one;
			out->error = error;
		}
	}
	return true;
}

static bool find_device(int fd, const char *device, uint32_t *index)
{
	struct request request = {.header = {.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = TYPE(RDMA_NLDEV_CMD_GET), .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	struct owner_answer answer;

	if (!ask(fd, &request, device, &answer) || !answer.device[0])
		return false;
	/* The kernel counts from 0. */
	*index = answer.index + 1;
	return true;
}

/* The kernel names the thread that made the queue pair. */
static bool is_thread_of(uint32_t thread, pid_t pid)
{
	char path[64];

	if (thread == (uint32_t)pid)
		return true;
	snprintf(path, sizeof path, "/proc/%d/task/%u", (int)pid, thread);
	return access(path, F_OK) == 0;
}

enum owner owner_check(int fd, const char *device, uint32_t *index, uint32_t port, uint32_t qpn, pid_t pid)
{
	struct owner_answer answer = {0};

	/* A second time with a fresh number, for a device that was removed and came back. */
	for (int i = 0; fd >= 0 && i < 2; i++) {
		struct request request = {.header = {.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = TYPE(RDMA_NLDEV_CMD_RES_QP_GET), .nlmsg_flags = NLM_F_REQUEST}};

		if ((*index == 0 || i > 0) && !find_device(fd, device, index))
			return OWNER_UNKNOWN;
		put(&request, 0, RDMA_NLDEV_ATTR_DEV_INDEX, *index - 1);
		put(&request, 1, RDMA_NLDEV_ATTR_PORT_INDEX, port);
		put(&request, 2, RDMA_NLDEV_ATTR_RES_LQPN, qpn);
		if (!ask(fd, &request, device, &answer))
			return OWNER_UNKNOWN;
		if (answer.device[0] && answer.pid != 0)
			return is_thread_of(answer.pid, pid) ? OWNER_IS : OWNER_IS_NOT;
		if (answer.error == -ENOENT)
			return OWNER_IS_NOT;
		if (answer.device[0] || (answer.error != -EINVAL && answer.error != -ENODEV))
			break;
	}
	return OWNER_UNKNOWN;
}
