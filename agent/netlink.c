/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The kernel fills no more of an answer than this at once, unless a single message is longer. */
#define BUFFER 32768
/* The kernel has an answer ready when the request is sent, and its next part when one is taken: nothing waits, unless something is wrong. */
#define WAIT_S 1

static void skip(struct netlink_cursor *from, size_t size)
{
	size = size < from->left ? size : from->left;
	from->at += size;
	from->left -= size;
}

bool netlink_message_next(struct netlink_cursor *from, struct netlink_message *message)
{
	struct nlmsghdr header;

	if (from->left < sizeof header)
		return false;
	memcpy(&header, from->at, sizeof header);
	if (header.nlmsg_len < sizeof header || header.nlmsg_len > from->left)
		return false;
	*message = (struct netlink_message){
		.type = header.nlmsg_type, .flags = header.nlmsg_flags, .sequence = header.nlmsg_seq,
		.body = {from->at + sizeof header, header.nlmsg_len - sizeof header},
	};
	skip(from, NLMSG_ALIGN((size_t)header.nlmsg_len));
	return true;
}

bool netlink_attribute_next(struct netlink_cursor *from, struct netlink_attribute *attribute)
{
	struct nlattr header;

	if (from->left < sizeof header)
		return false;
	memcpy(&header, from->at, sizeof header);
	if (header.nla_len < sizeof header || header.nla_len > from->left)
		return false;
	*attribute = (struct netlink_attribute){
		.type = header.nla_type & NLA_TYPE_MASK, .body = {from->at + sizeof header, header.nla_len - sizeof header},
	};
	skip(from, NLA_ALIGN((size_t)header.nla_len));
	return true;
}

bool netlink_take(struct netlink_cursor *from, void *out, size_t size)
{
	if (from->left < size)
		return false;
	memcpy(out, from->at, size);
	skip(from, NLMSG_ALIGN(size));
	return true;
}

bool netlink_bytes(const struct netlink_attribute *attribute, void *out, size_t size)
{
	if (attribute->body.left != size)
		return false;
	memcpy(out, attribute->body.at, size);
	return true;
}

uint8_t netlink_u8(const struct netlink_attribute *attribute)
{
	uint8_t value = 0;

	netlink_bytes(attribute, &value, sizeof value);
	return value;
}

uint16_t netlink_u16(const struct netlink_attribute *attribute)
{
	uint16_t value = 0;

	netlink_bytes(attribute, &value, sizeof value);
	return value;
}

uint32_t netlink_u32(const struct netlink_attribute *attribute)
{
	uint32_t value = 0;

	netlink_bytes(attribute, &value, sizeof value);
	return value;
}

void netlink_text(const struct netlink_attribute *attribute, char *out, size_t size)
{
	size_t length = strnlen((const char *)attribute->body.at, attribute->body.left);

	length = length < size ? length : size - 1;
	memcpy(out, attribute->body.at, length);
	out[length] = '\0';
}

static void append(struct netlink_request *request, const void *data, size_t size)
{
	size_t room = sizeof request->bytes - request->size;

	/* Requests are built of a few fields with known sizes. */
	if (size > room || NLMSG_ALIGN(size) > room)
		return;
	if (size > 0)
		memcpy(request->bytes + request->size, data, size);
	request->size += (uint32_t)NLMSG_ALIGN(size);
}

void netlink_begin(struct netlink_request *request, uint16_t type, uint16_t flags, const void *header, size_t size)
{
	struct nlmsghdr start = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};

	memset(request, 0, sizeof *request);
	append(request, &start, sizeof start);
	append(request, header, size);
}

void netlink_put(struct netlink_request *request, uint16_t type, const void *data, size_t size)
{
	struct nlattr start = {.nla_len = (uint16_t)(sizeof start + size), .nla_type = type};

	append(request, &start, sizeof start);
	append(request, data, size);
}

int netlink_open(int protocol)
{
	const struct timeval wait = {.tv_sec = WAIT_S};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	return fd;
}

