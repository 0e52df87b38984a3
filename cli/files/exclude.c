/* SPDX-License-Identifier: Apache-2.0 */
#include "exclude.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_MAX 1024

int files_excludes_add(struct files_excludes *excludes, const struct files_bytes *pattern)
{
	char *copy;

	if (pattern->length == 0 || pattern->length > PATTERN_MAX || (pattern->length == 1 && pattern->at[0] == '/'))
		return -EINVAL;
	if (excludes->count == FILES_EXCLUDES_MAX)
		return -E2BIG;
	copy = strndup((const char *)pattern->at, pattern->length);
	if (!copy)
		return -ENOMEM;
	excludes->patterns[excludes->count++] = copy;
	return 0;
}

void files_excludes_clear(struct files_excludes *excludes)
{
	while (excludes->count > 0)
		free(excludes->patterns[--excludes->count]);
}

/* The set at `at`, behind its '['. Its end, behind the ']', or NULL when it has none; *has says whether `byte` is in it. */
static const char *match_set(const char *at, const char *end, unsigned char byte, bool *has)
{
	bool inverted = at < end && (*at == '!' || *at == '^'), found = false;
	const char *first = at + inverted;

	for (at = first; at < end && (*at != ']' || at == first); at++) {
		unsigned char low = (unsigned char)*at, high = low;

		if (at + 2 < end && at[1] == '-' && at[2] != ']') {
			high = (unsigned char)at[2];
			at += 2;
		}
		found = found || (byte >= low && byte <= high);
	}
	*has = found != inverted && byte != '/';
	return at < end ? at + 1 : NULL;
}

/* One character of the pattern against one of the text. Returns what follows in the pattern; NULL: they differ. */
static const char *match_one(const char *pattern, const char *end, char byte)
{
	const char *after;
	bool has;

	if (pattern == end)
		return NULL;
	if (*pattern == '?')
		return byte != '/' ? pattern + 1 : NULL;
	if (*pattern == '[') {
		after = match_set(pattern + 1, end, (unsigned char)byte, &has);
		if (after)
			return has ? after : NULL;
	}
	if (*pattern == '\\' && pattern + 1 < end)
		pattern++;
	return *pattern == byte ? pattern + 1 : NULL;
}

/* Without recursion, since a peer chooses the pattern: it goes back to the last "*" alone, and when that meets a '/', to the last "**". */
static bool match(const char *pattern, const char *end, const char *text)
{
	const char *star = NULL, *star_text = NULL, *stars = NULL, *stars_text = NULL;

	while (*text || pattern < end) {
		const char *next = NULL;

		if (pattern + 1 < end && pattern[0] == '*' && pattern[1] == '*') {
			while (pattern < end && *pattern == '*')
				pattern++;
			stars = pattern;
			stars_text = text;
			star = NULL;
			continue;
		}
		if (pattern < end && *pattern == '*') {
			star = ++pattern;
			star_text = text;
			continue;
		}
		if (*text)
			next = match_one(pattern, end, *text);
		if (next) {
			pattern = next;
			text++;
		} else if (star && *star_text && *star_text != '/') {
			pattern = star;
			text = ++star_text;
		} else if (stars && *stars_text) {
			pattern = stars;
			text = ++stars_text;
			star = NULL;
		} else {
			return false;
		}
	}
	return true;
}

static bool match_path(const char *pattern, const char *path, bool is_folder)
{
	const char *end = pattern + strlen(pattern), *name = strrchr(path, '/');

	if (end[-1] == '/') {
		if (!is_folder)
			return false;
		end--;
	}
	if (pattern[0] == '/')
		return match(pattern + 1, end, path);
	if (!memchr(pattern, '/', (size_t)(end - pattern)))
		return match(pattern, end, name ? name + 1 : path);
	while (path) {
		if (match(pattern, end, path))
			return true;
		path = strchr(path, '/');
		path = path ? path + 1 : NULL;
	}
	return false;
}

bool files_excludes_match(const struct files_excludes *excludes, const char *path, bool is_folder)
{
	for (size_t i = 0; excludes && i < excludes->count; i++)
		if (match_path(excludes->patterns[i], path, is_folder))
			return true;
	return false;
}
