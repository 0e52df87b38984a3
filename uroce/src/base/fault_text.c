/* SPDX-License-Identifier: Apache-2.0 */
#include "fault_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_TIME (10 * (uint64_t)FAULT_BILLION)

static const char ALLOWED[] =
	"allowed are loss, duplicate, reorder and corrupt (a chance such as 1% or 0.01), "
	"delay and jitter (a time such as 200us or 1.5ms, at most 10s) and seed (a whole number)";

/* Reads digits[.digits] as parts of a billion, without a look at the locale. Returns the place behind the number, or NULL. */
static const char *parse_number(const char *p, const char *end, uint64_t *out)
{
	uint64_t value = 0;
	uint64_t unit = FAULT_BILLION;
	bool digits = false;

	for (; p < end && *p >= '0' && *p <= '9'; p++, digits = true) {
		value = value * 10 + (uint64_t)(*p - '0');
		if (value > FAULT_BILLION)
			return NULL;
	}
	value *= FAULT_BILLION;
	if (p < end && *p == '.')
		for (p++; p < end && *p >= '0' && *p <= '9'; p++, digits = true) {
			unit /= 10;
			value += unit * (uint64_t)(*p - '0');
		}
	*out = value;
	return digits ? p : NULL;
}

static bool parse_chance(const char *p, const char *end, uint32_t *out)
{
	uint64_t value;

	p = parse_number(p, end, &value);
	if (p && end - p == 1 && *p == '%')
		value /= 100;
	else if (p != end)
		return false;
	if (value > FAULT_BILLION)
		return false;
	*out = (uint32_t)value;
	return true;
}

static bool parse_time(const char *p, const char *end, uint64_t *out)
{
	static const struct {
		const char *name;
		uint64_t nanoseconds;
	} units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", FAULT_BILLION}, {"", 1000}};
	uint64_t value;

	p = parse_number(p, end, &value);
	for (size_t i = 0; p && i < sizeof units / sizeof units[0]; i++) {
		if (strlen(units[i].name) != (size_t)(end - p) || memcmp(units[i].name, p, (size_t)(end - p)) != 0)
			continue;
		/* In two parts, so that nothing overflows: no unit is longer than a second. */
		uint64_t time = value / FAULT_BILLION * units[i].nanoseconds + value % FAULT_BILLION * units[i].nanoseconds / FAULT_BILLION;

		if (time > LONGEST_TIME)
			return false;
		*out = time;
		return true;
	}
	return false;
}

static bool parse_seed(const char *p, const char *end, uint64_t *out)
{
	uint64_t value = 0;

	if (p == end)
		return false;
	for (; p < end; p++)
		if (*p < '0' || *p > '9' || __builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	*out = value;
	return true;
}

static bool is_word(const char *p, const char *end, const char *word)
{
	return strlen(word) == (size_t)(end - p) && memcmp(word, p, (size_t)(end - p)) == 0;
}

/* One "name=value". */
static int parse_word(const char *p, const char *end, struct fault_settings *set, char *message, size_t size)
{
	const struct {
		const char *name;
		uint32_t *to;
	} chances[] = {{"loss", &set->loss}, {"duplicate", &set->duplicate}, {"reorder", &set->reorder}, {"corrupt", &set->corrupt}};
	const struct {
		const char *name;
		uint64_t *to;
	} times[] = {{"delay", &set->delay}, {"jitter", &set->jitter}};
	const char *equals = memchr(p, '=', (size_t)(end - p));
	const char *wanted = "a fault";
	bool good = false;

	for (size_t i = 0; equals && i < sizeof chances / sizeof chances[0]; i++) {
		if (!is_word(p, equals, chances[i].name))
			continue;
		wanted = "a chance from 0 to 100% (or 0 to 1)";
		good = parse_chance(equals + 1, end, chances[i].to);
	}
	for (size_t i = 0; equals && i < sizeof times / sizeof times[0]; i++) {
		if (!is_word(p, equals, times[i].name))
			continue;
		wanted = "a time";
		good = parse_time(equals + 1, end, times[i].to);
	}
	if (equals && is_word(p, equals, "seed")) {
		wanted = "a whole number";
		good = set->seeded = parse_seed(equals + 1, end, &set->seed);
	}
	int shown = (int)(end - p < 64 ? end - p : 64);
	if (good)
		return 0;
	snprintf(message, size, "\"%.*s\" is not %s; %s", shown, p, wanted, ALLOWED);
	return -EINVAL;
}

int fault_text_parse(const char *text, struct fault_settings *set, char *message, size_t size)
{
	const char *p = text;

	while (*(p += strspn(p, " ,"))) {
		const char *end = p + strcspn(p, " ,");
		int ret = parse_word(p, end, set, message, size);

		if (ret)
			return ret;
		p = end;
	}
	return 0;
}
