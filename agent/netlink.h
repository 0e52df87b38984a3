/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the kernel by netlink, and a bounded way through its answers. */
#ifndef AGENT_NETLINK_H
#define AGENT_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is left of a message, or of a nest of attributes. */
struct netlink_cursor {
	const uint8_t *at;
	size_t left;
};

struct netlink_message {
	uint16_t type, flags;
	uint32_t sequence;
	struct netlink_cursor body; /* behind the header of netlink */
};

struct netlink_attribute {
	uint16_t type;
	struct netlink_cursor body;
};

/* The next message or attribute, if a whole one is left. What is cut short ends the walk. */
bool netlink_message_next(struct netlink_cursor *from, struct netlink_message *message);
bool netlink_attribute_next(struct netlink_cursor *from, struct netlink_attribute *attribute);
/* Takes a structure of a fixed size from the front, and the padding behind it. False: there is less. */
bool netlink_take(struct netlink_cursor *from, void *out, size_t size);
/* An attribute's value: numbers in the host's order, 0 if it has another size. */
uint8_t netlink_u8(const struct netlink_attribute *attribute);
uint16_t netlink_u16(const struct netlink_attribute *attribute);
uint32_t netlink_u32(const struct netlink_attribute *attribute);
/* A text, always terminated, cut to fit. */
void netlink_text(const struct netlink_attribute *attribute, char *out, size_t size);
/* Copies the value of exactly this size. False: it has another. */
bool netlink_bytes(const struct netlink_attribute *attribute, void *out, size_t size);

struct netlink_request {
	uint32_t size;
	_Alignas(8) uint8_t bytes[256];
};

/* A request with its type's own header (NULL: none); NLM_F_REQUEST is set. */
void netlink_begin(struct netlink_request *request, uint16_t type, uint16_t flags, const void *header, size_t size);
void netlink_put(struct netlink_request *request, uint16_t type, const void *data, size_t size);

/* Opens a socket of a protocol (NETLINK_ROUTE). Returns the descriptor. Errors: errno's. */
int netlink_open(int protocol);

/* An answer may have this many messages. */
#define NETLINK_MESSAGES 10000

/* Sends the request and calls `each` with each message of the answer, until that returns other than 0, which is then the result.
 * Keys that were in the answer are wiped. Errors: the kernel's; -ETIMEDOUT the kernel had no answer for a second; -E2BIG more than NETLINK_MESSAGES;
 * -EBUSY the kernel's lists changed meanwhile; -EPROTO no answer that this understands. */
int netlink_ask(int fd, struct netlink_request *request, int (*each)(const struct netlink_message *message, void *arg), void *arg);

/* Opens generic netlink and looks up a family's number; *out is the descriptor. Errors: -ENOENT the kernel does not have it. */
int netlink_open_family(const char *name, int *out, uint16_t *family);

#endif
