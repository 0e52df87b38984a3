/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy.h"

#include "cursor.h"
#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#define TEXT_MIN    15  /* "PROXY UNKNOWN\r\n" */
#define TEXT_MAX    107 /* with two IPv6 addresses written out */
#define TEXT_WORDS  6
#define BINARY_MIN  16

enum { COMMAND_LOCAL = 0, COMMAND_PROXY = 1 };
enum { TCP4 = 0x11, TCP6 = 0x21 };

static const char text_start[] = "PROXY ";
static const uint8_t binary_start[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static bool may_start_with(const uint8_t *data, size_t have, const void *start, size_t length)
{
	return memcmp(data, start, have < length ? have : length) == 0;
}

static int wait_for(struct srdma_proxy *proxy, size_t length)
{
	proxy->length = length;
	return -EAGAIN;
}

/* Excludes addresses that no host can have, so that no client can come from them. */
static bool is_of_a_host(const struct sockaddr_storage *address)
{
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
	uint32_t v4 = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);

	if (address->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(v6))
		return !IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_MULTICAST(v6);
	if (address->ss_family == AF_INET6) {
		memcpy(&v4, v6->s6_addr + 12, sizeof v4);
		v4 = ntohl(v4);
	}
	return v4 != INADDR_ANY && v4 != INADDR_BROADCAST && !IN_MULTICAST(v4);
}

static int take_source(struct srdma_proxy *proxy)
{
	if (!is_of_a_host(&proxy->source))
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: the client's address cannot be that of a host");
	return 0;
}

/* 0 with the line's length, its end included; -EAGAIN: it goes on. */
static int find_end(const uint8_t *data, size_t have, struct srdma_proxy *proxy)
{
	size_t i = 0;

	while (i < have && i < TEXT_MAX && data[i] != '\r' && data[i] != '\n')
		i++;
	if (i + 2 > TEXT_MAX)
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: the line is longer than %d bytes", TEXT_MAX);
	/* The end takes at least two more bytes, so that asking for these reads nothing behind it. */
	if (i == have)
		return wait_for(proxy, i + 2 > TEXT_MIN ? i + 2 : TEXT_MIN);
	if (data[i] == '\r' && i + 1 == have)
		return wait_for(proxy, i + 2);
	if (data[i] != '\r' || data[i + 1] != '\n')
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: the line does not end in CR LF");
	proxy->length = i + 2;
	return 0;
}

/* 0 to 65535, without leading zeros. */
static bool parse_port(const char *text, in_port_t *port)
{
	unsigned value = 0;
	size_t length = strlen(text);

	if (length < 1 || length > 5 || strspn(text, "0123456789") != length || (text[0] == '0' && length > 1))
		return false;
	for (size_t i = 0; i < length; i++)
		value = value * 10 + (unsigned)(text[i] - '0');
	*port = htons((uint16_t)value);
	return value <= UINT16_MAX;
}

static bool parse_source(const char *family, const char *address, const char *port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	*out = (struct sockaddr_storage){0};
	if (strcmp(family, "TCP4") == 0) {
		v4->sin_family = AF_INET;
		return inet_pton(AF_INET, address, &v4->sin_addr) == 1 && parse_port(port, &v4->sin_port);
	}
	v6->sin6_family = AF_INET6;
	return strcmp(family, "TCP6") == 0 && inet_pton(AF_INET6, address, &v6->sin6_addr) == 1 &&
	       parse_port(port, &v6->sin6_port);
}

/* Cuts at each single space. Returns the number of words; one more than there is room for when there are more. */
static unsigned cut(char *line, char *words[TEXT_WORDS])
{
	unsigned count = 0;

	for (char *at = line; at; count++) {
		char *space = strchr(at, ' ');

		if (count == TEXT_WORDS)
			return count + 1;
		words[count] = at;
		if (space)
			*space++ = '\0';
		at = space;
	}
	return count;
}

