/* SPDX-License-Identifier: Apache-2.0 */
#include "identities.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(field) OPTION_AT(struct identity, field)

/* {flag, section, key, type, commands, offset, min, max, value name, help} */
const struct option identity_options[] = {
	{NULL, "identity", "deny", OPTION_SWITCH, 0, AT(deny), 0, 0, NULL, "refuse clients with this name"},
	{NULL, "identity", "max-clients", OPTION_NUMBER, 0, AT(max_clients), 0, 1000000, "N",
	 "clients with this name that may be connected at once; 0: max-clients-per-identity"},
	{NULL, "identity", "region-size", OPTION_SIZE, 0, AT(region_size), 0, (int64_t)1 << 40, "BYTES",
	 "size of the memory region that each client can access"},
	{NULL, "identity", "region-access", OPTION_ACCESS, 0, AT(region_access), 0, 0, "RIGHTS",
	 "access that clients have to the region: rw, r, w or none"},
	{NULL, "identity", "message-size", OPTION_SIZE, 0, AT(message_size), 64, 1 << 20, "BYTES",
	 "longest message; the ends use the lower of their values"},
	{NULL, "identity", "max-bytes-per-second", OPTION_SIZE, 0, AT(max_bytes_per_second), 1, (int64_t)1 << 40, "BYTES",
	 "bytes per second accepted from each client"},
	{NULL, "identity", "files-directory", OPTION_TEXT, 0, AT(files_directory), 0, 0, "DIR",
	 "folder that its clients copy to and from with 'securdma cp'"},
	{NULL, "identity", "files-rights", OPTION_ACCESS, 0, AT(files_rights), 0, 0, "RIGHTS", "what its clients may do there: r, w, rw or none"},
	{NULL, "identity", "files-quota", OPTION_SIZE, 0, AT(files_quota), 0, (int64_t)1 << 60, "BYTES",
	 "bytes that may stand in the folder when its clients write; 0: no limit"},
	{NULL, "identity", "tunnel-allow", OPTION_TEXT, 0, AT(tunnel_allow), 0, 0, "NAME,...",
	 "targets of [tunnel-targets] that its clients may use; *: all"},
};
const size_t identity_option_count = sizeof identity_options / sizeof *identity_options;

/* From the quote on; NULL: there is no other one. */
static const char *parse_quoted(const char *at, char *name)
{
	for (at++; *at && *at != '"'; at++) {
		if (at[0] == '\\' && (at[1] == '"' || at[1] == '\\'))
			at++;
		*name++ = *at;
	}
	*name = '\0';
	return *at ? at + 1 : NULL;
}

static const char *parse_plain(const char *at, char *name)
{
	const char *end = strchr(at, ']'), *last = end;

	if (!end)
		return NULL;
	while (last > at && (last[-1] == ' ' || last[-1] == '\t'))
		last--;
	memcpy(name, at, (size_t)(last - at));
	name[last - at] = '\0';
	return end;
}

enum identities_section identities_parse_section(const char *word, const char *line, char name[IDENTITIES_LINE_SIZE])
{
	const char *at = line + 1 + strlen(word), *end;

	if (line[0] != '[' || strncmp(line + 1, word, strlen(word)) != 0 || !strchr(" \t]", *at) || !*at)
		return NO_IDENTITY;
	at += strspn(at, " \t");
	if (*at == '"') {
		end = parse_quoted(at, name);
		return end && end[strspn(end, " \t")] == ']' ? IDENTITY_NAMED : IDENTITY_MALFORMED;
	}
	/* Without a bracket libinih says that it is no section. */
	return parse_plain(at, name) ? IDENTITY_NAMED : NO_IDENTITY;
}

/* A pin is the same in either case, and is there once. */
static void lower_pin(char *name)
{
	if (strncasecmp(name, "sha256:", 7) != 0)
		return;
	for (; *name; name++)
		*name = (char)tolower((unsigned char)*name);
}

/* Another one of this name. */
static const struct identity *find(const struct identities *identities, const char *name)
{
	for (size_t i = 0; i < identities->count; i++)
		if (strcmp(identities->items[i].name, name) == 0)
			return &identities->items[i];
	return NULL;
}

/* Room for one more. */
static struct identity *grow(struct identities *identities)
{
	size_t room = identities->room ? identities->room * 2 : 16;
	struct identity *items;

	if (identities->count < identities->room)
		return &identities->items[identities->count];
	items = realloc(identities->items, room * sizeof *items);
	if (!items)
		return NULL;
	identities->items = items;
	identities->room = room;
	return &items[identities->count];
}

static bool is_new(const struct identities *identities, const char *name, char *problem, size_t size)
{
	const struct identity *same = find(identities, name);

	if (!name[0])
		snprintf(problem, size, "give the identity a name: [identity NAME]");
	else if (srdma_identity_check_name(name) != 0)
		snprintf(problem, size, "%s", srdma_error_text());
	else if (same)
		snprintf(problem, size, "section [identity %s] exists already, in line %d", same->name, same->line);
	else
		return true;
	return false;
}

struct identity *identities_add(struct identities *identities, const char *name, int line, char *problem, size_t size)
{
	struct identity *identity = NULL;
	char *copy = strdup(name);

	snprintf(problem, size, "out of memory");
	if (!copy)
		return NULL;
	lower_pin(copy);
	if (is_new(identities, copy, problem, size))
		identity = grow(identities);
	if (!identity) {
		free(copy);
		return NULL;
	}
	*identity = (struct identity){.name = copy, .line = line, .region_size = -1, .region_access = -1, .files_rights = -1, .files_quota = -1};
	identities->count++;
	return identity;
}

const struct srdma_identity *identities_forms(struct identities *identities)
{
	struct srdma_identity *forms = calloc(identities->count, sizeof *forms);

	free(identities->forms);
	identities->forms = forms;
	for (size_t i = 0; forms && i < identities->count; i++) {
		const struct identity *identity = &identities->items[i];

		srdma_identity_init(&forms[i]);
		forms[i].name = identity->name;
		forms[i].denied = identity->deny;
		forms[i].max_clients = (unsigned)identity->max_clients;
		forms[i].region_size = identity->region_size;
		forms[i].region_access = (int)identity->region_access;
		forms[i].message_size = (uint32_t)identity->message_size;
		forms[i].max_bytes_per_second = (uint64_t)identity->max_bytes_per_second;
	}
	return forms;
}

void identities_free(struct identities *identities)
{
	for (size_t i = 0; i < identities->count; i++) {
		free(identities->items[i].name);
		options_free(identity_options, identity_option_count, &identities->items[i]);
	}
	free(identities->items);
	free(identities->forms);
	*identities = (struct identities){0};
}