static int send_request(int fd, struct netlink_request *request, uint32_t sequence)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct nlmsghdr header;

	memcpy(&header, request->bytes, sizeof header);
	header.nlmsg_len = request->size;
	header.nlmsg_seq = sequence;
	memcpy(request->bytes, &header, sizeof header);
	if (sendto(fd, request->bytes, request->size, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		return -errno;
	return 0;
}

/* One datagram of the kernel. Returns its size. */
static int receive(int fd, uint8_t *buffer, size_t size)
{
	for (;;) {
		struct sockaddr_nl from = {.nl_family = AF_NETLINK};
		struct iovec iov = {buffer, size};
		struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
		ssize_t got = recvmsg(fd, &header, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (got == 0 || (header.msg_flags & MSG_TRUNC))
			return -EPROTO;
		if (from.nl_pid == 0) /* else from another process, that this one never asked */
			return (int)got;
	}
}

struct answer {
	uint32_t sequence;
	unsigned messages;
	bool done;
	int (*each)(const struct netlink_message *message, void *arg);
	void *arg;
};

static int take_message(struct answer *answer, const struct netlink_message *message)
{
	struct netlink_cursor body = message->body;
	int error;

	if (message->sequence != answer->sequence)
		return 0;
	if (message->flags & NLM_F_DUMP_INTR)
		return -EBUSY;
	if (message->type == NLMSG_ERROR || message->type == NLMSG_DONE) {
		answer->done = true;
		/* Of a dump that fails in its course, NLMSG_DONE has the error. */
		return netlink_take(&body, &error, sizeof error) && error < 0 ? error : 0;
	}
	if (++answer->messages > NETLINK_MESSAGES)
		return -E2BIG;
	answer->done = !(message->flags & NLM_F_MULTI);
	return answer->each ? answer->each(message, answer->arg) : 0;
}

int netlink_ask(int fd, struct netlink_request *request, int (*each)(const struct netlink_message *message, void *arg), void *arg)
{
	static _Atomic uint32_t last;
	uint32_t sequence = ++last;
	struct answer answer = {.sequence = sequence, .each = each, .arg = arg};
	uint8_t buffer[BUFFER];
	int ret = send_request(fd, request, sequence);

	while (ret == 0 && !answer.done) {
		struct netlink_message message;
		struct netlink_cursor got = {buffer, 0};

		ret = receive(fd, buffer, sizeof buffer);
		if (ret < 0)
			break;
		got.left = (size_t)ret;
		for (ret = 0; ret == 0 && !answer.done && netlink_message_next(&got, &message);)
			ret = take_message(&answer, &message);
	}
	explicit_bzero(buffer, sizeof buffer);
	return ret;
}

static int take_family(const struct netlink_message *message, void *arg)
{
	struct netlink_cursor body = message->body;
	struct genlmsghdr header;
	struct netlink_attribute attribute;

	if (netlink_take(&body, &header, sizeof header))
		while (netlink_attribute_next(&body, &attribute))
			if (attribute.type == CTRL_ATTR_FAMILY_ID)
				*(uint16_t *)arg = netlink_u16(&attribute);
	return 0;
}

int netlink_open_family(const char *name, int *out, uint16_t *family)
{
	struct genlmsghdr header = {.cmd = CTRL_CMD_GETFAMILY, .version = 1};
	struct netlink_request request;
	int fd = netlink_open(NETLINK_GENERIC), ret;

	if (fd < 0)
		return fd;
	*family = 0;
	netlink_begin(&request, GENL_ID_CTRL, 0, &header, sizeof header);
	netlink_put(&request, CTRL_ATTR_FAMILY_NAME, name, strlen(name) + 1);
	ret = netlink_ask(fd, &request, take_family, family);
	if (ret == 0 && *family == 0)
		ret = -ENOENT;
	if (ret < 0)
		close(fd);
	else
		*out = fd;
	return ret;
}