static int parse_text(const uint8_t *data, size_t have, struct srdma_proxy *proxy)
{
	static const char unknown[] = "PROXY UNKNOWN";
	struct sockaddr_storage target;
	char line[TEXT_MAX + 1], *words[TEXT_WORDS];
	size_t length;
	int ret = find_end(data, have, proxy);

	if (ret != 0)
		return ret;
	length = proxy->length - 2;
	memcpy(line, data, length);
	line[length] = '\0';
	proxy->own = length >= sizeof unknown - 1 && memcmp(line, unknown, sizeof unknown - 1) == 0 &&
		     (line[sizeof unknown - 1] == '\0' || line[sizeof unknown - 1] == ' ');
	if (proxy->own)
		return 0;
	/* A NUL would hide the text behind it. */
	if (memchr(line, '\0', length) || cut(line, words) != TEXT_WORDS ||
	    !parse_source(words[1], words[2], words[4], &proxy->source) || !parse_source(words[1], words[3], words[5], &target))
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: the line does not hold two addresses and their ports");
	return take_source(proxy);
}

/* Ignores the fields behind the addresses, which nothing here needs. */
static int parse_addresses(struct srdma_reader *r, uint8_t family, struct srdma_proxy *proxy)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&proxy->source;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&proxy->source;
	uint8_t target[16];

	proxy->source = (struct sockaddr_storage){0};
	if (family == TCP4) {
		v4->sin_family = AF_INET;
		srdma_get_bytes(r, &v4->sin_addr, 4);
		srdma_get_bytes(r, target, 4);
		v4->sin_port = htons(srdma_get_u16(r));
	} else if (family == TCP6) {
		v6->sin6_family = AF_INET6;
		srdma_get_bytes(r, &v6->sin6_addr, 16);
		srdma_get_bytes(r, target, 16);
		v6->sin6_port = htons(srdma_get_u16(r));
	} else {
		/* The protocol lets the receiver decide. The limits for an address cannot apply to a client without one. */
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: family and protocol 0x%02x are not TCP over IPv4 or IPv6", family);
	}
	srdma_get_u16(r);
	if (r->overrun)
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: it is too short for its addresses");
	return take_source(proxy);
}

static int parse_binary(const uint8_t *data, size_t have, struct srdma_proxy *proxy)
{
	struct srdma_reader r;
	uint8_t start[sizeof binary_start], command, family;
	uint16_t length;

	if (have < BINARY_MIN)
		return wait_for(proxy, BINARY_MIN);
	srdma_reader_init(&r, data, have);
	srdma_get_bytes(&r, start, sizeof start);
	command = srdma_get_u8(&r);
	family = srdma_get_u8(&r);
	length = srdma_get_u16(&r);
	if (command >> 4 != 2 || (command & 0xf) > COMMAND_PROXY)
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: version and command 0x%02x are not known", command);
	if (length > SRDMA_PROXY_MAX - BINARY_MIN)
		return srdma_fail(SRDMA_EPROTOCOL, "PROXY header: it has %u bytes; at most %d are accepted", BINARY_MIN + length,
				  SRDMA_PROXY_MAX);
	if (have - BINARY_MIN < length)
		return wait_for(proxy, BINARY_MIN + (size_t)length);
	proxy->length = BINARY_MIN + (size_t)length;
	proxy->own = (command & 0xf) == COMMAND_LOCAL;
	if (proxy->own)
		return 0;
	r.left = length;
	return parse_addresses(&r, family, proxy);
}

int srdma_proxy_parse(const uint8_t *data, size_t have, struct srdma_proxy *proxy)
{
	*proxy = (struct srdma_proxy){0};
	if (have == 0)
		return wait_for(proxy, TEXT_MIN);
	if (may_start_with(data, have, binary_start, sizeof binary_start))
		return parse_binary(data, have, proxy);
	if (may_start_with(data, have, text_start, sizeof text_start - 1))
		return parse_text(data, have, proxy);
	return srdma_fail(SRDMA_EPROTOCOL, "no PROXY header at the start of a connection from proxy-networks; configure the "
					   "balancer to send one (HAProxy: send-proxy-v2)");
}
