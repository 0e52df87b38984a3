/* SPDX-License-Identifier: Apache-2.0 */
#include "option.h"

#include "securdma_server.h"

#include "cli.h"
#include "local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct word {
	const char *text;
	int64_t value;
};

static const struct word access_words[] = {
	{"rw", IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE},
	{"r", IBV_ACCESS_REMOTE_READ},
	{"w", IBV_ACCESS_REMOTE_WRITE},
	{"none", 0},
	{NULL, 0},
};

static const struct word level_words[] = {
	{"error", SRDMA_LOG_ERROR},
	{"warn", SRDMA_LOG_WARN},
	{"info", SRDMA_LOG_INFO},
	{"debug", SRDMA_LOG_DEBUG},
	{NULL, 0},
};

static const struct word log_format_words[] = {
	{"text", CLI_LOG_TEXT},
	{"json", CLI_LOG_JSON},
	{NULL, 0},
};

static const struct word seal_words[] = {
	{"off", SRDMA_SEAL_OFF},
	{"required", SRDMA_SEAL_REQUIRED},
	{NULL, 0},
};

static const struct word mode_words[] = {
	{"enforce", LOCAL_ENFORCE},
	{"observe", LOCAL_OBSERVE},
	{NULL, 0},
};

static const struct word worker_words[] = {
	{"auto", SRDMA_WORKERS_AUTO},
	{"per-client", SRDMA_WORKERS_PER_CLIENT},
	{NULL, 0},
};

static const struct word switch_words[] = {
	{"yes", 1}, {"no", 0}, {"true", 1}, {"false", 0}, {"on", 1}, {"off", 0}, {"1", 1}, {"0", 0}, {NULL, 0},
};

/* The words that a type takes; NULL: it is not a type of words. */
static const struct word *const words_of[] = {
	[OPTION_SWITCH] = switch_words, [OPTION_ACCESS] = access_words, [OPTION_LEVEL] = level_words,
	[OPTION_LOG_FORMAT] = log_format_words, [OPTION_MODE] = mode_words, [OPTION_SEAL] = seal_words, [OPTION_WORKERS] = worker_words, [OPTION_LIST] = NULL,
};

static int set_word(const struct word *words, const char *text, int64_t *value, char *allowed, size_t size)
{
	size_t used;

	for (const struct word *word = words; word->text; word++)
		if (strcmp(word->text, text) == 0) {
			*value = word->value;
			return 0;
		}
	used = (size_t)snprintf(allowed, size, "one of ");
	for (const struct word *word = words; word->text && used < size; word++)
		used += (size_t)snprintf(allowed + used, size - used, "%s%s", word == words ? "" : ", ", word->text);
	return -EINVAL;
}

static const char *word_of(const struct option *option, int64_t value)
{
	const struct word *word = words_of[option->type];

	while (word && word->text && word->value != value)
		word++;
	return word ? word->text : NULL;
}

static int64_t unit_of(const char *suffix)
{
	static const char letters[] = "KMG";
	const char *at;

	if (*suffix == '\0')
		return 1;
	at = suffix[1] == '\0' ? strchr(letters, suffix[0] & ~0x20) : NULL;
	return at ? (int64_t)1 << (10 * (at - letters + 1)) : 0;
}

static int set_number(const struct option *option, const char *text, int64_t *value, char *allowed, size_t size)
{
	bool is_size = option->type == OPTION_SIZE;
	char *end = NULL;
	long long number;
	int64_t unit;

	errno = 0;
	number = strtoll(text, &end, 10);
	unit = end == text ? 0 : is_size ? unit_of(end) : *end == '\0';
	if (errno == 0 && unit != 0 && !__builtin_mul_overflow(number, unit, &number) && number >= option->min && number <= option->max) {
		*value = number;
		return 0;
	}
	snprintf(allowed, size, "a %s from %lld to %lld", is_size ? "size in bytes (K, M or G may follow)" : "number",
		 (long long)option->min, (long long)option->max);
	return -EINVAL;
}

static int set_workers(const struct option *option, const char *text, int64_t *value, char *allowed, size_t size)
{
	if (set_word(worker_words, text, value, allowed, size) == 0 || set_number(option, text, value, allowed, size) == 0)
		return 0;
	snprintf(allowed, size, "auto, per-client, or a number from %lld to %lld", (long long)option->min,
		 (long long)option->max);
	return -EINVAL;
}

