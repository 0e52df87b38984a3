/* SPDX-License-Identifier: Apache-2.0 */
#include "server_name.h"

#include "log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#define LABEL_MAX 63

static bool parse_address(const char *text, struct srdma_server_name *out)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *list = NULL;
	const unsigned char *bytes;

	if (getaddrinfo(text, NULL, &hints, &list) != 0)
		return false;
	if (list->ai_family == AF_INET) {
		bytes = (const unsigned char *)&((const struct sockaddr_in *)(const void *)list->ai_addr)->sin_addr;
		out->address_length = 4;
	} else {
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)list->ai_addr)->sin6_addr;
		bool mapped = IN6_IS_ADDR_V4MAPPED(v6);

		bytes = v6->s6_addr + (mapped ? 12 : 0);
		out->address_length = mapped ? 4 : 16;
	}
	memcpy(out->address, bytes, out->address_length);
	freeaddrinfo(list);
	return true;
}

/* Letters, digits, '-' and the '_' that some networks have. No empty label: OpenSSL takes a name that begins with a dot
 * for every name below it. */
static const char *name_problem(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";

	for (const char *label = name;;) {
		size_t length = strcspn(label, ".");

		if (length == 0)
			return "a part of it is empty";
		if (length > LABEL_MAX)
			return "a part of it is longer than 63 characters";
		if (strspn(label, allowed) < length)
			return "it has characters that no host name has; an international name is written with xn--";
		if (label[length] == '\0')
			return NULL;
		label += length + 1;
	}
}

static void lower(char *text)
{
	for (char *c = text; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
}

int srdma_server_name_parse(const char *typed, struct srdma_server_name *out)
{
	struct srdma_server_name name = {.dns = ""};
	char text[sizeof name.dns + 2]; /* brackets, or a dot at the end */
	size_t length = typed ? strlen(typed) : 0;
	const char *problem = NULL;

	if (length == 0)
		return srdma_fail(-EINVAL, "give the name that the server's certificate must contain");
	if (length >= sizeof text) {
		problem = "it is longer than 253 characters";
		goto fail;
	}
	memcpy(text, typed, length + 1);
	if (text[0] == '[' && text[length - 1] == ']') {
		text[length - 1] = '\0';
		memmove(text, text + 1, length - 1);
	}
	/* Only this machine knows the zone's name, and a certificate is checked without it. */
	if (strchr(text, ':') && strchr(text, '%'))
		*strchr(text, '%') = '\0';
	length = strlen(text);
	if (length > 1 && text[length - 1] == '.')
		text[--length] = '\0';
	if (parse_address(text, &name)) {
		*out = name;
		return 0;
	}
	lower(text);
	problem = length >= sizeof name.dns ? "it is longer than 253 characters" : name_problem(text);
	if (problem)
		goto fail;
	memcpy(name.dns, text, length + 1);
	*out = name;
	return 0;

fail:
	return srdma_fail(-EINVAL, "'%.260s' is not a name that a certificate can contain: %s", typed, problem);
}
