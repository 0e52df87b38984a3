/* SPDX-License-Identifier: Apache-2.0 */
#include "gid_map.h"

#include "log.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 1024
#define LID_MAX 0xbfff
#define WORDS_MAX 5

struct gid_map {
	struct gid_map_entry *list; /* prefixes first, longer ones before shorter ones, then by value; then LIDs, by the first one */
	size_t count, prefixes;
};

static void clear_bits(uint8_t gid[16], unsigned bits)
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned left = bits > i * 8 ? bits - i * 8 : 0;

		gid[i] = (uint8_t)(gid[i] & (left >= 8 ? 0xffu : 0xff00u >> left));
	}
}

static int compare(const void *a, const void *b)
{
	const struct gid_map_entry *x = a, *y = b;

	if ((x->first != 0) != (y->first != 0))
		return x->first != 0 ? 1 : -1;
	if (x->first != 0)
		return x->first < y->first ? -1 : x->first > y->first;
	if (x->bits != y->bits)
		return x->bits > y->bits ? -1 : 1;
	return memcmp(x->prefix, y->prefix, sizeof x->prefix);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static int fail(const char *file, int line, const char *what, const char *word)
{
	return srdma_fail(-EINVAL, "%s:%d: %s%s%s; give PREFIX/BITS HOST[:PORT] [NAME], or lid FIRST[-LAST] HOST[:PORT] [NAME]", file, line, what,
			  word ? " " : "", word ? word : "");
}

static bool parse_prefix(const char *word, struct gid_map_entry *entry)
{
	struct srdma_networks networks = {0};
	bool good = srdma_networks_parse(word, &networks) == 0 && networks.count == 1;

	if (good) {
		memcpy(entry->prefix, networks.list[0].prefix.raw, sizeof entry->prefix);
		entry->bits = networks.list[0].length;
		clear_bits(entry->prefix, entry->bits);
	}
	srdma_networks_clear(&networks);
	return good;
}

static bool parse_lids(const char *word, struct gid_map_entry *entry)
{
	char *end;
	unsigned long first = strtoul(word, &end, 0), last = first;

	if (end == word || word[0] == '-' || word[0] == '+')
		return false;
	if (*end == '-' && end[1] >= '0' && end[1] <= '9')
		last = strtoul(end + 1, &end, 0);
	entry->first = (uint16_t)first;
	entry->last = (uint16_t)last;
	return *end == '\0' && first >= 1 && first <= last && last <= LID_MAX;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT", or an IPv6 address. */
static bool parse_host(const char *word, struct gid_map_entry *entry)
{
	const char *host = word, *colon = strrchr(word, ':'), *end = colon ? colon : word + strlen(word);

	if (word[0] == '[') {
		end = strchr(word, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		host = word + 1;
		colon = end[1] == ':' ? end + 1 : NULL;
	} else if (colon && strchr(word, ':') != colon) {
		end = word + strlen(word);
		colon = NULL;
	}
	if (end == host || (colon && (colon[1] == '\0' || strlen(colon + 1) > 5 || strspn(colon + 1, "0123456789") != strlen(colon + 1))))
		return false;
	entry->host = strndup(host, (size_t)(end - host));
	entry->port = colon ? strdup(colon + 1) : NULL;
	return entry->host && (!colon || entry->port);
}

static int split(char *line, char *words[WORDS_MAX])
{
	char *rest = line, *word;
	int count = 0;

	line[strcspn(line, "#\r\n")] = '\0';
	while (count < WORDS_MAX && (word = strtok_r(rest, " \t", &rest)) != NULL)
		words[count++] = word;
	return count;
}

static int add(struct gid_map *map, char *words[WORDS_MAX], int count, const char *file, int line)
{
	struct gid_map_entry *grown = realloc(map->list, (map->count + 1) * sizeof *grown), *entry;
	bool is_lid = strcmp(words[0], "lid") == 0;
	int at = is_lid ? 2 : 1;

	if (!grown)
		return srdma_fail(-ENOMEM, "out of memory");
	map->list = grown;
	if (count < at + 1 || count > at + 2)
		return fail(file, line, "the line has a wrong number of words", NULL);
	entry = &map->list[map->count];
	*entry = (struct gid_map_entry){.line = line};
	if (is_lid ? !parse_lids(words[1], entry) : !parse_prefix(words[0], entry))
		return fail(file, line, is_lid ? "there are no such LIDs:" : "there is no such prefix:", words[at - 1]);
	map->count++;
	if (!parse_host(words[at], entry))
		return fail(file, line, "there is no such host:", words[at]);
	entry->name = strdup(count > at + 1 ? words[at + 1] : entry->host);
	map->prefixes += !is_lid;
	return entry->name ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

/* Two lines for one GID would leave it to chance who is believed. */
static int check(const struct gid_map *map, const char *file)
{
	for (size_t i = 1; i < map->count; i++) {
		const struct gid_map_entry *a = &map->list[i - 1], *b = &map->list[i];

		if (a->first != 0 ? b->first <= a->last : compare(a, b) == 0)
			return srdma_fail(-EINVAL, "%s:%d and %d: two lines say the same prefix or LID; remove one of them", file,
					  a->line < b->line ? a->line : b->line, a->line < b->line ? b->line : a->line);
	}
	return 0;
}

static int read_lines(struct gid_map *map, FILE *stream, const char *file)
{
	char line[LINE_SIZE], *words[WORDS_MAX];
	int ret = 0;

	for (int number = 1; ret == 0 && fgets(line, sizeof line, stream); number++) {
		int count;

		if (strlen(line) == sizeof line - 1)
			return fail(file, number, "the line is too long", NULL);
		count = split(line, words);
		if (count > 0)
			ret = add(map, words, count, file, number);
	}
	if (ret == 0 && ferror(stream))
		ret = srdma_fail(-EIO, "cannot read the map file %s: %s", file, strerror(errno));
	return ret;
}

int gid_map_load(const char *file, struct gid_map **out)
{
	FILE *stream = fopen(file, "re");
	struct gid_map *map;
	int ret;

	if (!stream)
		return srdma_fail(-errno, "cannot read the map file %s: %s", file, strerror(errno));
	map = calloc(1, sizeof *map);
	ret = map ? read_lines(map, stream, file) : srdma_fail(-ENOMEM, "out of memory");
	fclose(stream);
	if (ret == 0 && map->count > 0) {
		qsort(map->list, map->count, sizeof *map->list, compare);
		ret = check(map, file);
	}
	if (ret != 0) {
		gid_map_free(&map);
		return ret;
	}
	*out = map;
	return 0;
}

/* ---- looking up ------------------------------------------------------------------------------------------------ */

static const struct gid_map_entry *search(const struct gid_map_entry *list, size_t count, const struct gid_map_entry *key)
{
	return count > 0 ? bsearch(key, list, count, sizeof *list, compare) : NULL;
}

const struct gid_map_entry *gid_map_find(const struct gid_map *map, const uint8_t gid[16])
{
	struct gid_map_entry key = {0};

	/* A search for each length that the file has, the longest first. */
	for (size_t at = 0; map && at < map->prefixes;) {
		const struct gid_map_entry *found;

		key.bits = map->list[at].bits;
		memcpy(key.prefix, gid, sizeof key.prefix);
		clear_bits(key.prefix, key.bits);
		found = search(map->list, map->prefixes, &key);
		if (found)
			return found;
		while (at < map->prefixes && map->list[at].bits == key.bits)
			at++;
	}
	return NULL;
}

const struct gid_map_entry *gid_map_find_lid(const struct gid_map *map, uint16_t lid)
{
	size_t low = map ? map->prefixes : 0, high = map ? map->count : 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (map->list[middle].last < lid)
			low = middle + 1;
		else
			high = middle;
	}
	return map && low < map->count && map->list[low].first <= lid && lid > 0 ? &map->list[low] : NULL;
}

size_t gid_map_count(const struct gid_map *map)
{
	return map ? map->count : 0;
}

void gid_map_free(struct gid_map **out)
{
	struct gid_map *map = *out;

	*out = NULL;
	if (!map)
		return;
	for (size_t i = 0; i < map->count; i++) {
		free(map->list[i].host);
		free(map->list[i].port);
		free(map->list[i].name);
	}
	free(map->list);
	free(map);
}
