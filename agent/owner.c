/* SPDX-License-Identifier: Apache-2.0 */
#include "owner.h"

#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_SIZE 32768
/* Answers to one request: those of a machine with very many devices, or queue pairs. */
#define ANSWERS_MAX 1024
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

static void take_number(const char *value, size_t size, uint32_t *out)
{
	if (size == sizeof *out)
		memcpy(out, value, sizeof *out);
}

static void take_parent(const char *value, size_t size, enum owner_parent kind, struct owner_answer *out)
{
	out->has_parent[kind] = size == sizeof out->parents[kind];
	take_number(value, size, &out->parents[kind]);
}

static void take_attribute(const struct nlattr *found, size_t size, struct owner_answer *out)
{
	const char *value = (const char *)found + NLA_HDRLEN;

	switch (found->nla_type & NLA_TYPE_MASK) {
	case RDMA_NLDEV_ATTR_DEV_INDEX: take_number(value, size, &out->index); break;
	case RDMA_NLDEV_ATTR_RES_PID: take_number(value, size, &out->pid); break;
	case RDMA_NLDEV_ATTR_RES_LQPN: take_number(value, size, &out->qpn); break;
	case RDMA_NLDEV_ATTR_RES_PDN: take_parent(value, size, OWNER_DOMAIN, out); break;
	case RDMA_NLDEV_ATTR_RES_CTXN: take_parent(value, size, OWNER_CONTEXT, out); break;
	case RDMA_NLDEV_ATTR_RES_KERN_NAME: out->is_kernels = true; break;
	case RDMA_NLDEV_ATTR_DEV_NAME:
		snprintf(out->device, sizeof out->device, "%.*s", (int)strnlen(value, size), value);
		break;
	default: break;
	}
}

/* Calls `take` for each attribute. */
static void each_attribute(const char *at, const char *end, void (*take)(const struct nlattr *found, size_t size, struct owner_answer *out),
			   struct owner_answer *out)
{
	const struct nlattr *found;
	size_t size;

	while (at < end && (found = attribute(at, end, &size)) != NULL) {
		take(found, size, out);
		size = NLA_ALIGN(found->nla_len);
		if (size > (size_t)(end - at))
			return;
		at += size;
	}
}

/* An entry of a list of queue pairs; that of the one that is looked for counts. */
static void take_entry(const struct nlattr *found, size_t size, struct owner_answer *out)
{
	const char *value = (const char *)found + NLA_HDRLEN;
	struct owner_answer one = {.wanted = out->wanted, .index = out->index};

	memcpy(one.device, out->device, sizeof one.device);
	each_attribute(value, value + size, take_attribute, &one);
	if (one.qpn == out->wanted)
		*out = one;
}

static void take_any(const struct nlattr *found, size_t size, struct owner_answer *out)
{
	const char *value = (const char *)found + NLA_HDRLEN;

	if ((found->nla_type & NLA_TYPE_MASK) == RDMA_NLDEV_ATTR_RES_QP)
		each_attribute(value, value + size, take_entry, out);
	else
		take_attribute(found, size, out);
}

