/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include "array.h"
#include "log_limit.h"
#include "utf8.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_SIZE 1024
/* The limits for each event, by its name, and each other line, by its format. Debug lines have no limit, since a user asked for them. */
static const struct srdma_log_rate event_rate = {.burst = 1000, .per_second = 100};
static const struct srdma_log_rate line_rate = {.burst = 100, .per_second = 10};

static struct {
	enum srdma_log_level level;
	srdma_log_fn *fn; /* NULL: standard error */
	void *arg;
} sink = {.level = SRDMA_LOG_WARN};

static _Thread_local char last_error[768];
static _Thread_local const char *last_wait; /* not NULL: the last error is a later -EAGAIN, whose text is made on demand */

const char *srdma_version(void)
{
	return SRDMA_VERSION;
}

const char *srdma_strerror(int error)
{
	switch (error) {
	case 0: return "success";
	case SRDMA_ERANDOM: return "random generator failed";
	case SRDMA_ETLS: return "TLS failed";
	case SRDMA_ECERT: return "certificate not accepted";
	case SRDMA_EPROTOCOL: return "protocol violation";
	case SRDMA_EREJECTED: return "rejected by the server";
	case SRDMA_EVERBS: return "verbs operation failed";
	case SRDMA_ELOST: return "peer lost";
	case SRDMA_ECLOSED: return "disconnected";
	case SRDMA_ECONFIG: return "configuration error";
	case SRDMA_ERECONNECTED: return "reconnected after a loss";
	case SRDMA_ESEAL: return "a sealed record did not authenticate";
	default: break;
	}
#ifdef __GLIBC__ /* its strerror shares one buffer for all unknown errors */
	const char *text = strerrordesc_np(-error);
	return text ? text : "unknown error";
#else
	return strerror(-error);
#endif
}

const char *srdma_error_text(void)
{
	if (last_wait)
		snprintf(last_error, sizeof last_error, "the call would have to wait for %s", last_wait);
	last_wait = NULL;
	return last_error;
}

void srdma_error_keep(char *text, size_t size)
{
	snprintf(text, size, "%s", srdma_error_text());
}

int srdma_again(const char *what)
{
	last_wait = what;
	return -EAGAIN;
}

void srdma_log_set(enum srdma_log_level level, srdma_log_fn *fn, void *arg)
{
	sink.level = level;
	sink.fn = fn;
	sink.arg = arg;
}

static void emit(const struct srdma_log_record *record)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	if (sink.fn)
		sink.fn(record, sink.arg);
	else
		fprintf(stderr, "securdma: %s: %s\n", names[record->level], record->text);
}

/* The kind is an event's name or a format, by which a reader recognizes its lines. */
static void tell_omissions(bool now)
{
	struct srdma_log_omission omission;

	while (srdma_log_limit_take_omission(now, &omission)) {
		char line[LINE_MAX_SIZE];
		const struct srdma_log_field like = SRDMA_FIELD_TEXT("like", omission.kind), lines = SRDMA_FIELD_NUMBER("lines", omission.lines);
		const struct srdma_log_field *const fields[] = {&like, &lines};
		const struct srdma_log_record record = {.size = sizeof record, .level = SRDMA_LOG_WARN, .event = "log.left_out", .fields = fields, .field_count = SRDMA_COUNT(fields),
							.text = line};

		snprintf(line, sizeof line, "left out %u line%s like \"%s\": there were too many", omission.lines, SRDMA_S(omission.lines), omission.kind);
		emit(&record);
	}
}

static bool may_log(enum srdma_log_level level, const char *kind, struct srdma_log_rate rate)
{
	if (level > sink.level)
		return false;
	if (level == SRDMA_LOG_DEBUG)
		return true;
	tell_omissions(false);
	return srdma_log_limit_admits(kind, rate);
}

void srdma_log_flush(void)
{
	tell_omissions(true);
}

void srdma_log(enum srdma_log_level level, const char *format, ...)
{
	char line[LINE_MAX_SIZE];
	struct srdma_log_record record = {.size = sizeof record, .level = level, .event = SRDMA_LOG_PLAIN, .text = line};
	va_list args;

	if (!may_log(level, format, line_rate))
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	emit(&record);
}

/* Copies the fields, with their texts made printable and cut to fit `room`. Returns the number of fields. */
static size_t copy_fields(const struct srdma_event *event, struct srdma_log_field *fields, char *room, size_t size)
{
	size_t count = event->field_count < SRDMA_FIELDS_MAX ? event->field_count : SRDMA_FIELDS_MAX;

	for (size_t i = 0; i < count; i++) {
		size_t length;

		fields[i] = event->fields[i];
		if (!fields[i].text)
			continue;
		length = strnlen(fields[i].text, size - 1);
		memcpy(room, fields[i].text, length);
		room[length] = '\0';
		srdma_utf8_make_shown(room, length);
		fields[i].text = room;
		/* Texts without room become empty strings at the last byte. */
		room += length + 1 < size ? length + 1 : length;
		size -= length + 1 < size ? length + 1 : length;
	}
	return count;
}

void srdma_log_event(const struct srdma_event *event, const char *format, ...)
{
	char line[LINE_MAX_SIZE], room[2 * LINE_MAX_SIZE];
	struct srdma_log_field fields[SRDMA_FIELDS_MAX];
	const struct srdma_log_field *pointers[SRDMA_FIELDS_MAX];
	struct srdma_log_record record = {.size = sizeof record, .level = event->level, .event = event->name, .security = event->security,
					  .fields = pointers, .text = line};
	va_list args;

	if (!may_log(event->level, event->name, event_rate))
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	srdma_utf8_make_shown(line, strlen(line));
	record.field_count = copy_fields(event, fields, room, sizeof room);
	for (size_t i = 0; i < record.field_count; i++)
		pointers[i] = &fields[i];
	emit(&record);
}

void srdma_make_printable(char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
			text[i] = '?';
}

static int record(int error, const char *text)
{
	last_wait = NULL;
	snprintf(last_error, sizeof last_error, "%s", text);
	srdma_utf8_make_shown(last_error, strlen(last_error));
	srdma_log(SRDMA_LOG_DEBUG, "%s (%s)", last_error, srdma_strerror(error));
	return error;
}

int srdma_fail(int error, const char *format, ...)
{
	char text[sizeof last_error];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return record(error, text);
}

int srdma_fail_openssl(int error, const char *format, ...)
{
	char text[sizeof last_error];
	unsigned long code, first = 0;
	va_list args;
	int used;

	va_start(args, format);
	used = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	/* The oldest entry is the cause; the later ones are the layers that passed it on. */
	while ((code = ERR_get_error()) != 0)
		if (first == 0)
			first = code;
	if (first != 0 && used > 0 && (size_t)used < sizeof text) {
		const char *reason = ERR_reason_error_string(first);

		snprintf(text + used, sizeof text - (size_t)used, ": %s", reason ? reason : "unknown OpenSSL error");
	}
	return record(error, text);
}

void srdma_error_prefix(const char *format, ...)
{
	char prefix[256], text[sizeof prefix + sizeof last_error];
	va_list args;

	va_start(args, format);
	vsnprintf(prefix, sizeof prefix, format, args);
	va_end(args);
	snprintf(text, sizeof text, "%s%s", prefix, srdma_error_text());
	memcpy(last_error, text, sizeof last_error - 1);
}
