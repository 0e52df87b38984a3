/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_targets.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

/* Splits "HOST:PORT" or "[ADDRESS]:PORT" in place. */
static bool split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	if (!colon || colon == text || !colon[1])
		return false;
	*host = text;
	*port = colon + 1;
	*colon = '\0';
	if (text[0] == '[') {
		if (colon[-1] != ']')
			return false;
		colon[-1] = '\0';
		*host = text + 1;
	} else if (strchr(text, ':')) {
		return false;
	}
	return **host && strlen(*port) <= 5 && strspn(*port, "0123456789") == strlen(*port) && atoi(*port) > 0 && atoi(*port) <= UINT16_MAX;
}

static bool is_address(const char *address)
{
	char *copy = strdup(address), *host, *port;
	bool is = copy && split(copy, &host, &port);

	free(copy);
	return is;
}

bool tunnel_targets_add(struct tunnel_targets *targets, const char *name, const char *address, char *problem, size_t size)
{
	size_t length = strlen(name);
	struct tunnel_target *items;

	problem[0] = '\0';
	if (length == 0 || length > TUNNEL_NAME_MAX || strspn(name, name_characters) != length)
		snprintf(problem, size, "the name '%s' is not valid; give 1 to %d letters, digits, '.', '_' and '-'", name, TUNNEL_NAME_MAX);
	else if (tunnel_targets_find(targets, name))
		snprintf(problem, size, "the target '%s' exists already", name);
	else if (!is_address(address))
		snprintf(problem, size, "'%s' is not valid; give HOST:PORT or [ADDRESS]:PORT", address);
	else if (targets->count == TUNNEL_TARGETS_MAX)
		snprintf(problem, size, "there are more than %d targets", TUNNEL_TARGETS_MAX);
	if (problem[0])
		return false;
	snprintf(problem, size, "out of memory");
	items = realloc(targets->items, (targets->count + 1) * sizeof *items);
	if (!items)
		return false;
	targets->items = items;
	items[targets->count] = (struct tunnel_target){.name = strdup(name), .address = strdup(address)};
	if (!items[targets->count].name || !items[targets->count].address) {
		free(items[targets->count].name);
		free(items[targets->count].address);
		return false;
	}
	targets->count++;
	return true;
}

const struct tunnel_target *tunnel_targets_find(const struct tunnel_targets *targets, const char *name)
{
	for (size_t i = 0; i < targets->count; i++)
		if (strcmp(targets->items[i].name, name) == 0)
			return &targets->items[i];
	return NULL;
}

static bool resolve(struct tunnel_target *target, char *problem, size_t size)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	char *copy = strdup(target->address), *host, *port;
	struct addrinfo *found = NULL;
	int ret = copy && split(copy, &host, &port) ? getaddrinfo(host, port, &hints, &found) : EAI_MEMORY;

	free(copy);
	if (ret != 0) {
		snprintf(problem, size, "cannot look up %s of the target '%s': %s", target->address, target->name, gai_strerror(ret));
		return false;
	}
	if (target->found)
		freeaddrinfo(target->found);
	target->found = found;
	return true;
}

bool tunnel_targets_resolve(struct tunnel_targets *targets, char *problem, size_t size)
{
	for (size_t i = 0; i < targets->count; i++)
		if (!resolve(&targets->items[i], problem, size))
			return false;
	return true;
}

uint16_t tunnel_target_port(const struct tunnel_target *target)
{
	const struct sockaddr *address = target->found->ai_addr;

	if (address->sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
	return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
}

bool tunnel_target_is_on(const struct tunnel_target *target, const uint16_t *ports, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (ports[i] == tunnel_target_port(target))
			return true;
	return false;
}

bool tunnel_targets_equal(const struct tunnel_targets *a, const struct tunnel_targets *b)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct tunnel_target *same = tunnel_targets_find(b, a->items[i].name);

		if (!same || strcmp(same->address, a->items[i].address) != 0)
			return false;
	}
	return a->count == b->count;
}

void tunnel_targets_free(struct tunnel_targets *targets)
{
	for (size_t i = 0; i < targets->count; i++) {
		free(targets->items[i].name);
		free(targets->items[i].address);
		if (targets->items[i].found)
			freeaddrinfo(targets->items[i].found);
	}
	free(targets->items);
	*targets = (struct tunnel_targets){0};
}

bool tunnel_list_has(const char *list, const char *name)
{
	size_t length = strlen(name);

	while (list && *list && length > 0) {
		size_t word;

		list += strspn(list, ", \t");
		word = strcspn(list, ", \t");
		if ((word == length && memcmp(list, name, length) == 0) || (word == 1 && *list == '*'))
			return true;
		list += word;
	}
	return false;
}