void owner_read(const void *data, size_t length, const char *wanted, uint32_t qpn, struct owner_answer *out)
{
	const char *at = data, *end = at + length;
	struct owner_answer chosen = {0};

	while ((size_t)(end - at) >= NLMSG_HDRLEN) {
		const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)at;
		struct owner_answer one = {.wanted = qpn};
		int error = 0;

		if (header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > (size_t)(end - at))
			break;
		if (header->nlmsg_type == NLMSG_ERROR && header->nlmsg_len >= NLMSG_HDRLEN + sizeof error) {
			memcpy(&error, at + NLMSG_HDRLEN, sizeof error);
			chosen.error = error;
		} else if (header->nlmsg_type != NLMSG_DONE && header->nlmsg_type != NLMSG_ERROR) {
			each_attribute(at + NLMSG_HDRLEN, at + header->nlmsg_len, take_any, &one);
			if (strcmp(one.device, wanted) == 0 && (qpn == 0 || one.qpn == qpn))
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

/* Sends the request, and reads all answers that the kernel has put into the socket meanwhile. `qpn`: the one queue pair of a list that counts. */
static bool ask(int fd, const struct request *request, const char *device, uint32_t qpn, struct owner_answer *out)
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
		owner_read(data, (size_t)n, device, qpn, &one);
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

static struct request make_request(uint16_t command, uint16_t more_flags)
{
	return (struct request){.header = {.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = (uint16_t)TYPE(command), .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | more_flags)}};
}

static bool find_device(int fd, const char *device, uint32_t *index)
{
	struct request request = make_request(RDMA_NLDEV_CMD_GET, NLM_F_DUMP);
	struct owner_answer answer;

	if (!ask(fd, &request, device, 0, &answer) || !answer.device[0])
		return false;
	/* The kernel counts from 0. */
	*index = answer.index + 1;
	return true;
}

/* Signal 0 is none: the kernel only looks whether the process has such a thread. /proc may hide other users' processes (hidepid). */
static int look_for_thread(pid_t pid, pid_t thread)
{
	return syscall(SYS_tgkill, pid, thread, 0) == 0 ? 0 : -errno;
}

/* The kernel names the thread that made the queue pair. */
static bool is_thread_of(uint32_t thread, pid_t pid)
{
	int error = thread == (uint32_t)pid ? 0 : look_for_thread(pid, (pid_t)thread);

	/* It is there, and another user's; or a filter of system calls refuses to look, which it then does for all numbers. */
	if (error == -EPERM)
		return look_for_thread(INT_MAX, INT_MAX) == -ESRCH;
	return error == 0;
}

/* Of a thread that has ended the kernel does not tell any more. The process is then that which made the protection domain, or opened the
 * device. */
static enum owner owner_of(int fd, const char *device, uint32_t index, struct owner_answer *answer, pid_t pid)
{
	static const struct {
		uint16_t command, id;
	} parents[OWNER_PARENTS] = {
		[OWNER_DOMAIN] = {RDMA_NLDEV_CMD_RES_PD_GET, RDMA_NLDEV_ATTR_RES_PDN},
		[OWNER_CONTEXT] = {RDMA_NLDEV_CMD_RES_CTX_GET, RDMA_NLDEV_ATTR_RES_CTXN},
	};

	for (int i = 0; i < OWNER_PARENTS && answer->pid == 0 && answer->has_parent[i]; i++) {
		struct request request = make_request(parents[i].command, 0);

		put(&request, 0, RDMA_NLDEV_ATTR_DEV_INDEX, index);
		put(&request, 1, parents[i].id, answer->parents[i]);
		if (!ask(fd, &request, device, 0, answer))
			return OWNER_UNKNOWN;
	}
	if (answer->pid != 0)
		return is_thread_of(answer->pid, pid) ? OWNER_IS : OWNER_IS_NOT;
	return answer->is_kernels ? OWNER_IS_NOT : OWNER_UNKNOWN;
}

/* The agent may be there before the kernel has RDMA. */
static bool can_ask(int *fd)
{
	if (*fd < 0)
		*fd = owner_open();
	return *fd >= 0;
}

enum owner owner_check(int *fd, const char *device, uint32_t *index, uint32_t port, uint32_t qpn, pid_t pid)
{
	struct owner_answer answer = {0};

	/* A second time with a fresh number, for a device that was removed and came back. */
	for (int i = 0; i < 2 && can_ask(fd); i++) {
		struct request request = make_request(RDMA_NLDEV_CMD_RES_QP_GET, 0);

		if ((*index == 0 || i > 0) && !find_device(*fd, device, index))
			return OWNER_UNKNOWN;
		put(&request, 0, RDMA_NLDEV_ATTR_DEV_INDEX, *index - 1);
		put(&request, 1, RDMA_NLDEV_ATTR_PORT_INDEX, port);
		put(&request, 2, RDMA_NLDEV_ATTR_RES_LQPN, qpn);
		if (!ask(*fd, &request, device, 0, &answer))
			return OWNER_UNKNOWN;
		if (answer.device[0])
			return owner_of(*fd, device, *index - 1, &answer, pid);
		if (answer.error == -ENOENT)
			return OWNER_IS_NOT;
		if (answer.error != -EINVAL && answer.error != -ENODEV)
			break;
	}
	return OWNER_UNKNOWN;
}

enum owner owner_search(int *fd, const char *device, uint32_t *index, uint32_t qpn, pid_t pid)
{
	struct request request = make_request(RDMA_NLDEV_CMD_RES_QP_GET, NLM_F_DUMP);
	struct owner_answer answer;

	if (!can_ask(fd) || !find_device(*fd, device, index))
		return OWNER_UNKNOWN;
	put(&request, 0, RDMA_NLDEV_ATTR_DEV_INDEX, *index - 1);
	if (!ask(*fd, &request, device, qpn, &answer) || !answer.device[0])
		return OWNER_UNKNOWN;
	return owner_of(*fd, device, *index - 1, &answer, pid);
}