static int set_text(const char *text, char **value, char *allowed, size_t size)
{
	char *copy;

	if (*text == '\0') {
		snprintf(allowed, size, "a text that is not empty");
		return -EINVAL;
	}
	copy = strdup(text);
	if (!copy) {
		snprintf(allowed, size, "more memory to the process");
		return -ENOMEM;
	}
	free(*value);
	*value = copy;
	return 0;
}

static int add_text(const char *text, struct option_list *list, char *allowed, size_t size)
{
	char **items = realloc(list->items, (list->count + 1) * sizeof *items);

	if (items) {
		list->items = items;
		items[list->count] = strdup(text);
		if (items[list->count]) {
			list->count++;
			return 0;
		}
	}
	snprintf(allowed, size, "more memory to the process");
	return -ENOMEM;
}

static int64_t load(const void *value, size_t width)
{
	switch (width) {
	case sizeof(uint8_t): return *(const uint8_t *)value;
	case sizeof(int32_t): return *(const int32_t *)value;
	default: return *(const int64_t *)value;
	}
}

static void store(void *value, size_t width, int64_t number)
{
	switch (width) {
	case sizeof(uint8_t): *(uint8_t *)value = (uint8_t)number; break;
	case sizeof(int32_t): *(int32_t *)value = (int32_t)number; break;
	default: *(int64_t *)value = number; break;
	}
}

/* Of each type whose value is an integer. */
static int parse(const struct option *option, const char *text, int64_t *number, char *allowed, size_t size)
{
	if (option->type == OPTION_WORKERS)
		return set_workers(option, text, number, allowed, size);
	if (words_of[option->type])
		return set_word(words_of[option->type], text, number, allowed, size);
	return set_number(option, text, number, allowed, size);
}

int option_set(const struct option *option, void *base, const char *text, char *allowed, size_t size)
{
	void *value = (char *)base + option->offset;
	int64_t number = 0;
	int ret;

	if (option->type == OPTION_TEXT)
		return set_text(text, value, allowed, size);
	if (option->type == OPTION_LIST)
		return add_text(text, value, allowed, size);
	ret = parse(option, text, &number, allowed, size);
	if (ret == 0)
		store(value, option->width, number);
	return ret;
}

static void format_size(int64_t number, char *text, size_t size)
{
	if (number >= 1 << 20 && number % (1 << 20) == 0)
		snprintf(text, size, "%lldM", (long long)(number >> 20));
	else if (number >= 1 << 10 && number % (1 << 10) == 0)
		snprintf(text, size, "%lldK", (long long)(number >> 10));
	else
		snprintf(text, size, "%lld", (long long)number);
}

void option_format(const struct option *option, const void *base, char *text, size_t size)
{
	const void *value = (const char *)base + option->offset;
	const char *string = option->type == OPTION_TEXT ? *(char *const *)value : NULL;
	int64_t number;

	if (option->type == OPTION_TEXT || option->type == OPTION_LIST) {
		snprintf(text, size, "%s", string ? string : "");
		return;
	}
	number = load(value, option->width);
	string = word_of(option, number);
	/* A number that option_set would refuse stands for no value. */
	if (!string && number < option->min)
		string = "";
	if (string)
		snprintf(text, size, "%s", string);
	else if (option->type == OPTION_SIZE)
		format_size(number, text, size);
	else
		snprintf(text, size, "%lld", (long long)number);
}

bool option_equals(const struct option *option, const void *a, const void *b)
{
	const void *x = (const char *)a + option->offset, *y = (const char *)b + option->offset;

	switch (option->type) {
	case OPTION_TEXT: {
		const char *one = *(char *const *)x, *other = *(char *const *)y;

		return one && other ? strcmp(one, other) == 0 : one == other;
	}
	case OPTION_LIST: return true;
	default: return load(x, option->width) == load(y, option->width);
	}
}

void options_free(const struct option *options, size_t count, void *base)
{
	for (size_t i = 0; i < count; i++) {
		void *value = (char *)base + options[i].offset;
		struct option_list *list = value;

		if (options[i].type == OPTION_TEXT) {
			free(*(char **)value);
			*(char **)value = NULL;
		} else if (options[i].type == OPTION_LIST) {
			for (size_t j = 0; j < list->count; j++)
				free(list->items[j]);
			free(list->items);
			*list = (struct option_list){0};
		}
	}
}
