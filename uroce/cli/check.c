/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options, checked before anything runs. Whether an address or an interface exists is not asked: the command
 * may enter another network namespace first. */
#include "cli.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>

#include "fault.h"
#include "log.h"

enum { LONGEST_WORD = INET6_ADDRSTRLEN + IF_NAMESIZE };

/* Only digits and points, or with a colon: meant as an address. */
static bool looks_like_address(const char *word)
{
	return strchr(word, ':') || word[strspn(word, "0123456789.")] == '\0';
}

static bool is_address(char *word)
{
	char *scope = strchr(word, '%');
	struct in6_addr address;

	if (scope) {
		*scope = '\0';
		return scope[1] && inet_pton(AF_INET6, word, &address) == 1;
	}
	return inet_pton(AF_INET, word, &address) == 1 || inet_pton(AF_INET6, word, &address) == 1;
}

static bool check_address(const char *start, size_t length)
{
	char word[LONGEST_WORD];

	if (length == 0) {
		fail(0, "--addr: a word of the list is empty; separate IP addresses or interface names by commas");
		return false;
	}
	if (length < sizeof word) {
		memcpy(word, start, length);
		word[length] = '\0';
		if (looks_like_address(word) ? is_address(word) :
					       length < IF_NAMESIZE && !strpbrk(word, "/ \t\n") && strcmp(word, "..") != 0)
			return true;
	}
	fail(0, "--addr: \"%.*s\" is neither an IP address nor the name of an interface", (int)(length < 64 ? length : 64),
	     start);
	return false;
}

bool check_addresses(const char *list)
{
	for (const char *p = list;; p++) {
		size_t length = strcspn(p, ",");

		/* No address at all is loopback, and can be said so. */
		if (!*list)
			return true;
		if (!check_address(p, length))
			return false;
		p += length;
		if (!*p)
			return true;
	}
}

bool check_fault(const char *spec)
{
	char message[512];

	if (!fault_explain(spec, message, sizeof message))
		return true;
	fail(0, "--fault: %s", message);
	return false;
}

bool check_log_level(const char *level)
{
	if (log_parse_level(level) >= 0)
		return true;
	fail(0, "--log: \"%.64s\" is not a level; give error, warn, info or debug", level);
	return false;
}
