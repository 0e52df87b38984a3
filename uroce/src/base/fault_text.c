/* SPDX-License-Identifier: Apache-2.0 */
#include "fault_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_TIME (10 * (uint64_t)FAULT_BILLION)

static const char ALLOWED[] =
	"allowed are loss, duplicate, reorder and corrupt (a chance such as 1% or 0.01), "
	"delay and jitter (a time such as 200us or 1.5ms, at most 10s) and seed (a whole number)";

struct complaint {
	char *text;
	size_t size;
};

static int __attribute__((format(printf, 2, 3))) complain(const struct complaint *complaint, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(complaint->text, complaint->size, format, list);
	va_end(list);
	return -EINVAL;
}

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

/* One "name=value". */
static int parse_word(const char *p, const char *end, struct fault_settings *set, const struct complaint *complaint)
{
	const struct {
		const char *name;
		uint32_t *chance;
		uint64_t *time;
	} words[] = {
		{"loss", &set->loss, NULL},       {"duplicate", &set->duplicate, NULL}, {"reorder", &set->reorder, NULL},
		{"corrupt", &set->corrupt, NULL}, {"delay", NULL, &set->delay},         {"jitter", NULL, &set->jitter},
		{"seed", NULL, NULL},
	};
	const char *equals = memchr(p, '=', (size_t)(end - p));
	const char *value = equals ? equals + 1 : end;
	int shown = (int)(end - p < 64 ? end - p : 64);

	for (size_t i = 0; equals && i < sizeof words / sizeof words[0]; i++) {
		if (strlen(words[i].name) != (size_t)(equals - p) || memcmp(words[i].name, p, (size_t)(equals - p)) != 0)
			continue;
		if (words[i].chance)
			return parse_chance(value, end, words[i].chance) ?
				       0 :
				       complain(complaint, "\"%.*s\" is not a chance from 0 to 100%% (or 0 to 1); %s", shown,
						p, ALLOWED);
		if (words[i].time)
			return parse_time(value, end, words[i].time) ?
				       0 :
				       complain(complaint, "\"%.*s\" is not a time; %s", shown, p, ALLOWED);
		set->seeded = true;
		return parse_seed(value, end, &set->seed) ?
			       0 :
			       complain(complaint, "\"%.*s\" is not a whole number; %s", shown, p, ALLOWED);
	}
	return complain(complaint, "\"%.*s\" is not a fault; %s", shown, p, ALLOWED);
}

int fault_text_parse(const char *text, struct fault_settings *set, char *message, size_t size)
{
	const struct complaint complaint = {message, size};
	const char *p = text;

	while (*(p += strspn(p, " ,"))) {
		const char *end = p + strcspn(p, " ,");
		int ret = parse_word(p, end, set, &complaint);

		if (ret)
			return ret;
		p = end;
	}
	return 0;
}
